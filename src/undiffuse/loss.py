"""Losses: what a training minimises, at which noise levels, and the least value it can reach.

Every weighting but one, "whitened", multiplies ‖D − x_0‖², whatever the network predicts. All have the same minimiser
E[x_0 | x_t]; they differ in the levels, and "whitened" also in the directions, that a network of limited size and time
attends to.

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
_CUT = 6.0  # deviations at which the lognormal law ends
_ONE = torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class NoiseLevelDistribution:
    """The law of the noise levels σ̂ = σ/α in training, in units in which the data have standard deviation ½.

    `distribution` is "lognormal", log σ̂ ~ N(mean, std²) cut off at 6 deviations; "log_uniform", uniform in the
    log-SNR from `low` to `high`; "importance", in proportion to σ_d²/(σ_d² + σ̂²) there, which is what the integrand of
    the likelihood is for Gaussian data, so that with the weighting "likelihood" every level has the same part in the
    loss; or "time", uniform in t above `low`. All keep to what the process covers, and t = 0, where the score is
    infinite, is never drawn.

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
        """The times of the slots `first_slot` ... of a batch, (n,) float64: slot i gets a draw of the i-th `batch`-ile.

        A pure function of seed, step and slot, however the batch is cut into parts.
        """
        slot = torch.arange(first_slot, first_slot + n, dtype=torch.float64)
        return self.quantile(sde, (slot + uniform(seed, Purpose.TIME, step, first_slot, n)) / batch)

    def quantile(self, sde: GaussianSDE, u: Tensor) -> Tensor:
        """The time below which a share u of the draws lies."""
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
        """The density of the draws per unit of log-SNR at time t, above 0 also where none falls; for "likelihood"."""
        t = as_time(t)
        if self.distribution == "time":
            t = t.clamp_max((1 - 1e-9) * sde.T)  # short of T, where α may be 0
            rate = sde.g2(t) / (2 * sde.variance(t))  # = −λ'(t)
            return 1 / (rate * (sde.T - sde.time_of(-self._log(self.low))))
        a, b = self._ends(sde)
        if self.distribution == "log_uniform":
            return 1 / (b - a).expand(t.shape)
        if self.distribution == "importance":
            share = 1 / (1 + torch.exp(-2 * sde.log_snr(t).clamp(-b, -a)) / self.sigma_data**2)
            return share / (self._resolved(b) - self._resolved(a))
        z = ((-sde.log_snr(t)).clamp(a, b) - self._log(math.exp(self.mean))) / self.std
        share = self._normal_cdf(b) - self._normal_cdf(a)
        return torch.exp(-0.5 * z**2) / (math.sqrt(2 * math.pi) * self.std * share)

    def _log(self, level: float) -> Tensor:
        """log σ̂ in the model's units."""
        return torch.log(2 * self.sigma_data * level * _ONE)

    def _resolved(self, log_sigma: Tensor) -> Tensor:
        """∫ σ_d²/(σ_d² + σ̂²) d log σ̂ = log σ̂ − ½ log(1 + σ̂²/σ_d²)."""
        return log_sigma - 0.5 * torch.log1p(torch.exp(2 * log_sigma) / self.sigma_data**2)

    def _normal_cdf(self, log_sigma: Tensor) -> Tensor:
        share: Tensor = torch.special.ndtr((log_sigma - self._log(math.exp(self.mean))) / self.std)
        return share

    def _ends(self, sde: GaussianSDE) -> tuple[Tensor, Tensor]:
        """The lowest and highest log σ̂ drawn."""
        reach = _CUT * self.std
        low, high = (self.low, self.high) if self.distribution in ("log_uniform", "importance") else (
            math.exp(self.mean - reach), math.exp(self.mean + reach))
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
2023, arXiv:2303.09556); learned is edm's, which a training divides by what it learns of its size
(`training.state`)."""
WHITENED = "whitened"
"""The weighting that is a matrix: 1/c_out² in every direction of the Wiener parameterisation, Σ_k (D − x_0)_k²/c_out,k²
over the principal directions, whose network has a target of unit variance in each. It needs the data's moments."""


def weight(weighting: str, sde: GaussianSDE, t: Time, levels: NoiseLevelDistribution) -> Tensor:
    """The weight of ‖D − x_0‖² at time t, () or (B,), finite from 0 to T.

    With "likelihood" it is divided by the density of the levels per unit of λ, so that the expected loss is
    ∫ e^{2λ} E‖D − x_0‖² dλ = ½ ∫ g² E‖s − ∇log p(x_t|x_0)‖² dt, for g² dt = −2σ² dλ.
    """
    if weighting not in WEIGHTINGS:
        names = f"{', '.join(WEIGHTINGS)} (and, in a training, {WHITENED})"
        raise InputError(f"got weighting={weighting!r}; expected one of {names}")
    t = torch.maximum(as_time(t), _earliest(sde, levels.sigma_data))
    w = WEIGHTINGS[weighting](sde.alpha(t), sde.sigma(t), levels.sigma_data)
    return w / levels.density(sde, t) if weighting == "likelihood" else w


@lru_cache
def _earliest(sde: GaussianSDE, sigma_data: float) -> Tensor:
    """The time below which no weight grows further."""
    return sde.time_of(-math.log(_LEAST * sigma_data))


def denoising_loss(model: Model, x0: Tensor, t: Time, eps: Tensor, weighting: str = "edm",
                   levels: NoiseLevelDistribution | None = None, share: Tensor | None = None, **cond: Any) -> Tensor:
    """Denoising score matching: w(t) · mean over the event of (D(α x_0 + σ ε, t) − x_0)², per sample, (B,).

    x0 and eps are (B, *event) in model units, t is () or (B,); `cond` goes to the model. `levels` is the law that t was
    drawn from (by default lognormal in units of the model's σ_data). share (B, *event): a factor of every entry's
    square, 0 where x0 is not known. weighting "whitened" weighs the directions of the data apart.
    """
    levels = levels or NoiseLevelDistribution(sigma_data=model.sigma_data)
    error: Tensor = model(model.sde.perturb(x0, t, eps), t, **cond) - x0
    error = error if share is None else error * share.sqrt()
    if weighting == WHITENED:
        return _whitened(model, error, t, levels)
    per_sample = error.square().reshape(len(x0), -1).mean(1)
    return bcast(weight(weighting, model.sde, t, levels), per_sample) * per_sample


def _whitened(model: Model, error: Tensor, t: Time, levels: NoiseLevelDistribution) -> Tensor:
    """The mean over the event of the squares of an error in units of c_out, direction by direction, (B,)."""
    if model.moments is None:
        raise InputError(f"got weighting={WHITENED!r} for a model without the data's moments; use edm")
    t = torch.maximum(as_time(t), _earliest(model.sde, levels.sigma_data))
    scaled = model.moments.whitened(error, model.sde.alpha(t), model.sde.variance(t).sqrt())
    return scaled.square().sum(1) / math.prod(model.shape)


class Law(Protocol):
    """A law of data whose least mean squared error is known, as those of `exact` are."""

    shape: tuple[int, ...]

    def mmse(self, sde: GaussianSDE, t: Time) -> Any:
        """E tr Cov(x_0 | x_t), with `value` and `stderr`."""


class Floor(NamedTuple):
    """The least expected loss and its standard error, shaped like the times asked for."""

    value: Tensor
    stderr: Tensor


def loss_floor(
    law: Law, sde: GaussianSDE, t: Time, weighting: str = "edm", levels: NoiseLevelDistribution | None = None
) -> Floor:
    """The least expected loss, that of the exact denoiser: w(t) E tr Cov(x_0 | x_t)/d at each time t, () or (M,).

    The floor of a training is its mean over `Levels.quantile`s. `levels` as in `denoising_loss`, by default with
    σ_data = ½.
    """
    w = weight(weighting, sde, t, levels or NoiseLevelDistribution()) / math.prod(law.shape)
    error = law.mmse(sde, t)
    return Floor(w * error.value, w * error.stderr)
