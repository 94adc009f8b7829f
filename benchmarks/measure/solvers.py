"""Error against evaluations on laws whose score is exact, so that all error is the sampler's.

The error is the median over samples and coordinates of the distance to the end of the same start's exact path. Beside
it stands the distance between laws, sliced W₂ to fresh draws, and what two sets of real draws of that size give: below
that floor a finer sampler cannot be told from a coarser one by its samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.measure.laws import Problem, digits, modes
from undiffuse.metrics import sliced_w2
from undiffuse.samplers import ALL

BUDGETS = (5, 8, 10, 15, 20, 35, 50, 100)
SHOWN = ("auto", "ddim", "heun_sigma", "dpm_solver_2m", "dpmpp_2m", "dpmpp_3m", "unipc", "unipc_3", "deis_3", "deis_4",
         "unipc_4_noise", "wiener_3m", "rk4_log_snr")
PUBLISHED = {
    "plane": (0.0156, 0.0178, 0.0106, 0.0032, 0.0020, 4.5e-4, 1.6e-4, 7.5e-6),
    "digits": (0.0558, 0.0207, 0.0119, 0.0048, 0.0028, 6.6e-4, 1.9e-4, 1.4e-5),
}
"""The best of 57 published samplers and grids at `BUDGETS`, on other laws of the same description."""


@dataclass(frozen=True)
class Cell:
    """One sampler at one budget on one law."""

    law: str
    method: str
    evaluations: int
    error: float


def problems(seed: int = 0, n: int = 128) -> dict[str, Problem]:
    """16 modes in the plane, and 10 components fitted to the digits."""
    return {"plane": Problem(modes(seed), n), "digits": Problem(digits(seed), n)}


def evaluations_a_step(method: str) -> int:
    """How many evaluations the sampler needs in one step, by trying."""
    return 1 if method == "auto" else Problem(modes(), 1).end(method, 2)[1] // 2


def solvers(methods: Iterable[str] = SHOWN, budgets: Iterable[int] = BUDGETS,
            on: dict[str, Problem] | None = None) -> Iterator[Cell]:
    """The error of every sampler at every budget, on its own grid; a budget below one step is left out."""
    for law, problem in (problems() if on is None else on).items():
        for method in methods:
            each = evaluations_a_step(method)
            for steps in sorted({budget // each for budget in budgets} - {0}):
                error, used = problem.error(method, steps)
                yield Cell(law, method, used, error)


def law_distance(problem: Problem, method: str, steps: int) -> tuple[float, float]:
    """Sliced W₂ of a sampler's draws to fresh ones, and of two sets of fresh ones of the same size."""
    fresh, other = problem.law.sample(problem.n, 1), problem.law.sample(problem.n, 2)
    return float(sliced_w2(problem.end(method, steps)[0], fresh)), float(sliced_w2(other, fresh))


def deterministic() -> list[str]:
    """Every sampler of the flow with steps of a given length."""
    return [name for name, method in ALL.items() if not method.stochastic and not method.adaptive]
