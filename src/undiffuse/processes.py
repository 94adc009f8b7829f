"""Gaussian processes, each defined by α(t) and σ²(t), with the closed form of t(λ) where one exists.

Reference: Song et al. (2021), appendix B and C. arXiv:2011.13456. Karras et al. (2022), table 1. arXiv:2206.00364
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from undiffuse.chains import DDPM, Chain
from undiffuse.errors import InputError, did_you_mean
from undiffuse.quadrature import Integral
from undiffuse.sde import GaussianSDE, Time, as_time


class _Exploding(GaussianSDE):
    """A process without drift: α = 1."""

    def alpha(self, t: Time) -> Tensor:
        """1."""
        return torch.ones_like(as_time(t))


@dataclass(frozen=True)
class _LinearBeta(GaussianSDE):
    """The rate β(t) = β_min + (β_max − β_min) t/T and its integral B(t)."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    T: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max and self.T > 0):
            raise InputError(f"got beta_min={self.beta_min}, beta_max={self.beta_max}, T={self.T}; expected "
                             "0 < beta_min ≤ beta_max and T > 0")

    def integral(self, t: Tensor) -> Tensor:
        """B(t) = ∫₀ᵗ β = β_min t + (β_max − β_min) t²/(2T)."""
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / (2 * self.T)

    def alpha(self, t: Time) -> Tensor:
        """e^{−B/2}."""
        return torch.exp(-0.5 * self.integral(as_time(t)))

    def _time_of_integral(self, B: Tensor) -> Tensor:
        """The root t of B(t) = B, in the form without cancellation."""
        growth = (self.beta_max - self.beta_min) / self.T
        B = B.clamp_max((self.beta_min + self.beta_max) / 2 * self.T)
        return (2 * B / (self.beta_min + (self.beta_min**2 + 2 * growth * B).sqrt())).clamp(0, self.T)


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance preserving: α = e^{−B/2}, σ² = 1 − e^{−B}, so that f = −β/2 and g² = β.

    Args:
        beta_min: β(0).
        beta_max: β(T).
        T: End time.

    Reference: Song et al. (2021), eqs. 11, 29 and 33. arXiv:2011.13456
    """

    name = "vp"

    def variance(self, t: Time) -> Tensor:
        """1 − e^{−B}."""
        return -torch.expm1(-self.integral(as_time(t)))

    def time_of(self, log_snr: Time) -> Tensor:
        """B = log(1 + e^{−2λ}), then t(B)."""
        return self._time_of_integral(torch.nn.functional.softplus(-2 * as_time(log_snr), threshold=700))


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-variance preserving: α = e^{−B/2}, σ = 1 − e^{−B}, so that g² = β (1 − e^{−2B}). Arguments as for `VP`.

    Reference: Song et al. (2021), eqs. 12 and 29. arXiv:2011.13456
    """

    name = "subvp"

    def variance(self, t: Time) -> Tensor:
        """(1 − e^{−B})²."""
        return torch.expm1(-self.integral(as_time(t))) ** 2

    def time_of(self, log_snr: Time) -> Tensor:
        """σ̂ = σ/α = 2 sinh(B/2), hence B = 2 arsinh(σ̂/2)."""
        return self._time_of_integral(2 * torch.asinh(torch.exp(-as_time(log_snr)) / 2))


@dataclass(frozen=True)
class VE(_Exploding):
    """Variance exploding, geometric: σ(t) = σ_min (σ_max/σ_min)^{t/T}, α = 1.

    Args:
        sigma_min: σ(0), since Song et al. start from data blurred by N(0, σ_min²).
        sigma_max: σ(T).
        from_data: Whether to start from the data themselves, with standard deviation √(σ(t)² − σ_min²).
        T: End time.

    Reference: Song et al. (2021), eqs. 9 and 30. arXiv:2011.13456
    """

    name = "ve"
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    from_data: bool = False
    T: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(f"got sigma_min={self.sigma_min}, sigma_max={self.sigma_max}; expected "
                             "0 < sigma_min < sigma_max")

    def variance(self, t: Time) -> Tensor:
        """σ_min² r^{2t/T}, or σ_min² (r^{2t/T} − 1) from the data, r = σ_max/σ_min."""
        grown = 2 * math.log(self.sigma_max / self.sigma_min) * as_time(t) / self.T
        return self.sigma_min**2 * (torch.expm1(grown) if self.from_data else torch.exp(grown))

    def time_of(self, log_snr: Time) -> Tensor:
        """t = T log(σ/σ_min)/log r."""
        log_variance = -2 * as_time(log_snr) - 2 * math.log(self.sigma_min)
        if self.from_data:
            log_variance = torch.nn.functional.softplus(log_variance, threshold=700)
        grown = log_variance / (2 * math.log(self.sigma_max / self.sigma_min))
        return (self.T * grown).clamp(0, self.T)


@dataclass(frozen=True)
class PowerVE(_Exploding):
    """Variance exploding with g = rateᵗ: σ² = (rate^{2t} − 1)/(2 log rate), which is t at rate = 1; α = 1.

    The standard deviation of the prior is σ(T), not 1.

    Args:
        rate: Base of the diffusion coefficient; 1 is Brownian motion.
        T: End time.
    """

    name = "power_ve"
    rate: float = 25.0
    T: float = 1.0

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise InputError(f"got rate={self.rate}; expected a positive number (rate = 1 is Brownian motion)")

    def variance(self, t: Time) -> Tensor:
        """expm1(2 t log rate)/(2 log rate)."""
        k, t = 2 * math.log(self.rate), as_time(t)
        return torch.expm1(k * t) / k if k else t

    def time_of(self, log_snr: Time) -> Tensor:
        """t = log1p(2 σ² log rate)/(2 log rate)."""
        k, variance = 2 * math.log(self.rate), torch.exp(-2 * as_time(log_snr))
        return (torch.log1p(k * variance) / k if k else variance).clamp(0, self.T)


@dataclass(frozen=True)
class EDM(_Exploding):
    """Time equal to the noise level: α = 1, σ = t, T = sigma_max.

    Reference: Karras et al. (2022), table 1. arXiv:2206.00364
    """

    name = "edm"
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if self.sigma_max <= 0:
            raise InputError(f"got sigma_max={self.sigma_max}; expected a positive number")

    @property
    def T(self) -> float:  # type: ignore[override]
        """The largest noise level."""
        return self.sigma_max

    def variance(self, t: Time) -> Tensor:
        """t²."""
        return as_time(t) ** 2

    def time_of(self, log_snr: Time) -> Tensor:
        """t = e^{−λ}."""
        return torch.exp(-as_time(log_snr)).clamp(0, self.T)


@dataclass(frozen=True)
class Cosine(GaussianSDE):
    """Variance preserving with α = cos(π/2 · (t+s)/(1+s)) / cos(π/2 · s/(1+s)), which is exactly 0 at t = T = 1.

    Reference: Nichol and Dhariwal (2021), eq. 17. arXiv:2102.09672
    """

    name = "cosine"
    offset: float = 0.008

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise InputError(f"got offset={self.offset}; expected a number ≥ 0")

    @property
    def _start(self) -> float:
        return math.pi / 2 * self.offset / (1 + self.offset)

    def alpha(self, t: Time) -> Tensor:
        """The cosine as the sine of the complementary angle, so that α(1) = 0 exactly."""
        return torch.sin(math.pi / 2 * (1 - as_time(t)) / (1 + self.offset)) / math.cos(self._start)

    def variance(self, t: Time) -> Tensor:
        """1 − α² = sin(a − b) sin(a + b)/cos² b, without cancellation; b = a(0)."""
        turn = math.pi / 2 * as_time(t) / (1 + self.offset)
        return torch.sin(turn) * torch.sin(turn + 2 * self._start) / math.cos(self._start) ** 2

    def time_of(self, log_snr: Time) -> Tensor:
        """t from α = (1 + e^{−2λ})^{−1/2} and 1 − t = (2(1+s)/π) arcsin(α cos b), polished by bisection near t = 0."""
        alpha = torch.sigmoid(2 * as_time(log_snr)).sqrt()
        t = 1 - 2 * (1 + self.offset) / math.pi * torch.asin((alpha * math.cos(self._start)).clamp_max(1))
        return torch.where(t > 0.1, t, super().time_of(log_snr))


@dataclass(frozen=True)
class RectifiedFlow(GaussianSDE):
    """Straight interpolation between data and noise: α = 1 − t, σ = t.

    Reference: Liu et al. (2022), arXiv:2209.03003; Lipman et al. (2022), arXiv:2210.02747
    """

    name = "rectified_flow"

    def alpha(self, t: Time) -> Tensor:
        """1 − t."""
        return 1 - as_time(t)

    def variance(self, t: Time) -> Tensor:
        """t²."""
        return as_time(t) ** 2

    def time_of(self, log_snr: Time) -> Tensor:
        """t = 1/(1 + e^λ)."""
        return torch.sigmoid(-as_time(log_snr))


@dataclass(frozen=True)
class OU(GaussianSDE):
    """The Ornstein-Uhlenbeck process dx = −θ x dt + s dw: α = e^{−θt}, σ² = s² (1 − e^{−2θt})/(2θ).

    Args:
        theta: Rate θ of the drift.
        scale: Diffusion coefficient s.
        T: End time.
    """

    name = "ou"
    theta: float = 1.0
    scale: float = math.sqrt(2)
    T: float = 5.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.T > 0):
            raise InputError(f"got scale={self.scale}, T={self.T}; expected positive numbers")

    def alpha(self, t: Time) -> Tensor:
        """e^{−θt}."""
        return torch.exp(-self.theta * as_time(t))

    def variance(self, t: Time) -> Tensor:
        """s² (1 − e^{−2θt})/(2θ), which is s² t at θ = 0."""
        k, t = 2 * self.theta, as_time(t)
        return -(self.scale**2) * torch.expm1(-k * t) / k if k else self.scale**2 * t


@dataclass(frozen=True)
class Linear(GaussianSDE):
    """A process dx = f(t) x dt + g(t) dw given by f and g², by quadrature: log α = ∫₀ᵗ f, σ² = α² ∫₀ᵗ g²/α².

    Accurate to about 1e−13 where f and g² are smooth.

    Args:
        f_fn: Function t -> f(t).
        g2_fn: Function t -> g²(t).
        T: End time.
        panels: Number of intervals, each with 12 Gauss-Legendre nodes.
    """

    name = "linear"
    f_fn: Callable[[Tensor], Tensor]
    g2_fn: Callable[[Tensor], Tensor]
    T: float = 1.0
    panels: int = 64

    @cached_property
    def _log_alpha(self) -> Integral:
        return Integral(self.f_fn, self.T, self.panels)

    @cached_property
    def _clock(self) -> Integral:
        return Integral(lambda t: self.g2_fn(t) * torch.exp(-2 * self._log_alpha(t)), self.T, self.panels)

    def alpha(self, t: Time) -> Tensor:
        """exp ∫₀ᵗ f."""
        return torch.exp(self._log_alpha(as_time(t)))

    def variance(self, t: Time) -> Tensor:
        """α² ∫₀ᵗ g²/α²."""
        return torch.exp(2 * self._log_alpha(t := as_time(t))) * self._clock(t)


PROCESSES: dict[str, type[GaussianSDE]] = {
    cls.name: cls for cls in (VP, SubVP, VE, PowerVE, EDM, Cosine, RectifiedFlow, OU, DDPM, Chain)
}


def make_sde(name: str, **args: Any) -> GaussianSDE:
    """The process with a name of `PROCESSES` and its parameters; the inverse of `config()`."""
    if name not in PROCESSES:
        raise InputError(f"got process {name!r}; expected one of {', '.join(PROCESSES)}{did_you_mean(name, PROCESSES)}")
    try:
        return PROCESSES[name](**args)
    except TypeError as error:
        expected = ", ".join(inspect.signature(PROCESSES[name]).parameters)
        raise InputError(f"got {args} for process {name!r} ({error}); expected {expected}") from None
