"""Samples drawn by one process or several into one file, with memory that does not depend on how many they are.

Sample i of a seed is the same bytes wherever it is drawn; so the file is the same whatever the number of processes.
They share a disk: each writes its rows into one file beside the final one, and the first makes that from it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from undiffuse.data.lazy import StoredArray
from undiffuse.data.writers import check_path
from undiffuse.errors import InputError, MachineError
from undiffuse.model import Model
from undiffuse.progress import bar, part
from undiffuse.random import classes
from undiffuse.samplers.driver import Progress
from undiffuse.training.distributed import ProcessGroup, process_group

_NUMBERS = 1 << 21  # in one piece


Rows = Callable[[int, int, Progress], Tensor]


def draw(model: Model, rows: Rows, wanted: Sequence[tuple[int, int]], path: Path, save: Callable[[StoredArray], Path]
         ) -> Path:
    """Makes a file of the samples in stretches (first index, how many), in this order, and returns its path.

    rows(first, count, progress) draws samples in data units; save(all of them) writes the file, on the first process.
    Raises InputError for a path that cannot be, MachineError for a full disk.
    """
    if least := [count for _, count in wanted if count < 0]:
        raise InputError(f"got n={least[0]}; expected a number of samples ≥ 0")
    like = model.transform.inverse(torch.empty(0, *model.shape, dtype=model.dtype))
    size = math.prod(like.shape[1:]) * like.element_size()
    with process_group(model.device) as team:
        check_path(path)
        shelf = Path(team.share(lambda: str(path.with_name(f".{path.name}.{os.getpid()}.rows.tmp"))))
        total = sum(count for _, count in wanted)
        try:
            team.share(lambda: _reserve(shelf, size * total))
            _fill(team, shelf, rows, list(_pieces(wanted, model.block, like)), size)
            team.wait()
            return Path(team.share(lambda: str(save(StoredArray(shelf, 0, like.shape[1:], like.dtype, total)))))
        finally:
            if team.leads:
                shelf.unlink(missing_ok=True)


def frequent(counts: Sequence[int], seed: int, first: int, n: int) -> list[int]:
    """Classes of the samples first ... first + n − 1, at the frequencies that they have in the data."""
    found: list[int] = classes(seed, first, torch.tensor(counts).expand(n, -1)).tolist()
    return found


def _pieces(wanted: Sequence[tuple[int, int]], block: int, like: Tensor) -> Iterator[tuple[int, int, int]]:
    """(place in the file, first index, how many) of pieces of whole blocks."""
    size, place = block * max(1, _NUMBERS // (block * max(1, math.prod(like.shape[1:])))), 0
    for first, count in wanted:
        for start in range(0, count, size):
            yield place + start, first + start, min(size, count - start)
        place += count


def _fill(team: ProcessGroup, shelf: Path, rows: Rows, pieces: Sequence[tuple[int, int, int]], size: int) -> None:
    """Draws the pieces of this process and writes each where it belongs."""
    mine = pieces[team.rank :: team.size]
    with shelf.open("r+b", buffering=0) as file, bar("sampling", team.leads) as progress:
        for k, (place, first, count) in enumerate(mine):
            drawn = rows(first, count, part(progress, k, len(mine)))
            data, at = drawn.contiguous().numpy().tobytes(), place * size
            try:
                while data:
                    written = os.pwrite(file.fileno(), data, at)
                    data, at = data[written:], at + written
            except OSError as error:
                raise MachineError(f"cannot write {shelf}: {error.strerror}; make room and draw again") from error


def _reserve(shelf: Path, size: int) -> int:
    try:
        with shelf.open("wb") as file:
            file.truncate(size)
    except OSError as error:
        raise MachineError(f"cannot write {shelf}: {error.strerror}; choose another place") from error
    return size
