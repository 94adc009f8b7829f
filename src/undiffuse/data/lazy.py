"""Rows that stay on the disk and are read when they are asked for, so that memory does not grow with the data."""

from __future__ import annotations

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 30  # bytes beyond which images are left on the disk
_WORKERS = max(1, min(8, os.cpu_count() or 1))
_AHEAD = 4  # requests that are read before they are made


class Lazy(ABC):
    """Rows (N, *event) of which x[i], x[a:b] and x[index] are tensors, read at that moment, and `take` a part unread.

    Rows that were announced with `expect` are read by threads meanwhile, which is where images are decoded.
    """

    device = torch.device("cpu")

    def __init__(self, row: Sequence[int], dtype: torch.dtype, count: int) -> None:
        self.row, self.dtype, self.numbers = tuple(row), dtype, torch.arange(count)
        self._coming: dict[bytes, list[Future[Tensor]]] = {}
        self._pool: ThreadPoolExecutor | None = None

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> Tensor:
        """The rows of these numbers in the whole."""

    @abstractmethod
    def identity(self) -> bytes:
        """What tells these data from others without reading all of them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *event)."""
        return (len(self.numbers), *self.row)

    def __len__(self) -> int:
        return len(self.numbers)

    def is_floating_point(self) -> bool:
        """Whether the rows are fractions; images are not."""
        return self.dtype.is_floating_point

    def take(self, index: Tensor) -> Self:
        """The rows with these places, in this order, still unread."""
        part = copy.copy(self)
        part.numbers, part._coming, part._pool = self.numbers[index], {}, None
        return part

    def expect(self, index: Tensor) -> None:
        """Begins to read rows that will be asked for soon, by exactly this index."""
        numbers = self.numbers[index]
        key = numbers.numpy().tobytes()
        if key in self._coming or len(self._coming) >= _AHEAD:
            return
        self._pool = self._pool or ThreadPoolExecutor(_WORKERS)
        parts = [part.tolist() for part in numbers.tensor_split(_WORKERS) if len(part)]
        self._coming[key] = [self._pool.submit(self.read, part) for part in parts]

    def __getitem__(self, key: Any) -> Tensor:
        numbers = self.numbers[key]
        parts = self._coming.pop(numbers.numpy().tobytes(), None)
        if parts is not None:
            return torch.cat([part.result() for part in parts])
        rows = self.read(numbers.reshape(-1).tolist())
        return rows[0] if numbers.ndim == 0 else rows


class StoredArray(Lazy):
    """Rows of one array in a file, of the event's shape `row`, from byte `offset` on; uint8, float32 or float64."""

    def __init__(self, path: Path, offset: int, row: Sequence[int], dtype: torch.dtype, count: int) -> None:
        super().__init__(row, dtype, count)
        self.path, self.offset = path, offset
        self._kind = torch.empty(0, dtype=dtype).numpy().dtype
        self._size = self._kind.itemsize * int(np.prod(self.row, dtype=np.int64))
        self._file = path.open("rb", buffering=0)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """By one system call for rows that follow one another, else by one a row."""
        out = np.empty((len(numbers), *self.row), self._kind)
        room = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        size, at = self._size, 0
        while at < len(numbers):
            end = at + 1
            while end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
                end += 1
            os.preadv(self._file.fileno(), [room[at * size : end * size]], self.offset + numbers[at] * size)
            at = end
        return torch.from_numpy(out)

    def identity(self) -> bytes:
        """The numbers of the rows, the size of the file, and 1,024 rows spread over it."""
        spread = self.numbers[torch.linspace(0, len(self) - 1, min(len(self), 1024)).long()].tolist()
        return b"".join((str(self.path.stat().st_size).encode(), self.numbers.numpy().tobytes(),
                         self.read(spread).numpy().tobytes()))


class ChannelsLast(StoredArray):
    """Images (N, H, W, C) in a file as rows (N, C, H, W)."""

    def __init__(self, path: Path, offset: int, row: Sequence[int], count: int) -> None:
        super().__init__(path, offset, row, torch.uint8, count)
        height, width, channels = row
        self.seen = (channels, height, width)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.numbers), *self.seen)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The images with their channels first."""
        return super().read(numbers).permute(0, 3, 1, 2)
