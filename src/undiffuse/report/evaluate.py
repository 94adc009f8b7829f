"""The figures of a run, measured so that none is better than it is.

The classifier and the nearest neighbours know the training rows only; real data to compare with are the rows that were
held out of the training. Without such rows, what needs them is None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from undiffuse import metrics
from undiffuse.data import Dataset, distance_to_curve
from undiffuse.data.toys import SPIRALS
from undiffuse.model import Model
from undiffuse.report.evidence import STEPS, Evidence, gather

_JUDGED, _PAIRED = 2000, 1000  # rows for the classifier, and for distances between all pairs
_RARE, _EQUAL = 0.01, 1e-6


@dataclass(frozen=True)
class Findings:
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


def measure(seen: Evidence) -> Findings:
    """All measurements of what was gathered."""
    numbers: dict[str, Any] = {
        "kind": seen.kind, "data": seen.train.name, "n": len(seen.made), "seed": seen.seed,
        "method": seen.samples.method, "steps": STEPS, "nfe": seen.samples.nfe, "guidance": 1.0,
        "train": len(seen.train), "held_out": 0 if seen.held_out is None else len(seen.held_out),
    }
    numbers |= _distance(seen)
    found = {"points": _points, "table": _table, "image": _image}[seen.kind](seen)
    return Findings({**numbers, **found.numbers}, found.read, found.near_made, found.near_held, found.off_curve)


def classifier_of(train: Dataset) -> Callable[[Tensor], Tensor]:
    """The judge: a classifier that has seen the training rows and nothing else."""
    assert train.y is not None
    return metrics.classifier(train.x, train.y)


def _distance(seen: Evidence) -> dict[str, Any]:
    """Sliced W₂ to the held-out rows and its floor, between real rows in the same numbers."""
    if seen.held_out is None:
        return {"sliced_w2": None, "floor": None, "floor_spread": None, "ratio": None}
    made, real = comparable(seen, seen.made), comparable(seen, seen.held_out.x)
    other = comparable(seen, seen.train.x[_spread(len(seen.train), len(made))])
    value, floor = metrics.sliced_w2(made, real), metrics.noise_floor(metrics.sliced_w2, other, real)
    return {"sliced_w2": value, "floor": floor.value, "floor_spread": floor.stderr,
            "ratio": value / floor.value if floor.value else None}


def _points(seen: Evidence) -> Findings:
    numbers: dict[str, Any] = {"mmd": None, "mmd_floor": None, "mmd_spread": None}
    if seen.held_out is not None:
        made, real = seen.made[:_PAIRED], seen.held_out.x[:_PAIRED]
        floor = metrics.noise_floor(metrics.mmd, seen.train.x[_spread(len(seen.train), len(made))], real)
        numbers = {"mmd": metrics.mmd(made, real), "mmd_floor": floor.value, "mmd_spread": floor.stderr}
    if seen.train.name not in SPIRALS:
        return Findings({**numbers, "off_curve": None})
    off = distance_to_curve(seen.train.name, seen.made)
    real = distance_to_curve(seen.train.name, seen.real.x)
    return Findings({**numbers, "off_curve": float(off.mean()), "off_curve_real": float(real.mean())}, off_curve=off)


def _table(seen: Evidence) -> Findings:
    """Kolmogorov-Smirnov distance of each column, and the nearest rows in standardised units."""
    held, made = seen.held_out, seen.made.numpy()
    numbers: dict[str, Any] = {}
    if held is not None:
        real = held.x.numpy()
        numbers["ks"] = {name: float(stats.ks_2samp(made[:, j], real[:, j]).statistic)
                         for j, name in enumerate(seen.train.columns)}
        numbers["ks_by_chance"] = 1.358 * math.sqrt((len(made) + len(real)) / (len(made) * len(real)))
    return _nearest(seen, numbers)


def _image(seen: Evidence) -> Findings:
    if seen.labels is None or seen.train.y is None:
        return _nearest(seen, {})
    judge = classifier_of(seen.train)
    read = judge(seen.made)
    agree = metrics.agreement(read, seen.labels)
    numbers = {"class_agreement": agree.value, "class_agreement_stderr": agree.stderr,
               "per_class": _per_class(seen, read, seen.labels), "confusion": _confusion(seen, read, seen.labels)}
    numbers |= _accuracy(seen, judge)
    return _nearest(seen, numbers, read)


def _accuracy(seen: Evidence, judge: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """How often the classifier is right on real images that it has not seen."""
    if seen.held_out is None or seen.held_out.y is None:
        return {"classifier_accuracy": None, "classifier_per_class": None}
    held = seen.held_out.take(_spread(len(seen.held_out), _JUDGED))
    assert held.y is not None
    read = judge(held.x)
    right = metrics.agreement(read, held.y)
    return {"classifier_accuracy": right.value, "classifier_per_class": _per_class(seen, read, held.y)}


def _nearest(seen: Evidence, numbers: dict[str, Any], read: Tensor | None = None) -> Findings:
    """How near generated and held-out real rows are to the training rows."""
    train, held = comparable(seen, seen.train.x), seen.held_out
    near = metrics.nearest_distance(comparable(seen, seen.made), train)
    numbers |= {"nearest_made": float(near.median()), "identical": int((near < _EQUAL).sum())}
    if held is None:
        return Findings({**numbers, "nearest_held_out": None, "nearest_ratio": None, "copies": None}, read, near)
    rows = held.x[_spread(len(held), len(seen.made))]
    real = metrics.nearest_distance(comparable(seen, rows), train)
    middle = float(real.median())
    numbers |= {"nearest_held_out": middle, "nearest_ratio": float(near.median()) / middle if middle else None,
                "identical_held_out": int((real < _EQUAL).sum()),
                "copies": float((near < torch.quantile(real, _RARE)).double().mean())}
    return Findings(numbers, read, near, real)


def _per_class(seen: Evidence, read: Tensor, asked: Tensor) -> dict[str, dict[str, float]]:
    """The share of each class that is read as asked, its 95 % interval (Wilson, 1927), and how many were asked for."""
    rates: dict[str, dict[str, float]] = {}
    for label, name in enumerate(seen.train.classes):
        here = asked == label
        if here.any():
            right, n = int((read[here] == label).sum()), int(here.sum())
            low, high = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
            rates[name] = {"agreement": right / n, "low": float(low), "high": float(high), "n": n}
    return rates


def _confusion(seen: Evidence, read: Tensor, asked: Tensor) -> list[list[int]]:
    """How many of each asked class (row) are read as each class (column)."""
    size = len(seen.train.classes)
    return torch.bincount(asked * size + read, minlength=size * size).reshape(size, size).tolist()


def comparable(seen: Evidence, x: Tensor) -> Tensor:
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
