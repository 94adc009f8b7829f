"""The cost of a tuning before it starts: evaluations of the model by a formula, and seconds by one measured call."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.tuning.reference import RowCounter

SIZES = ((32, 4), (16, 4), (16, 2), (8, 2), (8, 1), (8, 0), (4, 0))
"""(trajectories, rounds), from the best on; for large states, whose entries are many, from 8 on."""
_UNITS = {"s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class TuningCost:
    """What a tuning will cost.

    Args:
        trajectories: number of starts to fit to.
        rounds: Gauss-Newton rounds.
        evaluations: network evaluations of one row, at most about this number.
        seconds: of these evaluations.
    """

    trajectories: int
    rounds: int
    evaluations: int
    seconds: float

    def __str__(self) -> str:
        return (f"{self.trajectories} trajectories and {self.rounds} rounds: at most about {self.evaluations:,} "
                f"evaluations of the network, {_duration(self.seconds)} of its time")


def plan(model: Model, evaluations: Sequence[int], conditions: Sequence[dict[str, object]], trajectories: int | None,
         rounds: int | None, budget: float | str | None) -> TuningCost:
    """The size of a tuning, by what is given, else the largest within the budget.

    Args:
        model: the model.
        evaluations: numbers of evaluations to tune for.
        conditions: the conditions to tune for.
        trajectories: number of starts; None: by the budget.
        rounds: rounds; None: by the budget.
        budget: seconds of the network's time, or a text such as "10min"; None: no limit.

    Raises:
        InputError: for a budget below the cost of the smallest tuning.
    """
    counter, limit = RowCounter(model, dict(conditions[0]) if conditions else {}), seconds_of(budget)
    second, extra = _seconds_per_row(counter), 20 * counter.measured if model.moments is None else 0
    costs = []
    for n, r in SIZES:
        if counter.large and n > 8:
            continue
        n, r = n if trajectories is None else trajectories, r if rounds is None else rounds
        rows = extra + len(conditions) * rows_of(evaluations, n, r, counter.levels)
        costs.append(TuningCost(n, r, rows, rows * second))
        if costs[-1].seconds <= limit:
            return costs[-1]
    raise InputError(f"got a budget of {_duration(limit)}; expected at least {_duration(costs[-1].seconds)}, the cost "
                     f"of {costs[-1]}; tune to fewer numbers of evaluations, or raise it")


def rows_of(evaluations: Sequence[int], trajectories: int, rounds: int, levels: int) -> int:
    """Evaluations of one row: the references, and per number of evaluations n the fits, 57 n + rounds (11 n² + 42 n)
    per trajectory, measured on distributions for n from 4 to 20.

    Args:
        evaluations: numbers of evaluations.
        trajectories: number of starts.
        rounds: Gauss-Newton rounds.
        levels: levels of the reference.
    """
    reference = trajectories * (3 * levels + 2 + 8 * levels)
    return round(reference + trajectories * sum(57 * n + rounds * (11.4 * n**2 + 42 * n) for n in evaluations))


def seconds_of(budget: float | str | None) -> float:
    """The seconds of a budget such as 90, "90s", "10min" or "2h"; infinite for None."""
    if budget is None:
        return float("inf")
    if isinstance(budget, float | int) and budget > 0:
        return float(budget)
    match = re.fullmatch(r"(\d+\.?\d*) ?(s|min|h|)", str(budget))
    if match is None or float(match[1]) <= 0:
        raise InputError(f"got the budget {str(budget)[:40]!r}; expected a time such as 90s, 10min or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _seconds_per_row(counter: RowCounter) -> float:
    """The time of one row, by the second of two calls."""
    n, shape = counter.block(8 if counter.large else 64), counter.model.shape
    times = []
    t = torch.tensor((counter.model.t_start() + counter.model.t_end()) / 2, dtype=torch.float64)
    for _ in range(2):
        start = time.perf_counter()
        x = torch.zeros(n, *shape)
        counter.model.denoise(x.to(counter.model.device, counter.model.dtype), t,
                              **counter.conditions(torch.arange(n) % 8)).cpu()
        times.append(time.perf_counter() - start)
    return times[-1] / n


def _duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
