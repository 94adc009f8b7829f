"""The divergence of the denoiser: its trace exactly, by one product with the Jacobian per entry, or by random probes.

Hutchinson: E vᵀ J v = tr J for E v vᵀ = I. With v = ±1 the variance is 2 Σ_{i≠j} J_ij² (J symmetric), without the
diagonal that Gaussian probes add. All products of a point share one evaluation of the network.

Reference: Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor

from undiffuse.noise import Purpose, uniform

_CHUNK = 1 << 14  # numbers in the products that are computed at once: what stays in a cache
Product = Callable[[Tensor], Tensor]


def linearised(denoise: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Product]:
    """D(z) (B, *event) and the function v (B, n, *event) → Jᵀ v, for any network and any event."""
    with torch.enable_grad():
        point = z.detach().requires_grad_(True)
        D = denoise(point)

    def product(v: Tensor) -> Tensor:
        if not D.requires_grad:
            return torch.zeros_like(v)
        pieces = v.to(D).movedim(1, 0).split(max(1, _CHUNK // max(1, D.numel())))
        return torch.cat([_products(D, point, piece) for piece in pieces]).movedim(0, 1).to(v)

    return D.detach().to(z), product


def _products(D: Tensor, point: Tensor, v: Tensor) -> Tensor:
    """Jᵀ v of v (n, B, *event), all at once where every layer of the network can, else one after the other."""
    if len(v) > 1:
        with suppress(RuntimeError):
            return torch.autograd.grad(D, point, v, is_grads_batched=True, retain_graph=True)[0]
    return torch.stack([torch.autograd.grad(D, point, one, retain_graph=True)[0] for one in v])


def units(like: Tensor) -> Tensor:
    """The basis vectors of an event for every sample, (B, d, *event)."""
    d = math.prod(like.shape[1:])
    eye = torch.eye(d, dtype=like.dtype, device=like.device).reshape(d, *like.shape[1:])
    return eye.expand(len(like), *eye.shape)


def signs(like: Tensor, probes: int, seed: int, first_index: int) -> Tensor:
    """Rademacher probes (B, probes, *event) of ±1, those of a sample at an address of its own."""
    u = uniform(seed, Purpose.PROBE, 0, first_index, len(like), (probes, *like.shape[1:]), torch.float32)
    return torch.where(u < 0.5, -1.0, 1.0).to(like)


def traces(product: Product, v: Tensor) -> Tensor:
    """vᵀ J v of every probe, (B, n)."""
    return (product(v) * v).flatten(2).sum(2)
