"""The data set: one tensor in memory, its labels, and what is known about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.data.lazy import Lazy
from undiffuse.errors import InputError
from undiffuse.hashing import sha256_of
from undiffuse.random import Purpose, permutation
from undiffuse.transforms.base import GreyLevels, Standardise, Table, Transform
from undiffuse.transforms.column_fitting import fit_column
from undiffuse.transforms.conditions import Condition, read

_MANY = 1024  # columns of a table beyond which each is only standardised
# Streams of Purpose.DATA: a split or a subset must not look at the words that made the samples.
TOY_UNIFORM, TOY_NORMAL, SPLIT, SUBSET = range(4)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples `x` (N, *event) and their labels `y` (N,), or None.

    kind: "points" and "table" hold float32, "image" holds uint8 (N, C, H, W) in 0 ... levels−1.
    classes: the names of the labels 0, 1, ...; columns: the names of the columns of points and tables.
    words: for every column of a table the words that its numbers 0, 1, ... stand for, () for a column of numbers; empty
    if there are no words at all. In a table NaN is a cell that is missing.
    Images that are left on the disk are a `Lazy`, of which x[index] is a tensor.
    conditions: what else is known of the samples, and `given` (N, sum of their widths) what it is (see `conditions`).
    note: sentences about what was done to the data while reading.
    """

    x: Tensor
    y: Tensor | None
    kind: str
    name: str
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    levels: int = 0
    words: tuple[tuple[str, ...], ...] = ()
    note: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    given: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.x.shape[1:])

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        return f"Dataset({describe(self)})"

    def take(self, index: Tensor) -> Dataset:
        """The samples with these numbers (int64), in this order."""
        x = self.x.take(index) if isinstance(self.x, Lazy) else self.x[index]
        return replace(self, x=x, y=None if self.y is None else self.y[index],
                       given=None if self.given is None else self.given[index])

    def split(self, held_out: int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """The training part and `held_out` samples drawn without replacement: disjoint, together everything.

        Raises InputError unless both parts keep at least one sample.
        """
        if not 0 < held_out < len(self):
            raise InputError(f"got held_out={held_out} of {len(self)} samples; expected 1 to {len(self) - 1}")
        order = permutation(seed, Purpose.DATA, SPLIT, len(self))
        return self.take(order[held_out:].sort().values), self.take(order[:held_out].sort().values)

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """`n` samples drawn without replacement, in their original order."""
        if not 2 <= n <= len(self):
            raise InputError(f"got n={n}; expected 2 to {len(self)}, which is all that {self.name} holds")
        return self.take(permutation(seed, Purpose.DATA, SUBSET, len(self))[:n].sort().values)

    def head(self, n: int | None) -> Dataset:
        """The first `n` samples and the classes that occur in them; all, with a note, where there are fewer."""
        if n is None or n == len(self):
            return self
        if n > len(self):
            return replace(self, note=(*self.note, f"there are fewer rows than {n:,}, and all are taken"))
        data = self.take(torch.arange(n))
        if data.y is None:
            return data
        there, y = data.y.unique(return_inverse=True)
        return replace(data, y=y, classes=tuple(self.classes[k] for k in there.tolist()))

    def fingerprint(self) -> str:
        """The SHA-256 (hex) of values, shapes, types, labels and names: equal for equal data only.

        Of data on the disk it is that of their `identity`, which looks at some of them.
        """
        names = (self.kind, self.levels, self.classes, self.columns, *([self.words] if self.words else []),
                 *self.conditions)
        parts: list[Any] = [repr(names)]
        for tensor in (self.x, self.y, self.given):
            if isinstance(tensor, Lazy):
                parts.append(tensor.identity())
            elif tensor is not None:
                parts += [f"{tensor.dtype}{tuple(tensor.shape)}", tensor.cpu().contiguous().numpy().data]
        return sha256_of(*parts)


def describe(data: Dataset) -> str:
    """One line, such as "1,797 grey images of 8x8, 10 classes (digits)"."""
    labels = f", {len(data.classes)} classes" if data.classes else ""
    given = f", given {', '.join(c.name for c in data.conditions)}" if data.conditions else ""
    return f"{len(data):,} {_things(data)}{labels}{given} ({data.name})"


def _things(data: Dataset) -> str:
    if data.kind == "image":
        channels, height, width = data.shape
        return f"{'grey' if channels == 1 else 'colour'} images of {width}x{height}"
    return f"points in {data.shape[0]}-D" if data.kind == "points" else f"rows of {data.shape[0]} columns"


def conditioned(data: Dataset, **values: Any) -> Dataset:
    """The same samples with conditions: numbers (N,), vectors (N, D), or N texts, by name; see `conditions.read`.

    Raises InputError for another number of values.
    """
    found = {name: read(name, None, v if isinstance(v, list) else np.asarray(v)) for name, v in values.items()}
    for name, (_, rows) in found.items():
        if len(rows) != len(data):
            raise InputError(f"got {len(rows)} values of {name} for {len(data)} samples; expected one each")
    return with_conditions(data, list(found.values()))


def with_conditions(data: Dataset, found: Sequence[tuple[Condition, Tensor]]) -> Dataset:
    """The same samples with more conditions and their raw numbers."""
    if not found:
        return data
    given = torch.cat([rows for _, rows in found], 1)
    return replace(data, conditions=tuple(c for c, _ in found), given=given, note=(
        *data.note, f"conditions: {', '.join(f'{c.name} ({c.kind})' for c, _ in found)}"))


def fit_transform(data: Dataset) -> Transform:
    """The transform for a data set: images by their levels, points by one scale (so that their shape is kept),
    tables column by column.
    """
    if data.kind == "image":
        return GreyLevels(data.levels)
    x = data.x.double()
    if data.kind == "table":
        words = [len(w) for w in data.words] or [0] * x.shape[1]
        columns = zip(x.T.numpy(), words, strict=True)
        return Table(tuple(fit_column(values, n, simple=x.shape[1] > _MANY) for values, n in columns))
    scale = x.var(0, unbiased=False).mean().sqrt()
    return Standardise(tuple(x.mean(0).tolist()), (float(scale),) * x.shape[1])
