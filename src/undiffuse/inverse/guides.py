"""Guided denoisers: D_y = D + V Aᵀ (A W Aᵀ + R)⁻¹ (y − A D), the mean of x_0 given x_t and y if x_0 | x_t ~ N(D, V).

V = Cov(x_0 | x_t) = (σ²/α) ∂D/∂x is the denoiser's Jacobian. The methods differ in the W that replaces it inside the
inverse:

    mmps     V itself
    tmpd     the diagonal of its row sums
    pigdm    s² σ̂²/(s² + σ̂²) I, as for Gaussian data of standard deviation s in every direction
    wiener   s² σ̂²/(s² + σ̂²) in the principal directions of the data's moments

All are exact if x_0 is Gaussian with the moments that W assumes, and approximations for other data.

Reference: Tweedie's second formula; Song et al. (2023), PiGDM, ICLR; Boys et al. (2023), TMPD, arXiv:2310.06721; Rozet
et al. (2024), MMPS, arXiv:2405.13712.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.inverse.observation import LinearizedObservation, Observation
from undiffuse.linear_solvers import Apply
from undiffuse.model import Model, Wrapper
from undiffuse.moments import covariance, regress, regression_gain
from undiffuse.sde import Time, as_time, bcast
from undiffuse.tensors import ArrayLike, leaf_of

DENSE = 64
"""The largest number of coordinates for which V is formed as a matrix."""


@dataclass(frozen=True, eq=False)
class DenoiserPosterior:
    """Mean D (B, *event) and covariance V of x_0 given x (B, *event) at a time t, () or (B,), under a denoiser.

    V is a vector-Jacobian product. Returned values have gradients where x requires one, as in a likelihood.
    """

    model: Model
    x: Tensor
    t: Tensor
    cond: dict[str, Any]

    @cached_property
    def _graph(self) -> tuple[Tensor, Tensor]:
        """x and D(x) with the graph between them."""
        x = leaf_of(self.x)
        with torch.enable_grad():
            return x, torch.as_tensor(self.model.denoise(x, self.t, **self.cond))

    @cached_property
    def mean(self) -> Tensor:
        """D."""
        return self._graph[1] if self.differentiable else self._graph[1].detach()

    @property
    def differentiable(self) -> bool:
        """Whether gradients with respect to x are recorded."""
        return self._graph[0] is self.x

    @property
    def noise_variance(self) -> Tensor:
        """σ̂² = σ²/α², () or (B,)."""
        return torch.as_tensor(self._variance / self.model.sde.alpha(self.t) ** 2)

    @property
    def residual_variance(self) -> Tensor:
        """σ̂² s²/(σ̂² + s²): Var(x_0 | x_t) of Gaussian data of standard deviation s = sigma_data, () or (B,)."""
        s2, alpha2, variance = self.model.sigma_data**2, self.model.sde.alpha(self.t) ** 2, self._variance
        return s2 * variance / (variance + alpha2 * s2)

    def vjp(self, u: Tensor) -> Tensor:
        """(∂D/∂x)ᵀ u for rows u (B, d)."""
        x, D = self._graph
        (product,) = torch.autograd.grad(D, x, u.reshape(x.shape).to(D), retain_graph=True,
                                         create_graph=self.differentiable)
        return product.flatten(1)

    def apply(self, u: Tensor) -> Tensor:
        """V u for rows u (B, d), with the transposed Jacobian, which for an exact denoiser equals the Jacobian."""
        product = self.vjp(u)
        return bcast(self._scale.to(product), product) * product

    @cached_property
    def matrix(self) -> Tensor:
        """V as (B, d, d), float64: in closed form where the model has it, else its symmetric positive part."""
        closed_form = getattr(self.model, "covariance", None)
        if closed_form is not None:
            return torch.as_tensor(closed_form(self.x, self.t, **self.cond))
        V = _matrix_of(self.apply, self.x)
        values, basis = torch.linalg.eigh((V + V.mT) / 2)
        positive: Tensor = (basis * values.clamp_min(0)[:, None]) @ basis.mT
        return positive

    @property
    def dense(self) -> bool:
        """Whether V is small enough to be formed."""
        return math.prod(self.x.shape[1:]) <= DENSE

    @property
    def _variance(self) -> Tensor:
        return self.model.sde.variance(self.t)

    @property
    def _scale(self) -> Tensor:
        return self._variance / self.model.sde.alpha(self.t)


_SMALL = 128  # entries up to which there is one matrix per pattern of missing entries
Surrogate = Callable[[DenoiserPosterior], Tensor | Apply]
"""The W of a method."""


class Guided(Wrapper):
    """The denoiser of p(x | y) by one of the methods; the condition `y=` of a call replaces the observed y.

    Args:
        inner: the model of p(x).
        observation: y, the operator and the noise in model units.
        surrogate: the W of the method.
        iterations: conjugate gradient iterations for events of over 64 entries. The Jacobian of a trained network is
            not exactly symmetric, and more than two or three iterations amplify its errors.
    """

    takes = ("y",)

    def __init__(self, inner: Model, observation: Observation, surrogate: Surrogate, iterations: int = 2) -> None:
        super().__init__(inner)
        self.observation, self.surrogate, self.iterations = observation, surrogate, iterations

    def denoise(self, x: ArrayLike, t: Time, *, y: Tensor | None = None, **cond: Any) -> Tensor:
        """D_y."""
        x = self.states(x)
        if float(self.sde.alpha(as_time(t)).min()) == 0:
            return self.inner.denoise(x, t, **cond)
        posterior = DenoiserPosterior(self.inner, x, as_time(t), cond)
        local = self.observation.linearize(posterior.mean, posterior.residual_variance, y)
        w = local.solve(self.surrogate(posterior), self.iterations)
        return posterior.mean + _correction(posterior, local, w).reshape(x.shape).to(x)


class MomentGuide(Wrapper):
    """p(x | y) for noiseless entries y (B, *event), NaN where missing: D_y = D + V Mᵀ (M V Mᵀ)⁻¹ M (y − D).

    M selects the observed entries; V is the covariance of x_0 given x_t for Gaussian data with the model's moments,
    s² σ̂²/(s² + σ̂²) in every direction of theirs. One model evaluation per step and one linear system per pattern of
    missing entries, or per row. D_y is exact for Gaussian data; for other data D is the network's and V an
    approximation.
    """

    takes = ("y",)

    def denoise(self, x: ArrayLike, t: Time, *, y: Tensor | None = None, **cond: Any) -> Tensor:
        """D_y."""
        x = self.states(x)
        D, moments = self.inner.denoise(x, t, **cond), self.moments
        alpha, variance = self.sde.alpha(as_time(t)), self.sde.variance(as_time(t))
        if y is None or moments is None:
            raise InputError("got no y or a model without moments; give y and a model of a table or an array")
        residual_variance = moments.spectrum * variance / (alpha**2 * moments.spectrum + variance)
        if math.prod(self.shape) > _SMALL:
            moved = regress(y.flatten(1), D.flatten(1), moments, residual_variance, ridge=0.0)
            return torch.where(y.isnan(), moved.reshape(D.shape).to(D), y)
        place = "cpu" if D.device.type == "mps" else D.device  # mps has no float64
        flat, centre = y.flatten(1).to(place), D.flatten(1).to(place)
        patterns, index = torch.unique(flat.isnan(), dim=0, return_inverse=True)
        G = regression_gain(covariance(moments, residual_variance).to(place), patterns)[index]
        residual = torch.where(flat.isnan(), 0.0, flat - centre).double()
        moved = (centre + (G @ residual[..., None])[..., 0].to(centre)).reshape(D.shape)
        return torch.where(y.isnan(), moved.to(D), y)


def _correction(posterior: DenoiserPosterior, local: LinearizedObservation, w: Tensor) -> Tensor:
    """V Aᵀ w, (B, d)."""
    pulled = local.pull(w)
    if posterior.dense:
        return (posterior.matrix @ pulled.double()[..., None])[..., 0]
    return posterior.apply(pulled)


def mmps(posterior: DenoiserPosterior) -> Tensor | Apply:
    """V."""
    return posterior.matrix if posterior.dense else posterior.apply


def tmpd(posterior: DenoiserPosterior) -> Tensor | Apply:
    """diag(V 1), with negative entries set to 0."""
    rows = posterior.matrix.sum(2) if posterior.dense else posterior.apply(torch.ones_like(posterior.x).flatten(1))
    return _diagonal(posterior, rows.clamp_min(0))


def pigdm(posterior: DenoiserPosterior) -> Tensor | Apply:
    """s² σ̂²/(s² + σ̂²) I."""
    x = posterior.x
    return _diagonal(posterior, posterior.residual_variance.reshape(-1, 1).expand(len(x), math.prod(x.shape[1:])))


def wiener(posterior: DenoiserPosterior) -> Tensor | Apply:
    """U diag(s² σ̂²/(s² + σ̂²)) Uᵀ with the data's moments."""
    moments, x = posterior.model.moments, posterior.x
    if moments is None:
        raise InputError("got a model without the data's moments for method wiener; expected one that stores them")
    spectrum = moments.spectrum.to(x.device)
    noise_variance = posterior.noise_variance.reshape(-1, 1).to(spectrum)
    residual_variance = (spectrum * noise_variance / (spectrum + noise_variance)).to(x)

    def apply(u: Tensor) -> Tensor:
        return moments.unrotate(residual_variance * moments.rotate(u.reshape(-1, *moments.shape))).flatten(1)

    return apply if not posterior.dense else _matrix_of(apply, x)


SURROGATES: dict[str, Surrogate] = {"mmps": mmps, "tmpd": tmpd, "pigdm": pigdm, "wiener": wiener}


def _diagonal(posterior: DenoiserPosterior, values: Tensor) -> Tensor | Apply:
    """The diagonal matrix of values (B, d)."""
    if posterior.dense:
        return torch.diag_embed(values.double())
    return lambda u: values.to(u) * u


def _matrix_of(apply: Apply, x: Tensor) -> Tensor:
    """The matrix of a symmetric function of rows like x, (B, d, d), float64."""
    d = math.prod(x.shape[1:])
    rows = [apply(e.expand(len(x), d)) for e in torch.eye(d).to(x)]
    return torch.stack(rows, 1).double()
