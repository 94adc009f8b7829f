"""Tuned sampling against the best of all published samplers and grids, and of ours, at equal evaluations.

On laws whose score is exact, so that all error is the sampler's, or on trained models, whose own exact paths are then
the truth; from starts that were neither fitted nor validated on. The best untuned entry is chosen anew for every budget
and every figure: no one can do that without the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.measure.laws import T_END, clusters, digits, modes
from benchmarks.measure.published import entries
from undiffuse import training
from undiffuse.errors import InputError
from undiffuse.metrics import sliced_w2
from undiffuse.model import Model
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.tuning import EVALUATIONS, tune
from undiffuse.tuning.reference import ModelUnits
from undiffuse.tuning.tune import UNTUNED
from undiffuse.tuning.tuning_file import untuned

LAWS = {"plane": modes, "clusters": clusters, "digits": digits}
STARTS = {"plane": 2048, "clusters": 2048, "digits": 512}
"""How many starts a law is measured from: one that is lost to another mode moves the mean square of a few hundred."""
_SEED = 7


class Score(NamedTuple):
    """Distances to the exact ends of the paths, root mean square per coordinate: the median over paths, and the root
    mean square."""

    median: float
    rmse: float


class Cell(NamedTuple):
    """One model at one budget: the least median and the least RMSE of all published entries, and of ours with them;
    tuned, and the standard error of its RMSE; and sliced W₂ to real draws of tuned samples and of exact ones, and
    between two sets of real ones."""

    evaluations: int
    published: Score
    ours: Score
    tuned: Score
    error: float
    distance: float
    exact: float
    floor: float


@dataclass(frozen=True)
class Trial:
    """A model in its own units, n starts whose paths end at t_end, and two sets of n real draws."""

    model: Model
    n: int
    t_end: float
    real: tuple[Tensor, Tensor]

    @cached_property
    def truth(self) -> Tensor:
        """Where the probability flow leads."""
        return self.ends("unipc_4_noise", 300, "log_snr")

    def ends(self, method: str, steps: int, grid: str | None = None, model: Model | None = None, **options: Any
             ) -> Tensor:
        """Where a sampler ends."""
        return sample(model or self.model, self.n, as_method(method), steps, grid=grid, seed=_SEED, t_end=self.t_end,
                      denoise_last=False, options=options).x

    def score(self, x: Tensor) -> Score:
        """The figures of samples."""
        each = self._squares(x)
        return Score(float(each.sqrt().median()), float(each.mean().sqrt()))

    def spread(self, x: Tensor) -> float:
        """The standard error of the root mean square, which single paths may decide."""
        each = self._squares(x)
        return float(each.std() / len(each) ** 0.5 / (2 * each.mean().sqrt()))

    def _squares(self, x: Tensor) -> Tensor:
        return (x - self.truth).double().flatten(1).square().mean(1)


def of_law(name: str, seed: int = 0, n: int | None = None) -> Trial:
    """The exact model of a law of `LAWS` under VP, from t = 1 to 1e−3, and as many starts as `STARTS` has."""
    n = n or STARTS[name]
    law = LAWS[name](seed)
    model = law.denoiser(VP())
    model.block = n
    return Trial(model, n, T_END, (law.sample(n, 1), law.sample(n, 2)))


def of_run(folder: Path, n: int = 256) -> Trial:
    """The model of a run, and rows of its data: held-out ones, and training ones."""
    model = training.load(folder)
    seen, held = training.load_data(folder)
    real = [model.transform.forward(rows.x[:n]) for rows in (held or seen, seen)]
    return Trial(ModelUnits(untuned(model)), n, model.t_end(), (real[0], real[1]))


def cells(trial: Trial, budgets: tuple[int, ...] = EVALUATIONS, tuned: Model | None = None) -> Iterator[Cell]:
    """A trial at every budget; `tuned` is the model after tuning, which is done here if it is not given."""
    tuned = tuned or tune(trial.model, budgets, t_end=trial.t_end)
    first, second = trial.real
    exact, floor = sliced_w2(trial.truth, first), sliced_w2(second, first)
    for budget in budgets:
        published = least([trial.score(trial.ends(e.method, e.steps, e.grid, **e.options)) for e in entries(budget)])
        own = [trial.score(trial.ends(method, budget, grid)) for method, grid in UNTUNED]
        x = trial.ends("auto", budget, model=tuned)
        yield Cell(budget, published, least([published, *own]), trial.score(x), trial.spread(x), sliced_w2(x, first),
                   exact, floor)


def least(scores: list[Score]) -> Score:
    """The least of each figure."""
    return Score(*torch.tensor(scores, dtype=torch.float64).nan_to_num(torch.inf).amin(0).tolist())


def tuned_table(names: list[str] | None = None, budgets: tuple[int, ...] = EVALUATIONS, n: int | None = None
                ) -> Iterator[str]:
    """A row per model and budget; `names` are laws of `LAWS`, with a seed as in plane:3, or folders of runs.

    n: from how many starts each is measured; what `STARTS` has by default, and 256 for runs.
    """
    yield "distance to the end of the exact path per coordinate: median over paths, root mean square over paths"
    yield (f"{'model':14}{'evals':>6} {'best published':>19} {'tuned':>19} {'share of it':>12}"
           f"{'of our best':>12} {'sliced W2':>10}{'exact':>7}{'floor':>7}{'RMSE +-':>9}")
    for name in names or LAWS:
        label, trial = _trial(name, n)
        for c in cells(trial, budgets):
            yield (f"{label:14}{c.evaluations:6} {_pair(c.published)} {_pair(c.tuned)} "
                   f"{_share(c.tuned, c.published)}{_share(c.tuned, c.ours)} "
                   f"{c.distance:10.4f}{c.exact:7.4f}{c.floor:7.4f}{c.error:9.5f}")


def _trial(name: str, n: int | None) -> tuple[str, Trial]:
    law, _, seed = name.partition(":")
    if law in LAWS and (seed or "0").isdigit():
        return f"{law} {seed or 0}", of_law(law, int(seed or 0), n)
    if not Path(name).is_dir():
        raise InputError(f"got {name}; expected {', '.join(LAWS)}, with a seed as in plane:3, or the folder of a run")
    return Path(name).name, of_run(Path(name), n or 256)


def _pair(score: Score) -> str:
    return f"{score.median:9.5f} {score.rmse:9.5f}"


def _share(a: Score, b: Score) -> str:
    return f"{a.median / b.median:6.2f}{a.rmse / b.rmse:6.2f}"
