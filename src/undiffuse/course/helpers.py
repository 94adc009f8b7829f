"""The loop of chapter 5, for networks that a chapter writes itself.

Random numbers for a chapter, without a state.

Captions of the digits, measured from their pixels: thin or thick, upright or slanted, and the name of the digit.

A link from a chapter to the same laws in the explorer.
"""

from __future__ import annotations

import html
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.loss import NoiseLevelDistribution, denoising_loss
from undiffuse.model import Denoiser
from undiffuse.nets import initialize
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal, uniform


def randn(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Standard normals (n, *shape) in float64: the same for the same seed, and others than the samplers draw."""
    return normal(seed, Purpose.PROBE, 1, 0, n, shape, torch.float64)


VOCABULARY = ("thin", "thick", "upright", "slanted", "zero", "one", "two", "three", "four", "five", "six", "seven",
              "eight", "nine", "(nothing)")


def captions(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    """The prompt of every image (N,), the words of every prompt (41, 3) and the 40 prompts as text.

    images (N, 1, H, W) with ink > 0. Thick and slanted mean more so than the median of the same digit. The last row
    of the words is the empty prompt.
    """
    ink, slant = ink_and_slant(images)
    thick, slanted = (_above_median(value, labels) for value in (ink, slant))
    look = torch.cartesian_prod(torch.arange(2), torch.arange(2, 4), torch.arange(4, 14))
    table = torch.cat([look, torch.full((1, 3), 14)])
    return 20 * thick + 10 * slanted + labels, table, [" ".join(VOCABULARY[k] for k in row) for row in look.tolist()]


def ink_and_slant(images: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the ink, and by how many columns to the right the strokes lean a row upwards, of every image (N,)."""
    ink = images[:, 0].double().clamp(min=0)
    total = ink.sum((1, 2))
    row, column = (torch.arange(n, dtype=torch.float64) for n in ink.shape[1:])
    up = -(row - (ink.sum(2) @ row / total)[:, None])
    right = column - (ink.sum(1) @ column / total)[:, None]
    lean = torch.einsum("nij,ni,nj->n", ink, up, right) / torch.einsum("nij,ni->n", ink, up.square())
    return total, lean


def _above_median(value: Tensor, labels: Tensor) -> Tensor:
    median = torch.stack([value[labels == k].median() for k in range(10)])
    return (value > median[labels]).long()


class SceneLink:
    """The address of a scene; shows itself as a link to explorer.html, which lies beside the chapter."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        link = html.escape(self.url.replace("|", "%7C"))
        return {"text/html": f'<a href="{link}" target="_blank">Open this scene</a>', "text/plain": self.url}


def scene(view: str, **settings: Any) -> SceneLink:
    """The explorer's scene of that view with those settings (`undiffuse.explorer.url`), as a link in a notebook.

    Prints the command that opens it from a terminal.
    """
    from undiffuse.explorer import url

    address = url(view, **settings)
    print(f"Open this scene: undiffuse explore '{address.partition('#')[2]}'")
    return SceneLink(address)


ROWS = 256


def fit(net: nn.Module, x: Tensor, steps: int, labels: Tensor | None = None, classes: int = 0,
        prediction_type: str = "edm",
        lr: float = 2e-3) -> tuple[Denoiser, list[float]]:
    """A denoiser of VP made of a network `net(x, c, label)`, learned from the rows x (N, d), and the losses.

    labels (N,) are hidden from 15 % of the rows of a batch, which get the label `classes`.
    """
    model = Denoiser(initialize(net, 0), VP(), prediction_type, shape=tuple(x.shape[1:]), sigma_data=1.0,
                     classes=classes)
    levels, adam, losses = (
        NoiseLevelDistribution("time", sigma_data=1.0, low=0.02),
        torch.optim.Adam(net.parameters(), lr=lr),
        [],
    )
    for k in range(steps):
        for group in adam.param_groups:
            group["lr"] = lr * (1 - k / steps) ** 0.5
        rows = torch.arange(ROWS * k, ROWS * (k + 1)) % len(x)
        t, z = levels.times(model.sde, 0, k, 0, ROWS, ROWS), randn(ROWS, *x.shape[1:], seed=k).float()
        cond: dict[str, Any] = {} if labels is None else {"label": hide_labels(labels[rows], k, classes)}
        loss = denoising_loss(model, x[rows].float(), t, z, "simple" if prediction_type == "noise" else "edm",
                              **cond).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    return model, losses


def hide_labels(labels: Tensor, step: int, null: int) -> Tensor:
    """The labels with 15 % of them replaced by the null label, by address."""
    return torch.where(uniform(0, Purpose.CONDITION, step, 0, len(labels)) < 0.15, null, labels)
