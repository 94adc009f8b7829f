"""Whitened coordinates of the data, in which the probability-flow ODE integrates the non-Gaussian part only.

z = x/α = μ + U Ψ u with Ψ² = s² + σ̂² and λ = −log σ̂ as the time variable. For Gaussian data with these moments u is
constant:

    du/dλ = R/Ψ,   R = Uᵀ (D − μ) − (s²/Ψ²) Ψ u,   log p_λ(z) = log p(u_T) − Σ log Ψ − ∫_{λ_T}^{λ} tr ∂R/∂(Ψu) dλ

so that only the denoiser's trace minus the trace of the Wiener filter is integrated. Without stored
moments s is the model's sigma_data in every direction.

Reference: Song et al. (2021), eq. 39 (arXiv:2011.13456) for the ODE; Lawson (1967), "Generalized Runge-Kutta
processes", for the integrating factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model, ReverseModel
from undiffuse.moments import Moments
from undiffuse.samplers.method import require_denoiser, required_sampler
from undiffuse.sde import as_time, bcast

_MAX_NOISE = 1000.0  # σ̂/sigma_data above which the distribution of u differs from N(0, I) by ~ 10⁻⁹


@dataclass(frozen=True)
class WhitenedCoordinates:
    """A model in the whitened coordinates of its data; states u are (B, k), float64 where the device has it.

    Args:
        model: the denoiser and its process.
        t_end: the time of the smallest noise level; None: `model.t_end()`.
    """

    model: Model
    t_end: float | None = None

    @cached_property
    def moments(self) -> Moments:
        """The model's moments, or sigma_data² in every direction."""
        zeros = torch.zeros(self.dim, dtype=torch.float64)
        return self.model.moments or Moments(self.model.shape, zeros, zeros[:0], basis=zeros[:, None][:, :0],
                                             residual_variance=self.model.sigma_data**2)

    @property
    def dim(self) -> int:
        """The number of entries of an event, d."""
        return math.prod(self.model.shape)

    @cached_property
    def model_dtype(self) -> torch.dtype:
        """The dtype of the states that the model takes."""
        return self.model.dtype

    @cached_property
    def state_dtype(self) -> torch.dtype:
        """The dtype of u."""
        return torch.float32 if self.model.device.type == "mps" else torch.float64

    @cached_property
    def spectrum(self) -> Tensor:
        """The data variance s² of every coordinate, (k,)."""
        return self.moments.spectrum.to(self.model.device, self.state_dtype)

    @cached_property
    def multiplicity(self) -> Tensor:
        """The number of dimensions per coordinate, (k,): 1, or less in the overcomplete complement of a low rank."""
        k, d = len(self.moments.variances), self.dim
        complement = len(self.spectrum) - k
        return torch.cat([torch.ones(k), torch.full((complement,), (d - k) / d)]).to(self.spectrum)

    @cached_property
    def log_snr_data(self) -> Tensor:
        """λ at t_end, by default at the model's end of sampling."""
        t = self.model.t_end() if self.t_end is None else self.t_end
        lam = self.model.sde.log_snr(as_time(t))
        if not (0 <= t < self.model.sde.T and bool(lam.isfinite())):
            raise InputError(f"got t_end={t:g}; expected 0 < t_end < {self.model.sde.T:g}, where log-SNR is finite")
        return lam

    @cached_property
    def log_snr_noise(self) -> Tensor:
        """λ at T, or at the noise level above which u does not depend on the data."""
        limit = torch.tensor(-math.log(_MAX_NOISE * self.model.sigma_data), dtype=torch.float64)
        return torch.maximum(self.model.sde.log_snr(as_time(self.model.t_start())), limit)

    @property
    def prior_truncated(self) -> bool:
        """Whether λ(T) is below `log_snr_noise`."""
        return bool(self.log_snr_noise > self.model.sde.log_snr(as_time(self.model.sde.T)))

    def psi(self, lam: Tensor) -> Tensor:
        """Ψ at λ () or (B,): (1 or B, k)."""
        return (self.spectrum + torch.exp(-2 * lam).reshape(-1, 1).to(self.spectrum)).sqrt()

    def whiten(self, z: Tensor, lam: Tensor) -> Tensor:
        """u of z (B, *event)."""
        y = self.moments.rotate(z.to(self.state_dtype))
        return (y - self.moments.rotated_mean(y)) / self.psi(lam)

    def unwhiten(self, u: Tensor, lam: Tensor) -> Tensor:
        """z of u."""
        return self.moments.unrotate(self.moments.rotated_mean(u) + self.psi(lam) * u)

    def denoise(self, z: Tensor, lam: Tensor, cond: dict[str, Any]) -> Tensor:
        """D at z = x/α and λ (B,), computed in the dtype of the model.

        Args:
            z: states x/α (B, *event).
            lam: half log-SNR λ, (B,).
            cond: conditions by name, one row per sample.
        """
        t = self.model.sde.time_of(lam)
        z = z.to(self.model_dtype)
        return self.model.denoise(bcast(self.model.sde.alpha(t), z) * z, t, **cond)

    def divergence(self, z: Tensor, lam: Tensor, cond: dict[str, Any]) -> Tensor | None:
        """tr ∂D/∂z (B,), where the model has it in closed form.

        Args:
            z: states x/α (B, *event).
            lam: half log-SNR λ, (B,).
            cond: conditions by name, one row per sample.
        """
        t = self.model.sde.time_of(lam)
        alpha = bcast(self.model.sde.alpha(t), z)
        divergence = self.model.divergence(alpha * z, t, **cond)
        return None if divergence is None else alpha.reshape(-1) * divergence.to(z)

    def dudlam(self, u: Tensor, D: Tensor, lam: Tensor) -> Tensor:
        """du/dλ = R/Ψ.

        Args:
            u: whitened states (B, d).
            D: the denoiser at u, (B, *event).
            lam: half log-SNR λ, (B,).
        """
        psi, y = self.psi(lam), self.moments.rotate(D.to(u))
        return (y - self.moments.rotated_mean(u)) / psi - self.spectrum / psi**2 * u

    def wiener_trace(self, lam: Tensor) -> Tensor:
        """tr s²/Ψ², the trace of the Wiener filter, (1 or B,)."""
        return (self.multiplicity * self.spectrum / self.psi(lam) ** 2).sum(1)

    def log_volume(self, lam: Tensor) -> Tensor:
        """Σ log Ψ, (1 or B,)."""
        return (self.multiplicity * self.psi(lam).log()).sum(1)

    def log_prior(self, u: Tensor) -> Tensor:
        """log density of u under the model's prior at T, (B,): N(0, I) where the moments are known.

        Without moments the prior is N(0, σ(T)² I) in x, and the variance of u is σ̂²/Ψ².
        """
        variance = torch.ones_like(u[:1])
        if self.model.moments is None and not self.prior_truncated:
            variance = torch.exp(-2 * self.log_snr_noise) / self.psi(self.log_snr_noise) ** 2
        return -0.5 * (u**2 / variance + self.multiplicity * (2 * math.pi * variance).log()).sum(1)


def gaussian_model(model: ReverseModel) -> Model:
    """The model, if it has a denoiser of a Gaussian process; raises InputError otherwise."""
    if not isinstance(model, Model):
        raise InputError("got a model without a denoiser; expected a model of a Gaussian process, such as ud.Denoiser")
    require_denoiser(model, "likelihoods and codes")
    if required_sampler(model) is not None:
        raise InputError("got a posterior that has its own sampler and no denoiser that describes it; expected a model "
                         "with a denoiser, for a posterior one of a guide such as method='mmps'")
    return model


def to_model_units(model: Model, x: Tensor, missing: bool = False) -> Tensor:
    """x in model units (B, *event) from data units, with NaN if `missing`; raises InputError for another shape or
    other values that are not finite."""
    invalid = x.isinf() if missing else ~x.isfinite()
    if bool(invalid.any()):
        raise InputError(f"got x with {int(invalid.sum())} values that are missing or not finite; expected "
                         "finite ones: impute them first (undiffuse impute), or remove those rows")
    if x.ndim == 0:
        raise InputError("got a single number; expected rows (a single point is x[None])")
    z = _forward(model, x)
    if tuple(z.shape[1:]) != tuple(model.shape):
        raise InputError(f"got x of shape {tuple(x.shape)}; expected one row of {tuple(model.shape)} per sample (a "
                         "single point is x[None])")
    return z.double() if model.device.type != "mps" else z


def _forward(model: Model, x: Tensor) -> Tensor:
    """The model's transform of x; raises InputError where it does not fit."""
    try:
        return model.transform.forward(x)
    except (RuntimeError, IndexError) as error:
        raise InputError(f"got x of shape {tuple(x.shape)}, which does not fit the model's transform; expected one row "
                         f"of {tuple(model.shape)} per sample") from error
