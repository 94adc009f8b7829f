"""The data set: samples, their labels and conditions, and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.data.lazy import Lazy
from undiffuse.data.pixel_units import PixelUnits
from undiffuse.errors import InputError, quote
from undiffuse.hashing import sha256_of
from undiffuse.random import Purpose, permutation
from undiffuse.transforms.array_schema import ArraySchema
from undiffuse.transforms.base import Channels, GreyLevels, Standardise, Table, Transform
from undiffuse.transforms.bounded import Bounded
from undiffuse.transforms.column_fitting import fit_channel, fit_column, needs_float64
from undiffuse.transforms.conditions import Condition, infer_rows
from undiffuse.transforms.table_schema import TableSchema

WITH_MISSING = ("table", "array")
"""Kinds whose samples may have missing values, NaN."""
_LOOKED_AT = 1000
_FITTED = 10_000  # samples of an array to which its transform is fitted
_MAX_FITTED = 1024  # columns of a table beyond which each is only standardised
# Streams of Purpose.DATA: splits and subsets must not use the random numbers that made the samples.
TOY_UNIFORM, TOY_NORMAL, SPLIT, SUBSET = range(4)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples with their labels and conditions.

    Args:
        x: samples (N, *event); those that stay on the disk are a `Lazy`, whose x[index] is a tensor.
        y: class numbers (N,) int64, or None.
        kind: "points" are float32, "table" is float64 (NaN: missing value), "image" is uint8, or
            int32 for more than 256 levels, (N, C, H, W); "array" is float32 or, where that does not resolve the values,
            float64, with the axes of `array.layout` (NaN: missing value), and a model of it is (C, *space).
        name: name of the data.
        classes: names of the labels 0, 1, ...
        columns: names of the columns of points and tables, or of the channels of arrays.
        levels: number of grey levels of images, 0 ... levels−1.
        categories: for every column of a table its categories 0, 1, ..., () for numbers; empty if all are numbers.
        notes: remarks on changes to the data while reading.
        conditions: the conditions of the samples.
        condition_values: their numeric rows (N, sum of the widths), see `transforms.conditions`.
        schema: how the rows of a table were read and are written; None for images and built-in points.
        bounds: (low, high) of every column that its values cannot leave, with -inf and inf for none; () without any.
        units: what the grey levels of images are in the array that holds them; None: the levels themselves.
        array: channels and axes of an array; None for other kinds.
        starts: of windows of series, the number of the series and the first step of each (N, 2) int64; they are split
            by time.
    """

    x: Tensor
    y: Tensor | None
    kind: str
    name: str
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    levels: int = 0
    categories: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    condition_values: Tensor | None = None
    schema: TableSchema | None = None
    units: PixelUnits | None = None
    array: ArraySchema | None = None
    starts: Tensor | None = None
    bounds: tuple[tuple[float, float], ...] = ()

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
        rows = [None if part is None else part[index] for part in (self.y, self.condition_values, self.starts)]
        return replace(self, x=x, y=rows[0], condition_values=rows[1], starts=rows[2])

    def split(self, held_out: int, seed: int = 0) -> tuple[Dataset, Dataset]:
        """The training part and the held-out part, in their original order; see `split_rows`."""
        train, test = self.split_rows(held_out, seed)
        return self.take(train), self.take(test)

    def split_rows(self, held_out: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The numbers of the samples of the training part, and of `held_out` random others: together all of them.

        Of windows of series the last ones are held out, and those that overlap the time from then on are in no part.

        Raises:
            InputError: unless both parts have at least one sample.
        """
        if not 0 < held_out < len(self):
            raise InputError(f"got held_out={held_out} of {len(self)} samples; expected 1 to {len(self) - 1}")
        if self.starts is not None:
            return split_by_time(self.starts[:, 1], self.shape[0], held_out)
        order = permutation(seed, Purpose.DATA, SPLIT, len(self))
        return order[held_out:].sort().values, order[:held_out].sort().values

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """A random subset of `n` samples, in their original order."""
        if not 2 <= n <= len(self):
            raise InputError(f"got n={n}; expected 2 to {len(self)}, which is all that {self.name} holds")
        return self.take(permutation(seed, Purpose.DATA, SUBSET, len(self))[:n].sort().values)

    def head(self, n: int | None) -> Dataset:
        """The first `n` samples and the classes that occur in them; all samples, with a note, if there are fewer."""
        if n is None or n == len(self):
            return self
        if n > len(self):
            return replace(self, notes=(*self.notes, f"there are fewer rows than {n:,}, and all are taken"))
        data = self.take(torch.arange(n))
        if data.y is None:
            return data
        present, y = data.y.unique(return_inverse=True)
        return replace(data, y=y, classes=tuple(self.classes[k] for k in present.tolist()))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of values, shapes, types, labels and names; of data on the disk, of `Lazy.identity`."""
        names = (self.kind, self.levels, self.classes, self.columns, *([self.categories] if self.categories else []),
                 *self.conditions, *self.bounds, *(() if self.schema is None else self.schema.formats),
                 *(() if self.array is None else (self.array.config(),)))
        parts: list[Any] = [repr(names)]
        for tensor in (self.x, self.y, self.condition_values, self.starts):
            if isinstance(tensor, Lazy):
                parts.append(tensor.identity())
            elif tensor is not None:
                parts += [f"{tensor.dtype}{tuple(tensor.shape)}", tensor.cpu().contiguous().numpy().data]
        return sha256_of(*parts)


def has_missing(data: Dataset) -> bool:
    """Whether values are missing; of data on the disk in 1,000 of their samples."""
    if data.kind not in WITH_MISSING:
        return False
    x = data.x
    if isinstance(x, Lazy):
        x = x[torch.linspace(0, len(x) - 1, min(len(x), _LOOKED_AT)).round().long()]
    return bool(x.isnan().any())


def split_by_time(steps: Tensor, window: int, held_out: int) -> tuple[Tensor, Tensor]:
    """The numbers of the windows that end before the held-out ones begin, and of the last `held_out` windows.

    Args:
        steps: first step of every window (N,).
        window: steps of a window.
        held_out: number of windows to hold out; those that begin at the same step as the first of them are in no part.

    Raises:
        InputError: if no window ends before.
    """
    order = steps.argsort(stable=True)
    test = order[len(steps) - held_out:].sort().values
    train = (steps + window <= steps[test].min()).nonzero()[:, 0]
    if not len(train):
        raise InputError(f"got held_out={held_out} of {len(steps)} windows, and no other ends before they begin; hold "
                         f"out fewer, or choose a shorter window")
    return train, test


def describe(data: Dataset) -> str:
    """One line, such as "1,797 grey images of 8x8, 10 classes (digits)"."""
    labels = f", {len(data.classes)} classes" if data.classes else ""
    conditions = f", given {', '.join(c.name for c in data.conditions)}" if data.conditions else ""
    return f"{len(data):,} {_content(data)}{labels}{conditions} ({data.name})"


def _content(data: Dataset) -> str:
    if data.kind == "image":
        channels, height, width = data.shape
        return f"{'grey' if channels == 1 else 'colour'} images of {width}x{height}"
    if data.array is not None:
        sizes = dict(zip(data.array.layout[1:], data.shape, strict=True))
        count = "1 channel" if len(data.columns) == 1 else f"{len(data.columns)} channels"
        if data.starts is not None:
            return f"windows of {data.shape[0]} steps of {count}"
        return f"arrays of {count} of {' x '.join(str(sizes[letter]) for letter in data.array.space)}"
    return f"points in {data.shape[0]}-D" if data.kind == "points" else f"rows of {data.shape[0]} columns"


def column_lines(data: Dataset) -> list[str]:
    """A text table of the columns of a table: kind, an example, missing values, and how samples are written."""
    if data.schema is None:
        return []
    missing, rows = data.x.isnan().sum(0).tolist(), [("column", "kind", "example", "missing", "samples are written as")]
    for j, (form, count) in enumerate(zip(data.schema.formats, missing, strict=True)):
        observed = data.x[:, j][~data.x[:, j].isnan()]
        value = float(format(observed[0], ".9g")) if data.x.dtype == torch.float32 else float(observed[0])
        rows.append((form.name, form.kind, form.text(value), str(count), form.describe()))
    rows += [(name, "given" if name != data.schema.label else "label", "", "", "") for name in data.schema.order
             if name not in data.schema.columns]
    rows += [(name, "left out", "", "", why) for name, why in data.schema.left_out]
    texts = [tuple(cell if len(cell) <= 32 else cell[:29] + "..." for cell in row[:4]) + row[4:] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]


def conditioned(data: Dataset, **values: Any) -> Dataset:
    """A data set with conditions.

    Args:
        data: the samples.
        values: by name, for every sample a number (N,), a vector (N, D) or a text.

    Raises:
        InputError: for another number of values.
    """
    conditions = {name: infer_rows(name, None, v if isinstance(v, list) else np.asarray(v))
                  for name, v in values.items()}
    for name, (_, rows) in conditions.items():
        if len(rows) != len(data):
            raise InputError(f"got {len(rows)} values of {name} for {len(data)} samples; expected one each")
    return with_conditions(data, list(conditions.values()))


def bounded(data: Dataset, low: Any, high: Any) -> Dataset:
    """A table whose columns cannot leave bounds.

    Args:
        data: points or a table.
        low: lower bounds, a number or (D,); -inf: none.
        high: upper bounds, likewise.

    Raises:
        InputError: for other data, another number of bounds, bounds that are not in order, and values outside.
    """
    if data.kind not in ("points", "table"):
        raise InputError(f"got bounds for {data.name}, which is no table; leave them out")
    try:
        ends = [np.broadcast_to(np.asarray(end, np.float64), data.shape) for end in (low, high)]
    except (TypeError, ValueError):
        raise InputError(f"got bounds of shapes {np.shape(low)} and {np.shape(high)} for {data.shape[0]} columns; "
                         "expected numbers, or one for each column") from None
    x, pairs = data.x.double(), tuple((float(a), float(b)) for a, b in zip(*ends, strict=True))
    for name, column, (a, b) in zip(data.columns, x.T, pairs, strict=True):
        if not a < b:
            raise InputError(f"got {quote(name)} from {a:g} to {b:g}; expected a lower bound below the upper one")
        if bool((outside := (column < a) | (column > b)).any()):
            raise InputError(f"got {int(outside.sum())} values of {quote(name)} outside of the bounds {a:g} to {b:g}, "
                             f"the first in row {int(outside.int().argmax()) + 1}: "
                             f"{float(column[outside][0]):g}; give the bounds of the prior that they were drawn from, "
                             "or leave those rows out")
    finite = any(math.isfinite(end) for pair in pairs for end in pair)
    return replace(data, kind="table", x=x, bounds=pairs) if finite else data


def with_conditions(data: Dataset, conditions: Sequence[tuple[Condition, Tensor]]) -> Dataset:
    """A data set with conditions and their numeric rows."""
    if not conditions:
        return data
    values = torch.cat([rows for _, rows in conditions], 1)
    return replace(data, conditions=tuple(c for c, _ in conditions), condition_values=values, notes=(
        *data.notes, f"conditions: {', '.join(f'{c.name} ({c.kind})' for c, _ in conditions)}"))


def fit_transform(data: Dataset) -> Transform:
    """The transform for a data set: grey levels for images, one scale for points (which keeps their shape), one map per
    column for tables and per channel for arrays.
    """
    if data.kind == "image":
        return GreyLevels(data.levels)
    if data.array is not None:
        some = data.x[torch.linspace(0, len(data) - 1, min(len(data), _FITTED)).round().long()]
        channels = [v.flatten().numpy() for v in data.array.channels_first(some).double().unbind(1)]
        wide = data.x.dtype == torch.float64 and any(map(needs_float64, channels))
        maps = tuple(fit_channel(values, powers=data.starts is None) for values in channels)
        return Channels(maps, data.array.layout, wide)
    x = data.x.double()
    if data.kind == "table":
        counts = [len(c) for c in data.categories] or [0] * x.shape[1]
        dates = [bool(form.date) for form in data.schema.formats] if data.schema else [False] * x.shape[1]
        columns = zip(x.T.numpy(), counts, dates, data.bounds or [(-math.inf, math.inf)] * x.shape[1], strict=True)
        return Table(tuple(fit_column(values, n, x.shape[1] > _MAX_FITTED, date) if bounds == (-math.inf, math.inf) else
                           Bounded.fit(values, *bounds) for values, n, date, bounds in columns))
    scale = x.var(0, unbiased=False).mean().sqrt()
    return Standardise(tuple(x.mean(0).tolist()), (float(scale),) * x.shape[1])
