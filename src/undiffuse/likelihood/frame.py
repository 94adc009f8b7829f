"""The probability-flow ODE in the frame of the data's moments, where all but the non-Gaussian part is integrated.

z = x/α = μ + U Ψ u with Ψ² = s² + σ̂² and λ = −log σ̂ as the clock. For Gaussian data with these moments u stands still:

    du/dλ = R/Ψ,   R = Uᵀ (D − μ) − (s²/Ψ²) Ψ u,   log p_λ(z) = log p(u_T) − Σ log Ψ − ∫_{λ_T}^{λ} tr ∂R/∂(Ψu) dλ

so that only the trace of what the Wiener filter leaves is integrated. Without stored moments s is the model's σ_data in
every direction.

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
from undiffuse.gaussian import Moments
from undiffuse.model import Model, ReverseModel
from undiffuse.sde import as_time, bcast

_FAR = 1000.0  # σ̂/σ_data beyond which nothing of the data is left in u (its law differs from N(0, I) by ~ FAR⁻³)


@dataclass(frozen=True)
class Frame:
    """A model seen in its data's frame; states u are (B, k), float64 where the device has it."""

    model: Model
    t_end: float | None = None

    @cached_property
    def moments(self) -> Moments:
        """The model's moments, or σ_data² in every direction."""
        d, sd = self.dim, self.model.sigma_data
        blank = torch.zeros(d, dtype=torch.float64)
        return self.model.moments or Moments(self.model.shape, blank, blank[:0], basis=blank[:, None][:, :0],
                                             rest=sd**2)

    @property
    def dim(self) -> int:
        """The number of entries of an event, d."""
        return math.prod(self.model.shape)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), self.model.dtype)

    @cached_property
    def real(self) -> torch.dtype:
        """The dtype of u."""
        return torch.float32 if self.model.device.type == "mps" else torch.float64

    @cached_property
    def spectrum(self) -> Tensor:
        """s² of every coordinate, (k,)."""
        return self.moments.spectrum.to(self.model.device, self.real)

    @cached_property
    def share(self) -> Tensor:
        """How many dimensions a coordinate stands for, (k,): 1, or less in the overcomplete rest of a low rank."""
        k, d = len(self.moments.variances), self.dim
        rest = len(self.spectrum) - k
        return torch.cat([torch.ones(k), torch.full((rest,), (d - k) / d)]).to(self.spectrum)

    @cached_property
    def start(self) -> Tensor:
        """λ at t_end, by default where the model says that sampling ends."""
        t = self.model.t_end() if self.t_end is None else self.t_end
        lam = self.model.sde.log_snr(as_time(t))
        if not (0 <= t < self.model.sde.T and bool(lam.isfinite())):
            raise InputError(f"got t_end={t:g}; expected 0 < t_end < {self.model.sde.T:g}, where log-SNR is finite")
        return lam

    @cached_property
    def end(self) -> Tensor:
        """λ at T, or where nothing of the data is left."""
        far = torch.tensor(-math.log(_FAR * self.model.sigma_data), dtype=torch.float64)
        return torch.maximum(self.model.sde.log_snr(as_time(self.model.sde.T)), far)

    @property
    def cut(self) -> bool:
        """Whether λ(T) lies beyond `end`."""
        return bool(self.end > self.model.sde.log_snr(as_time(self.model.sde.T)))

    def psi(self, lam: Tensor) -> Tensor:
        """Ψ at λ () or (B,): (1 or B, k)."""
        return (self.spectrum + torch.exp(-2 * lam).reshape(-1, 1).to(self.spectrum)).sqrt()

    def enter(self, z: Tensor, lam: Tensor) -> Tensor:
        """u of z (B, *event)."""
        y = self.moments.rotate(z.to(self.real))
        return (y - self.moments.rotated_mean(y)) / self.psi(lam)

    def leave(self, u: Tensor, lam: Tensor) -> Tensor:
        """z of u."""
        return self.moments.back(self.moments.rotated_mean(u) + self.psi(lam) * u)

    def denoise(self, z: Tensor, lam: Tensor, cond: dict[str, Any]) -> Tensor:
        """D at z = x/α and λ (B,), computed in the dtype of the model."""
        t = self.model.sde.time_of(lam)
        z = z.to(self.dtype)
        return self.model.denoise(bcast(self.model.sde.alpha(t), z) * z, t, **cond)

    def divergence(self, z: Tensor, lam: Tensor, cond: dict[str, Any]) -> Tensor | None:
        """tr ∂D/∂z (B,), where the model knows it in closed form."""
        t = self.model.sde.time_of(lam)
        alpha = bcast(self.model.sde.alpha(t), z)
        found = self.model.divergence(alpha * z, t, **cond)
        return None if found is None else alpha.reshape(-1) * found.to(z)

    def slope(self, u: Tensor, D: Tensor, lam: Tensor) -> Tensor:
        """du/dλ = R/Ψ."""
        psi, y = self.psi(lam), self.moments.rotate(D.to(u))
        return (y - self.moments.rotated_mean(u)) / psi - self.spectrum / psi**2 * u

    def filtered(self, lam: Tensor) -> Tensor:
        """tr s²/Ψ², the trace of the Wiener filter, (1 or B,)."""
        return (self.share * self.spectrum / self.psi(lam) ** 2).sum(1)

    def log_volume(self, lam: Tensor) -> Tensor:
        """Σ log Ψ, (1 or B,)."""
        return (self.share * self.psi(lam).log()).sum(1)

    def log_prior(self, u: Tensor) -> Tensor:
        """log density of u under the model's prior at T, (B,): N(0, I) where the moments are known.

        Without them the prior is N(0, σ(T)² I) in x, of which u has a variance of σ̂²/Ψ².
        """
        variance = torch.ones_like(u[:1])
        if self.model.moments is None and not self.cut:
            variance = torch.exp(-2 * self.end) / self.psi(self.end) ** 2
        return -0.5 * (u**2 / variance + self.share * (2 * math.pi * variance).log()).sum(1)


def gaussian_model(model: ReverseModel) -> Model:
    """The model, if its denoiser is that of a Gaussian process; raises InputError otherwise."""
    if not isinstance(model, Model):
        raise InputError("got a model without a denoiser; expected a model of a Gaussian process, such as ud.Denoiser")
    if model.own is not None:
        raise InputError("got a model that is sampled in a way of its own, whose law no denoiser describes; expected "
                         "one with a denoiser, of a posterior that of a guide such as method='mmps'")
    return model


def rows_of(model: Model, x: Tensor) -> Tensor:
    """x in model units (B, *event) from data units; raises InputError for another shape or values that are not finite.
    """
    if not bool(x.isfinite().all()):
        raise InputError(f"got x with {int((~x.isfinite()).sum())} values that are missing or not finite; expected "
                         "finite ones: fill them in first (undiffuse impute), or leave those rows out")
    if x.ndim == 0:
        raise InputError("got a single number; expected rows (a single point is x[None])")
    z = _forward(model, x)
    if tuple(z.shape[1:]) != tuple(model.shape):
        raise InputError(f"got x of shape {tuple(x.shape)}; expected one row of {tuple(model.shape)} per sample (a "
                         "single point is x[None])")
    return z.double() if model.device.type != "mps" else z


def _forward(model: Model, x: Tensor) -> Tensor:
    try:
        return model.transform.forward(x)
    except (RuntimeError, IndexError) as error:
        raise InputError(f"got x of shape {tuple(x.shape)}, which the model's transform does not take") from error
