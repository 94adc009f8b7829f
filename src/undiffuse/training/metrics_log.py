"""metrics.jsonl: one JSON object per measurement, and trackers (TensorBoard, trackio, W&B, MLflow, ... by accelerate).

The file is exact across interruptions and is what reports read; trackers receive the same numbers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from undiffuse.errors import InputError, MachineError
from undiffuse.regular_files import open_regular

Listener = Callable[[dict[str, Any]], None]


@contextmanager
def tracked(names: Sequence[str], folder: Path, about: dict[str, Any]) -> Iterator[list[Listener]]:
    """One function per tracker that receives every entry of the metrics, until the trackers are closed.

    Args:
        names: Names of the trackers.
        folder: Folder of the run.
        about: The experiment as JSON values.

    Raises:
        InputError: For an unknown tracker.
        MachineError: For a tracker that is not installed.
    """
    with ExitStack() as stack:
        listeners = list[Listener]()
        for name in names:
            tracker = _tracker(name, folder, about)
            stack.callback(tracker.finish)
            listeners.append(partial(_send, tracker))
        yield listeners


def check_trackers(names: Sequence[str]) -> None:
    """InputError for an unknown tracker, MachineError for one that is not installed."""
    for name in names:
        _tracker_class(name)


def scalars(entry: dict[str, Any]) -> dict[str, float]:
    """The numbers of an entry by name; "loss_at/LOG_SIGMA" for the loss in a bin of noise levels."""
    plain = {key: value for key, value in entry.items() if isinstance(value, int | float) and key != "step"}
    return plain | {f"loss_at/{level:.1f}": value for level, value in entry.get("levels", ())}


def _send(tracker: Any, entry: dict[str, Any]) -> None:
    tracker.log(scalars(entry), step=entry["step"])


def _tracker_class(name: str) -> Any:
    try:
        from accelerate import PartialState, tracking
    except ImportError:
        raise InputError(f"got track={name!r}; expected the package accelerate, which is not installed; run "
                         "pip install 'undiffuse[track]'") from None
    PartialState(cpu=True)  # without it accelerate's own log raises
    classes = {str(kind): cls for kind, cls in tracking.LOGGER_TYPE_TO_CLASS.items()}
    if name not in classes:
        raise InputError(f"got track={name!r}; expected one of {', '.join(sorted(classes))}")
    if name not in map(str, tracking.get_available_trackers()):
        raise MachineError(f"the tracker {name} is not installed; run pip install {name}")
    return type(name, (classes[name],), {"main_process_only": False})  # only the main process creates it


def _tracker(name: str, folder: Path, about: dict[str, Any]) -> Any:
    cls = _tracker_class(name)
    options = {"logging_dir": folder} if cls.requires_logging_directory else {}
    tracker = cls(folder.resolve().name, **options)
    tracker.start()
    tracker.store_init_configuration({key: value if isinstance(value, bool | int | float | str) else str(value)
                                      for key, value in about.items()})
    return tracker


NAME = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The entries of a metrics file up to the first incomplete line; empty without a file."""
    return [line for line, _ in _lines(path)]


def training_seconds(entries: Sequence[dict[str, Any]]) -> float | None:
    """The duration of the training up to the last of the entries; None if none has it."""
    return next((float(entry["seconds"]) for entry in reversed(entries) if "seconds" in entry), None)


class Log:
    """The metrics of a run, open for appending; entries after `step` are cut off.

    Entries before a checkpoint reach the disk before the checkpoint does (`sync`), so that a resumed run repeats
    exactly the lines that were cut off.

    Args:
        folder: Folder of the run.
        step: The step at which the training starts or resumes.
        listeners: Functions that receive every entry.
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
        """Appends an entry, which must have `step`; MachineError if the disk is full."""
        text = json.dumps(entry, allow_nan=False).encode() + b"\n"
        try:
            while text:
                text = text[os.write(self._handle, text):]
        except OSError as error:
            raise MachineError(f"cannot write {self._path}: {error.strerror}; free some space and "
                               "run the command again") from error
        for listener in self._listeners:
            listener(entry)

    def sync(self) -> None:
        """Forces the lines to the disk."""
        os.fsync(self._handle)


def _lines(path: Path) -> list[tuple[dict[str, Any], int]]:
    """The complete entries and the offset at which each ends."""
    entries, end = [], 0
    if not path.exists():
        return []
    with open_regular(path) as stream:
        for raw in stream:
            line, end = _parsed(raw), end + len(raw)
            if line is None:
                break
            entries.append((line, end))
    return entries


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """The entry of a complete line: a step, and numbers or pairs of numbers; None for any other line."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not raw.endswith(b"\n") or not isinstance(line, dict) or not isinstance(line.get("step"), int):
        return None
    levels = line.get("levels", [])
    pairs = isinstance(levels, list) and all(isinstance(pair, list) and len(pair) == 2 and all(
        isinstance(value, int | float) for value in pair) for pair in levels)
    numbers = all(value is None or isinstance(value, int | float) for name, value in line.items() if name != "levels")
    return line if pairs and numbers else None
