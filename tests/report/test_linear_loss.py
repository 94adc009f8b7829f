"""The loss beside that of the best linear denoiser: equal on Gaussian data, and a warning where it is not below."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from report.conftest import Tiny

from undiffuse.cli.sample import sample
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution, denoising_loss
from undiffuse.mixture import Gaussian
from undiffuse.processes import VE, VP
from undiffuse.random import normal
from undiffuse.sde import GaussianSDE
from undiffuse.training.linear_loss import linear_loss_ratio, little_learned


@pytest.mark.parametrize("sde", [VP(), VE()], ids=["vp", "ve"])
def test_the_exact_denoiser_of_gaussian_data_has_the_linear_loss(sde: GaussianSDE) -> None:
    """Its loss, drawn, is that of the best linear denoiser, in closed form; one that is off by c has c² w(t) more."""
    n, law = 20_000, Gaussian(torch.zeros(3), torch.diag(torch.tensor([1.0, 0.5, 0.01])))
    model, experiment = law.denoiser(sde), Experiment(data="images")
    times = NoiseLevelDistribution(sigma_data=model.sigma_data).times(sde, 0, 0, 0, n, n)
    losses = denoising_loss(model, law.sample(n).double(), times, normal(3, 0, 0, 0, n, (3,), torch.float64))
    error = float(losses.std()) / math.sqrt(n)
    entries = [{"step": 1, "held_out": 99.0}, {"step": 5, "held_out": float(losses.mean()), "seconds": 30.0}]
    ratio = linear_loss_ratio(entries, experiment, model)
    assert ratio is not None and abs(ratio - 1) < 4 * error / float(losses.mean())
    assert f"held-out loss is {ratio:.2g} times" in little_learned(entries, experiment, model)
    assert "took 30 s" in little_learned(entries, experiment, model)
    better = [{"step": 5, "held_out": 0.5 * float(losses.mean())}]
    assert little_learned(better, experiment, model) == ""
    assert linear_loss_ratio([], experiment, model) is None
    assert linear_loss_ratio(entries, experiment.replace(weighting="whitened"), model) is None


def test_sample_warns_of_a_run_that_has_learned_little(images: Tiny, tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    sample(str(images.folder), n=2, steps=4, out=tmp_path / "x.npy", label="2")
    assert capsys.readouterr().err.count("has learned little") == 1
