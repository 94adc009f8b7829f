"""A short training reaches the least value that its loss can have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from undiffuse.data import Dataset
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution, denoising_loss, loss_floor
from undiffuse.mixture import Gaussian
from undiffuse.model import Model
from undiffuse.random import Purpose, normal
from undiffuse.training import train

LAW = Gaussian(torch.tensor([0.0, 0.0]), torch.tensor([[1.0, 0.98], [0.98, 1.0]]))
N = 4000


@pytest.mark.slow
def test_a_short_training_on_a_gaussian_law_reaches_the_analytic_minimum(tmp_path: Path) -> None:
    data = Dataset(LAW.sample(20_000, seed=0).float(), None, "points", "gaussian", (), ("a", "b"))
    e = Experiment(data="memory", steps=400, batch_size=256, lr=0.01, warmup=20, ema_decay=0.98, save_every=400,
                   device="cpu",
                   net_args={"width": 32, "depth": 1, "condition": 16}, schedule="linear")
    model = train(e, tmp_path, progress=False, data=data)
    x0 = model.transform.forward(LAW.sample(N, seed=1).float())
    exact = law_in_model_units(model).denoiser(model.sde)
    levels = NoiseLevelDistribution(e.noise_distribution, e.level_mean, e.level_std, model.sigma_data)
    t = levels.times(model.sde, 7, 0, 0, N, N)
    eps = normal(7, Purpose.NOISE, 0, 0, N, (2,))
    with torch.no_grad():
        learned, least = (denoising_loss(m, x0.to(d), t, eps.to(d), "edm", levels).double()
                          for m, d in ((model, torch.float32), (exact, torch.float64)))
    middles = levels.quantile(model.sde, (torch.arange(64, dtype=torch.float64) + 0.5) / 64)
    floor = float(loss_floor(law_in_model_units(model), model.sde, middles, "edm", levels).value.mean())
    error = float(learned.std()) / N**0.5
    start = 1.0  # a network that is zero: the loss is the variance of EDM's target
    assert floor < start - 10 * error
    assert float(learned.mean()) == pytest.approx(floor, abs=3 * error)
    excess = learned - least
    assert -3 * float(excess.std()) / N**0.5 < float(excess.mean()) < 0.02 * (start - floor)


def law_in_model_units(model: Model) -> Gaussian:
    scale = 1 / model.transform.std[0]
    shift = -torch.tensor(model.transform.mean, dtype=torch.float64) * scale
    return Gaussian(shift, LAW.covariances[0] * scale**2)
