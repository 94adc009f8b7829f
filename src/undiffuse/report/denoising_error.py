"""How far the training came: the error that the denoiser leaves at every noise level, and the least loss there is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import Dataset, Transform
from undiffuse.experiment import Experiment
from undiffuse.loss import WHITENED, NoiseLevelDistribution, loss_floor
from undiffuse.mixture import Mixture
from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal

_LEVELS = 14
_QUANTILES = 64
_ROWS = 4096


class Errors(NamedTuple):
    """Root mean square errors of the output, (L,), at noise levels σ/α, all in standard deviations of the data.

    `linear` is that of the best linear denoiser, which knows the covariance of the training rows and their mean,
    class by class where the network knows the class.
    """

    level: NDArray[np.float64]
    train: NDArray[np.float64]
    held_out: NDArray[np.float64] | None
    linear: NDArray[np.float64]


def errors(model: Model, train: Dataset, held_out: Dataset | None) -> Errors:
    """The error of a model on training and on held-out rows at levels from 0.03 to 30."""
    sd = model.sigma_data
    level = torch.logspace(math.log10(0.03), math.log10(30), _LEVELS, dtype=torch.float64)
    highest = math.exp(-float(model.sde.log_snr(model.sde.T)))
    level = level[level * sd < highest]
    count = max(64, min(512, 100_000 // math.prod(model.shape)))
    spectrum = Moments.measure(_centred(model, train)).spectrum
    variance = (sd * level[:, None]) ** 2
    linear = (spectrum * variance / (spectrum + variance)).sum(1).div(math.prod(model.shape)).sqrt() / sd
    return Errors(level.numpy(), _measured(model, train, count, level),
                  None if held_out is None else _measured(model, held_out, count, level), linear.numpy())


def floor_of(experiment: Experiment, model: Model, data: Dataset) -> float | None:
    """The least loss that any network can reach, with the classes known to it, where the law of the data is known."""
    law = law_of(data.name, model.transform)
    if law is None or experiment.weighting == WHITENED:
        return None
    levels = NoiseLevelDistribution(experiment.noise_distribution, experiment.level_mean, experiment.level_std,
                                    model.sigma_data)
    u = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    times = levels.quantile(model.sde, u)
    known = law.given(0) if model.classes else law  # the eight are alike
    return float(loss_floor(known, model.sde, times, experiment.weighting, levels).value.mean())


def law_of(name: str, transform: Transform) -> Mixture | None:
    """The law of a built-in set as a mixture in model units, if it is one: the eight Gaussians."""
    if name != "8gaussians":
        return None
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    means = transform.forward(math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], -1))
    step = transform.forward(torch.tensor([[0.0, 0.0], [0.15, 0.0]], dtype=torch.float64))
    return Mixture(torch.ones(8) / 8, means, (step[1] - step[0]).square().sum(), labels=torch.arange(8))


def _centred(model: Model, data: Dataset) -> Tensor:
    """Rows in model units, less the mean of their class where the model knows classes."""
    z = model.transform.forward(data.x[:_ROWS])
    if not model.classes or data.y is None:
        return z
    y = data.y[:_ROWS]
    means = torch.stack([z[y == k].sum(0) / max(1, int((y == k).sum())) for k in range(model.classes)])
    return z - means[y]


@torch.no_grad()
def _measured(model: Model, data: Dataset, count: int, level: Tensor) -> NDArray[np.float64]:
    rows = torch.from_numpy(np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64)))
    some = data.take(rows)
    z = model.transform.forward(some.x).to(model.dtype)
    eps = normal(0, Purpose.PROBE, 1, 0, len(z), tuple(z.shape[1:]), model.dtype)
    cond = {"label": some.y.to(model.device)} if model.classes and some.y is not None else {}
    values = []
    for t in model.sde.time_of(-torch.log(model.sigma_data * level)):
        guess = model.denoise(model.sde.perturb(z, t, eps).to(model.device), t, **cond).cpu()
        values.append(float((guess - z).double().square().mean().sqrt()) / model.sigma_data)
    return np.array(values)
