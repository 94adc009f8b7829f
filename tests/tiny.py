"""The smallest models: three modes in the plane, and a network of one weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from undiffuse.mixture import Mixture
from undiffuse.model import Denoiser
from undiffuse.processes import VP

THREE = Mixture([1, 2, 1.5], [[-1.0, 0.4], [0.8, 0.9], [0.3, -1.0]], [0.02, 0.01, 0.03], labels=[0, 1, 1])


class Net(nn.Module):
    """A network of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        return torch.tanh(self.weight * x)


def small() -> Denoiser:
    return Denoiser(Net(), VP(), shape=(2,), sigma_data=0.5).requires_grad_(False)
