"""Traces of the denoiser's Jacobian, and the correction for noise levels below the model's smallest one.

Hutchinson: E vᵀ J v = tr J for E v vᵀ = I. With v = ±1 the variance is 2 Σ_{i≠j} J_ij² (J symmetric), without the
diagonal terms of Gaussian probes. All products at a point share one evaluation of the network.

Truncation: a model is evaluated down to σ̂₀, where it gives the density of p_0 * N(0, σ̂₀² I). Where that is locally
Gaussian, its Jacobian J = ∂D/∂z = Σ (Σ + σ̂₀² I)⁻¹ determines the rest: with r = z − D(z),

    log p_0(z) = log p_σ̂₀(z) − ½ log det J − ½ rᵀ J⁻¹ r / σ̂₀²,

to first order the heat equation's −½ σ̂₀² (Δ log p + ‖∇ log p‖²). The derivative d log p/dσ̂² at 2 σ̂₀² is measured and
predicted by the local Gaussian; half the difference times σ̂₀² is the error that is reported.

Reference: Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.random import Purpose, uniform

_CHUNK = 1 << 14  # numbers in the products that are computed at once: as many as stay in a cache
_MIN_EIGENVALUE, _MAX_EIGENVALUE = 0.02, 1 - 1e-9  # a data variance below 2 % of σ̂₀² is not distinguishable from 0
_LANCZOS_STEPS = 5
VectorJacobianProduct = Callable[[Tensor], Tensor]


def denoise_with_vjp(denoise: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, VectorJacobianProduct]:
    """D(z) (B, *event) and the function v (B, n, *event) → Jᵀ v, for any network and any event."""
    with torch.enable_grad():
        point = z.detach().requires_grad_(True)
        D = denoise(point)

    def product(v: Tensor) -> Tensor:
        if not D.requires_grad:
            return torch.zeros_like(v)
        chunks = v.to(D).movedim(1, 0).split(max(1, _CHUNK // max(1, D.numel())))
        return torch.cat([_products(D, point, chunk) for chunk in chunks]).movedim(0, 1).to(v)

    return D.detach().to(z), product


def _products(D: Tensor, point: Tensor, v: Tensor) -> Tensor:
    """Jᵀ v of v (n, B, *event), all at once where every layer of the network supports it, else one after the other."""
    if len(v) > 1:
        with suppress(RuntimeError):
            return torch.autograd.grad(D, point, v, is_grads_batched=True, retain_graph=True)[0]
    return torch.stack([torch.autograd.grad(D, point, one, retain_graph=True)[0] for one in v])


def basis_vectors(like: Tensor) -> Tensor:
    """The basis vectors of an event for every sample, (B, d, *event)."""
    d = math.prod(like.shape[1:])
    eye = torch.eye(d, dtype=like.dtype, device=like.device).reshape(d, *like.shape[1:])
    return eye.expand(len(like), *eye.shape)


def rademacher_probes(like: Tensor, probes: int, seed: int, first_index: int) -> Tensor:
    """Probes (B, probes, *event) of ±1, each sample's at its own random address.

    Args:
        like: tensor (B, *event) that gives shape, dtype and device.
        probes: number of probes per sample.
        seed: seed of the random numbers.
        first_index: sample index of the first row.
    """
    u = uniform(seed, Purpose.PROBE, 0, first_index, len(like), (probes, *like.shape[1:]), torch.float32)
    return torch.where(u < 0.5, -1.0, 1.0).to(like)


def trace_estimates(product: VectorJacobianProduct, v: Tensor) -> Tensor:
    """vᵀ J v of every probe, (B, n)."""
    return (product(v) * v).flatten(2).sum(2)


class SpectralMeasure(NamedTuple):
    """Σ_i w_i f(θ_i) = vᵀ f(J) v for vectors v: nodes θ and weights w, (B, n, m)."""

    nodes: Tensor
    weights: Tensor

    def integral(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Σ_i w_i f(θ_i), (B, n)."""
        return (self.weights * f(self.nodes)).sum(-1)


class LocalGaussian(NamedTuple):
    """The local Gaussian at z: spectral measures of J for the trace (n estimates) and for the residual r (one)."""

    trace: SpectralMeasure
    residual: SpectralMeasure
    variance: float

    def truncation(self) -> Tensor:
        """log p_0 − log p_σ̂₀, (B, n)."""
        return -0.5 * (self.trace.integral(torch.log) + self.residual.integral(torch.reciprocal) / self.variance)

    def log_prob_derivative(self, variance: float) -> Tensor:
        """d log p/dσ̂² of this Gaussian at a variance, (B, n)."""
        def total(theta: Tensor) -> Tensor:
            return self.variance * theta / (1 - theta) + variance

        curvature = self.trace.integral(lambda theta: 1 / total(theta))
        return 0.5 * (self.residual.integral(lambda theta: 1 / ((1 - theta) * total(theta)) ** 2) - curvature)


def local_gaussian_exact(product: VectorJacobianProduct, z: Tensor, residual: Tensor, variance: float) -> LocalGaussian:
    """From the whole Jacobian, (d, d) for every sample.

    Args:
        product: product of the Jacobian with vectors (B, n, *event).
        z: states (B, *event).
        residual: z − D, (B, *event).
        variance: variance σ̂² of the noise.
    """
    columns = product(basis_vectors(z)).flatten(2).double()
    values, vectors = torch.linalg.eigh((columns + columns.mT) / 2)
    squares = torch.einsum("bij,bi->bj", vectors, residual.flatten(1).double()) ** 2
    values = values.clamp(_MIN_EIGENVALUE, _MAX_EIGENVALUE)[:, None]
    return LocalGaussian(SpectralMeasure(values, torch.ones_like(values)), SpectralMeasure(values, squares[:, None]),
                         variance)


def local_gaussian_probed(product: VectorJacobianProduct, v: Tensor, residual: Tensor, variance: float
                          ) -> LocalGaussian:
    """From a few products with probes v (B, n, *event) and with the residual, by Lanczos quadrature.

    Args:
        product: product of the Jacobian with vectors (B, n, *event).
        v: probes (B, n, *event).
        residual: z − D, (B, *event).
        variance: variance σ̂² of the noise.

    Reference: Ubaru, Chen and Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature".
    """
    nodes, weights = lanczos(product, torch.cat([v, residual[:, None].to(v)], 1))
    return LocalGaussian(SpectralMeasure(nodes[:, :-1], weights[:, :-1]),
                         SpectralMeasure(nodes[:, -1:], weights[:, -1:]), variance)


def lanczos(product: VectorJacobianProduct, v: Tensor, steps: int = _LANCZOS_STEPS) -> SpectralMeasure:
    """Nodes and weights of Gauss quadrature for the spectral measure of vectors v (B, n, *event).

    Args:
        product: product of the symmetric matrix with vectors (B, n, *event).
        v: vectors (B, n, *event).
        steps: number of Lanczos steps; at most the size of an event.
    """
    size = v.flatten(2).double().norm(dim=2)
    q, previous = v.flatten(2).double() / size.clamp_min(1e-30)[..., None], torch.zeros_like(v.flatten(2).double())
    diagonal, off_diagonal, beta = [], [], torch.zeros_like(size)
    for _ in range(min(steps, q.shape[2])):
        w = product(q.reshape(v.shape).to(v)).flatten(2).double()
        diagonal.append((w * q).sum(2))
        w = w - diagonal[-1][..., None] * q - beta[..., None] * previous
        beta = w.norm(dim=2)
        off_diagonal.append(beta)
        q, previous = w / beta.clamp_min(1e-30)[..., None], q
    off = torch.stack(off_diagonal[:-1], -1) if len(off_diagonal) > 1 else size[..., None][..., :0]
    matrix = torch.diag_embed(torch.stack(diagonal, -1)) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    nodes, vectors = torch.linalg.eigh(matrix)
    return SpectralMeasure(nodes.clamp(_MIN_EIGENVALUE, _MAX_EIGENVALUE),
                           size[..., None] ** 2 * vectors[..., 0, :] ** 2)
