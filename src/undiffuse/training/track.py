"""Trackers: the metrics of a run sent on to TensorBoard, trackio, W&B, MLflow and others, by accelerate.

metrics.jsonl is always written and is what reports read; a tracker is told the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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
