"""What lower precision and compilation bring on this machine: the recipe's U-Net on the digits at 28x28.

The ways take turns, an update each, so that a load on the machine meets all of them. Seconds are CPU seconds of this
process and of the compilers that it starts (of the clock, on a GPU); the first update is that with the warm-up. The
path loss of 256 held-out rows after the last update says whether the precision is enough.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

from undiffuse.data import Dataset, open_data
from undiffuse.experiment import Experiment
from undiffuse.recipes import for_data
from undiffuse.training.batches import Feed, batch_gradient
from undiffuse.training.loop import path_loss
from undiffuse.training.model_config import describe, initialized, pick_device
from undiffuse.training.precision import configure
from undiffuse.training.run import split_held_out
from undiffuse.training.state import TrainingState

WAYS = {"fp32": ("fp32", "off"), "bf16": ("bf16", "off"), "fp32 compiled": ("fp32", "on"),
        "bf16 compiled": ("bf16", "on")}


def table(updates: str = "200", device: str = "cpu", *ways: str) -> Iterator[str]:
    """ways: of fp32, bf16, "fp32 compiled" and "bf16 compiled"; by default all of them."""
    e = for_data("digits", image_size=28, steps=int(updates), device=device).experiment
    rows, held_out, _ = split_held_out(open_data(e.data, size=e.image_size), e.held_out)
    assert held_out is not None
    runs = {way: _Run(e.replace(precision=WAYS[way][0], compile=WAYS[way][1]), rows) for way in ways or WAYS}
    for _ in range(e.steps):
        for run in runs.values():
            run.update()
    unit = "CPU s" if device == "cpu" else "s"
    for way, run in runs.items():
        later = sorted(run.times[1:])
        loss = path_loss(Feed(e, held_out, run.state.ema_model), e.steps)
        yield (f"{way:15} first update {run.times[0]:7.2f} {unit}, then {later[len(later) // 2] * 1e3:7.1f} ms each "
               f"(median), path loss after {updates} {loss:.4f} nats an entry")


class _Run:
    """A training and the seconds of its updates."""

    def __init__(self, e: Experiment, rows: Dataset) -> None:
        model = initialized(describe(e, rows, ""), e.seed, rows).to(pick_device(e.device))
        self.state, self.times = TrainingState(e, model), list[float]()
        configure(model, e, e.precision)
        self.feed = Feed(e, rows, model)

    def update(self) -> None:
        """One, timed."""
        start, e = self._clock(), self.state.experiment
        self.state.update(batch_gradient(self.state, self.feed, 0, e.batch_size))
        int(self.state.steps_applied)  # waits for the device
        self.times.append(self._clock() - start)

    def _clock(self) -> float:
        if self.state.model.device.type != "cpu":
            return time.perf_counter()
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in usage)
