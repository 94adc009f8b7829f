"""What a report looks at: a run, its model and data, and one batch of samples that every number and figure shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from undiffuse import training
from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.noise import Purpose, permutation
from undiffuse.sampling import Samples, sample
from undiffuse.training import Run
from undiffuse.training.feed import completed

STEPS = 20
_MOST = 5000


@dataclass(frozen=True)
class Evidence:
    """A run with its rows and the generated ones: `made` (n, *event) in data units, `labels` (n,) asked for, or None.

    Images are rounded to their grey levels, as they are when they are saved.
    """

    run: Run
    model: Model
    train: Dataset
    held_out: Dataset | None
    made: Tensor
    labels: Tensor | None
    samples: Samples
    seed: int

    @property
    def kind(self) -> str:
        """points, table or image."""
        return self.train.kind

    @property
    def real(self) -> Dataset:
        """The real rows to compare with: held-out ones, or those of the training where none were held out."""
        return self.train if self.held_out is None else self.held_out

    @cached_property
    def conditional(self) -> bool:
        """Whether samples were asked for by class."""
        return self.labels is not None

    def condition(self, index: Tensor | slice = slice(None)) -> dict[str, Any]:
        """The condition of some of the samples."""
        return {} if self.labels is None else {"label": self.labels[index]}


def gather(folder: Path, n: int | None = None, seed: int = 0, *, model: Model | None = None,
           data: Dataset | None = None) -> Evidence:
    """Loads a run and draws n samples of it, with the labels of random training rows where it knows classes.

    n: by default as many as rows were held out, within what takes seconds. `model` and `data` take the place of what
    the folder names. Empty cells of a table are filled with draws of the model's Gaussian part, so that rows can be
    compared. Raises InputError for n < 2.
    """
    run = training.open_run(folder)
    train, held = training.load_data(folder, data)
    model = model or training.load(folder)
    train, held = _whole(train, model), None if held is None else _whole(held, model)
    count = n if n is not None else _count(train, held)
    if count < 2:
        raise InputError(f"got n={count}; expected at least 2 samples to compare")
    labels = _labels(train, count, seed) if model.classes else None
    cond: dict[str, Any] = {} if labels is None else {"label": labels}
    drawn = sample(model, count, steps=STEPS, seed=seed, **cond)
    return Evidence(run, model, train, held, _as_data(drawn.x, train), labels, drawn, seed)


def _count(train: Dataset, held: Dataset | None) -> int:
    """As many as held-out rows; for images up to 1,000, the fewer the larger they are."""
    rows = len(train if held is None else held)
    if train.kind != "image":
        return min(max(rows, 2), _MOST)
    return max(200, min(1000, 300_000 // math.prod(train.shape)))


def _whole(data: Dataset, model: Model) -> Dataset:
    """The data with their empty cells filled."""
    gaps = data.x.isnan() if data.kind == "table" else torch.zeros(1)
    if not gaps.any():
        return data
    filled = model.transform.inverse(completed(model.transform.forward(data.x), model))
    return replace(data, x=torch.where(gaps, filled, data.x))


def _labels(train: Dataset, n: int, seed: int) -> Tensor:
    """The labels of n training rows in random order, so that classes are as frequent as they are in the data."""
    assert train.y is not None  # a model that knows classes was trained with them
    order = permutation(seed, Purpose.CONDITION, 0, len(train))
    return train.y[order[torch.arange(n) % len(train)]]


def _as_data(x: Tensor, train: Dataset) -> Tensor:
    return x.round().clamp(0, train.levels - 1) if train.kind == "image" else x
