"""Denoising error per noise level and lower bound of the loss against closed forms; captions of the training."""

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
from undiffuse.report.denoising_error import data_distribution, denoising_errors, minimum_loss
from undiffuse.report.evaluate import gather
from undiffuse.report.formats import short
from undiffuse.report.sections import ReportFigure, training_figures, training_section
from undiffuse.sde import GaussianSDE
from undiffuse.training import open_run, train
from undiffuse.training.early_stopping import best_checkpoint
from undiffuse.transforms import base


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_on_gaussian_data_the_exact_denoiser_is_the_best_linear_one(sde: GaussianSDE) -> None:
    distribution = Gaussian(torch.zeros(3), torch.diag(torch.tensor([1.0, 0.5, 0.01])))
    model = distribution.denoiser(sde)
    model.transform = base.Identity()
    data = Dataset(distribution.sample(4000, 1).double(), None, "table", "gaussian", columns=("a", "b", "c"))
    errors = denoising_errors(model, data, None)
    assert errors.held_out is None and len(errors.level) == 14
    assert np.allclose(errors.train, errors.linear, rtol=6 / math.sqrt(2 * 512 * 2))  # two coordinates carry it
    spectrum = np.linalg.eigvalsh(np.cov(data.x.numpy().T))
    noise = (errors.level[:, None] * model.sigma_data) ** 2
    mean_square = (spectrum * noise / (spectrum + noise)).mean(1)
    assert np.allclose(errors.linear, np.sqrt(mean_square) / model.sigma_data, rtol=2e-3)


def test_the_distribution_of_the_eight_gaussians_is_that_of_the_data() -> None:
    data = open_data("8gaussians", n=20_000)
    transform = fit_transform(data)
    distribution, z = data_distribution("8gaussians", transform), transform.forward(data.x).double()
    assert distribution is not None and data_distribution("moons", transform) is None
    assert torch.allclose(distribution.mean, z.mean(0), atol=5 / math.sqrt(len(z)))
    assert torch.allclose(distribution.covariance, z.T.cov(), atol=5 * math.sqrt(2 / len(z)))
    fourth = distribution.sample(20_000, 3).double()
    error = float((z**4).std()) / math.sqrt(len(z))
    assert abs(float((z**4).mean() - (fourth**4).mean())) < 5 * error


def test_the_floor_with_classes_known_is_that_of_one_gaussian() -> None:
    data = open_data("8gaussians", n=2000)
    transform = fit_transform(data)
    distribution = data_distribution("8gaussians", transform)
    assert distribution is not None
    model = distribution.denoiser(VP())
    model.sigma_data, model.transform = 1.0, transform
    floor = minimum_loss(Experiment(data="8gaussians"), model, data)
    variance = float(distribution.covariances[0, 0, 0])
    times = NoiseLevelDistribution(sigma_data=1.0).quantile(
        model.sde, (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    )
    noise = torch.exp(-2 * model.sde.log_snr(times))
    weight = (1 + noise) / noise
    assert floor == pytest.approx(float((weight * variance * noise / (variance + noise)).mean()), rel=1e-6)
    model.classes = 0
    assert floor < (minimum_loss(Experiment(data="8gaussians"), model, data) or 0.0)  # not knowing the class costs


def test_the_captions_of_gradient_and_noise_levels_follow_the_metrics() -> None:
    """The loss ratios of the first and the last checkpoint are 0.25 and 0.5 here, the latter at noise level e^1."""
    levels = [[[-2.0, 4.0], [1.0, 2.0]], [[-2.0, 2.0], [1.0, 1.5]], [[-2.0, 1.0], [1.0, 1.0]]]
    entries = [{"step": 10 * k, "loss": 1.0, "grad_norm": 0.5 / k} for k in range(1, 4)]
    entries += [{"step": 10 * k, "held_out": 1.0, "levels": value} for k, value in enumerate(levels, 1)]
    figures = training_figures(entries, 30)
    assert len(figures) == 2
    assert "ends at 0.167" in figures[0].caption and "From step 10 to step 30" in figures[1].caption
    assert "between 0.25 and 0.5, the latter at noise level 2.72" in figures[1].caption
    assert training_figures([{"step": 1, "loss": 1.0}], 1) == ()
    figures = training_figures(entries, 20)
    assert "at the model's step 20 was 0.25" in figures[0].caption and "From step 10 to step 20" in figures[1].caption
    assert "between 0.5 and 0.75, the latter at noise level 2.72" in figures[1].caption


def test_captions_describe_the_step_of_the_model_when_training_continued(tmp_path: Path) -> None:
    """With patience the model is the best checkpoint, and the loss continues after it."""
    data = small_runs.points()
    e = small_runs.experiment(held_out=10, save_every=1, steps=40, lr=0.05, patience=2)
    train(e, tmp_path, progress=False, data=data)
    entries = open_run(tmp_path).metrics()
    best, _ = best_checkpoint(entries)  # type: ignore[misc]
    assert 1 < best < max(entry["step"] for entry in entries) == best + 2
    held_out = next(entry["held_out"] for entry in entries if entry["step"] == best and "held_out" in entry)
    section = training_section(gather(tmp_path, 50, data=data))
    figures = [figure for block in section.blocks
               for figure in ((block,) if isinstance(block, ReportFigure) else block)]
    text = " ".join(figure.caption for figure in figures)
    assert f"the model is from step {best}, with the smallest held-out path loss" in section.text
    assert f"The loss at the model's step {best} was " in text and f", on held-out data {short(held_out)}." in text
    assert f"to step {best} the held-out loss" in text and "ends at" not in text
    assert sum(("the model's step", "muted dashed") in figure.key for figure in figures) == 2
