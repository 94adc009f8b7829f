"""The loop of chapter 5, for networks that a chapter writes itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.learn.draws import normals
from undiffuse.loss import Levels, denoising_loss
from undiffuse.model import Denoiser
from undiffuse.nets import initialize
from undiffuse.noise import Purpose, uniform
from undiffuse.processes import VP

ROWS = 256


def fit(net: nn.Module, x: Tensor, steps: int, labels: Tensor | None = None, classes: int = 0, predict: str = "edm",
        lr: float = 2e-3) -> tuple[Denoiser, list[float]]:
    """A denoiser of VP made of a network `net(x, c, label)`, learned from the rows x (N, d), and the losses.

    labels (N,) are hidden from 15 % of the rows of a batch, which get the label `classes`.
    """
    model = Denoiser(initialize(net, 0), VP(), predict, shape=tuple(x.shape[1:]), sigma_data=1.0, classes=classes)
    levels, adam, losses = Levels("time", sigma_data=1.0, low=0.02), torch.optim.Adam(net.parameters(), lr=lr), []
    for k in range(steps):
        for group in adam.param_groups:
            group["lr"] = lr * (1 - k / steps) ** 0.5
        rows = torch.arange(ROWS * k, ROWS * (k + 1)) % len(x)
        t, z = levels.times(model.sde, 0, k, 0, ROWS, ROWS), normals(ROWS, *x.shape[1:], seed=k).float()
        cond: dict[str, Any] = {} if labels is None else {"label": hidden(labels[rows], k, classes)}
        loss = denoising_loss(model, x[rows].float(), t, z, "simple" if predict == "noise" else "edm", **cond).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    return model, losses


def hidden(labels: Tensor, step: int, null: int) -> Tensor:
    """The labels with 15 % of them replaced by the null label, by address."""
    return torch.where(uniform(0, Purpose.CONDITION, step, 0, len(labels)) < 0.15, null, labels)
