"""Learned log-variances: at their best e^u is the mean error of a level, whose closed form is known here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from training.small_runs import experiment, final, measured, points

from undiffuse import training
from undiffuse.data import Dataset
from undiffuse.loss import NoiseLevelDistribution
from undiffuse.model import Denoiser
from undiffuse.nets import build
from undiffuse.processes import EDM
from undiffuse.random import Purpose, normal
from undiffuse.training.batches import Feed, batch_losses
from undiffuse.training.run import load
from undiffuse.training.state import Uncertainty

S, D = 1.5, 20  # deviation and dimension of the data, which the model takes to have deviation ½


def setting(steps: int) -> tuple[Denoiser, Feed]:
    """A model whose network says 0, D = c_skip x, on Gaussian rows of another deviation than it believes."""
    net = build("mlp", (D,), width=2, depth=1)
    for parameter in net.parameters():
        parameter.data.zero_()
    model = Denoiser(net, EDM(), "edm", shape=(D,))
    rows = Dataset(S * normal(4, Purpose.DATA, 0, 0, 4000, (D,)), None, "points", "a Gaussian")
    return model, Feed(experiment(weighting="learned", steps=steps, batch_size=256), rows, model)


@pytest.mark.slow
def test_it_learns_the_mean_weighted_error_of_every_level() -> None:
    """E(x_0 − c x)² = (1 − c)² S² + c² σ², c = ¼/(¼ + σ²), times edm's weight (¼ + σ²)/(σ/2)². The 256·600 draws of
    χ²_20/20, of relative deviation .32, tell 17 numbers to .32 √(17/150000) = .4 %; the rest is Adam's: 5 % allowed."""
    steps = 600
    model, feed = setting(steps)
    u = Uncertainty(model, torch.zeros(0), (0.9, 0.99))
    for step in range(steps):
        batch = feed.batch(step)
        with torch.no_grad():
            values = batch_losses(feed, batch)
        (gradient,) = torch.autograd.grad(u.objective(values, batch.t).mean(), u.weights)
        with torch.no_grad():
            u.optimizer.update(gradient, 0.05 * (1 - step / steps), step, torch.ones(()))
    t = NoiseLevelDistribution().quantile(model.sde, torch.linspace(0.03, 0.97, 20).double())
    c = 0.25 / (0.25 + t**2)
    expected = ((1 - c) ** 2 * S**2 + c**2 * t**2) * (0.25 + t**2) / (t / 2) ** 2
    torch.testing.assert_close(u(t).exp().double().detach(), expected, rtol=0.05, atol=0)


def test_its_objective_is_least_there_and_the_same_at_every_level() -> None:
    """l e^{−u} + u is least at u = log l, where it is 1 + log l, and its slope in l is 1/l: every level counts as 1."""
    model, _ = setting(1)
    u, t = Uncertainty(model, torch.zeros(0), (0.9, 0.99)), torch.tensor([0.1, 3.0]).double()
    with torch.no_grad():
        u.weights[0] = math.log(2.5)
    values = torch.tensor([2.5, 2.5], requires_grad=True)
    least = u.objective(values, t)
    slopes = torch.autograd.grad(least.sum(), [values, u.weights])
    torch.testing.assert_close(least.detach(), torch.full((2,), 1 + math.log(2.5)))
    torch.testing.assert_close(slopes[0], torch.full((2,), 1 / 2.5))
    torch.testing.assert_close(slopes[1], torch.zeros(17), rtol=0, atol=1e-6)


def test_a_checkpoint_holds_it_and_a_model_does_not(tmp_path: Path) -> None:
    training.train(experiment(weighting="learned", held_out=10), tmp_path, progress=False, data=points())
    names = {name for name in final(tmp_path) if name.startswith("uncertainty")}
    assert names == {"uncertainty", "uncertainty.m", "uncertainty.v"} and final(tmp_path)["uncertainty"].abs().min() > 0
    assert not any("uncertainty" in name for name in load(tmp_path).state_dict())


def test_an_update_is_made_again(tmp_path: Path) -> None:
    training.train(experiment(weighting="learned"), tmp_path, progress=False, data=points())
    seen, noted = training.replay(tmp_path, 9, points()), measured(tmp_path)[9]
    assert (seen.loss, seen.norm) == (noted["loss"], noted["grad_norm"])
    assert float(seen.losses.mean()) == pytest.approx(seen.loss, rel=1e-5)


def test_the_first_update_is_that_of_edm() -> None:
    """u = 0 at first, so that the loss and the slope of the network are edm's."""
    found = []
    for weighting in ("edm", "learned"):
        e = experiment(weighting=weighting, batch_size=16)
        model = training.model_config.initialized(training.model_config.describe(e, points(), ""), 0, points())
        state = training.state.TrainingState(e, model)
        found.append(training.batches.batch_gradient(state, Feed(e, points(), model), 0, 16).clone())
    edm, learned = found
    assert len(learned) == len(edm) + 17
    torch.testing.assert_close(learned[: len(edm) - 1], edm[:-1], rtol=0, atol=0)
    assert float(learned[-1]) == pytest.approx(float(edm[-1]), rel=1e-6)
