"""The search that made the tables of `samplers.default`: which sampler, grid and start for how many evaluations.

Every candidate is scored by its error over the least published one (`benchmarks.auto.published`), law by law; what
counts is the mean of the logarithms plus their greatest. All candidates meet four laws, the best forty all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

from benchmarks.auto import published
from benchmarks.measure.laws import Problem, digits, modes
from benchmarks.measure.solvers import BUDGETS
from undiffuse.errors import InputError
from undiffuse.samplers.default import LOWER, DefaultSampler

METHODS = ("dpm_solver_2m", "dpmpp_2m", "dpmpp_3m", "unipc", "unipc_3", "unipc_4_noise", "unipc_5_noise", "deis_2",
           "deis_3", "deis_4", "wiener_2m", "wiener_3m")
GRIDS = ("time_quadratic", "karras(5)", "karras", "karras(9)", "karras(12)", "karras(20)", "log_snr")
FIRSTS = (None, 3, 4, 7, 10, 14, 20, 35)
KEPT = 40


def laws(seeds: int = 3) -> list[Problem]:
    """The laws of the search, those of the first round in front; `benchmarks.auto` has others."""
    plane = [Problem(modes(seed, scale), 64) for seed, scale in product(range(seeds), (1.0, 3.0, 0.5))]
    images = [Problem(digits(seed, scale), 64) for seed, scale in product(range(seeds - 1), (1.0, 0.54))]
    return [plane[0], images[0], plane[1], images[1], *plane[2:], *images[2:]]


def candidates(jump: bool) -> list[DefaultSampler]:
    """What is tried, with a jump from T to `first` at no evaluation, or without."""
    levels = FIRSTS[1:] if jump else FIRSTS
    return [DefaultSampler(method, grid, first, jump, options)
            for method, grid, first, options in product(METHODS, GRIDS, levels, ((), LOWER))
            if first is None or grid != "time_quadratic"]


def score(ratios: list[float]) -> float:
    """Mean logarithm of the ratios plus the greatest: good everywhere, and bad nowhere."""
    logs = [math.log(ratio) for ratio in ratios]
    return sum(logs) / len(logs) + max(logs)


def ranked(found: list[DefaultSampler], ratio: Callable[[DefaultSampler, Problem], float], on: list[Problem]
           ) -> list[tuple[float, DefaultSampler, list[float]]]:
    """The candidates by score on these laws, the best first; those that a law cannot run are left out."""
    rows = []
    for choice in found:
        try:
            ratios = [ratio(choice, problem) for problem in on]
        except InputError:
            continue
        rows.append((score(ratios), choice, ratios))
    return sorted(rows, key=lambda row: row[0])


def table(jump: str = "1", budgets: str = "") -> Iterator[str]:
    """For every budget the three best candidates: score, mean and greatest ratio to the least published error."""
    on = laws()
    for budget in [int(b) for b in budgets.split(",") if b] or BUDGETS:
        least = {id(problem): min(published(problem, budget))[0] for problem in on}

        def ratio(choice: DefaultSampler, problem: Problem, budget: int = budget, least: dict[int, float] = least
                  ) -> float:
            error = problem.error(choice.build(), budget)[0]
            return error / least[id(problem)] if math.isfinite(error) else math.inf

        first = [choice for _, choice, _ in ranked(candidates(jump == "1"), ratio, on[:4])[:KEPT]]
        for value, choice, ratios in ranked(first, ratio, on)[:3]:
            last = " to order 1" if choice.options else ""
            yield (f"{budget:4} {str(choice) + last:60} score {value:6.2f}  geometric mean "
                   f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):5.2f}  greatest {max(ratios):5.2f}")
