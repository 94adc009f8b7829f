"""p(class | x) by the bounds of each class, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import PROCESSES, f64

from undiffuse.errors import InputError
from undiffuse.likelihood import label_posterior
from undiffuse.mixture import Mixture
from undiffuse.processes import VP

MEANS, VARIANCES = f64([-0.6, 0.2], [0.4, 0.3], [0.2, -0.7]), f64(0.3, 0.5, 0.2)
LAW = Mixture([0.2, 0.5, 0.3], MEANS, VARIANCES, labels=[0, 1, 2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "edm", "ve"])
def test_one_gaussian_a_class_has_the_posterior_of_its_mean_log_densities(name: str) -> None:
    """E log N(x + σ̂ε; μ, v + σ̂²) = −½ d log 2π(v + σ̂²) − ½ (‖x − μ‖² + d σ̂²)/(v + σ̂²), by chance that falls with
    the root of the evaluations."""
    sde, x, prior = PROCESSES[name], LAW.sample(60, seed=4), f64(2.0, 5.0, 3.0)
    t, noise = float(sde.time_of(f64(1.5)[0])), math.exp(-3.0)
    total = VARIANCES + noise
    square = (x[:, None] - MEANS).square().sum(2) + 2 * noise
    exact = -total.log() - 0.5 * square / total + prior.log()
    errors = []
    for samples in (64, 512):
        posterior = label_posterior(LAW.denoiser(sde), x, samples, t_end=t, prior=prior)
        assert float((posterior.sum(1) - 1).abs().max()) < 1e-12
        error = posterior.log() - exact
        errors.append(error[:, 1:] - error[:, :1])
    assert float((errors[1].mean(0).abs() / (errors[1].std(0) / 60**0.5)).max()) < 4
    assert 0.2 < float(errors[1].square().mean().sqrt() / errors[0].square().mean().sqrt()) < 0.6  # √(64/512) = .35


def test_far_from_other_classes_the_class_is_certain() -> None:
    law = Mixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.01, labels=[0, 1])
    found = label_posterior(law.denoiser(VP()), f64([-1.0, 0.1], [0.9, 0.0]))
    torch.testing.assert_close(found, torch.eye(2).double(), atol=1e-6, rtol=0)


def test_without_classes_it_says_so() -> None:
    with pytest.raises(InputError, match="without classes"):
        label_posterior(Mixture([1.0], [[0.0]], 1.0).denoiser(VP()), f64([0.1]))
