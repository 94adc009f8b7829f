"""Chains of N noise levels as continuous variance-preserving processes, with t_k = k/N.

Reference: Ho et al. (2020), eq. 4. arXiv:2006.11239
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.sde import GaussianSDE, Time, as_time


class LevelTable(GaussianSDE):
    """A variance-preserving process through the levels λ_1 > ... > λ_N of a table, at t_k = k/N.

    The log-SNR is linear between levels, and σ̂² is proportional to t below t = 1/N. If λ_N = −∞ (α(T) = 0), the angle
    arctan σ̂ is linear in the last interval.
    """

    @property
    @abstractmethod
    def levels(self) -> Tensor:
        """λ_k for k = 1 ... N, float64, strictly decreasing; the last one may be −∞."""

    @property
    def _ends_in_noise(self) -> bool:
        return bool(self.levels[-1] == -math.inf)

    def _clock(self, t: Tensor) -> Tensor:
        """σ̂²(t) = e^{−2λ} without the last interval if it ends in noise, differentiable at 0."""
        levels = self._finite.to(t)
        k = (t * len(self.levels)).clamp_max(len(levels))
        below = k.detach().floor().clamp(1, max(1, len(levels) - 1)).long()
        low, high = levels[below - 1], levels[below.clamp_max(len(levels) - 1)]
        return torch.where(k <= 1, torch.exp(-2 * levels[0]) * k, torch.exp(-2 * (low + (high - low) * (k - below))))

    @cached_property
    def _finite(self) -> Tensor:
        return self.levels[:-1] if self._ends_in_noise else self.levels

    @cached_property
    def _last_angle(self) -> float:
        """π/2 − arctan σ̂ at the level before the last one."""
        return math.atan(math.exp(float(self._finite[-1])))

    def _angle(self, t: Tensor) -> Tensor:
        """π/2 − arctan σ̂ in the last interval of a table that ends in noise."""
        return self._last_angle * (1 - t) * len(self.levels)

    def _with_last(self, t: Tensor, inner: Tensor, last: Tensor) -> Tensor:
        """`inner`, and in the last interval of a table that ends in noise `last`."""
        return torch.where(t * len(self.levels) > len(self._finite), last, inner) if self._ends_in_noise else inner

    def alpha(self, t: Time) -> Tensor:
        """(1 + σ̂²)^{−1/2}."""
        t = as_time(t)
        return self._with_last(t, (1 + self._clock(t)).rsqrt(), torch.sin(self._angle(t)))

    def variance(self, t: Time) -> Tensor:
        """σ̂²/(1 + σ̂²)."""
        t = as_time(t)
        clock = self._clock(t)
        return self._with_last(t, clock / (1 + clock), torch.cos(self._angle(t)) ** 2)

    def time_of(self, log_snr: Time) -> Tensor:
        """The inverse of the interpolation, in closed form."""
        lam, levels, n = as_time(log_snr).double(), self._finite, len(self.levels)
        k = torch.searchsorted(-levels, -lam.contiguous()).clamp(1, max(1, len(levels) - 1))
        low, high = levels[k - 1], levels[k.clamp_max(len(levels) - 1)]
        slope = torch.where(high < low, high - low, -1.0)
        t = torch.where(lam >= levels[0], torch.exp(2 * (levels[0] - lam)), k + (lam - low) / slope) / n
        last = 1 - torch.atan(torch.exp(lam)) / (self._last_angle * n)
        beyond = lam < levels[-1]
        return torch.where(beyond, last if self._ends_in_noise else torch.ones_like(t), t).clamp(0, 1)


@dataclass(frozen=True)
class Chain(LevelTable):
    """A chain given by ᾱ_1 > ... > ᾱ_N, exactly as a network was trained on it; ᾱ_N = 0 is allowed.

    Args:
        alpha_bar: ᾱ_k in (0, 1), decreasing; the last one may be 0.
    """

    name = "chain"
    alpha_bar: tuple[float, ...] = field(default_factory=lambda: tuple(
        np.cumprod(1 - np.array(linear_betas(1000))).tolist()))

    def __post_init__(self) -> None:
        values = tuple(float(a) for a in self.alpha_bar)
        object.__setattr__(self, "alpha_bar", values)
        if not values or not all(b < a for a, b in pairwise((1.0, *values))) or values[-1] < 0 or values[0] == 0:
            raise InputError(f"got alpha_bar with {len(values)} values; expected decreasing numbers in (0, 1), the "
                             "last one possibly 0")

    @cached_property
    def levels(self) -> Tensor:
        """λ_k = ½ log(ᾱ_k/(1 − ᾱ_k))."""
        return 0.5 * torch.logit(torch.tensor(self.alpha_bar, dtype=torch.float64))


@dataclass(frozen=True)
class DDPM(LevelTable):
    """A chain of N steps β_1 ... β_N as a variance-preserving process with t_k = k/N, ᾱ_k = Π(1 − β_i) exact.

    Args:
        betas: The N steps β_k, each in (0, 1).

    Reference: Ho et al. (2020), eq. 4. arXiv:2006.11239
    """

    name = "ddpm"
    betas: tuple[float, ...] = field(default_factory=lambda: linear_betas(1000))

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(b) for b in self.betas))
        if not self.betas or not all(0 < b < 1 for b in self.betas):
            raise InputError("got betas outside (0, 1) or none; expected N numbers with 0 < β < 1")

    @cached_property
    def levels(self) -> Tensor:
        """λ_k from log ᾱ without cancellation."""
        log_alpha_bar = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)).cumsum(0)
        return 0.5 * (log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar)))


def linear_betas(n: int, beta_min: float = 0.1, beta_max: float = 20.0) -> tuple[float, ...]:
    """A chain of n linearly increasing steps: 1e−4 ... 0.02 at n = 1000, scaled so that every n ends in noise.

    Args:
        n: number of steps, at least 2 and more than beta_max.
        beta_min: n times the first β.
        beta_max: n times the last β.

    Reference: Ho et al. (2020), section 4. arXiv:2006.11239
    """
    if n < 2 or beta_max / n >= 1:
        raise InputError(f"got {n} steps; expected more than {max(2, math.ceil(beta_max))} so that every β is below 1")
    return tuple((np.linspace(beta_min, beta_max, n) / n).tolist())


def chain_of(sde: GaussianSDE, n: int) -> tuple[float, ...]:
    """The chain β_k = 1 − ᾱ(t_k)/ᾱ(t_{k−1}) with the log-SNR of a process at t_k = kT/n; the inverse of `DDPM`.

    ᾱ = sigmoid(2λ), so every Gaussian process has a chain.
    """
    t = torch.linspace(0, sde.T, n + 1, dtype=torch.float64)[1:]
    log_alpha_bar = torch.nn.functional.logsigmoid(2 * sde.log_snr(t))
    steps = torch.diff(log_alpha_bar, prepend=torch.zeros(1, dtype=torch.float64))
    return tuple((-torch.expm1(steps)).tolist())
