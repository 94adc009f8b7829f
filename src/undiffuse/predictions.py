"""Prediction types: the output F of a network becomes a denoiser D = c_skip x + c_out F(c_in x, ¼ log(σ/α)).

Reference: Karras et al. (2022), eq. 7 and table 1. arXiv:2206.00364
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from undiffuse.sde import GaussianSDE

Coefficients = tuple[Tensor, Tensor]


def _data(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return torch.zeros_like(alpha), torch.ones_like(alpha)


def _noise(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return 1 / alpha, -sigma / alpha


def _score(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    return 1 / alpha, sigma / alpha


def _v(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    norm2 = alpha**2 + sigma**2
    return alpha / norm2, -sigma / norm2.sqrt()


def _velocity(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    dalpha, dsigma = sde.rates(t)
    wronskian = alpha * dsigma - dalpha * sigma
    return dsigma / wronskian, -sigma / wronskian


def _edm(sde: GaussianSDE, t: Tensor, alpha: Tensor, sigma: Tensor, sd: float) -> Coefficients:
    total2 = alpha**2 * sd**2 + sigma**2
    return alpha * sd**2 / total2, sigma * sd / total2.sqrt()


PREDICTIONS: dict[str, Callable[[GaussianSDE, Tensor, Tensor, Tensor, float], Coefficients]] = {
    "data": _data, "noise": _noise, "score": _score, "v": _v, "velocity": _velocity, "edm": _edm,
}
"""(c_skip, c_out) of each parameterisation: the network predicts x_0, ε, σ·score, v = (α ε − σ x_0)/√(α² + σ²), the
flow's α' x_0 + σ' ε, or EDM's target of unit variance."""
WIENER = "wiener"
"""The parameterisation whose numbers are matrices of the data's moments: the Wiener filter plus a correction."""
