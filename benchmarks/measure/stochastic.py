"""Samplers with noise, scored by the law of their samples, since no exact path belongs to a draw.

Two figures: the Kolmogorov-Smirnov distance of the Mahalanobis radii inside the modes to √χ²_d (is the inside of a mode
right?), and sliced W₂ to fresh draws (is the whole right?), each beside what real draws of that size give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from benchmarks.measure.laws import T_END, digits, modes
from undiffuse.metrics import ks_radius, sliced_w2
from undiffuse.mixture import ExactDenoiser, Mixture
from undiffuse.processes import VP
from undiffuse.samplers import Method
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.sde import GaussianSDE

FEW = (5, 10, 20, 50, 100)
SHOWN = ("sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "wiener_2m_sde", "seeds_2", "dpmpp_sde", "sa_solver", "matched",
         "ancestral", "edm_churn", "restart", "euler_maruyama", "predictor_corrector")
_FRESH = 4


@dataclass(frozen=True)
class Score:
    """The Kolmogorov-Smirnov distance of the radii, sliced W₂, and the evaluations."""

    radii: float
    distance: float
    evaluations: int


@dataclass(frozen=True)
class Draws:
    """n draws at a time from a law, by a sampler, against the law itself at t_end."""

    law: Mixture
    n: int
    sde: GaussianSDE = VP()  # noqa: RUF009 (frozen)
    t_end: float = T_END

    @cached_property
    def model(self) -> ExactDenoiser:
        """The exact denoiser."""
        return self.law.denoiser(self.sde)

    @cached_property
    def end(self) -> Mixture:
        """The law at t_end."""
        return self.law.diffused(self.sde, self.t_end)

    @cached_property
    def fresh(self) -> Tensor:
        """Draws of that law, four times as many."""
        return self.end.sample(_FRESH * self.n, 1)

    def score(self, method: str | Method, steps: int, grid: str | None = None, **options: Any) -> Score:
        """The figures of a sampler in that many steps."""
        out = sample(self.model, self.n, as_method(method), steps, grid=grid, t_end=self.t_end, denoise_last=False,
                     block=self.n, seed=5, options=options)
        return self.judged(out.x, out.nfe)

    def judged(self, x: Tensor, evaluations: int = 0) -> Score:
        """The figures of samples at t_end."""
        radii = ks_radius(self.end.radii(x), self.law.dim)
        return Score(radii, sliced_w2(x, self.fresh, projections=64), evaluations)

    @cached_property
    def floor(self) -> Score:
        """The figures of real draws, the mean of three sets."""
        found = [self.judged(self.end.sample(self.n, seed)) for seed in (2, 3, 4)]
        return Score(sum(s.radii for s in found) / 3, sum(s.distance for s in found) / 3, 0)


def problems(seed: int = 0) -> dict[str, Draws]:
    """16 modes in the plane, and 10 components fitted to the digits."""
    return {"plane": Draws(modes(seed), 10_000), "digits": Draws(digits(seed), 1_000)}


def scores(problem: Draws, method: str, budgets: Iterable[int] = FEW) -> Iterator[Score]:
    """A sampler on its own grid at every budget, with as many steps as that pays for."""
    each = max(1, problem.score(method, 2).evaluations // 2) if method not in ("auto", "sde") else 1
    for budget in budgets:
        yield problem.score(method, max(1, budget // each))
