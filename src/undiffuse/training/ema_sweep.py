"""Comparison of averages of the weights after a training: the held-out loss of power averages of many σ_rel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.training.batches import Feed
from undiffuse.training.loop import HELD_OUT_LOSS_ROWS, held_out_loss
from undiffuse.training.run import Run, load, load_data, open_run

SWEEP = (0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.17, 0.2, 0.25)


class EmaScore(NamedTuple):
    """An average and its held-out loss: σ_rel, or None for the exponential average."""

    sigma_rel: float | None
    held_out: float


def compare_ema(run: Path | str, sigma_rels: Iterable[float] = SWEEP, data: Dataset | None = None,
                on_score: Callable[[EmaScore], None] = lambda score: None) -> list[EmaScore]:
    """The held-out loss of the exponential average and of power averages, on the same noise.

    Args:
        run: Folder of the run.
        sigma_rels: σ_rel of the power averages.
        data: The data of a run that was trained on data in memory.
        on_score: Receives each score as soon as it is computed.

    Raises:
        InputError: For a run without held-out rows or without stored averages.
    """
    opened, (_, held_out) = open_run(run), load_data(run, data)
    if held_out is None:
        raise InputError(f"{run} has no held-out rows to measure on; train with held_out above 0")
    return ema_scores(opened, held_out, sigma_rels, on_score)


def ema_scores(run: Run, held_out: Dataset, sigma_rels: Iterable[float] = SWEEP,
               on_score: Callable[[EmaScore], None] = lambda score: None, n: int = HELD_OUT_LOSS_ROWS
               ) -> list[EmaScore]:
    """The scores of `compare_ema` on some rows.

    Args:
        run: The run with its stored averages.
        held_out: Rows to compute the loss on.
        sigma_rels: σ_rel of the power averages.
        on_score: Receives each score as soon as it is computed.
        n: Number of rows used, from the first.
    """
    model, scores = load(run.folder, "running", "cpu"), list[EmaScore]()
    feed = Feed(run.experiment, held_out, model)
    for sigma_rel in (None, *sigma_rels):
        if sigma_rel is not None:
            run.load_average(model, sigma_rel)
        scores.append(EmaScore(sigma_rel, held_out_loss(feed, run.experiment.steps, n)["held_out"]))
        on_score(scores[-1])
    return scores
