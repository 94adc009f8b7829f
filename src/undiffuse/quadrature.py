"""Antiderivatives of smooth functions of time by Gauss-Legendre quadrature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class Integral:
    """F(t) = ∫₀ᵗ fn, one polynomial per panel: the integral of the Legendre interpolant at Gauss nodes."""

    order = 12

    def __init__(self, fn: Callable[[Tensor], Tensor], T: float, panels: int) -> None:
        nodes, weights = np.polynomial.legendre.leggauss(self.order)
        self.width, self.panels = T / panels, panels
        t = self.width * (torch.arange(panels, dtype=torch.float64)[:, None] + torch.from_numpy((nodes + 1) / 2))
        values = (torch.as_tensor(fn(t), dtype=torch.float64) + 0 * t).numpy()
        vander = np.polynomial.legendre.legvander(nodes, self.order - 1)
        projection = vander * weights[:, None] * (np.arange(self.order) + 0.5)
        pieces = np.polynomial.legendre.legint(projection.T @ values.T, lbnd=-1)
        self.pieces = torch.from_numpy(pieces * self.width / 2)
        self.left = _legendre(self.pieces, -torch.ones(panels, dtype=torch.float64))  # 0 up to rounding
        self.starts = torch.cat([torch.zeros(1, dtype=torch.float64), self.pieces.sum(0).cumsum(0)])

    def __call__(self, t: Tensor) -> Tensor:
        """F(t) for any shape of t, in the dtype of t; differentiable."""
        u = t.double() / self.width
        panel = u.detach().floor().clamp(0, self.panels - 1).long()
        value = self.starts[panel] + (_legendre(self.pieces[:, panel], 2 * (u - panel) - 1) - self.left[panel])
        return value.to(t.dtype)


def _legendre(c: Tensor, x: Tensor) -> Tensor:
    """Σ c_k P_k(x) by the three-term recurrence."""
    previous, current, total = torch.ones_like(x), x, c[0] + c[1] * x
    for k in range(1, len(c) - 1):
        previous, current = current, ((2 * k + 1) * x * current - k * previous) / (k + 1)
        total = total + c[k + 1] * current
    return total
