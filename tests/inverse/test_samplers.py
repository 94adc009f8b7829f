"""Posterior samplers with their own steps against the closed posterior."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_moments, correlated_gaussian, f64, random_mixture

from undiffuse.inverse import (
    observe,
)
from undiffuse.mixture import Mixture
from undiffuse.processes import EDM, VP
from undiffuse.samplers.driver import sample

A, Y = f64(1.0, 0.5, 0.0, 0.0, -1.0, 2.0).reshape(2, 3), f64(0.3, -1.0)
FOUR = Mixture([0.1, 0.4, 0.3, 0.2], [[1, 1], [1, -1], [-1, 1], [-1, -1]], 0.04)


@pytest.mark.slow
def test_split_gibbs_samples_a_gaussian_posterior() -> None:
    law = correlated_gaussian()
    out = sample(observe(law.denoiser(EDM(sigma_max=10)), A, Y, 0.5, "gibbs", inner=2), 512, steps=25)
    assert_moments(out.x, law.posterior(A, Y, 0.5), slack=0.1)


def test_replacement_reproduces_the_observation_without_its_noise() -> None:
    model, mask = FOUR.denoiser(VP()), torch.tensor([True, False])
    for method in ("replacement", "repaint"):
        out = sample(observe(model, mask, [0.7, 0.0], 0.2, method), 100, steps=10).x
        assert (out[:, 0] - 0.7).abs().max() < 0.02  # the posterior's deviation is 0.14


def test_each_samples_norm_is_its_own() -> None:
    model = observe(random_mixture().denoiser(VP()), f64(1, 0.5)[None], [0.3], 0.1, "dps")
    whole = sample(model, 20, steps=12).x
    assert torch.equal(sample(model, 1, steps=12, first_index=13).x, whole[13:14])
