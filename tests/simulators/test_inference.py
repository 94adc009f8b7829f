"""Posteriors of simulators against closed forms, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributions

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.simulators.posterior import SimulatorPosterior

QUICK: dict[str, Any] = {"steps": 1, "patience": 0, "save_every": 1,
                         "net_args": {"width": 8, "depth": 1, "condition": 8}}  # the linear part alone


def gaussian(n: int, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Parameters of variance 0.1 and outputs with noise of variance 0.1, so that θ | x ~ N(x/2, 0.05 I)."""
    rng = np.random.default_rng(seed)
    theta = math.sqrt(0.1) * rng.normal(size=(n, d))
    return theta, theta + math.sqrt(0.1) * rng.normal(size=(n, d))


@pytest.fixture(scope="module")
def posterior(tmp_path_factory: pytest.TempPathFactory) -> SimulatorPosterior:
    return ud.infer(*gaussian(4000), out=tmp_path_factory.mktemp("linear") / "run", progress=False, **QUICK)


def test_a_gaussian_simulator_has_its_exact_posterior(posterior: SimulatorPosterior) -> None:
    x, n = np.array([0.3, -0.2, 0.5]), 4000
    draws = posterior.sample(n, x=x, steps=20)
    fitted = 0.05 / 4000 * (1 + (x**2 / 0.2).max())  # variance of the estimated conditional mean
    assert np.abs(draws.mean(0) - x / 2).max() < 4 * math.sqrt(0.05 / n + fitted)
    assert np.abs(draws.var(0) / 0.05 - 1).max() < 4 * math.sqrt(2 / n + 2 / 4000)
    theta = draws[:200]
    exact = stats_log_prob(theta, x / 2, 0.05)
    result = posterior.log_prob(theta, x=x)
    # A mean that is wrong by e of the deviation changes log p by e z, a variance by half its relative error times z².
    error = math.sqrt(3) * 4 * (math.sqrt(fitted / 0.05) + math.sqrt(2 / 4000))
    assert float((result.log_prob - torch.tensor(exact)).abs().mean()) < error


def stats_log_prob(theta: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
    """log N(θ; mean, variance I)."""
    squares = np.square(theta - mean).sum(1) / variance
    return np.asarray(-0.5 * (squares + theta.shape[1] * math.log(2 * math.pi * variance)))


def test_draws_depend_on_seed_and_index_only(posterior: SimulatorPosterior) -> None:
    x = np.zeros(3)
    assert np.array_equal(posterior.sample(7, x=x, seed=1), posterior.sample(40, x=x, seed=1)[:7])


def test_it_is_calibrated_on_held_out_simulations(posterior: SimulatorPosterior, tmp_path: Path) -> None:
    def simulator(theta: np.ndarray) -> np.ndarray:
        return theta + math.sqrt(0.1) * np.random.default_rng(1).normal(size=theta.shape)

    result = posterior.check(simulations=40, draws=39, out=tmp_path / "page.html", simulator=simulator)
    assert result.calibrated, result.verdict
    assert (tmp_path / "page.html").stat().st_size > 10_000 and (tmp_path / "page.json").is_file()


def test_no_draw_leaves_the_bounds_of_the_prior(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    theta = rng.uniform([-1, 0], [1, 5], (500, 2))
    prior = distributions.Independent(distributions.Uniform(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0])), 1)
    post = ud.infer(theta, theta + 3 * rng.normal(size=theta.shape), prior, tmp_path / "run", progress=False, **QUICK)
    draws = post.sample(2000, x=[1.0, 4.0])
    assert draws.min(0).tolist() >= [-1, 0] and bool((draws <= [1, 5]).all()) and bool((draws >= [-1, 0]).all())
    # The noise of 3 says nothing beside a width of 2: the first parameter keeps its uniform law.
    assert abs(draws[:, 0].mean()) < 0.25 and abs(draws[:, 0].var() - 1 / 3) < 0.08
    outside = post.log_prob(torch.tensor([[0.0, 2.0], [2.0, 2.0]]).double()[:1], x=[1.0, 4.0])
    assert bool(outside.log_prob.isfinite().all())


def test_names_of_a_data_frame_are_kept(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    theta, x = gaussian(200, 2)
    frame = pandas.DataFrame(theta, columns=["rate", "size"])
    post = ud.infer(frame, pandas.DataFrame(x), out=tmp_path / "run", progress=False, **QUICK)
    draws = post.sample(5, x=x[0])
    assert list(draws.columns) == ["rate", "size"] and post.names == ("rate", "size")


def test_simulations_that_failed_are_left_out_and_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    theta, x = gaussian(200)
    x[:5] = math.nan
    theta[7, 1] = math.inf
    ud.infer(theta, x, out=tmp_path / "run", **QUICK)
    assert "6 of 200 simulations are not finite and were left out" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    (lambda theta, x: (theta[:-1], x), r"expected \(N, d\) parameters and N outputs"),
    (lambda theta, x: (theta[:10], x[:10]), "10 usable simulations; expected at least 20"),
    (lambda theta, x: (theta, 0 * x), "the same for all simulations"),
    (lambda theta, x: (theta, np.full(len(x), "word")), "does not hold numbers"),
    (lambda theta, x: (0 * theta, x), "rows of simulations are equal"),
])
def test_wrong_simulations_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ud.infer(*change(*gaussian(100)), out=tmp_path / "run", progress=False, **QUICK)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("prior", "message"), [
    ((0.0, 1.0), "outside of the bounds 0 to 1, the first in row"),
    ((1.0, 0.0), "a lower bound below the upper"),
    (([0.0, 1.0], 3.0), "for 3 columns"),
    ("uniform", "expected None"),
    (distributions.Categorical(torch.ones(3)), "expected intervals"),
])
def test_wrong_priors_are_refused(prior: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ud.infer(*gaussian(100), prior, tmp_path / "run", progress=False, **QUICK)


def test_wrong_observations_are_refused_and_far_ones_named(posterior: SimulatorPosterior,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    for x, message in ((np.zeros(4), "of 4 numbers; expected 3"), ([0, math.nan, 0], "not finite"),
                       (["a", "b", "c"], "expected numbers")):
        with pytest.raises(InputError, match=message):
            posterior.sample(2, x=x)
    posterior.sample(2, x=[0.0, 0.0, 20.0])
    assert "standard deviations from the mean of the simulations" in capsys.readouterr().err
    with pytest.raises(InputError, match="expected the numbers that a simulator returns"):
        SimulatorPosterior(ud.Mixture([1.0], [[0.0]], [[[1.0]]]).denoiser(ud.VP()))


@pytest.mark.slow
def test_two_crescents_are_learned(tmp_path: Path) -> None:
    """θ ↦ (|θ₁ + θ₂|, θ₂ − θ₁)/√2 + noise: the posterior has two mirror images with half of the mass each."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(-1, 1, (3000, 2))
    x = np.stack([np.abs(theta.sum(1)), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2) + 0.05 * rng.normal(
        size=(3000, 2))
    post = ud.infer(theta, x, (-1.0, 1.0), tmp_path / "run", progress=False)
    draws = post.sample(2000, x=[0.5, 0.0])
    along, across = draws.sum(1) / math.sqrt(2), (draws[:, 1] - draws[:, 0]) / math.sqrt(2)
    assert abs((along > 0).mean() - 0.5) < 0.1  # half of the mass: .5 ± 4 · .011, and what 3,000 simulations leave
    assert abs(np.abs(along).mean() - 0.5) < 0.03 and abs(across.mean()) < 0.03
    assert 0.03 < np.abs(along).std() < 0.09
