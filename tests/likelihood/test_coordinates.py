"""Whitened coordinates: Gaussian data are constant in them, and every process and parameterisation has its density."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from oracles import PROCESSES, absolute_error, correlated_gaussian, random_mixture
from torch import Tensor, nn

from undiffuse.likelihood import log_likelihood
from undiffuse.likelihood.coordinates import WhitenedCoordinates
from undiffuse.mixture import Mixture
from undiffuse.model import Denoiser
from undiffuse.predictions import PREDICTIONS
from undiffuse.processes import OU, VP
from undiffuse.sde import GaussianSDE, bcast

FAMILIES = ("vp", "subvp", "ve", "power_ve", "edm", "cosine", "rectified_flow")
PLANE = random_mixture(3, 2)
CASES = [*product(["vp"], sorted(PREDICTIONS), [torch.float64, torch.float32]),
         *((name, prediction_type, torch.float32) for name, prediction_type in (
             ("subvp", "noise"), ("ve", "score"), ("power_ve", "v"), ("edm", "data"), ("cosine", "edm"),
             ("rectified_flow", "velocity"), ("ddpm", "noise")))]


class Scripted(nn.Module):
    """The network that makes a `Denoiser` the exact one of a law, whatever it predicts."""

    def __init__(self, law: Mixture, sde: GaussianSDE, prediction_type: str, sigma_data: float) -> None:
        super().__init__()
        self.exact, self.sde, self.prediction_type, self.sd = law.denoiser(sde), sde, prediction_type, sigma_data
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        t = self.sde.time_of(-torch.log(2 * self.sd * torch.exp(4 * c.double())))
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        x = x.double() * bcast((alpha**2 * self.sd**2 + sigma**2).sqrt(), x.double())
        skip, out = PREDICTIONS[self.prediction_type](self.sde, t, alpha, sigma, self.sd)
        return ((self.exact.denoise(x, t) - bcast(skip, x) * x) / bcast(out, x)).to(c.dtype) + self.zero


@pytest.mark.parametrize("name", FAMILIES)
def test_gaussian_data_stand_still_in_their_frame_and_have_no_error(name: str) -> None:
    law = correlated_gaussian()
    x = law.sample(20, seed=2)
    ll = log_likelihood(law.denoiser(PROCESSES[name]), x)
    assert float(absolute_error(ll, law.log_prob(x)).max()) < 1e-6
    assert float(ll.error.max()) < 1e-6 and float(ll.nfe.median()) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixture_through_every_process_and_within_its_own_budget(name: str) -> None:
    x = PLANE.sample(100, seed=1)
    ll = log_likelihood(PLANE.denoiser(PROCESSES[name]), x)
    wrong = absolute_error(ll, PLANE.log_prob(x))
    assert float(wrong.mean()) < 1e-4 + 2 * float(ll.prior.mean())
    assert float((wrong < 1e-4 + 6 * ll.error).double().mean()) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("theta", [0.15, 0.3])
def test_a_prior_that_does_not_fit_is_reported(theta: float) -> None:
    x = PLANE.sample(100, seed=7)
    ll = log_likelihood(PLANE.denoiser(OU(theta=theta, scale=1.0, T=3.0)), x)
    wrong = absolute_error(ll, PLANE.log_prob(x))
    assert 0.3 < float(wrong.mean() / ll.prior.mean()) < 3


def test_without_moments_the_prior_is_the_models_own() -> None:
    model = PLANE.denoiser(VP())
    model.moments = None
    x = PLANE.sample(50, seed=8)
    ll = log_likelihood(model, x)
    wrong = absolute_error(ll, PLANE.log_prob(x))
    assert 1e-4 < float(wrong.mean()) < 3 * float(ll.prior.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name, prediction_type, dtype", CASES)
def test_every_process_in_every_parameterisation_and_precision(name: str, prediction_type: str,
                                                               dtype: torch.dtype) -> None:
    """Within six times its own budget, and in float32 what rounding does to the residual r = z − D at the data.

    D is off by ε (|z| + |D|) a coordinate, and log p by the product with r/σ̂₀², |r| ~ σ̂₀ √d: 2 ε |z| √d/σ̂₀ at most, of
    which each coefficient and the noise level that the network is told has a share: ten of them.
    """
    sde = PROCESSES[name]
    law = Mixture([1, 2], [[-1.0, 0.5], [0.8, -0.3]], [[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]])
    model = Denoiser(Scripted(law, sde, prediction_type, 1.0), sde, prediction_type, shape=(2,),
                     sigma_data=1.0).to(dtype)
    model.moments, x = law.denoiser(sde).moments, law.sample(4, seed=9)
    ll = log_likelihood(model, x, rtol=1e-4, atol=1e-4)
    level = math.exp(float(WhitenedCoordinates(model).log_snr_data))
    rounding = 10 * 2 * torch.finfo(dtype).eps * x.abs().sum(1) * math.sqrt(2) * level
    assert bool((absolute_error(ll, law.log_prob(x)) < 6 * ll.error + rounding + 1e-6).all())
    assert float(ll.error.max()) < 0.02
