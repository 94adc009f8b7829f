"""Which average of the weights is best: the held-out loss of averages of many lengths, made after the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.training.batches import Feed
from undiffuse.training.loop import MEASURED, held_out_loss
from undiffuse.training.run import Run, load, load_data, open_run

SWEEP = (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.17, 0.2, 0.25)


class EmaScore(NamedTuple):
    """An average and its held-out loss: σ_rel, or None for the running average."""

    length: float | None
    held_out: float


def compare_ema(run: Path | str, lengths: Iterable[float] = SWEEP, data: Dataset | None = None,
          seen: Callable[[EmaScore], None] = lambda row: None) -> list[EmaScore]:
    """The held-out loss of the running average and of power averages of those σ_rel, on the same noise.

    `seen` is told of each as it comes. Raises InputError for a run without held-out rows or without stored averages.
    """
    opened, (_, held) = open_run(run), load_data(run, data)
    if held is None:
        raise InputError(f"{run} has no held-out rows to measure on; train with held_out above 0")
    return compared(opened, held, lengths, seen)


def compared(run: Run, held: Dataset, lengths: Iterable[float] = SWEEP,
             seen: Callable[[EmaScore], None] = lambda row: None, most: int = MEASURED) -> list[EmaScore]:
    """The same on at most so many of some rows."""
    model, rows = load(run.folder, "running", "cpu"), list[EmaScore]()
    feed = Feed(run.experiment, held, model)
    for length in (None, *lengths):
        if length is not None:
            run.average(model, length)
        rows.append(EmaScore(length, held_out_loss(feed, run.experiment.steps, most)["held_out"]))
        seen(rows[-1])
    return rows
