"""A column whose values cannot leave an interval or a half-line, such as the parameters of a prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.transforms.columns import Column, Vector, expect

_EDGE = 1e-9  # of an interval, the distance to its ends that values keep


@dataclass(frozen=True)
class Bounded(Column):
    """z = (s(x) − mean)/std, s = Φ⁻¹ of the relative position in (low, high), or ± log of the distance to one bound.

    A uniform prior becomes a normal one, and so does a log-normal prior with its bound 0; no z is outside the bounds.

    Args:
        low: Lower bound; −inf: none.
        high: Upper bound; inf: none. One of them is finite.
        mean: Mean of s.
        std: Standard deviation of s.
    """

    low: float
    high: float
    mean: float = 0.0
    std: float = 1.0
    kind = "bounded"

    def __post_init__(self) -> None:
        expect(self.low < self.high and self.std > 0 and (self.low > -_FAR or self.high < _FAR),
               "bounds low < high of which one is finite, and a scale above 0")

    @classmethod
    def fit(cls, x: Vector, low: float, high: float) -> Bounded:
        """The map with mean 0 and variance 1 of values (N,), NaN where missing.

        Args:
            x: Values.
            low: Lower bound; −inf: none.
            high: Upper bound; inf: none.

        Raises:
            InputError: For values outside the bounds.
        """
        values = x[~np.isnan(x)]
        if len(values) and not low <= values.min() <= values.max() <= high:
            raise InputError(f"got values from {values.min():g} to {values.max():g}; expected them between the bounds "
                             f"{low:g} and {high:g}")
        plain = cls(max(low, -_FAR), min(high, _FAR))
        s = plain.forward(torch.from_numpy(values))[:, 0]
        return cls(plain.low, plain.high, float(s.mean()), float(s.std(unbiased=False)) or 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1)."""
        return ((self._score(x) - self.mean) / self.std)[:, None]

    def inverse(self, z: Tensor) -> Tensor:
        """(B,)."""
        s = z[:, 0] * self.std + self.mean
        if self.high >= _FAR:
            return self.low + s.exp()
        if self.low <= -_FAR:
            return self.high - (-s).exp()
        share: Tensor = torch.special.ndtr(s)
        return self.low + (self.high - self.low) * share

    def log_derivative(self, x: Tensor) -> Tensor:
        """log dz/dx; −∞ outside the bounds."""
        outside = (x < self.low) | (x > self.high)
        if self.high >= _FAR:
            slope = -self._distance(x - self.low).log()
        elif self.low <= -_FAR:
            slope = -self._distance(self.high - x).log()
        else:
            s = self._score(x)
            slope = 0.5 * s.square() + 0.5 * math.log(2 * math.pi) - math.log(self.high - self.low)
        return torch.where(outside, -math.inf, slope - math.log(self.std))

    def _score(self, x: Tensor) -> Tensor:
        """s(x); a value on a bound is moved inside by a billionth of the interval."""
        if self.high >= _FAR:
            return self._distance(x - self.low).log()
        if self.low <= -_FAR:
            return -self._distance(self.high - x).log()
        share = (x - self.low) / (self.high - self.low)
        score: Tensor = torch.special.ndtri(share.clamp(_EDGE, 1 - _EDGE) + 0 * x)
        return score

    @staticmethod
    def _distance(x: Tensor) -> Tensor:
        """A distance to a bound, at least the smallest normal number."""
        return x.clamp_min(torch.finfo(torch.float32).tiny) + 0 * x


_FAR = 1e37  # a bound beyond which there is none, written as a number that JSON has
