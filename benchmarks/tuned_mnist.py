"""Six tuned evaluations against twelve untuned ones, of a run on images with classes such as MNIST.

    python -m benchmarks tuned_mnist RUN [samples] [sets] [evaluations] [evaluations of the untuned,...]

Fréchet distance to the run's held-out rows on the features of `benchmarks.tuned`, labels in turn: the mean over some
sets of that many samples, and half the range. The floor is that of sets of training rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.tuned import features, levels
from undiffuse import training
from undiffuse.data import Dataset
from undiffuse.metrics import frechet
from undiffuse.model import Model
from undiffuse.random import Purpose, permutation
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.tuning import tune
from undiffuse.tuning.tune import UNTUNED
from undiffuse.tuning.tuning_file import untuned

NOISY = (("dpmpp_2m_sde", "log_snr"), ("dpmpp_2m_sde", "karras"), ("dpmpp_3m_sde", "log_snr"), ("sa_solver", "log_snr"),
         ("sde", None))
_SEED = 11
Score = Callable[[Tensor], float]


def table(run: str, n: str = "1000", sets: str = "2", evaluations: str = "6", budgets: str = "12,6") -> Iterator[str]:
    """The floor, the tuned sampler, the untuned ones, and the model with and without noise in 100 evaluations."""
    model, (train, held_out) = training.load(run), training.load_data(run)
    if held_out is None or not model.classes:
        raise SystemExit("benchmarks tuned_mnist: this needs a run with classes and held-out rows")
    plain, features_of, count, few = untuned(model), features(train), int(n), int(evaluations)
    real = features_of(held_out.x)

    def score(x: Tensor) -> float:
        return frechet(features_of(levels(x)), real)

    def line(name: str, used: Model, method: str, steps: int, grid: str | None = None, times: int = int(sets)) -> str:
        return _line(name, steps, [score(_drawn(used, count, method, steps, grid, _SEED + k)) for k in range(times)])

    yield f"{'sampler':46}{'evals':>5}{'Frechet':>9}   +-"
    yield _line("training rows", 0, [score(x) for x in _rows(train, count, int(sets))])
    for steps in map(int, budgets.split(",")):
        for method, grid in (*NOISY, *UNTUNED):
            yield line(f"{method} on {grid or 'its own grid'}", plain, method, steps, grid)
    yield line("tuned", tune(plain, [few]), "tuned", few)
    for method, grid in (("dpmpp_2m_sde", "log_snr"), ("unipc_4_noise", "log_snr")):
        yield line(f"{method} on {grid}", plain, method, 100, grid, 1)


def _rows(data: Dataset, n: int, sets: int) -> Iterator[Tensor]:
    """Sets of n rows with all classes alike, as the samples have them."""
    assert data.y is not None
    order = permutation(2, Purpose.ORDER, 0, len(data))
    by_class = [order[data.y[order] == c] for c in range(len(data.classes))]
    for k in range(sets):
        yield torch.cat([data.x[rows[k::sets][: n // len(by_class)]] for rows in by_class]).float()


def _drawn(model: Model, n: int, method: str, steps: int, grid: str | None, seed: int) -> Tensor:
    label = torch.arange(n) % model.classes
    return sample(model, n, as_method(method), steps, grid=grid, seed=seed, denoise_last=False, label=label).x


def _line(name: str, steps: int, scores: list[float]) -> str:
    return f"{name:46}{steps:5}{sum(scores) / len(scores):9.3f}{(max(scores) - min(scores)) / 2:6.2f}"
