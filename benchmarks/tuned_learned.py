"""Tuned sampling of a network that learned a mixture in 16 dimensions: is five evaluations what a hundred are?

    python -m benchmarks tuned_learned [updates] [evaluations,...] [seed]

Two distances: to the end of the model's own exact path (root mean square per coordinate), and sliced W2 to real draws,
beside that of the model at 100 evaluations and of two sets of real draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from benchmarks.measure.laws import clusters
from benchmarks.measure.tuned import Trial
from benchmarks.preconditioning import RECIPE, ROWS, learned
from undiffuse.metrics import sliced_w2
from undiffuse.tuning import tune
from undiffuse.tuning.tune import UNTUNED

DRAWS = 8192
EXACT = ("unipc_4_noise", 100, "log_snr")


def table(updates: str = "4000", evaluations: str = "3,5,8", seed: str = "200") -> Iterator[str]:
    """The floor, the model at 100 evaluations; tuned and all untuned ones at every budget."""
    law, budgets = clusters(int(seed)), tuple(map(int, evaluations.split(",")))
    model = learned(law.sample(ROWS, 1), replace(RECIPE, prediction_type="wiener", steps=int(updates), lr=5e-3))
    trial = Trial(model, DRAWS, model.t_end(), (law.sample(DRAWS, 2), law.sample(DRAWS, 3)))
    real, other = trial.real
    tuned = tune(model, budgets, t_end=trial.t_end)
    yield f"{'sampler':34}{'evals':>6}{'RMSE':>9}{'sliced W2':>11}"
    yield f"{'other real draws':34}{'':6}{'':9}{sliced_w2(other, real):11.4f}"
    yield _line("the model", EXACT[1], trial, trial.ends(*EXACT))
    for budget in budgets:
        yield _line("tuned", budget, trial, trial.ends("auto", budget, model=tuned))
        for method, grid in UNTUNED:
            yield _line(f"{method} on {grid or 'its own grid'}", budget, trial, trial.ends(method, budget, grid))


def _line(name: str, evaluations: int, trial: Trial, x: Tensor) -> str:
    return f"{name:34}{evaluations:6}{trial.score(x).rmse:9.4f}{sliced_w2(x, trial.real[0]):11.4f}"
