"""Brownian motion that can be asked for any time: noise keyed by time, so that finer steps refine the same path."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from undiffuse.noise import Purpose, normal

_LEVELS = 32
_CELLS = 1 << _LEVELS
_FIRST = 1 << 40


@dataclass
class Motion:
    """Brownian motions w (n, *shape) on [start, end] of the samples first ... first + n − 1.

    w(start) = 0, w(end) ~ N(0, (end − start) I), and every halving of an interval draws the bridge's midpoint at its
    own address. Times are rounded to 2⁻³² of the interval.

    Reference: Lévy's construction; Li et al. (2020), "virtual Brownian tree", arXiv:2001.01328.
    """

    seed: int
    first: int
    n: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: float
    end: float
    _draw: Any = field(init=False)

    def __post_init__(self) -> None:
        self._draw = lru_cache(64 * _LEVELS)(self._normals)

    def increment(self, t: Tensor, s: Tensor) -> Tensor:
        """(w(t) − w(s))/√(t − s) for times () or (n,), standard normal; 0 where s = t."""
        a, b = self._cell(s), self._cell(t)
        length = ((b - a).double() * ((self.end - self.start) / _CELLS)).clamp_min(1e-300).sqrt()
        return (self._at(b) - self._at(a)) / self._column(length)

    def _cell(self, t: Tensor) -> Tensor:
        place = (t.double().cpu() - self.start) / (self.end - self.start)
        return (place * _CELLS).round().long().clamp(0, _CELLS).expand(self.n)

    def _at(self, cell: Tensor) -> Tensor:
        """w at these cells (n,), by descent from the whole interval."""
        size, width = _CELLS, self.end - self.start
        left, low = torch.zeros(self.n, dtype=torch.int64), torch.zeros(self.n, *self.shape, dtype=self.dtype)
        high = math.sqrt(width) * self._draw(0, 0, 0, self.n)
        for level in range(1, _LEVELS + 1):
            if bool(((cell == left) | (cell == left + size)).all()):
                break
            size, width = size // 2, width / 2
            middle = (low + high) / 2 + math.sqrt(width / 2) * self._bridge(level, left // (2 * size))
            right = self._column(cell >= left + size) > 0
            low, high = torch.where(right, middle, low), torch.where(right, high, middle)
            left = torch.where(cell >= left + size, left + size, left)
        return torch.where(self._column(cell > left) > 0, high, low)

    def _bridge(self, level: int, place: Tensor) -> Tensor:
        """The normals of these intervals (n,) of a level."""
        values, runs = torch.unique_consecutive(place, return_counts=True)
        pieces, row = [], 0
        for number, rows in zip(values.tolist(), runs.tolist(), strict=True):
            pieces.append(self._draw(level, number, row, rows))
            row += rows
        return torch.cat(pieces)

    def _normals(self, level: int, number: int, row: int, rows: int) -> Tensor:
        address = _FIRST + (1 << level) + number
        return normal(self.seed, Purpose.PATH, address, self.first + row, rows, self.shape, self.dtype)

    def _column(self, c: Tensor) -> Tensor:
        return c.to(self.dtype).reshape(-1, *[1] * len(self.shape))
