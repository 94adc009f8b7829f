"""The linear part of conditional models against the closed form of jointly Gaussian data and conditions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.data.dataset import Dataset, conditioned
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.moments.conditional import Regression, feature_count, features_of
from undiffuse.random import Purpose, normal
from undiffuse.transforms.conditions import Condition

B = torch.tensor([[0.8, 0.0], [-0.5, 1.2], [0.0, 0.3]], dtype=torch.float64)  # 3 features, 2 entries
WITHIN = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)


class Silent(nn.Module):
    """A network whose output is 0."""

    def forward(self, x: Tensor, *others: Tensor | None) -> Tensor:
        return torch.zeros_like(x)


def linear_model() -> Denoiser:
    """A denoiser of x = MEAN + c B + noise of covariance WITHIN, c ~ N(0, I)."""
    condition = Condition("obs", "vector", mean=(0.0,) * 3, std=(1.0,) * 3, width=3)
    model = Denoiser(Silent(), ud.EDM(sigma_max=20.0), "wiener", shape=(2,), sigma_data=1.0, conditions=[condition])
    model.moments = Moments.of_covariance((2,), MEAN, WITHIN + B.mT @ B)
    model.regression = Regression(Moments.of_covariance((2,), MEAN, WITHIN), torch.zeros(3, dtype=torch.float64), B)
    return model


def draws(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Data (n, 2) and conditions (n, 3)."""
    c = normal(seed, Purpose.DATA, 0, 0, n, (3,), torch.float64)
    noise = normal(seed, Purpose.DATA, 1, 0, n, (2,), torch.float64) @ torch.linalg.cholesky(WITHIN).mT
    return MEAN + c @ B + noise, c


@pytest.mark.parametrize("sigma", [0.05, 0.7, 9.0])
def test_the_denoiser_is_the_conditional_mean_of_a_gaussian(sigma: float) -> None:
    model, (x, c) = linear_model(), draws(7)
    noisy = x + sigma
    t = model.sde.time_of(torch.tensor(-math.log(sigma), dtype=torch.float64))
    gain = WITHIN @ torch.linalg.inv(WITHIN + sigma**2 * torch.eye(2, dtype=torch.float64))
    exact = MEAN + c @ B + (noisy - MEAN - c @ B) @ gain.mT
    torch.testing.assert_close(model.denoise(noisy, t, obs=c), exact, rtol=0, atol=1e-9)


def test_a_hidden_condition_has_the_marginal_law_and_rows_do_not_depend_on_each_other() -> None:
    model, (x, c) = linear_model(), draws(6)
    t, assert_same = torch.tensor(0.4, dtype=torch.float64), torch.testing.assert_close
    hidden = c.clone()
    hidden[::2] = math.nan
    mixed = model.denoise(x, t, obs=hidden)
    assert model.moments is not None
    sigma = float(model.sde.sigma(t))
    assert_same(mixed[::2], model.moments.wiener(x, sigma)[::2], rtol=0, atol=1e-9)
    assert torch.equal(mixed.flip(0), model.denoise(x.flip(0), t, obs=hidden.flip(0)))
    visible = torch.cat([c[1::2], c[1::2]])
    assert torch.equal(mixed[1::2], model.denoise(torch.cat([x[1::2], x[1::2]]), t, obs=visible)[:3])


def test_samples_and_densities_given_a_condition_are_those_of_the_gaussian() -> None:
    model, c = linear_model(), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    given, n = model.given(obs=c), 4000
    x = ud.sample(given, n, steps=20, seed=3).x.double()
    mean = MEAN + c @ B
    assert bool(((x.mean(0) - mean).abs() < 4 * (WITHIN.diagonal() / n).sqrt()).all())
    torch.testing.assert_close(torch.cov(x.mT), WITHIN, rtol=0, atol=4 * 0.3 * math.sqrt(2 / n))
    rows = x[:20]
    assert torch.equal(ud.sample(model, 5, steps=20, seed=3, obs=c).x.double(), x[:5])
    exact = torch.distributions.MultivariateNormal(mean, WITHIN).log_prob(rows)
    torch.testing.assert_close(ud.log_likelihood(given, rows).log_prob, exact, rtol=0, atol=1e-4)


def test_the_regression_approaches_the_law_and_keeps_only_what_is_significant() -> None:
    n = 4000
    x, c = draws(n, seed=1)
    fitted = Regression.measure(x, c, Moments.measure(x))
    # A standard error of a coefficient is √(WITHIN_jj/n) for conditions of unit variance.
    assert bool(((fitted.coefficients - B).abs() < 4 * (WITHIN.diagonal() / n).sqrt()).all())
    assert bool((fitted.coefficients[B == 0] == 0).all())
    within = fitted.within
    assert within.basis is not None
    cov = (within.basis * within.variances) @ within.basis.mT
    torch.testing.assert_close(cov, WITHIN, rtol=0, atol=4 * 0.3 * math.sqrt(2 / n))


def test_unrelated_features_leave_the_marginal_law() -> None:
    x = draws(500)[0]
    noise = normal(5, Purpose.DATA, 0, 0, 500, (40,), torch.float64)
    fitted = Regression.measure(x, noise, Moments.measure(x))
    assert bool((fitted.coefficients == 0).all())
    few = Regression.measure(x[:30], noise[:30], marginal := Moments.measure(x))
    assert few.within is marginal and bool((few.shift(noise[:3]) == 0).all())


def test_features_are_numbers_and_one_hot_classes() -> None:
    conditions = [Condition("kind", "class", ("a", "b")), Condition("note", "words", ("", "w"), width=2),
                  Condition("size", "number", mean=(0.0,), std=(1.0,))]
    rows = torch.tensor([[1.0, 1.0, math.nan, 0.5], [math.nan, 0.0, 0.0, 2.0]])
    features = features_of(conditions, rows, 2, torch.tensor([0, 2]))
    assert features.shape[1] == feature_count(conditions, 2) == 5
    assert features[0].tolist() == [1, 0, 0, 1, 0.5]
    assert features[1].isnan().tolist() == [True] * 4 + [False]


def test_a_run_restores_the_regression_and_ends_with_the_linear_part_where_nothing_is_left(tmp_path: Path) -> None:
    x, c = draws(600, seed=2)
    data = Dataset(x, None, "table", "rows", columns=("a", "b"))
    fields = {"held_out": 100, "conditional_mean": True, "label_dropout": 0.0, "steps": 4, "save_every": 2,
              "patience": 2, "net_args": {"width": 16, "depth": 1, "condition": 8}}
    recipe = ud.recipes.for_data(conditioned(data, obs=c.numpy()), **fields)
    model = ud.train(recipe, tmp_path / "run", progress=False)
    again = ud.load(tmp_path / "run")
    assert isinstance(again, Denoiser) and model.regression is not None and again.regression is not None
    for name, value in model.regression.tensors().items():
        assert torch.equal(value, again.regression.tensors()[name])
    observation = np.array([0.5, -1.0, 2.0])
    first, second = (ud.sample(m.given(obs=torch.tensor(observation)), 50).x for m in (model, again))
    assert torch.equal(first, second)
