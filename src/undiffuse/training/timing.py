"""How long an update takes on this machine, measured on a few that are thrown away: to choose their number by time.

The number that is chosen belongs to the experiment. No clock is looked at to end a training, so a run that was chosen
so is repeated, continued and replayed like any other.
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
from undiffuse.training.batches import Feed
from undiffuse.training.diagnose import batch_gradient
from undiffuse.training.distributed import ProcessGroup
from undiffuse.training.loop import held_out_loss, path_loss
from undiffuse.training.model_config import describe, initialized, pick_device
from undiffuse.training.precision import configure
from undiffuse.training.run import load_dataset, split_held_out
from undiffuse.training.state import State

_FIRST = 2  # updates that are slower than those that follow, and do not count
_FEWEST, _MOST, _ENOUGH = 2, 40, 2.0  # updates that count: at least, at most, and seconds after which there are enough
_LIMIT = 1 << 40  # updates


class StepTiming(NamedTuple):
    """Seconds that an update takes, and that a save takes with the measurement on the held-out rows before it."""

    update: float
    save: float

    def most(self, seconds: float, save_every: Callable[[int], int]) -> int:
        """The largest number of updates n with n `update` + ⌈n/save_every(n)⌉ `save` ≤ seconds, 0 if there is none."""
        def cost(n: int) -> float:
            return n * self.update + -(-n // save_every(n)) * self.save

        return bisect_right(range(1, _LIMIT), seconds, key=cost)


def measure(recipe: Recipe, clock: Callable[[], float] = time.perf_counter) -> StepTiming:
    """The pace of a recipe on this machine; nothing remains of the updates that are made for it."""
    experiment = recipe.experiment
    rows, held, _ = split_held_out(recipe.data or load_dataset(experiment), experiment.held_out)
    config = describe(experiment, rows, "", recipe.transform, recipe.deviation)
    model = initialized(config, experiment.seed, rows).to(pick_device(experiment.device))
    state, feed = State(experiment, model), Feed(experiment, rows, model)
    team = ProcessGroup(exact=experiment.deterministic_reduction)
    configure(model, experiment, config.get("precision", "fp32"))
    kept = Feed(experiment, held, state.average) if held is not None else None

    def update() -> None:
        state.update(team.total(lambda first, end: batch_gradient(state, feed, first, end), experiment.batch_size))
        int(state.made)  # waits for the device

    def save() -> None:
        if kept is not None:
            held_out_loss(kept, experiment.steps)
            path_loss(kept, experiment.steps)
        with TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), 0, state.tensors(), {})

    times: list[float] = []
    while len(times) < _FIRST + _FEWEST or (len(times) < _FIRST + _MOST and sum(times[_FIRST:]) < _ENOUGH):
        times.append(_timed(update, clock))
    counted = times[_FIRST:]
    return StepTiming(sum(counted) / len(counted), _timed(save, clock))


def _timed(work: Callable[[], None], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start
