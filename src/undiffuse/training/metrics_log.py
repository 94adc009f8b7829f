"""metrics.jsonl: what was measured at which step, one JSON object per line, exact across interruptions.

Trackers: the metrics of a run sent on to TensorBoard, trackio, W&B, MLflow and others, by accelerate.

metrics.jsonl is always written and is what reports read; a tracker is told the same numbers.
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

Listener = Callable[[dict[str, Any]], None]


@contextmanager
def tracked(names: Sequence[str], folder: Path, about: dict[str, Any]) -> Iterator[list[Listener]]:
    """What is to be told of every entry of the metrics, one for each tracker, until they are closed.

    `about` is the experiment. Raises InputError for an unknown tracker, MachineError for one that is not installed.
    """
    with ExitStack() as opened:
        listeners = list[Listener]()
        for name in names:
            tracker = _tracker(name, folder, about)
            opened.callback(tracker.finish)
            listeners.append(partial(_tell, tracker))
        yield listeners


def scalars(entry: dict[str, Any]) -> dict[str, float]:
    """The numbers of an entry; the loss of a band of noise levels is "loss_at/LOG_SIGMA"."""
    plain = {key: value for key, value in entry.items() if isinstance(value, int | float) and key != "step"}
    return plain | {f"loss_at/{level:.1f}": value for level, value in entry.get("levels", ())}


def _tell(tracker: Any, entry: dict[str, Any]) -> None:
    tracker.log(scalars(entry), step=entry["step"])


def _tracker(name: str, folder: Path, about: dict[str, Any]) -> Any:
    try:
        from accelerate import PartialState, tracking
    except ImportError:
        raise InputError(f"got track={name!r}; trackers need the package accelerate, which is not installed; run "
                         "pip install 'undiffuse[track]'") from None
    PartialState(cpu=True)  # without it accelerate's own log raises
    known = {str(kind): cls for kind, cls in tracking.LOGGER_TYPE_TO_CLASS.items()}
    if name not in known:
        raise InputError(f"got track={name!r}; expected one of {', '.join(sorted(known))}")
    if name not in map(str, tracking.get_available_trackers()):
        raise MachineError(f"the tracker {name} is not installed; run pip install {name}")
    here: Any = type(name, (known[name],), {"main_process_only": False})  # it is made on the first process only
    place = {"logging_dir": folder} if here.requires_logging_directory else {}
    tracker = here(folder.resolve().name, **place)
    tracker.start()
    tracker.store_init_configuration({key: value if isinstance(value, bool | int | float | str) else str(value)
                                      for key, value in about.items()})
    return tracker


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
