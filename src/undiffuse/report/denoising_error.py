"""Denoising error at every noise level, and the lower bound of the training loss for a known data distribution."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import Dataset, Transform
from undiffuse.experiment import Experiment
from undiffuse.loss import WHITENED
from undiffuse.mixture import Mixture
from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.training.linear_loss import least_loss

_LEVELS = 14
_ROWS = 4096


class DenoisingErrors(NamedTuple):
    """Root mean square denoising errors (L,) at noise levels σ/α, all in standard deviations of the data.

    `linear` is the error of the best linear denoiser, from the mean and covariance of the training rows (per class, if
    the network is class-conditional).
    """

    level: NDArray[np.float64]
    train: NDArray[np.float64]
    held_out: NDArray[np.float64] | None
    linear: NDArray[np.float64]


def denoising_errors(model: Model, train: Dataset, held_out: Dataset | None) -> DenoisingErrors:
    """Errors of a model on training and held-out rows at noise levels from 0.03 to 30 standard deviations.

    Args:
        model: model of the run.
        train: training rows, also used for the error of the best linear denoiser.
        held_out: held-out rows; None: no held-out errors.
    """
    sd = model.sigma_data
    level = torch.logspace(math.log10(0.03), math.log10(30), _LEVELS, dtype=torch.float64)
    highest = math.exp(-float(model.sde.log_snr(model.sde.T)))
    level = level[level * sd < highest]
    count = max(64, min(512, 100_000 // math.prod(model.shape)))
    moments = model.moments if train.kind == "array" else None
    moments = moments or Moments.measure(_centred(model, train))
    spectrum, variance = moments.spectrum, (sd * level[:, None]) ** 2
    linear = moments.average(spectrum * variance / (spectrum + variance))[:, 0].sqrt() / sd
    return DenoisingErrors(level.numpy(), _errors_at(model, train, count, level),
                           None if held_out is None else _errors_at(model, held_out, count, level), linear.numpy())


def minimum_loss(experiment: Experiment, model: Model, data: Dataset) -> float | None:
    """Lower bound of the training loss over all networks, given the classes; None for an unknown distribution.

    Args:
        experiment: settings of the run: weighting and distribution of the noise levels.
        model: model of the run.
        data: training data; its name identifies the distribution.
    """
    distribution = data_distribution(data.name, model.transform)
    if distribution is None or experiment.weighting == WHITENED:
        return None
    if model.classes:
        distribution = distribution.given(0)  # the bound is equal for all eight classes
    return least_loss(experiment, model, distribution)


def data_distribution(name: str, transform: Transform) -> Mixture | None:
    """The distribution of the eight Gaussians in model units; None for other data sets."""
    if name != "8gaussians":
        return None
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    means = transform.forward(math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], -1))
    step = transform.forward(torch.tensor([[0.0, 0.0], [0.15, 0.0]], dtype=torch.float64))
    return Mixture(torch.ones(8) / 8, means, (step[1] - step[0]).square().sum(), labels=torch.arange(8))


def _centred(model: Model, data: Dataset) -> Tensor:
    """Rows in model units, minus the mean of their class if the model has classes."""
    z = model.transform.forward(data.x[:_ROWS])
    if not model.classes or data.y is None:
        return z
    y = data.y[:_ROWS]
    means = torch.stack([z[y == k].sum(0) / max(1, int((y == k).sum())) for k in range(model.classes)])
    return z - means[y]


@torch.no_grad()
def _errors_at(model: Model, data: Dataset, count: int, level: Tensor) -> NDArray[np.float64]:
    """Errors (L,) at `level` (L,) on at most `count` evenly spaced rows."""
    index = torch.from_numpy(np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(np.int64)))
    rows = data.take(index)
    z = model.transform.forward(rows.x).to(model.dtype)
    eps = normal(0, Purpose.PROBE, 1, 0, len(z), tuple(z.shape[1:]), model.dtype)
    cond = {"label": rows.y.to(model.device)} if model.classes and rows.y is not None else {}
    values = []
    for t in model.sde.time_of(-torch.log(model.sigma_data * level)):
        denoised = model.denoise(model.sde.perturb(z, t, eps).to(model.device), t, **cond).cpu()
        values.append(float((denoised - z).double().square().mean().sqrt()) / model.sigma_data)
    return np.array(values)
