"""Which class a model would have made something of: p(class | x) by its own bound, no classifier needed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood.bounds import elbo
from undiffuse.likelihood.frame import gaussian_model
from undiffuse.model import ReverseModel
from undiffuse.sde import GaussianSDE

_READ = 0.2  # deviations of the data


def label_posterior(model: ReverseModel, x: Tensor, samples: int = 48, seed: int = 0, *,
                    shares: Tensor | None = None, t_end: float | None = None, first_index: int = 0,
                    **cond: Any) -> Tensor:
    """p(class | x) ∝ share(class) exp(elbo(x | class)) for every row of x (B, *event), (B, classes).

    x is in data units; samples: evaluations a row and class, with the same levels and noise for all classes, so that
    most of the chance cancels. shares (classes,): how frequent the classes are, by default alike; cond: conditions
    beside the class. The bounds end at t_end, by default where the noise is a fifth of the data's deviation: a class
    does not show in finer detail, the errors of a network do. For the exact denoiser log p(x | class) is the mean of
    log p_t(αx + σε | class) at t = t_end over ε.
    Raises InputError for a model without classes.

    Reference: Li et al. (2023), "Your diffusion model is secretly a zero-shot classifier", eq. 4. arXiv:2303.16203
    """
    chosen = gaussian_model(model)
    if not chosen.classes:
        raise InputError("got a model without classes; expected one that was trained with labels")
    end = _read_at(chosen.sde, chosen.sigma_data) if t_end is None else t_end
    bounds = [elbo(chosen, x, samples, seed, decoder="gaussian", t_end=end, first_index=first_index,
                   label=torch.full((len(x),), k), **cond).value for k in range(chosen.classes)]
    known = torch.ones(chosen.classes) if shares is None else shares
    return (torch.stack(bounds, 1) + known.double().log()).softmax(1)


def _read_at(sde: GaussianSDE, deviation: float) -> float:
    """The time at which σ̂ is a fifth of the data's deviation."""
    return float(sde.time_of(torch.tensor(-math.log(_READ * deviation), dtype=torch.float64)))
