"""Bases of waves: type-II cosine transforms over the axes of space, the real Fourier transform, and the principal
directions of the colours or, at every frequency, of the channels.
"""

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


def frequencies(x: Tensor, shape: tuple[int, ...], kind: str, inverse: bool = False) -> Tensor:
    """The orthonormal cosine or Fourier transform of x (B, d) over all axes of space of the event, or its inverse.

    "fourier" is Hartley's, Re F − Im F, in which every periodic stationary covariance of one channel is diagonal; it is
    its own inverse.

    Args:
        x: samples (B, d), or their coordinates.
        shape: shape of an event, (C, *space).
        kind: "cosine" or "fourier".
        inverse: whether to invert the transform.
    """
    field = x.reshape(-1, *shape)
    if kind == "fourier":
        waves = torch.fft.fftn(field, dim=tuple(range(2, field.ndim)), norm="ortho")
        hartley: Tensor = (waves.real - waves.imag).flatten(1)
        return hartley
    for axis in range(2, field.ndim):
        n = field.shape[axis]
        short = -n % EVEN
        matrix = _cosines(n).to(x.device, non_blocking=True).to(x.dtype)
        rows = field.movedim(axis, -1)
        if short:
            rows, matrix = (torch.nn.functional.pad(v, (0, short) * m) for v, m in ((rows, 1), (matrix, 2)))
        field = (rows @ (matrix if inverse else matrix.T))[..., :n].movedim(-1, axis)
    return field.flatten(1)


def principal(waves: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The principal directions (C, C, F) of the channels at every frequency, the second index numbers them.

    Args:
        waves: coordinates (n, d) by `frequencies`, without their mean.
        shape: shape of an event, (C, *space).
    """
    if shape[0] == 1:
        return None
    rows = waves.reshape(len(waves), shape[0], -1).permute(2, 1, 0)
    directions: Tensor = torch.linalg.eigh(rows @ rows.mT)[1].flip(2)
    return directions.permute(1, 2, 0).contiguous()


def mixed_by_frequency(waves: Tensor, basis: Tensor | None) -> Tensor:
    """Σ_c basis[c, j] waves[c] at every frequency, for waves (B, d) and a basis (C, C, F); sums of equal order in every
    batch."""
    if basis is None:
        return waves
    channels = waves.reshape(len(waves), len(basis), -1)
    rows = basis.to(waves.device, non_blocking=True).to(waves.dtype)
    total: Tensor = channels[:, 0, None] * rows[0]
    for c in range(1, len(basis)):
        total = total + channels[:, c, None] * rows[c]
    return total.flatten(1)
