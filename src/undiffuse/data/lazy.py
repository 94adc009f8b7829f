"""Rows that stay on the disk and are read on access, so that memory does not grow with the data."""

from __future__ import annotations

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 30  # bytes above which images stay on the disk
_WORKERS = max(1, min(8, os.cpu_count() or 1))
_MAX_PREFETCHED = 4  # requests that are read ahead


class Lazy(ABC):
    """Rows (N, *event) on the disk: x[i], x[a:b] and x[index] are tensors, read on access; `take` reads nothing.

    Threads read the rows of `prefetch` in advance, which is where images are decoded.
    """

    device = torch.device("cpu")

    def __init__(self, row: Sequence[int], dtype: torch.dtype, count: int) -> None:
        self.row, self.dtype, self.numbers = tuple(row), dtype, torch.arange(count)
        self._prefetched: dict[bytes, list[Future[Tensor]]] = {}
        self._pool: ThreadPoolExecutor | None = None

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> Tensor:
        """The rows of these numbers of the source."""

    @abstractmethod
    def identity(self) -> bytes:
        """Bytes that identify the data, from a part of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *event)."""
        return (len(self.numbers), *self.row)

    def __len__(self) -> int:
        return len(self.numbers)

    def is_floating_point(self) -> bool:
        """Whether the rows are floats; images are not."""
        return self.dtype.is_floating_point

    def take(self, index: Tensor) -> Self:
        """The rows with these numbers, in this order, unread."""
        part = copy.copy(self)
        part.numbers, part._prefetched, part._pool = self.numbers[index], {}, None
        return part

    def prefetch(self, index: Tensor) -> None:
        """Start to read the rows of an upcoming `x[index]`."""
        numbers = self.numbers[index]
        key = numbers.numpy().tobytes()
        if key in self._prefetched or len(self._prefetched) >= _MAX_PREFETCHED:
            return
        self._pool = self._pool or ThreadPoolExecutor(_WORKERS)
        parts = [part.tolist() for part in numbers.tensor_split(_WORKERS) if len(part)]
        self._prefetched[key] = [self._pool.submit(self.read, part) for part in parts]

    def __getitem__(self, key: Any) -> Tensor:
        numbers = self.numbers[key]
        parts = self._prefetched.pop(numbers.numpy().tobytes(), None)
        if parts is not None:
            return torch.cat([part.result() for part in parts])
        rows = self.read(numbers.reshape(-1).tolist())
        return rows[0] if numbers.ndim == 0 else rows


class StoredArray(Lazy):
    """Rows of an array in a file.

    Args:
        path: the file, which stays open.
        offset: byte at which the array starts.
        row: shape of a row.
        dtype: uint8, float32 or float64.
        count: number of rows.
    """

    def __init__(self, path: Path, offset: int, row: Sequence[int], dtype: torch.dtype, count: int) -> None:
        super().__init__(row, dtype, count)
        self.path, self.offset, self._file = path, offset, path.open("rb", buffering=0)
        self._kind = torch.empty(0, dtype=dtype).numpy().dtype

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The rows, by one system call for consecutive rows, which keeps no page of the file in memory."""
        out = np.empty((len(numbers), *self.row), self._kind)
        target, size = memoryview(out.reshape(-1).view(np.uint8)), self._row_bytes  # type: ignore[arg-type]
        start = 0
        while start < len(numbers):
            end = start + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
                end += 1
            os.preadv(self._file.fileno(), [target[start * size : end * size]], self.offset + numbers[start] * size)
            start = end
        return torch.from_numpy(out)

    @property
    def _row_bytes(self) -> int:
        return self._kind.itemsize * math.prod(self.row)

    def identity(self) -> bytes:
        """The numbers of the rows, the size of the file, and 1,024 rows spread over it."""
        spread = self.numbers[torch.linspace(0, len(self) - 1, min(len(self), 1024)).long()].tolist()
        return b"".join((str(self.path.stat().st_size).encode(), self.numbers.numpy().tobytes(),
                         self.read(spread).numpy().tobytes()))


class ChannelsLast(StoredArray):
    """Images (N, H, W, C) in a file as rows (N, C, H, W)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        height, width, channels = self.row
        return (len(self.numbers), channels, height, width)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The images, channels first."""
        return super().read(numbers).permute(0, 3, 1, 2)
