"""Time per update on this machine, measured on a few updates, to choose the number of updates for a given time.

The chosen number becomes part of the experiment. No clock ends a training, so the run can be repeated, resumed and
replayed like any other.
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

_WARMUP = 2  # first updates, which are slower and do not count
_MIN, _MAX, _SECONDS = 2, 40, 2.0  # updates that count: at least, at most, and seconds after which they suffice
_LIMIT = 1 << 40  # updates


class StepTiming(NamedTuple):
    """Seconds per update, and per checkpoint including the measurements on held-out rows."""

    update: float
    save: float

    def max_steps(self, seconds: float, save_every: Callable[[int], int]) -> int:
        """The largest number of updates n with n · update + ⌈n/save_every(n)⌉ · save ≤ seconds; 0 if none fits."""
        def cost(n: int) -> float:
            return n * self.update + -(-n // save_every(n)) * self.save

        return bisect_right(range(1, _LIMIT), seconds, key=cost)


def measure(recipe: Recipe, clock: Callable[[], float] = time.perf_counter) -> StepTiming:
    """The timing of a recipe on this machine; its model is discarded."""
    experiment = recipe.experiment
    rows, held_out, _ = split_held_out(recipe.data or load_dataset(experiment), experiment.held_out)
    config = describe(experiment, rows, "", recipe.transform, recipe.deviation)
    model = initialized(config, experiment.seed, rows).to(pick_device(experiment.device))
    state, feed = TrainingState(experiment, model), Feed(experiment, rows, model)
    group = ProcessGroup(deterministic=experiment.deterministic_reduction)
    configure(model, experiment, config["precision"])
    measured = None if held_out is None else Feed(experiment, held_out, state.ema_model)

    def update() -> None:
        state.update(group.batch_sum(lambda first, end: batch_gradient(state, feed, first, end), experiment.batch_size))
        int(state.steps_applied)  # waits for the device

    def save() -> None:
        if measured is not None:
            held_out_loss(measured, experiment.steps)
            path_loss(measured, experiment.steps)
        with TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), 0, state.tensors(), {})

    times: list[float] = []
    while len(times) < _WARMUP + _MIN or (len(times) < _WARMUP + _MAX and sum(times[_WARMUP:]) < _SECONDS):
        times.append(_timed(update, clock))
    counted = times[_WARMUP:]
    return StepTiming(sum(counted) / len(counted), _timed(save, clock))


def _timed(work: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start
