"""Muon: the steps of hidden matrices have all their singular values near 1, so that no direction is learned last.

    m ← β₁ m + (1 − β₁) g,   w ← (1 − η·decay) w − η · 0.2 √max(a, b) · O(g + β₁ (m − g))   for w of a x b numbers

O is five steps of a polynomial iteration that brings the singular values of a matrix to about 1 and keeps its singular
vectors; with the factor before it a step is as long as one of AdamW at the same rate η.

Reference: Jordan et al. (2024), "Muon". Liu et al. (2025), section 2.2, for the factor. arXiv:2502.16982
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from undiffuse.training.optim import Adam, parts, trained

POLYNOMIAL = (3.4445, -4.775, 2.0315)
ITERATIONS = 5
_ENDS = ("first.", "last.")  # the layers that read the data and write them


class Muon(Adam):
    """Muon on the hidden matrices and kernels of a network, AdamW on the rest; state and rate are those of AdamW."""

    def __init__(self, weights: Tensor, betas: tuple[float, float], weight_decay: float, net: nn.Module) -> None:
        super().__init__(weights, betas, weight_decay, decoupled=True)
        self.like, self.chosen = list(trained(net).values()), hidden(net)

    def update(self, gradient: Tensor, rate: float, step: int, live: Tensor) -> None:
        """Update number `step`; nothing changes where `live`, a scalar on the device, is 0."""
        before = [w.clone() for w in self._hidden(self.weights)]
        super().update(gradient, rate, step, live)
        for w, old, m, g in zip(self._hidden(self.weights), before, self._hidden(self.m), self._hidden(gradient),
                                strict=True):
            matrix = g.lerp(m, self.betas[0]).flatten(1)
            length = 0.2 * math.sqrt(max(matrix.shape)) * rate
            w.copy_(old).mul_(1 - rate * self.weight_decay * live)
            w.sub_(orthogonal(matrix).mul_(length * live).view(w.shape))

    def _hidden(self, vector: Tensor) -> list[Tensor]:
        return [p for p, chosen in zip(parts(vector, self.like), self.chosen, strict=True) if chosen]


def hidden(net: nn.Module) -> Sequence[bool]:
    """For every parameter that is learned whether it is a matrix or kernel between hidden layers.

    The first and the last layer and tables of embeddings are not.
    """
    tables = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Embedding)}
    return [p.ndim > 1 and not name.startswith(_ENDS) and name not in tables for name, p in trained(net).items()]


def orthogonal(matrix: Tensor) -> Tensor:
    """U f(S) Vᵀ of a matrix U S Vᵀ (a, b), where f is x ↦ α x + β x³ + γ x⁵ five times after division by ‖S‖."""
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / wide.norm().clamp_min(1e-7)
    a, b, c = POLYNOMIAL
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return found
