"""Class probabilities p(class | x) of a class-conditional model by its bounds, without a classifier."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood.bounds import elbo
from undiffuse.likelihood.coordinates import gaussian_model
from undiffuse.model import ReverseModel
from undiffuse.sde import GaussianSDE
from undiffuse.tensors import ArrayLike, ConditionValue, as_rows
from undiffuse.transforms.table_schema import data_rows

_END_NOISE = 0.2  # in standard deviations of the data


def label_posterior(model: ReverseModel, x: ArrayLike, samples: int = 48, seed: int = 0, *,
                    prior: ArrayLike | None = None, t_end: float | None = None, first_index: int = 0,
                    **cond: ConditionValue) -> Tensor:
    """p(class | x) ∝ p(class) exp(elbo(x | class)) for every row of x.

    For the exact denoiser log p(x | class) is the mean of log p_t(αx + σε | class) at t = t_end over ε.

    Args:
        model: a model with classes.
        x: (B, *event) in data units.
        samples: model evaluations per row and class; all classes share noise levels and noise, which cancels most
            of the variance.
        seed: seed of the noise levels and the noise.
        prior: probabilities of the classes (classes,), up to a factor; None: uniform.
        t_end: end of the bounds; None: where the noise is a fifth of the data's standard deviation, since finer detail
            hardly depends on the class but has the network's errors.
        first_index: random address of the first row.
        cond: conditions in addition to the class.

    Returns:
        The probabilities (B, classes), float64.

    Raises:
        InputError: for a model without classes, and errors of `elbo`.

    Reference: Li et al. (2023), "Your diffusion model is secretly a zero-shot classifier", eq. 4. arXiv:2303.16203
    """
    denoiser, x = gaussian_model(model), data_rows(model.schema, x)
    conditions: dict[str, Any] = {**cond}
    if not denoiser.classes:
        raise InputError("got a model without classes; expected one that was trained with labels")
    end = _default_end(denoiser.sde, denoiser.sigma_data) if t_end is None else t_end
    bounds = [elbo(denoiser, x, samples, seed, decoder="gaussian", t_end=end, first_index=first_index,
                   label=torch.full(x.shape[:1], k), **conditions).value for k in range(denoiser.classes)]
    weights = torch.ones(denoiser.classes) if prior is None else as_rows(prior, "prior", ())
    if len(weights) != denoiser.classes:
        raise InputError(f"got {len(weights)} prior probabilities for {denoiser.classes} classes; expected one each")
    return (torch.stack(bounds, 1) + weights.double().log()).softmax(1)


def _default_end(sde: GaussianSDE, data_std: float) -> float:
    """The time at which σ̂ is a fifth of the data's standard deviation."""
    return float(sde.time_of(torch.tensor(-math.log(_END_NOISE * data_std), dtype=torch.float64)))
