"""The trace of the denoiser's Jacobian along the paths of a block: whole, in closed form, or by fixed random probes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from undiffuse.likelihood import truncation
from undiffuse.likelihood.divergence import Product, linearised, signs, traces, units
from undiffuse.likelihood.flow import Flow
from undiffuse.likelihood.frame import Frame
from undiffuse.likelihood.rows import pack_size, packed


class Traced(Flow):
    """The flow of data z (B, *event) in model units with n estimates of the trace of every row.

    exact: the whole trace, n = 1; else n = `probes`, those of a row the same all along its path. products: those with
    the Jacobian that a trace needs, 0 where the model knows it in closed form.
    """

    def __init__(self, frame: Frame, z: Tensor, exact: bool, probes: int, seed: int, first_index: int = 0,
                 keep: int | None = None, cond: dict[str, Any] | None = None) -> None:
        super().__init__(frame, len(z), keep, cond)
        self.z, self.n = z.to(frame.model.device, frame.real), 1 if exact else probes
        self.probes = None if exact else signs(self.z, probes, seed, first_index)
        known = exact and frame.divergence(self.z[:1], frame.start, self.given(torch.zeros(1).long())) is not None
        self.products = 0 if known else frame.dim if exact else probes
        self.pack = pack_size(frame.dim * max(1, self.products))

    def residual(self, rows: Tensor, u: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """D and the estimates of tr J less that of the Wiener filter, (B, n), of one pack."""
        D, trace = self._trace(rows, self.frame.leave(u, lam), lam)
        return D, trace - self.frame.filtered(lam)[:, None]

    def matter(self, u: Tensor, pace: Tensor, lam: Tensor, wrong: Tensor) -> Tensor:
        """What an error of u at λ does to log p, (B,): its part along the gradient of log p_λ."""
        gradient = self.frame.psi(lam) ** 2 * torch.exp(2 * lam).to(u)[:, None] * pace - u
        return (gradient * wrong).sum(1)

    def spread(self, each: Tensor) -> Tensor:
        """The standard error of the mean over the probes; NaN for a single one, 0 for the whole trace."""
        if self.probes is None:
            return torch.zeros_like(each[:, 0])
        return each.std(1) / math.sqrt(self.n) if self.n > 1 else torch.full_like(each[:, 0], math.nan)

    def gap(self) -> tuple[Tensor, Tensor]:
        """log p_0 − log p_σ̂₀ (B, n or 1) and how far it can be trusted (B,)."""
        zero, rows = self.z.new_zeros(len(self.z)), torch.arange(self.keep, device=self.z.device)
        gap, doubt = packed(self._gap, rows, self.pack)
        return torch.zeros(len(zero), gap.shape[1]).to(gap).index_copy(0, rows, gap), zero.index_copy(0, rows, doubt)

    def _linear(self, rows: Tensor, z: Tensor, lam: Tensor) -> tuple[Tensor, Product]:
        return linearised(lambda point: self.frame.denoise(point, lam, self.given(rows)), z)

    def _trace(self, rows: Tensor, z: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """D and the estimates of tr J, (B, n)."""
        if not self.products and (found := self.frame.divergence(z, lam, self.given(rows))) is not None:
            return self.frame.denoise(z, lam, self.given(rows)).to(z), found[:, None]
        D, product = self._linear(rows, z, lam)
        if self.probes is not None:
            return D, traces(product, self.probes[rows])
        return D, traces(product, units(z)).sum(1, keepdim=True)

    def _gap(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        lam, z = self.frame.start.expand(len(rows)), self.z[rows]
        variance = float(torch.exp(-2 * self.frame.start))
        D, product = self._linear(rows, z, lam)
        local = truncation.exact(product, z, z - D, variance) if self.probes is None else \
            truncation.probed(product, self.probes[rows], z - D, variance)
        doubt = 0.5 * variance * (local.rate(2 * variance) - self._rate(rows, 2 * variance)).mean(1).abs()
        return local.gap(), doubt

    def _rate(self, rows: Tensor, variance: float) -> Tensor:
        """d log p/dσ̂² = ½ (Δ log p + ‖∇ log p‖²) at a variance, (B, n)."""
        z = self.z[rows]
        D, trace = self._trace(rows, z, z.new_full((len(z),), -0.5 * math.log(variance)))
        square = (z - D).flatten(1).square().sum(1) / variance
        return 0.5 * (trace - self.frame.dim + square[:, None]) / variance
