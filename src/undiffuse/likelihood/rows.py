"""A function of single samples, always evaluated on as many rows at once.

A matrix product of another size rounds differently. So that a sample's number is the same bytes alone and in a batch,
however many of the others are finished, the network sees packs of a fixed number of rows, the last one padded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pack_size(dim: int) -> int:
    """The rows of a pack for `dim` numbers a row; the last bits of a result depend on it, hence it is no option."""
    return max(16, min(256, 4096 // dim))


def pick(cond: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """The conditions of some rows: tensors have one entry a row, all else holds for all."""
    return {name: value[rows] if isinstance(value, Tensor) and value.ndim else value for name, value in cond.items()}


def packed(function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """`function(indices (size,))` of rows by their indices (n,), its results joined, each (n, ...)."""
    full = torch.cat([rows, rows[-1:].expand(-len(rows) % size)])
    pieces = [function(part) for part in full.split(size)]
    return tuple(torch.cat(parts)[: len(rows)] for parts in zip(*pieces, strict=True))
