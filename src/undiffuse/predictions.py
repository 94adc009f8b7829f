"""Readings: what a network takes and means, D = c_skip x + c_out F(c_in x, clock).

Reference: Karras et al. (2022), eq. 7 and table 1. arXiv:2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.sde import GaussianSDE, bcast

Coefficients = tuple[Tensor, Tensor]


def _data(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return torch.zeros_like(alpha), torch.ones_like(alpha)


def _noise(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return 1 / alpha, -sigma / alpha


def _score(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return 1 / alpha, sigma / alpha


def _v(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    norm2 = alpha**2 + sigma**2
    return alpha / norm2, -sigma / norm2.sqrt()


def _velocity(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    dalpha, dsigma = sde.rates(t)
    wronskian = alpha * dsigma - dalpha * sigma
    return dsigma / wronskian, -sigma / wronskian


def _edm(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    total2 = alpha**2 * sd**2 + sigma**2
    return alpha * sd**2 / total2, sigma * sd / total2.sqrt()


def _edm_v(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    c_skip, c_out = _edm(sde, t, alpha, sigma, sd)
    return c_skip, -c_out


def _gradient(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return 1 / alpha, sigma**2 / alpha


PREDICTIONS: dict[str, Callable[[GaussianSDE, Tensor, Tensor, Tensor, float], Coefficients]] = {
    "data": _data, "noise": _noise, "score": _score, "v": _v, "velocity": _velocity, "edm": _edm, "edm_v": _edm_v,
    "gradient": _gradient,
}
"""(c_skip, c_out) of each parameterisation: the network predicts x_0, ε, σ·score, v = (α ε − σ x_0)/√(α² + σ²), the
flow's α' x_0 + σ' ε, or EDM's target of unit variance; of pretrained networks also that target with the opposite sign
(edm_v) and the score itself (gradient)."""
UNDEFINED_AT_ZERO = ("noise", "score", "gradient")
"""Parameterisations that do not determine x_0 where α = 0."""
WIENER = "wiener"
"""The parameterisation whose numbers are matrices of the data's moments: the Wiener filter plus a correction."""
LINEAR = "linear"
"""The Wiener filter plus a correction of one scale for all directions."""
WITH_MOMENTS = (WIENER, LINEAR)
"""Parameterisations that need the data's moments; see `Moments.precondition`."""

CLOCKS: dict[str, Callable[[GaussianSDE, Tensor, float], Tensor]] = {
    "log_snr": lambda sde, t, sd: (0.25 * torch.log(0.5 * sde.sigma(t) / (sde.alpha(t) * sd))).clamp(-2.5, 2.5),
    "time": lambda sde, t, sd: t / sde.T,
    "sigma": lambda sde, t, sd: sde.sigma(t),
    "quarter_log": lambda sde, t, sd: -0.25 * sde.log_snr(t),
    "half_log": lambda sde, t, sd: -sde.log_snr(t) - math.log(2),
    "arctan": lambda sde, t, sd: 2 / math.pi * torch.atan(torch.exp(-sde.log_snr(t))),
}
"""The noise level as a network takes it: ¼ log(½ σ̂/σ_data) in [−2.5, 2.5], t/T, σ, ¼ log σ̂, log(σ̂/2), 2/π arctan σ̂."""
ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {"": lambda v: v, "round": torch.round, "floor": torch.floor}
_NOISE_LIMIT = math.exp(5.1)


@dataclass(frozen=True)
class Clip:
    """Limits of the denoised sample, which its pipeline applied while sampling.

    Args:
        bound: D is clamped to ±bound.
        quantile: below 1 for D ← clamp(D, ±s)/s, s this quantile of the |D| of a sample, in [1, bound].

    Reference: Saharia et al. (2022), section 2.3. arXiv:2205.11487
    """

    bound: float = 1.0
    quantile: float = 1.0

    def __call__(self, D: Tensor) -> Tensor:
        """D within the limits."""
        if self.quantile == 1:
            return D.clamp(-self.bound, self.bound)
        s = bcast(torch.quantile(D.flatten(1).abs(), self.quantile, dim=1).clamp(1, max(1.0, self.bound)), D)
        return torch.maximum(torch.minimum(D, s), -s) / s


@dataclass(frozen=True)
class Reading:
    """What a network takes and means, and the noise levels that it was trained on.

    Args:
        prediction_type: a name in `PREDICTIONS`, or wiener or linear.
        sigma_data: standard deviation of the data, in c_in and in the EDM forms.
        clock: a name in `CLOCKS`, or a function of t (B,).
        clock_scale: factor of the clock.
        clock_shift: term added to the scaled clock.
        rounding: a name in `ROUNDINGS`, applied to the clock.
        scaled_input: c_in is (α² σ_data² + σ²)^{−½} instead of 1.
        levels: smallest and largest noise level σ̂ of the training.
        clip: limits of D in sampling.
        kind: "denoiser", or "consistency" for a network whose D is not E[x_0 | x_t].
    """

    prediction_type: str = "edm"
    sigma_data: float = 0.5
    clock: str | Callable[[Tensor], Tensor] = "log_snr"
    clock_scale: float = 1.0
    clock_shift: float = 0.0
    rounding: str = ""
    scaled_input: bool = True
    levels: tuple[float, float] = (0.0, math.inf)
    clip: Clip | None = None
    kind: str = "denoiser"

    def __post_init__(self) -> None:
        choices = {"prediction_type": (*PREDICTIONS, *WITH_MOMENTS), "rounding": tuple(ROUNDINGS),
                   "clock": tuple(CLOCKS), "kind": ("denoiser", "consistency")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed and not callable(getattr(self, name)):
                raise InputError(f"got {name}={getattr(self, name)!r}; expected {', '.join(filter(None, allowed))}")
        if not (self.sigma_data > 0 and 0 <= self.levels[0] < self.levels[1]):
            raise InputError(f"got sigma_data={self.sigma_data}, levels={self.levels}; expected a positive number and "
                             "two increasing noise levels")

    def time_input(self, sde: GaussianSDE, t: Tensor) -> Tensor:
        """The noise level as the network takes it, shaped like t."""
        value = CLOCKS[self.clock](sde, t, self.sigma_data) if isinstance(self.clock, str) else self.clock(t)
        return ROUNDINGS[self.rounding](self.clock_scale * value + self.clock_shift)

    def coefficients(self, sde: GaussianSDE, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_in, c_skip, c_out) at t; raises InputError where the output does not determine x_0."""
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        if self.prediction_type in UNDEFINED_AT_ZERO and bool((alpha == 0).any()):
            raise InputError(f"got prediction_type={self.prediction_type!r} at a time where alpha is 0, which does not "
                             "determine x_0; start at t_start < T, or use a v-prediction model")
        c_in = (alpha**2 * self.sigma_data**2 + sigma**2).rsqrt() if self.scaled_input else torch.ones_like(alpha)
        return c_in, *PREDICTIONS[self.prediction_type](sde, t, alpha, sigma, self.sigma_data)

    def start(self, sde: GaussianSDE) -> float:
        """The latest time at which the network was trained, and a noise prediction determines x_0 (σ̂ ≤ e^{5.1})."""
        top = min(self.levels[1], _NOISE_LIMIT if self.prediction_type in UNDEFINED_AT_ZERO else math.inf)
        beyond = math.exp(-float(sde.log_snr(sde.T))) > top * (1 + 1e-9)
        return float(sde.time_of(-math.log(top))) if beyond else float(sde.T)

    def config(self) -> dict[str, Any]:
        """The JSON-compatible description; InputError for a clock that is a function."""
        if not isinstance(self.clock, str):
            raise InputError("got a clock that is a function, which cannot be written; use a named clock")
        levels = [self.levels[0], None if math.isinf(self.levels[1]) else self.levels[1]]
        return {**asdict(self), "levels": levels}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Reading:
        """The reading that `config` described."""
        low, high = config["levels"]
        clip = None if config["clip"] is None else Clip(**config["clip"])
        return cls(**{**config, "levels": (low, math.inf if high is None else high), "clip": clip})
