"""What lower precision and compilation bring on this machine: the recipe's U-Net on the digits at 28x28.

CPU seconds of this process and of the compilers that it starts (seconds, on a GPU); the first update is that with the
warm-up. The path loss of 256 held-out rows after the last update says whether the precision is enough.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

from undiffuse.data import open_data
from undiffuse.experiment import Experiment
from undiffuse.recipes import for_data
from undiffuse.training.build import describe, initialized, pick_device
from undiffuse.training.faults import slope
from undiffuse.training.feed import Feed
from undiffuse.training.loop import path_loss
from undiffuse.training.run import divide
from undiffuse.training.speed import prepare
from undiffuse.training.state import State

WAYS = {"fp32": ("fp32", "off"), "bf16": ("bf16", "off"), "fp32 compiled": ("fp32", "on"),
        "bf16 compiled": ("bf16", "on")}


def table(updates: str = "200", device: str = "cpu", *ways: str) -> Iterator[str]:
    """ways: of fp32, bf16, "fp32 compiled" and "bf16 compiled"; by default all of them."""
    e, _ = for_data("digits", size=28, steps=int(updates), device=device)
    unit = "CPU s" if device == "cpu" else "s"
    for way in ways or WAYS:
        precision, compiled = WAYS[way]
        first, middle, loss = measured(e.replace(precision=precision, compile=compiled))
        yield (f"{way:15} first update {first:7.2f} {unit}, then {middle * 1e3:7.1f} ms each (median), path loss after "
               f"{updates} {loss:.4f} nats an entry")


def measured(e: Experiment) -> tuple[float, float, float]:
    """Seconds of the first update, the median of the others, and the held-out path loss after all."""
    rows, held, _ = divide(open_data(e.data, size=e.size), e.held_out)
    assert held is not None
    model = initialized(describe(e, rows, ""), e.seed, rows).to(pick_device(e.device))
    state = State(e, model)
    prepare(model, e, e.precision)
    feed, times = Feed(e, rows, model), list[float]()
    for _ in range(e.steps):
        start = _clock(e)
        state.update(slope(state, feed, 0, e.batch))
        int(state.made)  # waits for the device
        times.append(_clock(e) - start)
    return times[0], sorted(times[1:])[len(times) // 2], path_loss(Feed(e, held, state.average), e.steps)


def _clock(e: Experiment) -> float:
    if e.device != "cpu":
        return time.perf_counter()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)
