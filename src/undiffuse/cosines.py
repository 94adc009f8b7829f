"""The cosine basis of images: type-II transforms over rows and columns of the principal directions of the colours."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

EVEN = 8
"""Matrices are padded to multiples of this size: at odd ones the rounding of a row of a product may depend on its
position."""
_CHANNELS = 16  # up to which colours have principal directions


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # the matrix also serves later calls, which may need gradients
def _cosines(n: int) -> Tensor:
    """The orthonormal DCT-II matrix (n, n), rows by frequency."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    rows = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows


def mixes(shape: tuple[int, ...]) -> bool:
    """Whether cosines are of principal directions of the colours."""
    return 1 < shape[0] <= _CHANNELS


def colours(centred: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The principal directions (C, C) of the channels of centred images (n, d), in columns."""
    if not mixes(shape):
        return None
    channels = centred.reshape(len(centred), shape[0], -1).transpose(0, 1).flatten(1)
    basis: Tensor = torch.linalg.eigh(channels @ channels.T)[1]
    return basis.flip(1).contiguous()


def mixed(x: Tensor, basis: Tensor | None) -> Tensor:
    """The coordinates of the colours of images x (B, d) in a basis (C, C); sums of rows, the same in every batch."""
    if basis is None:
        return x
    channels = x.reshape(len(x), len(basis), -1).unbind(1)
    rows = basis.T.tolist()
    return torch.cat([sum((w * c for w, c in zip(row[1:], channels[1:], strict=True)), row[0] * channels[0])
                      for row in rows], 1)


def separable(x: Tensor, shape: tuple[int, ...], inverse: bool) -> Tensor:
    """The two-dimensional cosine transform of (B, d) over the last two axes of the event, or its inverse."""
    height, width = shape[-2:]
    short = (0, -width % EVEN, 0, -height % EVEN)
    rows, columns = (_cosines(n).to(x.device, non_blocking=True).to(x.dtype) for n in (height, width))
    image = x.reshape(-1, *shape)
    if any(short):
        pad = torch.nn.functional.pad
        image, rows, columns = pad(image, short), pad(rows, short[2:] * 2), pad(columns, short[:2] * 2)
    out = rows.T @ image @ columns if inverse else rows @ image @ columns.T
    return out[..., :height, :width].flatten(1)
