"""Stateless randomness: every random number is a pure function of its address.

An address is (seed, purpose, step, sample index). The integers come from the counter-based generator Philox4x64-10
(key = (seed, step·256 + purpose), counter = position in the stream), so sample i of a seed is the same alone, in any
batch, in any order and on any number of processes, and nothing has to be saved to resume a run. Normals are made from
the integers by the Box-Muller transform here, because NumPy guarantees stability for the integers only.

`BrownianPath` evaluates a Brownian motion at any time, so that finer steps refine the same path.

Reference: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3". Box and Muller (1958).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError

_LAST64 = (1 << 64) - 1
_DTYPES: dict[torch.dtype, type[np.floating[Any]]] = {torch.float32: np.float32, torch.float64: np.float64}


class Purpose(IntEnum):
    """The use of a random number. The values are part of the addresses and never change."""

    INIT = 0
    STEP = 1
    ORDER = 2
    TIME = 3
    NOISE = 4
    AUGMENT = 5
    DROPOUT = 6
    PROBE = 7
    WEIGHTS = 8
    DATA = 9
    PATH = 10
    CONDITION = 11


class _Cipher(threading.local):
    """One generator per thread; its key and counter are set before each use, 7 times cheaper than a new one."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)
        self.state: Any = self.generator.state

    def seek(self, key: tuple[int, int], block: int) -> np.random.Philox:
        """The generator positioned before a block; NumPy increments the counter before encryption, hence − 1."""
        inner = self.state["state"]
        inner["key"][:] = key
        inner["counter"][:] = (block - 1, 0, 0, 0) if block else (_LAST64,) * 4
        self.generator.state = self.state
        return self.generator


_cipher = _Cipher()


def _check_whole(**numbers: Any) -> None:
    """Checks that the arguments are whole numbers from 0 to 2^64 − 1."""
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or not 0 <= number <= _LAST64:
            raise InputError(f"got {name}={number!r}; expected a whole number from 0 to 2^64 - 1")


def raw_words(seed: int, purpose: int, step: int, first: int, count: int) -> NDArray[np.uint64]:
    """The 64-bit integers `first` ... `first + count − 1` of the stream (seed, purpose, step).

    Args:
        seed: seed of the stream.
        purpose: use of the numbers (`Purpose`); each has its own stream.
        step: number of the step, below 2⁵⁶.
        first: index of the first integer.
        count: number of integers.

    Reference: Salmon et al. (2011), Philox4x64-10; one block gives four integers.
    """
    _check_whole(seed=seed, first_index=first)
    if not (0 <= step < 1 << 56 and count >= 0):
        raise InputError(f"got step {step} and count {count}; expected non-negative numbers and step below 2^56")
    block, skip = divmod(first, 4)
    generator = _cipher.seek((seed, step * 256 + int(purpose)), block)
    return np.asarray(generator.random_raw(skip + count)[skip:], np.uint64)


def normal(seed: int, purpose: int, step: int, first_index: int, n: int, shape: tuple[int, ...] = (),
           dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normals of the samples `first_index` ... `first_index + n − 1`, (n, *shape) on the CPU.

    z₁ + i z₂ = √(−2 log u) e^{2πiv}, with u and v the two 32-bit halves of one integer. float32 and float64 give equal
    numbers up to rounding; |z| ≤ 6.67.

    Args:
        seed: seed of the stream.
        purpose: use of the numbers (`Purpose`); each has its own stream.
        step: number of the step, below 2⁵⁶.
        first_index: index of the first sample.
        n: number of samples.
        shape: shape of one sample.
        dtype: float32 or float64.
    """
    return normals(seed, purpose, [step], first_index, n, shape, dtype)[0]


def normals(seed: int, purpose: int, steps: Sequence[int], first_index: int, n: int, shape: tuple[int, ...] = (),
            dtype: torch.dtype = torch.float32) -> Tensor:
    """`normal` for several steps in one call, (len(steps), n, *shape).

    Args:
        seed: seed of the stream.
        purpose: use of the numbers (`Purpose`); each has its own stream.
        steps: numbers of the steps, each below 2⁵⁶.
        first_index: index of the first sample.
        n: number of samples.
        shape: shape of one sample.
        dtype: float32 or float64.
    """
    size = math.prod(shape)
    pairs = (size + 1) // 2
    raw = [raw_words(seed, purpose, step, first_index * pairs, n * pairs) for step in steps]
    halves = np.stack(raw).view(np.uint32).reshape(len(raw) * n, pairs, 2)
    return torch.from_numpy(_box_muller(halves, _real(dtype))[:, :size].reshape(len(raw), n, *shape))


def uniform(seed: int, purpose: int, step: int, first_index: int, n: int, shape: tuple[int, ...] = (),
            dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform numbers in [0, 1) of the samples `first_index` ..., (n, *shape).

    Args:
        seed: seed of the stream.
        purpose: use of the numbers (`Purpose`); each has its own stream.
        step: number of the step, below 2⁵⁶.
        first_index: index of the first sample.
        n: number of samples.
        shape: shape of one sample.
        dtype: float64, from the upper 53 bits of an integer, or float32, from the upper 24.
    """
    size, bits = math.prod(shape), 53 if dtype == torch.float64 else 24
    raw = raw_words(seed, purpose, step, first_index * size, n * size) >> np.uint64(64 - bits)
    return torch.from_numpy((raw * 2.0**-bits).astype(_real(dtype)).reshape(n, *shape))


def classes(seed: int, first_index: int, weights: Tensor) -> Tensor:
    """One random class per sample `first_index` ..., (n,) int64.

    Args:
        seed: seed of the stream.
        first_index: index of the first sample.
        weights: one row per sample, (n, K), to which the probabilities are proportional.
    """
    cumulative = weights.double().cumsum(1)
    u = uniform(seed, Purpose.CONDITION, 1 << 33, first_index, len(weights))
    return torch.searchsorted(cumulative / cumulative[:, -1:], u[:, None], right=True)[:, 0]


def permutation(seed: int, purpose: int, step: int, n: int) -> Tensor:
    """A random permutation of 0 ... n−1 (int64): the stable argsort of n integers of the stream.

    Args:
        seed: seed of the stream.
        purpose: use of the numbers (`Purpose`); each has its own stream.
        step: number of the step, below 2⁵⁶.
        n: number of entries.
    """
    return torch.from_numpy(np.argsort(raw_words(seed, purpose, step, 0, n), kind="stable"))


class BrownianMotion(NamedTuple):
    """Brownian motion on a grid: times `t` (N+1,) from 0 to T and values `w` (n, N+1, *shape), w(0) = 0."""

    t: Tensor
    w: Tensor


_MAX_POINTS = 1 << 28  # values of a Brownian motion


def brownian(n: int = 1, steps: int = 64, T: float = 1.0, *, shape: tuple[int, ...] = (), seed: int = 0,
             first_index: int = 0, refine: int = 0, dtype: torch.dtype = torch.float64) -> BrownianMotion:
    """Sample Brownian motion: w(0) = 0, independent increments w(t) − w(s) ~ N(0, (t−s) I), continuous paths.

    Args:
        n: Number of paths.
        steps: Number of equal intervals on [0, T].
        T: End time.
        shape: Shape of one value.
        seed: Seed of the paths.
        first_index: Index of the first path; path i is the same in every batch.
        refine: k returns the same paths on steps·2ᵏ intervals; each level inserts midpoints by the Brownian bridge
            w((a+b)/2) | w(a), w(b) ~ N((w(a)+w(b))/2, (b−a)/4 I), and keeps earlier points bit for bit.
        dtype: torch.float32 or torch.float64.

    Reference: Lévy's construction; Mörters and Peres (2010), section 1.1.
    """
    if n < 0 or steps < 1 or T <= 0 or refine < 0:
        raise InputError(f"got n={n}, steps={steps}, T={T}, refine={refine}; expected n ≥ 0, steps ≥ 1, T > 0, "
                         "refine ≥ 0")
    if (points := n * math.prod(shape) * (steps << min(refine, 64))) > _MAX_POINTS:
        raise InputError(f"got n={n}, steps={steps}, refine={refine}, which are {points:.2g} values; expected at most "
                         f"{_MAX_POINTS:.2g}")
    z = normal(seed, Purpose.PATH, 0, first_index, n, (steps, *shape), dtype)
    start = torch.zeros((n, 1, *shape), dtype=dtype)
    w = torch.cat([start, (math.sqrt(T / steps) * z).cumsum(1)], 1)
    for level in range(1, refine + 1):
        w = _halve(w, T / (w.shape[1] - 1), seed, level, first_index)
    return BrownianMotion(torch.linspace(0, T, w.shape[1], dtype=torch.float64), w)


def _halve(w: Tensor, dt: float, seed: int, level: int, first_index: int) -> Tensor:
    """The path with a Brownian-bridge point in the middle of every interval of length dt."""
    n, nodes, *shape = w.shape
    z = normal(seed, Purpose.PATH, level, first_index, n, (nodes - 1, *shape), w.dtype)
    midpoints = (w[:, :-1] + w[:, 1:]) / 2 + math.sqrt(dt / 4) * z
    interleaved = torch.stack([w[:, :-1], midpoints], 2).flatten(1, 2)
    return torch.cat([interleaved, w[:, -1:]], 1)


def _box_muller(halves: NDArray[np.uint32], real: type[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Normals (n, 2·pairs) from 32-bit integers (n, pairs, 2)."""
    unit = real(2.0**-32)
    radius = np.sqrt(real(-2) * np.log((halves[..., 0].astype(real) + real(1)) * unit))
    angle = halves[..., 1].astype(real) * (real(2 * np.pi) * unit)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(len(halves), 2 * halves.shape[1])


def _real(dtype: torch.dtype) -> type[np.floating[Any]]:
    if dtype not in _DTYPES:
        raise InputError(f"got dtype {dtype}; expected torch.float32 or torch.float64")
    return _DTYPES[dtype]


_LEVELS = 32
_CELLS = 1 << _LEVELS
_FIRST = 1 << 40


@dataclass
class BrownianPath:
    """Brownian motions w (n, *shape) on [start, end] of the samples first ... first + n − 1, at any time.

    w(start) = 0, w(end) ~ N(0, (end − start) I); each halving of an interval has its bridge midpoint at a fixed
    address. Times are rounded to 2⁻³² of the interval.

    Reference: Lévy's construction; Li et al. (2020), "virtual Brownian tree", arXiv:2001.01328.
    """

    seed: int
    first: int
    n: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    start: float
    end: float
    _cached_normals: Any = field(init=False)

    def __post_init__(self) -> None:
        self._cached_normals = lru_cache(64 * _LEVELS)(self._normals)

    def increment(self, t: Tensor, s: Tensor) -> Tensor:
        """(w(t) − w(s))/√(t − s) for times () or (n,), standard normal; 0 where s = t."""
        a, b = self._cell(s), self._cell(t)
        length = ((b - a).double() * ((self.end - self.start) / _CELLS)).clamp_min(1e-300).sqrt()
        return (self._at(b) - self._at(a)) / self._column(length)

    def _cell(self, t: Tensor) -> Tensor:
        place = (t.double().cpu() - self.start) / (self.end - self.start)
        return (place * _CELLS).round().long().clamp(0, _CELLS).expand(self.n)

    def _at(self, cell: Tensor) -> Tensor:
        """w at grid cells (n,), by bisection from the whole interval."""
        size, width = _CELLS, self.end - self.start
        left, low = torch.zeros(self.n, dtype=torch.int64), torch.zeros(self.n, *self.shape, dtype=self.dtype)
        high = math.sqrt(width) * self._cached_normals(0, 0, 0, self.n)
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
        """The normals of the intervals `place` (n,) of one level."""
        values, runs = torch.unique_consecutive(place, return_counts=True)
        pieces, row = [], 0
        for number, rows in zip(values.tolist(), runs.tolist(), strict=True):
            pieces.append(self._cached_normals(level, number, row, rows))
            row += rows
        return torch.cat(pieces)

    def _normals(self, level: int, number: int, row: int, rows: int) -> Tensor:
        address = _FIRST + (1 << level) + number
        return normal(self.seed, Purpose.PATH, address, self.first + row, rows, self.shape, self.dtype)

    def _column(self, c: Tensor) -> Tensor:
        return c.to(self.dtype).reshape(-1, *[1] * len(self.shape))
