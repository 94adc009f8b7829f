"""Learned log-variances: how large the loss is at every noise level, learned beside the network, to divide by it.

    L = E[l(t) e^{−u(t)} + u(t)],  least where e^{u(t)} = E[l | t]

for the weighted error l of a sample. So every level has the same part in the loss, 1 at best, whatever its size was.
It is used in training only; what is sampled does not have it.

Reference: Karras et al. (2024), appendix B.2. arXiv:2312.02696; Kendall et al. (2018). arXiv:1705.07115
"""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.model import Denoiser
from undiffuse.nets import Sinusoidal
from undiffuse.training.optim import Adam

FEATURES = 16


class Uncertainty:
    """u(t) = b + Σ a_k φ_k(¼ log(½ σ̂/σ_data)) with cosines and sines φ, 0 at first; b and a_k are learned by Adam."""

    def __init__(self, model: Denoiser, like: Tensor, betas: tuple[float, float]) -> None:
        self.model, self.features = model, Sinusoidal(FEATURES).to(like.device)
        vector = like.new_zeros(1 + FEATURES)
        self.optimizer, self.weights = Adam(vector, betas), vector.requires_grad_()

    def __call__(self, t: Tensor) -> Tensor:
        """u at times t (B,)."""
        waves: Tensor = self.features(self.model.level(t).to(self.weights))
        return self.weights[0] + waves @ self.weights[1:]

    def objective(self, losses: Tensor, t: Tensor) -> Tensor:
        """l e^{−u} + u for every row (B,)."""
        u = self(t)
        return losses * torch.exp(-u) + u

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        named = {"": self.weights.detach(), ".m": self.optimizer.m, ".v": self.optimizer.v}
        return {f"uncertainty{name}": t for name, t in named.items()}


def blank(like: Tensor) -> dict[str, Tensor]:
    """A form for `tensors`."""
    return {f"uncertainty{name}": like.new_zeros(1 + FEATURES) for name in ("", ".m", ".v")}
