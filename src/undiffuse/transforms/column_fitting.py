"""The choice of a table column's map, from the training rows without missing values."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special, stats

from undiffuse.transforms.columns import Categories, Column, Constant, Power, Quantiles, Steps, Vector
from undiffuse.transforms.yeo_johnson import yeo_johnson

_KNOTS = 64  # quantiles that represent a distribution function
_MAX_STEPS = 20  # distinct numbers up to which a column is a step function
_MAX_DISTANCE = 1.36  # Kolmogorov's statistic √n D at the 5 % level
_LARGEST = 1e37  # no bound
_POWERS = np.linspace(0, 2, 41)
_GAIN = 0.02  # log-likelihood per value from which a channel is more than shifted and scaled
_SCALES = (0.01, 0.1, 0.5)  # quantiles of positive values that are the scale of a logarithm
_MAX_VALUES = 100_000  # of a channel
_PRECISE = 1e3


def fit_column(x: Vector, categories: int = 0, simple: bool = False, period: bool = False) -> Column:
    """The map of a column: steps for few distinct numbers, else the best power transform, or quantiles if its result is
    not normal.

    Args:
        x: values (N,), NaN where missing.
        categories: number of categories that the values number; 0 for numbers.
        simple: mean and standard deviation only, for tables of very many columns.
        period: dates, which are seldom normal and end with the data: quantiles, bounded by the first and the last one.
    """
    values = x[~np.isnan(x)]
    if len(values) == 0:
        return Constant(0.0)
    if values.min() == values.max():
        return Constant(float(values[0]))
    if categories:
        counts = np.bincount(values.astype(np.int64), minlength=categories)
        return Categories(tuple((counts / len(values)).tolist()))
    integer = bool((values == np.rint(values)).all())
    if simple:
        return Power(float(values.mean()), float(values.std()), integer=integer)
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) <= max(2, min(_MAX_STEPS, len(values) // 5)):
        return _steps(levels, counts)
    if period:
        return dataclasses.replace(_quantiles(values, integer), bounds=(float(levels[0]), float(levels[-1])))
    power, z = _power(values, integer)
    distance = float(stats.kstest(z, "norm").statistic)
    normal = math.sqrt(len(values)) * distance <= _MAX_DISTANCE
    return dataclasses.replace(power if normal else _quantiles(values, integer), bounds=bounds_of(values))


def fit_channel(x: Vector, powers: bool = True) -> Column:
    """The map of a channel: shift and scale; where the tails ask for it the most likely power or, of values of one
    sign, logarithm, log(1 + x/s).

    Args:
        x: values (N,), NaN where missing; 100,000 of them are used.
        powers: whether other powers than 1 are tried besides the logarithm; of series they would bend the sums and
            differences of channels and times that its covariance knows.
    """
    values = x[~np.isnan(x)]
    if len(values) == 0 or values.min() == values.max():
        return Constant(float(values[0]) if len(values) else 0.0)
    integer, bounds = bool((values == np.rint(values)).all()), bounds_of(values)
    centre, scale = _moments(values)
    some = values[np.linspace(0, len(values) - 1, min(len(values), _MAX_VALUES)).round().astype(np.int64)]
    tried = _POWERS if powers else np.ones(1)
    places = [(centre, scale, float(p)) for p in tried]
    if values.min() >= 0 and (some > 0).any():
        places += [(0.0, float(np.quantile(some[some > 0], q)), 0.0) for q in _SCALES]
    gains = [_likelihood((some - a) / s, p) - math.log(s) for a, s, p in places]
    if max(gains) < gains[int(np.argmin(np.abs(tried - 1)))] + _GAIN:
        return Power(centre, scale, integer=integer, bounds=bounds)
    a, s, power = places[int(np.argmax(gains))]
    mean, std = _moments(yeo_johnson(torch.from_numpy((values - a) / s), power).numpy())
    return Power(a, s, power, mean, std, integer, bounds)


def needs_float64(x: Vector) -> bool:
    """Whether float32 does not resolve how values vary, NaN aside: the largest is over 1,000 standard deviations."""
    values = x[~np.isnan(x)]
    return bool(len(values) and np.abs(values).max() > _PRECISE * values.std() > 0)


def bounds_of(x: Vector) -> tuple[float, ...]:
    """Bounds that keep the sign of a column, and a largest value of 1 or 100, the end of a scale; () without any."""
    low, high, whole = float(x.min()), float(x.max()), bool((x == np.rint(x)).all())
    if low >= 0:
        top = high if high in (1.0, 100.0) else _LARGEST
        return min(low, 1.0) if whole else low / 2, top
    return (-_LARGEST, max(high, -1.0) if whole else high / 2) if high <= 0 else ()


def _steps(levels: Vector, counts: NDArray[np.int64]) -> Steps:
    """Cuts at Φ⁻¹ of the distribution function, scores halfway between, standardised."""
    n = counts.sum()
    edges = special.ndtri(np.concatenate([[0.5 / n], np.cumsum(counts)[:-1] / n, [1 - 0.5 / n]]))
    middle = (edges[1:] + edges[:-1]) / 2
    mean, std = _moments(np.repeat(middle, counts))
    return Steps(*(tuple(v.tolist()) for v in (levels, (middle - mean) / std, (edges[1:-1] - mean) / std)))


def _power(x: Vector, integer: bool) -> tuple[Power, Vector]:
    """The most likely power (Yeo and Johnson, 2000, eq. 3.1), and the transformed column."""
    centre, scale = _moments(x)
    u = (x - centre) / scale
    power = float(max(_POWERS, key=lambda p: _likelihood(u, p)))
    w = yeo_johnson(torch.from_numpy(u), power).numpy()
    mean, std = _moments(w)
    return Power(centre, scale, power, mean, std, integer), (w - mean) / std


def _likelihood(u: Vector, power: float) -> float:
    """Log-likelihood of a power per row, maximised over mean and variance, up to a constant."""
    w = yeo_johnson(torch.from_numpy(u), power).numpy()
    return -math.log(w.std()) + (power - 1) * float((np.sign(u) * np.log1p(np.abs(u))).mean())


def _quantiles(x: Vector, integer: bool) -> Quantiles:
    first, knots = 0.5 / len(x), min(_KNOTS, len(x))
    at = np.concatenate([[first], np.arange(1, knots) / knots, [1 - first]])
    values, scores = np.quantile(x, at, method="hazen"), special.ndtri(at)
    rough = Quantiles(tuple(values.tolist()), tuple(scores.tolist()), integer=integer)
    mean, std = _moments(rough.forward(torch.from_numpy(x))[:, 0].numpy())
    return Quantiles(rough.values, rough.scores, mean, std, integer)


def _moments(x: Vector) -> tuple[float, float]:
    return float(x.mean()), float(x.std())
