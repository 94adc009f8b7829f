"""Evaluation of a row-wise function in packs of a fixed number of rows.

A matrix product of another size rounds differently. The network therefore always sees packs of the same number of rows,
the last one padded, and the result of a sample is the same bytes alone and in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pack_size(dim: int) -> int:
    """Rows per pack for `dim` numbers per row. The last bits of a result depend on it, so it is not an option."""
    return max(16, min(256, 4096 // dim))


def select_conditions(cond: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """The conditions of some rows: tensors have one entry per row, any other value holds for all rows."""
    return {name: value[rows] if isinstance(value, Tensor) and value.ndim else value for name, value in cond.items()}


def map_packs(function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """`function(indices (size,))` of rows with indices (n,), its results concatenated, each (n, ...).

    Args:
        function: function of indices (size,) that gives tensors (size, ...).
        rows: the indices (n,).
        size: number of indices per call; the last call is padded.
    """
    padded = torch.cat([rows, rows[-1:].expand(-len(rows) % size)])
    results = [function(part) for part in padded.split(size)]
    return tuple(torch.cat(parts)[: len(rows)] for parts in zip(*results, strict=True))
