"""metrics.jsonl: what was measured at which step, one JSON object per line, exact across interruptions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from undiffuse.errors import MachineError

NAME = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file up to the first one that is not whole; none if there is no file."""
    return [line for line, _ in _lines(path)]


class Log:
    """The metrics of a run, open for adding; entries after the step at which it starts are cut off.

    What comes before a checkpoint is on the disk before the checkpoint is (`sync`), so that a resumed run repeats
    exactly the lines that were cut. `listeners` are told every entry as well. Raises MachineError where the disk is
    full.
    """

    def __init__(self, folder: Path, step: int, listeners: Sequence[Callable[[dict[str, Any]], None]] = ()) -> None:
        self._path, self._listeners = folder / NAME, listeners
        end = max((end for line, end in _lines(self._path) if line["step"] <= step), default=0)
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._handle, end)
        os.lseek(self._handle, 0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._handle)

    def write(self, **entry: Any) -> None:
        """Adds a line; it holds `step`."""
        text = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            while text:
                text = text[os.write(self._handle, text):]
        except OSError as error:
            raise MachineError(f"cannot write {self._path}: {error.strerror}; make room and continue") from error
        for listener in self._listeners:
            listener(entry)

    def sync(self) -> None:
        """Forces the lines to the disk."""
        os.fsync(self._handle)


def _lines(path: Path) -> list[tuple[dict[str, Any], int]]:
    """The whole lines and the place in the file where each ends."""
    found, end = [], 0
    for raw in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            line, end = json.loads(raw), end + len(raw)
            if not raw.endswith(b"\n") or not isinstance(line["step"], int):
                break
        except (ValueError, KeyError, TypeError):
            break
        found.append((line, end))
    return found
