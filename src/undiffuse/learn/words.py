"""Captions of the digits, measured from their pixels: thin or thick, upright or slanted, and the name of the digit."""

from __future__ import annotations

import torch
from torch import Tensor

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
