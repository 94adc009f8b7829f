"""The default against the best published sampler and grid at every budget, on laws that neither was made for.

A published entry is a row of ours with its own rule, on a grid of theirs, with and without the lower order at the end;
what stands in the table is the error of the default over the least error of all of them, budget by budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from undiffuse.bench.laws import Problem, digits, modes
from undiffuse.bench.solvers import BUDGETS, evaluations_a_step

MULTISTEP = ("ddim", "dpm_solver_2m", "dpmpp_2m", "dpmpp_2m_heun", "dpmpp_3m", "dpmpp_3m_classic", "unipc", "unipc_3",
             "deis_2", "deis_3", "ipndm")
SINGLESTEP = ("dpm_solver_2s", "dpm_solver_3s", "dpmpp_2s", "dpmpp_3s", "rk4_log_snr", "heun_sigma")
GRIDS = ("time", "time_quadratic", "log_snr", "karras")


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
    for method, grid, last in product(MULTISTEP, GRIDS, (False, True)):
        yield problem.error(method, budget, grid, lower_final=last)[0], f"{method} on {grid}" + " to order 1" * last
    for method, grid in product(SINGLESTEP, GRIDS):
        yield problem.error(method, max(1, budget // evaluations_a_step(method)), grid)[0], f"{method} on {grid}"
