"""The figures of the training: the error at every level against closed forms, and the floor of the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from undiffuse.data import Dataset, open_data, transforms
from undiffuse.exact import Gaussian
from undiffuse.experiment import Experiment
from undiffuse.loss import Levels
from undiffuse.processes import VE, VP
from undiffuse.report.judgement import watched
from undiffuse.report.learning import errors, floor_of, law_of
from undiffuse.sde import GaussianSDE


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_on_gaussian_data_the_exact_denoiser_is_the_best_linear_one(sde: GaussianSDE) -> None:
    law = Gaussian(torch.zeros(3), torch.diag(torch.tensor([1.0, 0.5, 0.01])))
    model = law.denoiser(sde)
    model.transform = transforms.Identity()
    data = Dataset(law.sample(4000, 1).double(), None, "table", "gaussian", columns=("a", "b", "c"))
    found = errors(model, data, None)
    assert found.held_out is None and len(found.level) == 14
    assert np.allclose(found.train, found.linear, rtol=6 / math.sqrt(2 * 512 * 2))  # two coordinates carry it
    spectrum = np.linalg.eigvalsh(np.cov(data.x.numpy().T))
    noise = (found.level[:, None] * model.sigma_data) ** 2
    mean_square = (spectrum * noise / (spectrum + noise)).mean(1)
    assert np.allclose(found.linear, np.sqrt(mean_square) / model.sigma_data, rtol=2e-3)


def test_the_law_of_the_eight_gaussians_is_that_of_the_data() -> None:
    data = open_data("8gaussians", n=20_000)
    transform = transforms.fit(data)
    law, z = law_of("8gaussians", transform), transform.forward(data.x).double()
    assert law is not None and law_of("moons", transform) is None
    assert torch.allclose(law.mean, z.mean(0), atol=5 / math.sqrt(len(z)))
    assert torch.allclose(law.covariance, z.T.cov(), atol=5 * math.sqrt(2 / len(z)))
    fourth = law.sample(20_000, 3).double()
    error = float((z**4).std()) / math.sqrt(len(z))
    assert abs(float((z**4).mean() - (fourth**4).mean())) < 5 * error


def test_the_floor_with_classes_known_is_that_of_one_gaussian() -> None:
    data = open_data("8gaussians", n=2000)
    transform = transforms.fit(data)
    law = law_of("8gaussians", transform)
    assert law is not None
    model = law.denoiser(VP())
    model.sigma_data, model.transform = 1.0, transform
    floor = floor_of(Experiment(data="8gaussians"), model, data)
    variance = float(law.covariances[0, 0, 0])
    times = Levels(sigma_data=1.0).quantile(model.sde, (torch.arange(64, dtype=torch.float64) + 0.5) / 64)
    noise = torch.exp(-2 * model.sde.log_snr(times))
    weight = (1 + noise) / noise
    assert floor == pytest.approx(float((weight * variance * noise / (variance + noise)).mean()), rel=1e-6)
    model.classes = 0
    assert floor < (floor_of(Experiment(data="8gaussians"), model, data) or 0.0)  # not knowing the class costs


def test_the_gradient_and_each_noise_level_are_shown_from_what_the_metrics_say() -> None:
    """The caption's shares are those of the first and the last save, 0.25 and 0.5 here, and its noise is e^1."""
    levels = [[[-2.0, 4.0], [1.0, 2.0]], [[-2.0, 2.0], [1.0, 1.5]], [[-2.0, 1.0], [1.0, 1.0]]]
    entries = [{"step": 10 * k, "loss": 1.0, "grad_norm": 0.5 / k} for k in range(1, 4)]
    entries += [{"step": 10 * k, "held_out": 1.0, "levels": value} for k, value in enumerate(levels, 1)]
    text = watched(entries)
    assert "From step 10 to step 30" in text and "went to 0.25 of" in text and "to 0.5 at noise 2.72" in text
    assert "ends at 0.167" in text and text.count("<svg") == 2
    assert watched([{"step": 1, "loss": 1.0}]) == ""
