"""Denoising losses, the distribution of noise levels in training, and the smallest expected loss.

Every weighting except "whitened" multiplies ‖D − x_0‖², whatever the network predicts. All have the same minimiser
E[x_0 | x_t]; they differ in the noise levels, and "whitened" also in the directions, on which a network of limited size
spends its capacity.

Reference: Vincent (2011), "A connection between score matching and denoising autoencoders". Karras et al. (2022),
section 5. arXiv:2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.random import Purpose, uniform
from undiffuse.sde import GaussianSDE, Time, as_time, bcast

_LEAST = 1e-4  # σ̂/σ_data below which no weight grows further, so that the loss is finite at t = 0
_CUT = 6.0  # standard deviations at which the lognormal distribution is cut off
_ONE = torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class NoiseLevelDistribution:
    """The distribution of the noise levels σ̂ = σ/α in training, in units in which the data have standard deviation ½.

    All are restricted to the range of the process; t = 0, where the score is infinite, is never drawn.

    Args:
        distribution: "lognormal": log σ̂ ~ N(mean, std²), cut off at 6 standard deviations; "log_uniform": uniform in
            the log-SNR from `low` to `high`; "importance": in proportion to σ_d²/(σ_d² + σ̂²) there, the integrand of
            the likelihood for Gaussian data, so that with the weighting "likelihood" every level contributes equally;
            "time": uniform in t above `low`.
        mean: Mean of the lognormal distribution.
        std: Standard deviation of the lognormal distribution.
        sigma_data: Standard deviation of the data in model units.
        low: Lowest noise level.
        high: Highest noise level.

    Reference: Karras et al. (2022), table 1. arXiv:2206.00364; Kingma et al. (2021), section 4. arXiv:2107.00630; Song
    et al. (2021), section 4.1, arXiv:2101.09258 for importance sampling.
    """

    distribution: str = "lognormal"
    mean: float = -1.2
    std: float = 1.2
    sigma_data: float = 0.5
    low: float = 0.002
    high: float = 80.0

    def __post_init__(self) -> None:
        if self.distribution not in ("lognormal", "log_uniform", "importance", "time"):
            raise InputError(f"got noise_distribution={self.distribution!r}; expected lognormal, log_uniform, "
                             "importance or time")
        if not (self.std > 0 and self.sigma_data > 0 and 0 < self.low < self.high):
            raise InputError(f"got std={self.std}, sigma_data={self.sigma_data}, low={self.low}, high={self.high}; "
                             "expected positive numbers and low < high")

    def times(self, sde: GaussianSDE, seed: int, step: int, first_slot: int, n: int, batch: int) -> Tensor:
        """The times of slots of a batch, (n,) float64, stratified: slot i gets a sample between the quantiles i/batch
        and (i + 1)/batch. A pure function of seed, step and slot, however the batch is cut.

        Args:
            sde: The process.
            seed: Seed of the training.
            step: Number of the update.
            first_slot: First slot.
            n: Number of slots.
            batch: Number of slots of the whole batch.
        """
        slot = torch.arange(first_slot, first_slot + n, dtype=torch.float64)
        return self.quantile(sde, (slot + uniform(seed, Purpose.TIME, step, first_slot, n)) / batch)

    def quantile(self, sde: GaussianSDE, u: Tensor) -> Tensor:
        """The time below which a fraction u of the samples lies."""
        if self.distribution == "time":
            start = sde.time_of(-self._log(self.low))
            return start + u * (sde.T - start)
        a, b = self._ends(sde)
        log_sigma = a + u * (b - a)
        if self.distribution == "lognormal":
            below, above = self._normal_cdf(a), self._normal_cdf(b)
            log_sigma = self._log(math.exp(self.mean)) + self.std * torch.special.ndtri(below + u * (above - below))
        if self.distribution == "importance":
            q = self._resolved(a) + u * (self._resolved(b) - self._resolved(a))
            log_sigma = q - 0.5 * torch.log1p(-(torch.exp(2 * q) / self.sigma_data**2))
        return sde.time_of(-log_sigma.clamp(a, b))

    def density(self, sde: GaussianSDE, t: Time) -> Tensor:
        """The density per unit of log-SNR at time t, positive outside the range too; for the weighting "likelihood"."""
        t = as_time(t)
        if self.distribution == "time":
            t = t.clamp_max((1 - 1e-9) * sde.T)  # short of T, where α may be 0
            rate = sde.g2(t) / (2 * sde.variance(t))  # = −λ'(t)
            return 1 / (rate * (sde.T - sde.time_of(-self._log(self.low))))
        a, b = self._ends(sde)
        if self.distribution == "log_uniform":
            return 1 / (b - a).expand(t.shape)
        if self.distribution == "importance":
            fraction = 1 / (1 + torch.exp(-2 * sde.log_snr(t).clamp(-b, -a)) / self.sigma_data**2)
            return fraction / (self._resolved(b) - self._resolved(a))
        z = ((-sde.log_snr(t)).clamp(a, b) - self._log(math.exp(self.mean))) / self.std
        mass = self._normal_cdf(b) - self._normal_cdf(a)
        return torch.exp(-0.5 * z**2) / (math.sqrt(2 * math.pi) * self.std * mass)

    def _log(self, level: float) -> Tensor:
        """log σ̂ in model units."""
        return torch.log(2 * self.sigma_data * level * _ONE)

    def _resolved(self, log_sigma: Tensor) -> Tensor:
        """∫ σ_d²/(σ_d² + σ̂²) d log σ̂ = log σ̂ − ½ log(1 + σ̂²/σ_d²)."""
        return log_sigma - 0.5 * torch.log1p(torch.exp(2 * log_sigma) / self.sigma_data**2)

    def _normal_cdf(self, log_sigma: Tensor) -> Tensor:
        cdf: Tensor = torch.special.ndtr((log_sigma - self._log(math.exp(self.mean))) / self.std)
        return cdf

    def _ends(self, sde: GaussianSDE) -> tuple[Tensor, Tensor]:
        """The lowest and the highest log σ̂."""
        cut = _CUT * self.std
        low, high = (self.low, self.high) if self.distribution in ("log_uniform", "importance") else (
            math.exp(self.mean - cut), math.exp(self.mean + cut))
        return (torch.maximum(self._log(low), -sde.log_snr(0.0 * _ONE)),
                torch.minimum(self._log(high), -sde.log_snr(sde.T * _ONE)))


def _snr(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    return (alpha / sigma) ** 2


def _edm(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    return (alpha**2 * sigma_data**2 + sigma**2) / (sigma * sigma_data) ** 2


def _min_snr(alpha: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    return _snr(alpha, sigma, sigma_data).clamp_max(5)


LEARNED = "learned"
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "simple": _snr, "likelihood": _snr, "edm": _edm, "min_snr": _min_snr, LEARNED: _edm,
}
"""The weight w(α, σ, σ_data) of ‖D − x_0‖²: simple is DDPM's ‖ε̂ − ε‖² (Ho et al., eq. 14), likelihood g²-weighted score
matching (Song et al., 2021, arXiv:2101.09258), edm 1/c_out² (Karras et al., table 1), min_snr min(SNR, 5) (Hang et al.,
2023, arXiv:2303.09556); learned is edm, divided in training by the learned size of the loss (`training.state`)."""
WHITENED = "whitened"
"""The matrix weighting: 1/c_out² per direction of the Wiener parameterisation, Σ_k (D − x_0)_k²/c_out,k² over the
principal directions, in each of which the target of the network has unit variance. It needs the moments of the data."""


def weight(weighting: str, sde: GaussianSDE, t: Time, levels: NoiseLevelDistribution) -> Tensor:
    """The weight of ‖D − x_0‖² at time t, () or (B,), finite from 0 to T.

    With "likelihood" it is divided by the density of the noise levels per unit of λ, so that the expected loss is
    ∫ e^{2λ} E‖D − x_0‖² dλ = ½ ∫ g² E‖s − ∇log p(x_t|x_0)‖² dt, because g² dt = −2σ² dλ.

    Args:
        weighting: one of `WEIGHTINGS`.
        sde: the noising process.
        t: time, () or (B,).
        levels: distribution of the noise levels in training.
    """
    if weighting not in WEIGHTINGS:
        names = f"{', '.join(WEIGHTINGS)} (and, in a training, {WHITENED})"
        raise InputError(f"got weighting={weighting!r}; expected one of {names}")
    t = torch.maximum(as_time(t), _earliest(sde, levels.sigma_data))
    w = WEIGHTINGS[weighting](sde.alpha(t), sde.sigma(t), levels.sigma_data)
    return w / levels.density(sde, t) if weighting == "likelihood" else w


@lru_cache
def _earliest(sde: GaussianSDE, sigma_data: float) -> Tensor:
    """The time below which weights are constant."""
    return sde.time_of(-math.log(_LEAST * sigma_data))


def denoising_loss(model: Model, x0: Tensor, t: Time, eps: Tensor, weighting: str = "edm",
                   levels: NoiseLevelDistribution | None = None, entry_weights: Tensor | None = None,
                   **cond: Any) -> Tensor:
    """Denoising score matching: w(t) · mean over the event of (D(α x_0 + σ ε, t) − x_0)², per sample, (B,).

    Args:
        model: The model.
        x0: Data in model units, (B, *event).
        t: Times, () or (B,).
        eps: Noise, (B, *event).
        weighting: One of `WEIGHTINGS`, or "whitened".
        levels: The distribution of t; lognormal in units of the model's σ_data by default.
        entry_weights: Factor of the square of each entry, (B, *event); 0 where x0 is missing.
        cond: Conditions of the model.
    """
    levels = levels or NoiseLevelDistribution(sigma_data=model.sigma_data)
    error: Tensor = model(model.sde.perturb(x0, t, eps), t, **cond) - x0
    error = error if entry_weights is None else error * entry_weights.sqrt()
    if weighting == WHITENED:
        return _whitened(model, error, t, levels)
    per_sample = error.square().reshape(len(x0), -1).mean(1)
    return bcast(weight(weighting, model.sde, t, levels), per_sample) * per_sample


def _whitened(model: Model, error: Tensor, t: Time, levels: NoiseLevelDistribution) -> Tensor:
    """The mean square of an error over the principal directions, in units of c_out of each, (B,)."""
    if model.moments is None:
        raise InputError(f"got weighting={WHITENED!r} for a model without the data's moments; use edm")
    t = torch.maximum(as_time(t), _earliest(model.sde, levels.sigma_data))
    scaled = model.moments.whitened(error, model.sde.alpha(t), model.sde.variance(t).sqrt())
    return scaled.square().sum(1) / math.prod(model.shape)


class HasMMSE(Protocol):
    """A distribution of data with a known minimum mean squared error, such as `Mixture`."""

    shape: tuple[int, ...]

    def mmse(self, sde: GaussianSDE, t: Time) -> Any:
        """E tr Cov(x_0 | x_t), with `value` and `stderr`."""


class LossFloor(NamedTuple):
    """The smallest expected loss and its standard error, shaped like the times."""

    value: Tensor
    stderr: Tensor


def loss_floor(
    distribution: HasMMSE, sde: GaussianSDE, t: Time, weighting: str = "edm",
    levels: NoiseLevelDistribution | None = None
) -> LossFloor:
    """The smallest expected loss, which the exact denoiser has: w(t) E tr Cov(x_0 | x_t)/d at each time t, () or (M,).

    Its mean over quantiles of `NoiseLevelDistribution` is the lower bound of the training loss.

    Args:
        distribution: Distribution of the data.
        sde: The diffusion process.
        t: Times, () or (M,).
        weighting: See `WEIGHTINGS`.
        levels: Distribution of the noise levels; None: the default one with σ_data = ½.
    """
    w = weight(weighting, sde, t, levels or NoiseLevelDistribution()) / math.prod(distribution.shape)
    error = distribution.mmse(sde, t)
    return LossFloor(w * error.value, w * error.stderr)
