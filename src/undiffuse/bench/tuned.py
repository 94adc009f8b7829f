"""Tuned sampling against the best of all published samplers and grids, and of ours, at equal evaluations.

On laws whose score is exact, so that all error is the sampler's, from starts that were neither fitted nor validated
on. The best untuned entry is chosen anew for every budget and every figure: no one can do that without the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.bench.laws import T_END, Problem, clusters, digits, modes
from undiffuse.bench.published import entries
from undiffuse.errors import InputError
from undiffuse.exact import ExactDenoiser
from undiffuse.metrics import sliced_w2
from undiffuse.sampling import sample
from undiffuse.tuning import EVALUATIONS, tune
from undiffuse.tuning.tune import UNTUNED

LAWS = {"plane": modes, "clusters": clusters, "digits": digits}


class Score(NamedTuple):
    """The median over paths of the distance to the path's exact end, root mean square per coordinate; and the root
    mean square over paths."""

    median: float
    rmse: float


class Cell(NamedTuple):
    """One law at one budget: the least median and the least RMSE of all published entries, and of ours with them;
    tuned; and sliced W₂ to fresh draws, tuned and exact, with what two sets of fresh draws give."""

    law: str
    evaluations: int
    published: Score
    ours: Score
    tuned: Score
    distance: float
    exact: float
    floor: float


def score(x: Tensor, truth: Tensor) -> Score:
    """The figures of samples x (n, *event) whose paths should have ended in `truth`."""
    each = (x - truth).double().flatten(1).square().mean(1)
    return Score(float(each.sqrt().median()), float(each.mean().sqrt()))


def cells(name: str, seed: int = 0, n: int = 256, budgets: tuple[int, ...] = EVALUATIONS, scale: float = 1.0
          ) -> Iterator[Cell]:
    """A law of `LAWS` with that seed at every budget."""
    problem = Problem(LAWS[name](seed, scale), n)
    tuned = tune(problem.model, budgets, t_end=T_END)
    fresh, other = problem.law.sample(n, 1), problem.law.sample(n, 2)
    for budget in budgets:
        published = least([score(problem.end(e.method, e.steps, e.grid, **e.options)[0], problem.truth)
                           for e in entries(budget)])
        own = [score(problem.end(method, budget, grid)[0], problem.truth) for method, grid in UNTUNED]
        x = ends(tuned, problem, budget)
        yield Cell(name, budget, published, least([published, *own]), score(x, problem.truth),
                   sliced_w2(x, fresh), sliced_w2(problem.truth, fresh), sliced_w2(other, fresh))


def ends(tuned: ExactDenoiser, problem: Problem, budget: int) -> Tensor:
    """Where the tuned model's samples end, from the starts of a problem."""
    return sample(tuned, method="auto", steps=budget, x_T=problem.start, t_end=T_END, denoise_last=False,
                  block=problem.n).x


def least(scores: list[Score]) -> Score:
    """The least of each figure."""
    return Score(*torch.tensor(scores, dtype=torch.float64).amin(0).tolist())


def tuned_table(methods: list[str] | None = None, seeds: tuple[int, ...] = (0,)) -> Iterator[str]:
    """A row per law and budget; `methods` are names of `LAWS`."""
    if unknown := [name for name in methods or [] if name not in LAWS]:
        raise InputError(f"got the law {', '.join(unknown)}; expected {', '.join(LAWS)}")
    yield "distance to the end of the exact path per coordinate: median over paths, root mean square over paths"
    yield (f"{'law':10}{'seed':>5}{'evals':>6} {'best published':>19} {'tuned':>19} {'share of it':>12}"
           f"{'of our best':>12} {'sliced W2':>10}{'exact':>7}{'floor':>7}")
    for name in methods or LAWS:
        for seed in seeds:
            for c in cells(name, seed):
                yield (f"{c.law:10}{seed:5}{c.evaluations:6} {_pair(c.published)} {_pair(c.tuned)} "
                       f"{_share(c.tuned, c.published)}{_share(c.tuned, c.ours)} "
                       f"{c.distance:10.4f}{c.exact:7.4f}{c.floor:7.4f}")


def _pair(score: Score) -> str:
    return f"{score.median:9.5f} {score.rmse:9.5f}"


def _share(a: Score, b: Score) -> str:
    return f"{a.median / b.median:6.2f}{a.rmse / b.rmse:6.2f}"
