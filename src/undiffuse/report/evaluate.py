"""The figures of a run, measured so that none is better than it is.

The classifier and the nearest neighbours know the training rows only; real data to compare with are the rows that were
held out of the training. Without such rows, what needs them is None.

What a report looks at: a run, its model and data, and one batch of samples that every number and figure shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from undiffuse import metrics, training
from undiffuse.data import Dataset, distance_to_curve
from undiffuse.data.toys import SPIRALS
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.random import Purpose, permutation
from undiffuse.samplers.driver import Samples, sample
from undiffuse.training import Run
from undiffuse.training.batches import completed

STEPS = 20
_MOST = 5000


@dataclass(frozen=True)
class ReportData:
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
           data: Dataset | None = None) -> ReportData:
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
    return ReportData(run, model, train, held, _as_data(drawn.x, train), labels, drawn, seed)


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


_JUDGED, _PAIRED = 2000, 1000  # rows for the classifier, and for distances between all pairs
_RARE, _EQUAL = 0.01, 1e-6


@dataclass(frozen=True)
class Metrics:
    """What was measured: `numbers` for JSON, and for the figures the labels that the classifier read, the distances
    to the nearest training row of generated and of held-out real rows, and the distances off the curve.
    """

    numbers: dict[str, Any]
    read: Tensor | None = None
    near_made: Tensor | None = None
    near_held: Tensor | None = None
    off_curve: Tensor | None = None


def evaluate(run: Path | str, n: int | None = None, seed: int = 0, *, model: Model | None = None,
             data: Dataset | None = None) -> dict[str, Any]:
    """The figures of a run as a dict of JSON types; the same run, n and seed give the same figures.

    All: kind, data, n, seed, method, steps, nfe (model calls a sample), train and held_out (rows), sliced_w2 to the
    held-out rows, its floor (what real training rows of the same number give) with its spread, and their ratio.
    Images and tables: the median distance to the nearest training row of generated (nearest_made) and of held-out real
    rows (nearest_held_out), nearest_ratio, copies (the share nearer than 99 % of held-out real rows) and identical (how
    many equal a training row; identical_held_out for real ones). Images with classes: class_agreement with its standard
    error, per_class, confusion, and the classifier's own accuracy on held-out rows. Points: mmd and off_curve. Tables:
    ks, the Kolmogorov-Smirnov distance of each column, and ks_by_chance, which 95 % of equal laws stay below.

    Raises InputError for a folder that holds no run, and what `training.load` and `sample` raise.
    """
    return measure(gather(Path(run), n, seed, model=model, data=data)).numbers


def measure(seen: ReportData) -> Metrics:
    """All measurements of what was gathered."""
    numbers: dict[str, Any] = {
        "kind": seen.kind, "data": seen.train.name, "n": len(seen.made), "seed": seen.seed,
        "method": seen.samples.method, "grid": seen.samples.grid, "steps": STEPS,
        "nfe": seen.samples.nfe, "guidance": 1.0,
        "train": len(seen.train), "held_out": 0 if seen.held_out is None else len(seen.held_out),
    }
    numbers |= _distance(seen)
    found = {"points": _points, "table": _table, "image": _image}[seen.kind](seen)
    return Metrics({**numbers, **found.numbers}, found.read, found.near_made, found.near_held, found.off_curve)


def classifier_of(train: Dataset) -> Callable[[Tensor], Tensor]:
    """The judge: a classifier that has seen the training rows and nothing else."""
    assert train.y is not None
    return metrics.classifier(train.x, train.y)


def _distance(seen: ReportData) -> dict[str, Any]:
    """Sliced W₂ to the held-out rows and its floor, between real rows in the same numbers."""
    if seen.held_out is None:
        return {"sliced_w2": None, "floor": None, "floor_spread": None, "ratio": None}
    made, real = comparable(seen, seen.made), comparable(seen, seen.held_out.x)
    other = comparable(seen, seen.train.x[_spread(len(seen.train), len(made))])
    value, floor = metrics.sliced_w2(made, real), metrics.noise_floor(metrics.sliced_w2, other, real)
    return {"sliced_w2": value, "floor": floor.value, "floor_spread": floor.stderr,
            "ratio": value / floor.value if floor.value else None}


def _points(seen: ReportData) -> Metrics:
    numbers: dict[str, Any] = {"mmd": None, "mmd_floor": None, "mmd_spread": None}
    if seen.held_out is not None:
        made, real = seen.made[:_PAIRED], seen.held_out.x[:_PAIRED]
        floor = metrics.noise_floor(metrics.mmd, seen.train.x[_spread(len(seen.train), len(made))], real)
        numbers = {"mmd": metrics.mmd(made, real), "mmd_floor": floor.value, "mmd_spread": floor.stderr}
    if seen.train.name not in SPIRALS:
        return Metrics({**numbers, "off_curve": None})
    off = distance_to_curve(seen.train.name, seen.made)
    real = distance_to_curve(seen.train.name, seen.real.x)
    return Metrics({**numbers, "off_curve": float(off.mean()), "off_curve_real": float(real.mean())}, off_curve=off)


def _table(seen: ReportData) -> Metrics:
    """Kolmogorov-Smirnov distance of each column, and the nearest rows in standardised units."""
    held, made = seen.held_out, seen.made.numpy()
    numbers: dict[str, Any] = {}
    if held is not None:
        real = held.x.numpy()
        numbers["ks"] = {name: float(stats.ks_2samp(made[:, j], real[:, j]).statistic)
                         for j, name in enumerate(seen.train.columns)}
        numbers["ks_by_chance"] = 1.358 * math.sqrt((len(made) + len(real)) / (len(made) * len(real)))
    return _nearest(seen, numbers)


def _image(seen: ReportData) -> Metrics:
    if seen.labels is None or seen.train.y is None:
        return _nearest(seen, {})
    judge = classifier_of(seen.train)
    read = judge(seen.made)
    agree = metrics.agreement(read, seen.labels)
    numbers = {"class_agreement": agree.value, "class_agreement_stderr": agree.stderr,
               "per_class": _per_class(seen, read, seen.labels), "confusion": _confusion(seen, read, seen.labels)}
    numbers |= _accuracy(seen, judge)
    return _nearest(seen, numbers, read)


def _accuracy(seen: ReportData, judge: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """How often the classifier is right on real images that it has not seen."""
    if seen.held_out is None or seen.held_out.y is None:
        return {"classifier_accuracy": None, "classifier_per_class": None}
    held = seen.held_out.take(_spread(len(seen.held_out), _JUDGED))
    assert held.y is not None
    read = judge(held.x)
    right = metrics.agreement(read, held.y)
    return {"classifier_accuracy": right.value, "classifier_per_class": _per_class(seen, read, held.y)}


def _nearest(seen: ReportData, numbers: dict[str, Any], read: Tensor | None = None) -> Metrics:
    """How near generated and held-out real rows are to the training rows."""
    train, held = comparable(seen, seen.train.x), seen.held_out
    near = metrics.nearest_distance(comparable(seen, seen.made), train)
    numbers |= {"nearest_made": float(near.median()), "identical": int((near < _EQUAL).sum())}
    if held is None:
        return Metrics({**numbers, "nearest_held_out": None, "nearest_ratio": None, "copies": None}, read, near)
    rows = held.x[_spread(len(held), len(seen.made))]
    real = metrics.nearest_distance(comparable(seen, rows), train)
    middle = float(real.median())
    numbers |= {"nearest_held_out": middle, "nearest_ratio": float(near.median()) / middle if middle else None,
                "identical_held_out": int((real < _EQUAL).sum()),
                "copies": float((near < torch.quantile(real, _RARE)).double().mean())}
    return Metrics(numbers, read, near, real)


def _per_class(seen: ReportData, read: Tensor, asked: Tensor) -> dict[str, dict[str, float]]:
    """The share of each class that is read as asked, its 95 % interval (Wilson, 1927), and how many were asked for."""
    rates: dict[str, dict[str, float]] = {}
    for label, name in enumerate(seen.train.classes):
        here = asked == label
        if here.any():
            right, n = int((read[here] == label).sum()), int(here.sum())
            low, high = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
            rates[name] = {"agreement": right / n, "low": float(low), "high": float(high), "n": n}
    return rates


def _confusion(seen: ReportData, read: Tensor, asked: Tensor) -> list[list[int]]:
    """How many of each asked class (row) are read as each class (column)."""
    size = len(seen.train.classes)
    return torch.bincount(asked * size + read, minlength=size * size).reshape(size, size).tolist()


def comparable(seen: ReportData, x: Tensor) -> Tensor:
    """Rows in the unit in which they are compared.

    Points as they are; tables with every column at standard deviation 1; images so that a distance is the root mean
    square difference of a pixel, 1 being the whole range.
    """
    if seen.kind == "table":
        return seen.model.transform.forward(x.double())
    if seen.kind == "points":
        return x
    return x.to(torch.float64, copy=True).div_((seen.train.levels - 1) * math.sqrt(math.prod(seen.train.shape)))


def _spread(n: int, most: int) -> Tensor:
    """At most `most` of the numbers 0 ... n − 1, evenly spread."""
    return torch.from_numpy(np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)))
