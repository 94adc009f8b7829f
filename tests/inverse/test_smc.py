"""Particles against closed posteriors and evidences."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import assert_moments, correlated_gaussian, f64

from undiffuse.inverse import (
    observe,
)
from undiffuse.mixture import Mixture
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample

A, Y = f64(1.0, 0.5, 0.0, 0.0, -1.0, 2.0).reshape(2, 3), f64(0.3, -1.0)
FOUR = Mixture([0.1, 0.4, 0.3, 0.2], [[1, 1], [1, -1], [-1, 1], [-1, -1]], 0.04)


@pytest.mark.parametrize("options", [{}, {"particles": 64}, {"threshold": 1.0}])
def test_particles_sample_a_gaussian_posterior_without_weights(options: dict[str, float]) -> None:
    law = correlated_gaussian()
    out = sample(observe(law.denoiser(VP()), A, Y, 0.3, exact=True, **options), 512, steps=8)
    assert_moments(out.x, law.posterior(A, Y, 0.3))
    assert out.log_evidence is not None
    prior = torch.distributions.MultivariateNormal(law.mean @ A.mT, A @ law.covariance @ A.mT + 0.09 * torch.eye(2))
    assert (out.log_evidence - prior.log_prob(Y)).abs().max() < 1e-2  # every step is exact, so is every weight


@pytest.mark.slow
@pytest.mark.parametrize("y", [0.15, 0.6])
def test_particles_find_weights_and_widths_of_four_modes(y: float) -> None:
    truth = FOUR.posterior(f64(1, 0)[None], [y], 0.1)
    out = sample(observe(FOUR.denoiser(VP()), f64(1, 0)[None], [y], 0.1, exact=True), 2048)
    mode = torch.cdist(out.x, FOUR.means).argmin(1)
    weights = torch.bincount(mode, minlength=4) / len(mode)
    assert (weights - truth.weights).abs().max() < 0.03
    for k in range(2):
        width = out.x[mode == k].std(0) / truth.covariances[k].diagonal().sqrt()
        assert (width - 1).abs().max() < 0.05 + 3 / math.sqrt(2 * float((mode == k).sum()))
    assert out.log_evidence is not None
    runs = out.log_evidence[::64]
    log_evidence = float(runs.logsumexp(0)) - math.log(len(runs))
    log_likelihood = torch.distributions.Normal(FOUR.means[:, 0], 0.05**0.5).log_prob(f64(y))
    error = float(runs.std()) / math.sqrt(len(runs))
    assert abs(log_evidence - float((FOUR.weights.log() + log_likelihood).logsumexp(0))) < 0.15 + 3 * error
