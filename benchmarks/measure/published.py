"""Published samplers and grids, as rows of ours with their own rules: what a sampler is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from benchmarks.measure.solvers import evaluations_a_step

MULTISTEP = ("ddim", "dpm_solver_2m", "dpmpp_2m", "dpmpp_2m_heun", "dpmpp_3m", "dpmpp_3m_classic", "unipc", "unipc_3",
             "deis_2", "deis_3", "ipndm")
SINGLESTEP = ("dpm_solver_2s", "dpm_solver_3s", "dpmpp_2s", "dpmpp_3s", "rk4_log_snr", "heun_sigma")
GRIDS = ("time", "time_quadratic", "log_snr", "karras")


class Entry(NamedTuple):
    """A sampler, its number of steps, its grid and its options."""

    method: str
    steps: int
    grid: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.method} on {self.grid}" + " to order 1" * bool(self.options)


def entries(budget: int) -> Iterator[Entry]:
    """Every sampler on every grid within so many evaluations, multistep ones also with lower order at the end."""
    for method, grid in product(MULTISTEP, GRIDS):
        yield Entry(method, budget, grid, {})
        yield Entry(method, budget, grid, {"lower_final": True})
    for method, grid in product(SINGLESTEP, GRIDS):
        if (steps := budget // _cost(method)):
            yield Entry(method, steps, grid, {})


@cache
def _cost(method: str) -> int:
    return evaluations_a_step(method)
