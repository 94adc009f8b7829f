"""Time per update on this machine, measured on a few updates, and the number of updates for a given training time.

The number becomes part of the experiment. Training ends after that number, not at a time, so that the run can be
repeated, resumed and replayed like any other.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from undiffuse.experiment import Recipe
from undiffuse.training import checkpoint
from undiffuse.training.batches import Feed, batch_gradient
from undiffuse.training.distributed import ProcessGroup
from undiffuse.training.loop import held_out_loss, path_loss
from undiffuse.training.model_config import describe, initialized, pick_device
from undiffuse.training.precision import configure
from undiffuse.training.run import load_dataset, split_held_out
from undiffuse.training.state import TrainingState

_WARMUP = 2  # first updates, slower, not timed
_MIN, _MAX, _SECONDS = 2, 40, 2.0  # timed updates: minimum, maximum, and total seconds that suffice
_LIMIT = 1 << 40  # updates


class StepTiming(NamedTuple):
    """Seconds per update, and seconds per checkpoint including the evaluation on held-out rows."""

    update: float
    save: float

    def max_steps(self, seconds: float, save_every: Callable[[int], int]) -> int:
        """The largest number n of updates with n · update + ⌈n/save_every(n)⌉ · save ≤ seconds, or 0."""
        def cost(n: int) -> float:
            return n * self.update + -(-n // save_every(n)) * self.save

        return bisect_right(range(1, _LIMIT), seconds, key=cost)


def measure(recipe: Recipe, clock: Callable[[], float] = time.perf_counter) -> StepTiming:
    """Seconds per update and per checkpoint on this machine; the model of these updates is discarded.

    Args:
        recipe: The experiment to time, with its data if opened.
        clock: Clock in seconds.
    """
    experiment = recipe.experiment
    rows, held_out, _ = split_held_out(recipe.data or load_dataset(experiment), experiment.held_out)
    config = describe(experiment, rows, "", recipe.transform, recipe.data_std)
    model = initialized(config, experiment.seed, rows).to(pick_device(experiment.device))
    state, feed = TrainingState(experiment, model), Feed(experiment, rows, model)
    group = ProcessGroup(deterministic=experiment.deterministic_reduction)
    configure(model, experiment, config["precision"])
    held_out_feed = None if held_out is None else Feed(experiment, held_out, state.ema_model)

    def update() -> None:
        state.update(group.batch_sum(lambda first, end: batch_gradient(state, feed, first, end), experiment.batch_size))
        int(state.steps_applied)  # waits for the device

    def save() -> None:
        if held_out_feed is not None:
            held_out_loss(held_out_feed, experiment.steps)
            path_loss(held_out_feed, experiment.steps)
        with TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), 0, state.tensors(), {})

    times: list[float] = []
    while len(times) < _WARMUP + _MIN or (len(times) < _WARMUP + _MAX and sum(times[_WARMUP:]) < _SECONDS):
        times.append(_seconds(update, clock))
    times = times[_WARMUP:]
    return StepTiming(sum(times) / len(times), _seconds(save, clock))


def _seconds(work: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start
