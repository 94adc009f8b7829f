"""Bounds of the log-probability of grey levels against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from undiffuse.likelihood import log_likelihood
from undiffuse.mixture import Mixture
from undiffuse.processes import VP
from undiffuse.transforms.base import GreyLevels


def _mass(law: Mixture, low: Tensor, high: Tensor, variance: float) -> Tensor:
    """log of the probability of an interval under a mixture on the line that is blurred by N(0, variance)."""
    spread = (law.covariances[:, 0, 0] + variance).sqrt()
    edges = torch.stack([low, high])[..., None]
    cdf = torch.special.ndtr((edges - law.means[:, 0]) / spread)
    return ((cdf[1] - cdf[0]) * law.weights).sum(-1).log()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_draws_of_dequantisation_approach_the_mass_of_a_level_from_below(kind: str) -> None:
    law, levels = Mixture([1, 2], [[-0.5], [0.4]], 0.1), torch.arange(5.0, dtype=torch.float64)[:, None]
    model = law.denoiser(VP())
    model.transform = GreyLevels(5)
    sigma = 0.125 if kind == "normal" else 0.0
    z = model.transform.forward(levels)[:, 0]
    truth = _mass(law, z - 0.25, z + 0.25, sigma**2)
    rows = levels.repeat(50, 1)
    one = log_likelihood(model, rows, rtol=1e-3, atol=1e-4, dequantise=kind).log_prob.reshape(50, 5)
    many = log_likelihood(model, rows, rtol=1e-3, atol=1e-4, dequantise=kind, draws=8)
    mean = many.log_prob.reshape(50, 5).mean(0)
    assert bool((one.mean(0) < truth + 3 * one.std(0) / math.sqrt(50)).all())
    assert bool((mean > one.mean(0)).any()) and bool(((mean - truth).abs() < 0.15).all())
    weights = many.log_prob.reshape(50, 5).exp()
    assert bool(((weights.mean(0) - truth.exp()).abs() < 4 * weights.std(0) / math.sqrt(50) + 1e-3).all())
    assert many.discrete and bool((many.stderr > 0).all())
