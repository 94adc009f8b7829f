"""What the denoiser believes of x_0 at x_t: its mean D and its covariance V = Cov(x_0 | x_t) = (σ²/α) ∂D/∂x.

Reference: Tweedie's second formula; Boys et al. (2023), arXiv:2310.06721; Rozet et al. (2024), arXiv:2405.13712.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.sde import Time, as_time, bcast

DENSE = 64
"""The greatest number of coordinates for which V is formed."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Mean D (B, *event) and covariance V of x_0 at states x (B, *event) of a time t, () or (B,).

    The mean keeps its graph, through which V is a vector-Jacobian product; no value returned has a gradient.
    """

    model: Model
    x: Tensor
    t: Tensor
    cond: dict[str, Any]

    @cached_property
    def _graph(self) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = self.x.detach().requires_grad_(True)
            return x, torch.as_tensor(self.model.denoise(x, self.t, **self.cond))

    @cached_property
    def mean(self) -> Tensor:
        """D."""
        return self._graph[1].detach()

    @property
    def level2(self) -> Tensor:
        """σ̂² = σ²/α², () or (B,)."""
        return torch.as_tensor(self._variance / self.model.sde.alpha(self.t) ** 2)

    @property
    def left(self) -> Tensor:
        """σ̂² s²/(σ̂² + s²): the variance left to Gaussian data of deviation s = sigma_data, () or (B,)."""
        s2, alpha2, variance = self.model.sigma_data**2, self.model.sde.alpha(self.t) ** 2, self._variance
        return s2 * variance / (variance + alpha2 * s2)

    def transposed(self, u: Tensor) -> Tensor:
        """(∂D/∂x)ᵀ u for rows u (B, d)."""
        x, D = self._graph
        (product,) = torch.autograd.grad(D, x, u.reshape(x.shape).to(D), retain_graph=True)
        return product.flatten(1)

    def apply(self, u: Tensor) -> Tensor:
        """V u for rows u (B, d), with the transposed Jacobian, which in theory is the Jacobian."""
        product = self.transposed(u)
        return bcast(self._scale.to(product), product) * product

    @cached_property
    def matrix(self) -> Tensor:
        """V as (B, d, d), float64: closed where the model knows it, else its symmetric positive part."""
        known = getattr(self.model, "covariance", None)
        if known is not None:
            return torch.as_tensor(known(self.x, self.t, **self.cond))
        d = math.prod(self.x.shape[1:])
        rows = [self.apply(e.expand(len(self.x), d)) for e in torch.eye(d).to(self.x)]
        V = torch.stack(rows, 1).double()
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


def belief(model: Model, x: Tensor, t: Time, cond: dict[str, Any]) -> Belief:
    """The belief of a model at x."""
    return Belief(model, x, as_time(t), cond)
