"""Which map a column of a table gets: measured on the training rows, cells that are missing left out."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special, stats

from undiffuse.transforms.columns import Column, Constant, Power, Quantiles, Steps, Vector, Words, yeo_johnson

_KNOTS = 64  # quantiles that a distribution function is kept by
_FEW = 20  # different numbers up to which a column is a staircase
_NORMAL = 1.36  # of Kolmogorov's statistic √n D, exceeded by chance in one normal column of twenty
_POWERS = np.linspace(0, 2, 41)


def fit_column(x: Vector, words: int = 0, simple: bool = False) -> Column:
    """The map for the values x (N,), NaN where missing; `words` says how many words they number, 0 for numbers.

    Few different numbers become steps; otherwise the power that makes the column most nearly normal, and quantiles
    where the best power does not. `simple`: mean and standard deviation only, for tables of very many columns.
    """
    seen = x[~np.isnan(x)]
    if len(seen) == 0:
        return Constant(0.0)
    if seen.min() == seen.max():
        return Constant(float(seen[0]))
    if words:
        return Words(tuple((np.bincount(seen.astype(np.int64), minlength=words) / len(seen)).tolist()))
    whole = bool((seen == np.rint(seen)).all())
    if simple:
        return Power(float(seen.mean()), float(seen.std()), whole=whole)
    levels, counts = np.unique(seen, return_counts=True)
    if len(levels) <= max(2, min(_FEW, len(seen) // 5)):
        return _steps(levels, counts)
    power, z = _power(seen, whole)
    distance = float(stats.kstest(z, "norm").statistic)
    return power if math.sqrt(len(seen)) * distance <= _NORMAL else _quantiles(seen, whole)


def _steps(levels: Vector, counts: NDArray[np.int64]) -> Steps:
    """Cuts at Φ⁻¹ of the distribution function, scores in the middle, standardised."""
    n = counts.sum()
    edges = special.ndtri(np.concatenate([[0.5 / n], np.cumsum(counts)[:-1] / n, [1 - 0.5 / n]]))
    middle = (edges[1:] + edges[:-1]) / 2
    mean, std = _moments(np.repeat(middle, counts))
    return Steps(*(tuple(v.tolist()) for v in (levels, (middle - mean) / std, (edges[1:-1] - mean) / std)))


def _power(seen: Vector, whole: bool) -> tuple[Power, Vector]:
    """The most likely power (Yeo and Johnson, 2000, eq. 3.1), and the column that it makes."""
    centre, scale = _moments(seen)
    u = (seen - centre) / scale
    power = float(max(_POWERS, key=lambda p: _likelihood(u, p)))
    w = yeo_johnson(torch.from_numpy(u), power).numpy()
    mean, std = _moments(w)
    return Power(centre, scale, power, mean, std, whole), (w - mean) / std


def _likelihood(u: Vector, power: float) -> float:
    """The log-likelihood of a power per row, mean and variance maximised out, less a constant."""
    w = yeo_johnson(torch.from_numpy(u), power).numpy()
    return -math.log(w.std()) + (power - 1) * float((np.sign(u) * np.log1p(np.abs(u))).mean())


def _quantiles(seen: Vector, whole: bool) -> Quantiles:
    first, knots = 0.5 / len(seen), min(_KNOTS, len(seen))
    at = np.concatenate([[first], np.arange(1, knots) / knots, [1 - first]])
    values, scores = np.quantile(seen, at, method="hazen"), special.ndtri(at)
    rough = Quantiles(tuple(values.tolist()), tuple(scores.tolist()), whole=whole)
    mean, std = _moments(rough.forward(torch.from_numpy(seen))[:, 0].numpy())
    return Quantiles(rough.values, rough.scores, mean, std, whole)


def _moments(x: Vector) -> tuple[float, float]:
    return float(x.mean()), float(x.std())
