"""Helpers of the chapters: stateless random numbers, digit captions, links to the explorer, a small training loop."""

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
    """Standard normals (n, *shape), float64: a function of the seed, independent of the samplers' random numbers."""
    return normal(seed, Purpose.PROBE, 1, 0, n, shape, torch.float64)


VOCABULARY = ("thin", "thick", "upright", "slanted", "zero", "one", "two", "three", "four", "five", "six", "seven",
              "eight", "nine", "(nothing)")


def captions(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    """Captions of digit images, measured from their pixels, such as "thick slanted seven".

    Thick and slanted are relative to the median of the same digit.

    Args:
        images: grey levels (N, 1, H, W), ink > 0.
        labels: digits (N,).

    Returns:
        The prompt of every image (N,), the tokens of every prompt (41, 3; the last row is the empty prompt), and the
        40 prompts as text.
    """
    ink, slant = ink_and_slant(images)
    thick, slanted = (_above_median(value, labels) for value in (ink, slant))
    look = torch.cartesian_prod(torch.arange(2), torch.arange(2, 4), torch.arange(4, 14))
    table = torch.cat([look, torch.full((1, 3), 14)])
    return 20 * thick + 10 * slanted + labels, table, [" ".join(VOCABULARY[k] for k in row) for row in look.tolist()]


def ink_and_slant(images: Tensor) -> tuple[Tensor, Tensor]:
    """Total ink and slant (columns to the right per row upwards) of every image, both (N,)."""
    ink = images[:, 0].double().clamp(min=0)
    total = ink.sum((1, 2))
    row, column = (torch.arange(n, dtype=torch.float64) for n in ink.shape[1:])
    up = -(row - (ink.sum(2) @ row / total)[:, None])
    right = column - (ink.sum(1) @ column / total)[:, None]
    slant = torch.einsum("nij,ni,nj->n", ink, up, right) / torch.einsum("nij,ni->n", ink, up.square())
    return total, slant


def _above_median(value: Tensor, labels: Tensor) -> Tensor:
    median = torch.stack([value[labels == k].median() for k in range(10)])
    return (value > median[labels]).long()


class SceneLink:
    """Address of an explorer scene; displays as a link to explorer.html in the chapter's folder."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        link = html.escape(self.url.replace("|", "%7C"))
        return {"text/html": f'<a href="{link}" target="_blank">Open this scene</a>', "text/plain": self.url}


def scene(view: str, **settings: Any) -> SceneLink:
    """A link to a scene of the explorer; prints the command that opens it.

    Args:
        view: the explorer's view.
        settings: as in `undiffuse.explorer.url`.
    """
    from undiffuse.explorer import url

    address = url(view, **settings)
    print(f"Open this scene: undiffuse explore '{address.partition('#')[2]}'")
    return SceneLink(address)


ROWS = 256


def fit(net: nn.Module, x: Tensor, steps: int, labels: Tensor | None = None, classes: int = 0,
        prediction_type: str = "edm", lr: float = 2e-3) -> tuple[Denoiser, list[float]]:
    """Train a VP denoiser: the training loop of chapter 5.

    Args:
        net: network `net(x, c, label)`.
        x: data (N, d).
        steps: number of updates.
        labels: labels (N,); 15 % of a batch get the null label `classes` instead.
        classes: number of classes.
        prediction_type: quantity that the network predicts.
        lr: learning rate at the first update; it decreases like √(1 − k/steps).

    Returns:
        The denoiser and the loss of every update.
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
    """The labels, 15 % of them replaced by the label `null`.

    Args:
        labels: class indices (B,).
        step: number of the training step, the address of the random numbers.
        null: index of the null label, "any class".
    """
    return torch.where(uniform(0, Purpose.CONDITION, step, 0, len(labels)) < 0.15, null, labels)
