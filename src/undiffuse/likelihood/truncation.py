"""What lies between the smallest noise level that a model knows and the data themselves.

A model is evaluated down to σ̂₀, where it gives the density of p_0 * N(0, σ̂₀² I). Where that is locally Gaussian, its
Jacobian J = ∂D/∂z = Σ (Σ + σ̂₀² I)⁻¹ tells the rest: with r = z − D(z),

    log p_0(z) = log p_σ̂₀(z) − ½ log det J − ½ rᵀ J⁻¹ r / σ̂₀²,

to first order the heat equation's −½ σ̂₀² (Δ log p + ‖∇ log p‖²). How locally Gaussian it is can be seen from the rate
d log p/dσ̂² at 2 σ̂₀², measured and foretold: half their difference times σ̂₀² is the error that is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.likelihood.divergence import Product, units

_LEAST, _MOST = 0.02, 1 - 1e-9  # a data variance below 2 % of σ̂₀² cannot be told from none
_STEPS = 5  # products that a spectrum is measured with


class Spectrum(NamedTuple):
    """Σ_i w_i f(θ_i) = vᵀ f(J) v for vectors v: nodes θ and weights w, (B, n, m)."""

    nodes: Tensor
    weights: Tensor


class Local(NamedTuple):
    """The local Gaussian at z: the spectra of J for the trace (n of them, each an estimate) and for r (one)."""

    trace: Spectrum
    rest: Spectrum
    variance: float

    def gap(self) -> Tensor:
        """log p_0 − log p_σ̂₀, (B, n)."""
        return -0.5 * (_over(self.trace, torch.log) + _over(self.rest, torch.reciprocal) / self.variance)

    def rate(self, variance: float) -> Tensor:
        """d log p/dσ̂² at a variance as this Gaussian has it, (B, n)."""
        def total(theta: Tensor) -> Tensor:
            return self.variance * theta / (1 - theta) + variance

        curvature = _over(self.trace, lambda theta: 1 / total(theta))
        return 0.5 * (_over(self.rest, lambda theta: 1 / ((1 - theta) * total(theta)) ** 2) - curvature)


def exact(product: Product, z: Tensor, rest: Tensor, variance: float) -> Local:
    """From the whole Jacobian, (d, d) for every sample."""
    columns = product(units(z)).flatten(2).double()
    values, vectors = torch.linalg.eigh((columns + columns.mT) / 2)
    along = torch.einsum("bij,bi->bj", vectors, rest.flatten(1).double()) ** 2
    values = values.clamp(_LEAST, _MOST)[:, None]
    return Local(Spectrum(values, torch.ones_like(values)), Spectrum(values, along[:, None]), variance)


def probed(product: Product, v: Tensor, rest: Tensor, variance: float) -> Local:
    """From a few products with probes v (B, n, *event) and with r, by Lanczos's quadrature.

    Reference: Ubaru, Chen and Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature".
    """
    both = lanczos(product, torch.cat([v, rest[:, None].to(v)], 1))
    probes, last = (Spectrum(both.nodes[:, part], both.weights[:, part]) for part in (slice(-1), slice(-1, None)))
    return Local(probes, last, variance)


def lanczos(product: Product, v: Tensor, steps: int = _STEPS) -> Spectrum:
    """Nodes and weights of Gauss's quadrature for the spectral measure of vectors v (B, n, *event)."""
    size = v.flatten(2).double().norm(dim=2)
    q, before = v.flatten(2).double() / size.clamp_min(1e-30)[..., None], torch.zeros_like(v.flatten(2).double())
    diagonal, beside, beta = [], [], torch.zeros_like(size)
    for _ in range(min(steps, q.shape[2])):
        w = product(q.reshape(v.shape).to(v)).flatten(2).double()
        diagonal.append((w * q).sum(2))
        w = w - diagonal[-1][..., None] * q - beta[..., None] * before
        beta = w.norm(dim=2)
        beside.append(beta)
        q, before = w / beta.clamp_min(1e-30)[..., None], q
    off = torch.stack(beside[:-1], -1) if len(beside) > 1 else size[..., None][..., :0]
    matrix = torch.diag_embed(torch.stack(diagonal, -1)) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    nodes, vectors = torch.linalg.eigh(matrix)
    return Spectrum(nodes.clamp(_LEAST, _MOST), size[..., None] ** 2 * vectors[..., 0, :] ** 2)


def _over(spectrum: Spectrum, f: Callable[[Tensor], Tensor]) -> Tensor:
    return (spectrum.weights * f(spectrum.nodes)).sum(-1)
