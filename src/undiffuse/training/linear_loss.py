"""The loss of a run beside that of the best linear denoiser: whether a network for images has learned anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from undiffuse.experiment import Experiment
from undiffuse.loss import WHITENED, HasMMSE, LossFloor, NoiseLevelDistribution, loss_floor
from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.progress import duration
from undiffuse.sde import GaussianSDE, Time, as_time
from undiffuse.training.early_stopping import model_step
from undiffuse.training.metrics_log import training_seconds

_QUANTILES = 64
LITTLE = 0.9
"""Held-out loss, in units of that of the best linear denoiser, above which a network for images has learned little."""


class _Gaussian:
    """The Gaussian with the moments of the data, of which the best linear denoiser is the exact one."""

    def __init__(self, moments: Moments) -> None:
        self.shape, self.spectrum = moments.shape, moments.spectrum

    def mmse(self, sde: GaussianSDE, t: Time) -> LossFloor:
        """E tr Cov(x_0 | x_t) = Σ_k s_k² σ²/(α² s_k² + σ²), exact."""
        alpha2, sigma2 = (as_time(v).reshape(-1, 1) for v in (sde.alpha(t) ** 2, sde.variance(t)))
        s2 = self.spectrum
        return LossFloor((s2 * sigma2 / (alpha2 * s2 + sigma2)).sum(1), torch.zeros(()))


def linear_loss_ratio(entries: Sequence[dict[str, Any]], experiment: Experiment, model: Model) -> float | None:
    """The model's held-out loss divided by that of the best linear denoiser; None where it is not defined.

    Args:
        entries: entries of metrics.jsonl.
        experiment: settings of the run.
        model: model of the run.
    """
    last = model_step(entries, experiment)
    losses = [entry["held_out"] for entry in entries if "held_out" in entry and entry["step"] <= last]
    moments = model.moments
    if not losses or moments is None or not moments.complete or experiment.weighting == WHITENED:
        return None
    return float(losses[-1]) / least_loss(experiment, model, _Gaussian(moments))


def little_learned(entries: Sequence[dict[str, Any]], experiment: Experiment, model: Model) -> str:
    """A sentence if a network for images is hardly better than the best linear denoiser, else ""."""
    ratio = linear_loss_ratio(entries, experiment, model) or 0.0
    if ratio < LITTLE:
        return ""
    seconds = training_seconds(entries) or 0.0
    return (f"the run has learned little: its held-out loss is {ratio:.2g} times that of the best linear denoiser, so "
            f"samples are noisy or blurred; its training took {duration(seconds)}, train longer")


def least_loss(experiment: Experiment, model: Model, distribution: HasMMSE) -> float:
    """The smallest expected loss over the noise levels of the training, for data of a distribution.

    Args:
        experiment: settings of the run: weighting and distribution of the noise levels.
        model: model of the run, for its process and the standard deviation of the data.
        distribution: distribution of the data in model units.
    """
    levels = NoiseLevelDistribution(experiment.noise_distribution, experiment.level_mean, experiment.level_std,
                                    model.sigma_data)
    u = (torch.arange(_QUANTILES, dtype=torch.float64) + 0.5) / _QUANTILES
    times = levels.quantile(model.sde, u)
    return float(loss_floor(distribution, model.sde, times, experiment.weighting, levels).value.mean())
