"""Maps of one table column to entries of a model.

    power       Yeo and Johnson's ψ of the standardised column, with an exponent in [0, 2], where it is onto ℝ
    quantiles   Φ⁻¹ of the distribution function, linear between 64 quantiles, if no power makes the column normal
    steps       Φ⁻¹ of the middle of each step, for few distinct numbers; the inverse is one of them
    categories  centred one-hot vector with total variance 1; the inverse is the largest entry
    constant    no entry; restored exactly

All but the last end with the affine map to mean 0 and variance 1 on the training rows. A missing value is NaN.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.yeo_johnson import yeo_johnson, yeo_johnson_inverse

Vector = NDArray[np.float64]
Floats = tuple[float, ...]


@dataclass(frozen=True)
class Column(ABC):
    """A map of one column, x (B,) to z (B, width), float64; frozen, and its own configuration."""

    kind: ClassVar[str]

    @property
    def width(self) -> int:
        """The number of model entries."""
        return 1

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Model units (B, width)."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """Data units (B,)."""

    @abstractmethod
    def log_derivative(self, x: Tensor) -> Tensor:
        """log dz/dx (B,)."""

    @property
    def level_half_widths(self) -> Tensor:
        """Half widths of the intervals of model entries that stand for one value each, (L,); empty for a density."""
        return torch.zeros(0, dtype=torch.float64)

    def half_width(self, x: Tensor) -> Tensor:
        """Half of the interval around `forward(x)` that `inverse` maps to x, (B, width); 0 for a value with a density.
        """
        return x.new_zeros(len(x), self.width)

    def log_measure(self, x: Tensor) -> Tensor:
        """log dz/dx (B,) for a value with a density; 0 for a value with a probability, −∞ for an impossible one."""
        return self.log_derivative(x)

    def level_weights(self, mean: Tensor, variance: Tensor) -> Tensor | None:
        """Probabilities (B, L), up to a factor, of the values of a discrete column for model entries of this mean and
        variance, (B, width) each; None for a column with a density."""
        return None

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description that `column_kinds.column` reads."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Constant(Column):
    """A column of one value, without model entries."""

    value: float
    kind = "constant"

    @property
    def width(self) -> int:
        """0."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, 0)."""
        return x.new_zeros(len(x), 0)

    def inverse(self, z: Tensor) -> Tensor:
        """The value."""
        return z.new_full((len(z),), self.value)

    def log_derivative(self, x: Tensor) -> Tensor:
        """0, and −∞ for another value."""
        return torch.where(_equal(x, torch.tensor(self.value, dtype=torch.float64)), 0.0, -math.inf).to(x)


@dataclass(frozen=True)
class Power(Column):
    """z = (ψ_λ(u) − mean)/std with u = (x − centre)/scale; integers are rounded by the inverse.

    ψ_λ(u) = ((1+u)^λ − 1)/λ for u ≥ 0 and −ψ_{2−λ}(−u) below, log(1+u) for λ = 0. λ = 1 is the identity.
    """

    centre: float
    scale: float
    power: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    integer: bool = False
    bounds: Floats = ()
    kind = "power"

    def __post_init__(self) -> None:
        expect(self.scale > 0 and self.std > 0 and 0 <= self.power <= 2, "a power from 0 to 2 and scales above 0")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1)."""
        return ((yeo_johnson((x - self.centre) / self.scale, self.power) - self.mean) / self.std)[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """(B,)."""
        x = yeo_johnson_inverse(z[:, 0] * self.std + self.mean, self.power) * self.scale + self.centre
        return _within(_rounded(x) if self.integer else x, self.bounds)

    def log_derivative(self, x: Tensor) -> Tensor:
        """sign(u) (λ − 1) log(1 + |u|) − log(scale std)."""
        u = (x - self.centre) / self.scale
        return (self.power - 1) * u.sign() * torch.log1p(u.abs()) - math.log(self.scale * self.std)


@dataclass(frozen=True)
class Quantiles(Column):
    """z = (s(x) − mean)/std with s linear between knots (values, scores), extrapolated from the last two.

    Equal successive values are a frequent value (atom): it maps to the middle of their scores, and all these scores
    map back to it. Beyond an atom at either end the inverse is constant.
    """

    values: Floats
    scores: Floats
    mean: float = 0.0
    std: float = 1.0
    integer: bool = False
    bounds: Floats = ()
    kind = "quantiles"

    def __post_init__(self) -> None:
        rising = all(a <= b for a, b in pairwise(self.values))
        expect(len(self.values) == len(self.scores) and rising and _increasing(self.scores) and self.std > 0
                and len(set(self.values)) > 1, "increasing values and as many increasing scores")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1)."""
        v, low, high = (k.to(x) for k in self._distinct)
        at = _segment(x, v)
        w = (x - v[at]) / (v[at + 1] - v[at])
        between = torch.lerp(high[at], low[at + 1], w)
        s = torch.where(w == 0, (low + high)[at] / 2, torch.where(w == 1, (low + high)[at + 1] / 2, between))
        return ((s - self.mean) / self.std)[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """(B,)."""
        s, v = (k.to(z) for k in self._knots)
        x = _linear(z[:, 0] * self.std + self.mean, s, v)
        return _within(_rounded(x) if self.integer else x, self.bounds)

    def log_derivative(self, x: Tensor) -> Tensor:
        """The logarithm of the slope of the segment that contains x."""
        v, low, high = (k.to(x) for k in self._distinct)
        at = _segment(x, v)
        return torch.log((low[at + 1] - high[at]) / (v[at + 1] - v[at])) - math.log(self.std)

    @property
    def level_half_widths(self) -> Tensor:
        """Those of the frequent values."""
        half = self._atoms
        return half[half > 0]

    def half_width(self, x: Tensor) -> Tensor:
        """Half of the range of scores of a frequent value, (B, 1)."""
        v = self._distinct[0].to(x)
        at = torch.searchsorted(v, x.contiguous()).clamp_max(len(v) - 1)
        return torch.where(v[at] == x, self._atoms.to(x)[at], 0.0)[:, None]

    def log_measure(self, x: Tensor) -> Tensor:
        """0 for a frequent value."""
        return torch.where(self.half_width(x)[:, 0] > 0, 0.0, self.log_derivative(x))

    @cached_property
    def _atoms(self) -> Tensor:
        """Half of the range of scores of every distinct value in model units, 0 for one without a range."""
        return (self._distinct[2] - self._distinct[1]) / (2 * self.std)

    @cached_property
    def _knots(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.scores, dtype=torch.float64), torch.tensor(self.values, dtype=torch.float64)

    @cached_property
    def _distinct(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every distinct value with its lowest and highest score."""
        values, index = torch.unique(self._knots[1], return_inverse=True)
        low = self._knots[0].new_full(values.shape, math.inf).scatter_reduce(0, index, self._knots[0], "amin")
        high = self._knots[0].new_full(values.shape, -math.inf).scatter_reduce(0, index, self._knots[0], "amax")
        return values, low, high


@dataclass(frozen=True)
class Steps(Column):
    """Few distinct numbers: sorted `levels`, their scores, and the cuts between scores that the inverse uses.

    A normal z gives every level its frequency in the training rows.
    """

    levels: Floats
    scores: Floats
    cuts: Floats
    kind = "steps"

    def __post_init__(self) -> None:
        expect(len(self.levels) == len(self.scores) == len(self.cuts) + 1 > 1 and _increasing(self.levels)
                and _increasing(self.scores), "increasing levels, as many scores and a cut between any two")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1), interpolated between levels."""
        return _linear(x, self._table[0].to(x), self._table[1].to(x))[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """(B,)."""
        at = torch.bucketize(z[:, 0].contiguous(), self._cuts.to(z))
        return torch.where(z[:, 0].isnan(), z[:, 0], self._table[0].to(z)[at])

    def log_derivative(self, x: Tensor) -> Tensor:
        """Raises InputError: a discrete column has no density."""
        raise _no_density("few distinct numbers")

    @cached_property
    def level_half_widths(self) -> Tensor:
        """The distance of every score to the nearest cut."""
        return (self._table[1][:, None] - self._cuts).abs().amin(1)

    def half_width(self, x: Tensor) -> Tensor:
        """(B, 1)."""
        return self.level_half_widths.to(x)[self._level(x)][:, None]

    def log_measure(self, x: Tensor) -> Tensor:
        """0 for a level, −∞ for another number."""
        return torch.where(_equal(x, self._table[0][self._level(x).cpu()]), 0.0, -math.inf).to(x)

    def level_weights(self, mean: Tensor, variance: Tensor) -> Tensor:
        """The normal probability between the cuts."""
        edges = torch.special.ndtr((self._cuts.to(mean) - mean) / variance.sqrt())
        return torch.diff(edges, prepend=torch.zeros_like(mean), append=torch.ones_like(mean))

    def _level(self, x: Tensor) -> Tensor:
        """The number of the nearest level."""
        middle = (self._table[0][1:] + self._table[0][:-1]) / 2
        return torch.bucketize(x.contiguous(), middle.to(x))

    @cached_property
    def _table(self) -> tuple[Tensor, Tensor]:
        return torch.tensor(self.levels, dtype=torch.float64), torch.tensor(self.scores, dtype=torch.float64)

    @cached_property
    def _cuts(self) -> Tensor:
        return torch.tensor(self.cuts, dtype=torch.float64)


@dataclass(frozen=True)
class Categories(Column):
    """z = (e_k − p)/√(1 − Σp²) for category k, with unit vectors e_k and the training frequencies p.

    The inverse is the nearest e_k, the largest entry of z √(1 − Σp²) + p.
    """

    frequencies: Floats
    kind = "categories"

    def __post_init__(self) -> None:
        p = self.frequencies
        valid = min(p, default=-1.0) >= 0 and abs(sum(p) - 1) < 1e-6 and max(p) < 1
        expect(valid, "frequencies of categories that add up to 1")

    @property
    def width(self) -> int:
        """The number of categories."""
        return len(self.frequencies)

    def forward(self, x: Tensor) -> Tensor:
        """(B, number of categories)."""
        hot = torch.nn.functional.one_hot(x.nan_to_num(0.0).long(), len(self.frequencies)).to(x)
        return torch.where(x[:, None].isnan(), torch.nan, (hot - self._p.to(x)) / self._scale)

    def inverse(self, z: Tensor) -> Tensor:
        """The number of the category, (B,)."""
        nearest = (z * self._scale + self._p.to(z)).argmax(1).to(z)
        return torch.where(z.isnan().any(1), torch.nan, nearest)

    def log_derivative(self, x: Tensor) -> Tensor:
        """Raises InputError: a discrete column has no density."""
        raise _no_density("categories")

    @property
    def level_half_widths(self) -> Tensor:
        """Half of the difference between two unit vectors in one entry."""
        return torch.full((self.width,), 0.5 / self._scale, dtype=torch.float64)

    def half_width(self, x: Tensor) -> Tensor:
        """(B, number of categories)."""
        return x.new_full((len(x), self.width), 0.5 / self._scale)

    def log_measure(self, x: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(x)

    def level_weights(self, mean: Tensor, variance: Tensor) -> Tensor:
        """The mean as probabilities, those below a twentieth of the frequency raised to it."""
        p = self._p.to(mean)
        return torch.maximum(mean * self._scale + p, 0.05 * p)

    @cached_property
    def _p(self) -> Tensor:
        return torch.tensor(self.frequencies, dtype=torch.float64)

    @cached_property
    def _scale(self) -> float:
        return math.sqrt(1 - sum(p * p for p in self.frequencies))


def _within(x: Tensor, bounds: Floats) -> Tensor:
    """x within bounds (low, high), with derivative 1; () for none."""
    return x + (x.clamp(*bounds) - x).detach() if bounds else x


def _equal(x: Tensor, value: Tensor) -> Tensor:
    """Whether x is a float64 value, or what float32 makes of it."""
    return (x == value.to(x)) | (x == value.float().to(x))


def _rounded(x: Tensor) -> Tensor:
    """x rounded, with derivative 1, so that observed integers give guidance gradients."""
    return x + (x.round() - x).detach()


def _segment(x: Tensor, knots: Tensor) -> Tensor:
    """The number of the segment that contains x, the first or last one beyond the knots."""
    return (torch.searchsorted(knots, x.contiguous(), right=True) - 1).clamp(0, len(knots) - 2)


def _linear(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The polyline through (a, b), extrapolated; NaN stays NaN."""
    at = _segment(x, a)
    w = (x - a[at]) / (a[at + 1] - a[at])
    return torch.where(w <= 0.5, b[at] + w * (b[at + 1] - b[at]), b[at + 1] + (w - 1) * (b[at + 1] - b[at]))


def _increasing(values: Floats) -> bool:
    return all(a < b for a, b in pairwise(values))


def expect(valid: bool, expected: str) -> None:
    """InputError unless the numbers of a column are valid."""
    if not valid:
        raise InputError(f"got a column of a table that is invalid; expected {expected}")


def _no_density(kind: str) -> InputError:
    return InputError(f"got a table with a column of {kind}, which has probabilities but no density; for a "
                      "likelihood, train on a table of the other columns")
