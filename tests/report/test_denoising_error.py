"""The figures of the training: the error at every level against closed forms, and the floor of the loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training import small_runs

from undiffuse.data import Dataset, open_data
from undiffuse.data.dataset import fit_transform
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution
from undiffuse.mixture import Gaussian
from undiffuse.processes import VE, VP
from undiffuse.report.denoising_error import errors, floor_of, law_of
from undiffuse.report.evaluate import gather
from undiffuse.report.sections import learning, watched
from undiffuse.report.wording import short
from undiffuse.sde import GaussianSDE
from undiffuse.training import open_run, train
from undiffuse.training.early_stopping import best_checkpoint
from undiffuse.transforms import base


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_on_gaussian_data_the_exact_denoiser_is_the_best_linear_one(sde: GaussianSDE) -> None:
    law = Gaussian(torch.zeros(3), torch.diag(torch.tensor([1.0, 0.5, 0.01])))
    model = law.denoiser(sde)
    model.transform = base.Identity()
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
    transform = fit_transform(data)
    law, z = law_of("8gaussians", transform), transform.forward(data.x).double()
    assert law is not None and law_of("moons", transform) is None
    assert torch.allclose(law.mean, z.mean(0), atol=5 / math.sqrt(len(z)))
    assert torch.allclose(law.covariance, z.T.cov(), atol=5 * math.sqrt(2 / len(z)))
    fourth = law.sample(20_000, 3).double()
    error = float((z**4).std()) / math.sqrt(len(z))
    assert abs(float((z**4).mean() - (fourth**4).mean())) < 5 * error


def test_the_floor_with_classes_known_is_that_of_one_gaussian() -> None:
    data = open_data("8gaussians", n=2000)
    transform = fit_transform(data)
    law = law_of("8gaussians", transform)
    assert law is not None
    model = law.denoiser(VP())
    model.sigma_data, model.transform = 1.0, transform
    floor = floor_of(Experiment(data="8gaussians"), model, data)
    variance = float(law.covariances[0, 0, 0])
    times = NoiseLevelDistribution(sigma_data=1.0).quantile(
        model.sde, (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    )
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
    text = watched(entries, 30)
    assert "From step 10 to step 30" in text and "went to 0.25 of" in text and "to 0.5 at noise 2.72" in text
    assert "ends at 0.167" in text and text.count("<svg") == 2
    assert watched([{"step": 1, "loss": 1.0}], 1) == ""
    text = watched(entries, 20)
    assert "From step 10 to step 20" in text and "went to 0.5 of" in text and "to 0.75 at noise 2.72" in text
    assert "at the model's step 20 was 0.25" in text.replace("&#x27;", "'")


def test_of_a_run_that_went_on_it_is_the_models_step_that_is_told(tmp_path: Path) -> None:
    """With patience the model is that of the best save, and the loss goes on behind it."""
    data = small_runs.points()
    e = small_runs.experiment(held_out=10, save_every=1, steps=40, lr=0.2, patience=2)
    train(e, tmp_path, progress=False, data=data)
    entries = open_run(tmp_path).metrics()
    taken, _ = best_checkpoint(entries)  # type: ignore[misc]
    assert 1 < taken < max(entry["step"] for entry in entries) == taken + 2
    held = next(entry["held_out"] for entry in entries if entry["step"] == taken and "held_out" in entry)
    text = learning(gather(tmp_path, 50, data=data)).replace("&#x27;", "'")
    assert f"the model is that of step {taken}, where the held-out path loss was least" in text
    assert f"The loss at the model's step {taken} was " in text and f", on held-out data {short(held)}." in text
    assert f"to step {taken} the held-out loss" in text and text.count("the model's step</") == 2
    assert "ends at" not in text
