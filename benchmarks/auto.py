"""The default against the best published sampler and grid at every budget, on laws that neither was made for.

A published entry is a row of ours with its own rule, on a grid of theirs, with and without the lower order at the end;
what stands in the table is the error of the default over the least error of all of them, budget by budget.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.measure.laws import Problem, digits, modes
from benchmarks.measure.published import entries
from benchmarks.measure.solvers import BUDGETS


def table(seeds: str = "3", n: str = "128") -> Iterator[str]:
    """For each law: the least published error, by which entry, and the default's share of it with and without
    the data's moments."""
    for seed in range(100, 100 + int(seeds)):
        laws = {"plane": modes(seed), "plane x3": modes(seed, 3.0), "plane x0.5": modes(seed, 0.5),
                "digits": digits(seed), "digits x0.54": digits(seed, 0.54)}
        for name, law in laws.items():
            problem = Problem(law, int(n))
            moments = problem.model.moments
            for budget in BUDGETS:
                least, entry = min(published(problem, budget))
                shares = []
                for problem.model.moments in (None, moments):
                    shares.append(problem.error("auto", budget)[0] / least)
                plain, ours = shares
                yield (f"{name:14}{seed:4}{budget:5} {least:9.2e} {entry:40} auto {ours:5.2f}  "
                       f"without moments {plain:5.2f}")


def published(problem: Problem, budget: int) -> Iterator[tuple[float, str]]:
    """The error of every published entry and its name."""
    for entry in entries(budget):
        yield problem.error(entry.method, entry.steps, entry.grid, **entry.options)[0], entry.name
