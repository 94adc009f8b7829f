"""Samples by one process or several into one file, in constant memory.

Sample i of a seed has the same bytes on every process, so the file does not depend on their number. The processes
share a disk: each writes its rows into one temporary file, from which the first process makes the final one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from undiffuse.atomic_files import temporary
from undiffuse.data.lazy import StoredArray
from undiffuse.data.writers import check_path
from undiffuse.errors import InputError, MachineError, quote
from undiffuse.model import Model
from undiffuse.progress import bar, part
from undiffuse.random import classes
from undiffuse.samplers.driver import Progress
from undiffuse.training.distributed import ProcessGroup, process_group

_PIECE_SIZE = 1 << 21  # values per piece

Rows = Callable[[int, int, Progress], Tensor]


def sample_to_file(model: Model, rows: Rows, ranges: Sequence[tuple[int, int]], path: Path,
                   save: Callable[[StoredArray], Path]) -> Path:
    """Write a file of samples; returns its path.

    Args:
        model: the model that is sampled.
        rows: rows(first, count, progress) generates samples in data units.
        ranges: ranges (first index, count) of samples, in the order of the file.
        path: the file.
        save: writes the file from all samples, on the first process.

    Raises:
        InputError: for a path that cannot be written.
        MachineError: for a full disk.
    """
    if negative := [count for _, count in ranges if count < 0]:
        raise InputError(f"got n={negative[0]}; expected a number of samples ≥ 0")
    template = model.transform.inverse(torch.empty(0, *model.shape, dtype=model.dtype))
    size = math.prod(template.shape[1:]) * template.element_size()
    with process_group(model.device) as group, ExitStack() as stack:
        check_path(path)
        total = sum(count for _, count in ranges)
        stored = Path(group.broadcast_object(lambda: _reserve(stack, path, size * total)))
        _fill(group, stored, rows, list(_pieces(ranges, model.block, template)), size)
        group.barrier()
        samples = StoredArray(stored, 0, template.shape[1:], template.dtype, total)
        return Path(group.broadcast_object(lambda: str(save(samples))))


def random_labels(counts: Sequence[int], seed: int, first: int, n: int) -> list[int]:
    """Random classes of the samples first ... first + n − 1, as frequent as in the data.

    Args:
        counts: training rows per class.
        seed: seed of the samples.
        first: index of the first sample.
        n: number of samples.
    """
    labels: list[int] = classes(seed, first, torch.tensor(counts).expand(n, -1)).tolist()
    return labels


def _pieces(ranges: Sequence[tuple[int, int]], block: int, template: Tensor) -> Iterator[tuple[int, int, int]]:
    """(row in the file, first index, count) of pieces that are multiples of the block."""
    size, row = block * max(1, _PIECE_SIZE // (block * max(1, math.prod(template.shape[1:])))), 0
    for first, count in ranges:
        for start in range(0, count, size):
            yield row + start, first + start, min(size, count - start)
        row += count


def _fill(group: ProcessGroup, stored: Path, rows: Rows, pieces: Sequence[tuple[int, int, int]], size: int) -> None:
    """Write the pieces of this process."""
    local = pieces[group.rank :: group.size]
    with stored.open("r+b", buffering=0) as file, bar("sampling", group.is_main) as progress:
        for k, (row, first, count) in enumerate(local):
            samples = rows(first, count, part(progress, k, len(local)))
            data, at = samples.contiguous().numpy().tobytes(), row * size
            try:
                while data:
                    written = os.pwrite(file.fileno(), data, at)
                    data, at = data[written:], at + written
            except OSError as error:
                raise MachineError(f"cannot write {stored}: {error.strerror}; free space and run the command "
                                   "again") from error


def _reserve(stack: ExitStack, path: Path, size: int) -> str:
    """The name of a temporary file of a size beside a path; the stack removes it."""
    try:
        file = stack.enter_context(temporary(path, ".rows"))
        file.truncate(size)
    except OSError as error:
        raise MachineError(f"cannot write {quote(path)}: {error.strerror}; choose another folder") from error
    return file.name
