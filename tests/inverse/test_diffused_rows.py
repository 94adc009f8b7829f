"""The law of diffused rows: its conditional is that of the mixture, its moments are those of the rows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from undiffuse.inverse.diffused_rows import DiffusedRows, complete
from undiffuse.mixture import Mixture
from undiffuse.moments import GaussianParams, fit_em
from undiffuse.random import Purpose, normal, uniform

D = 3


def rows(n: int = 40) -> Tensor:
    """Three columns: the second is the square of the first, the third the sum of both, with noise."""
    x = normal(5, Purpose.DATA, 0, 0, n, (3,), torch.float64)
    second = x[:, 0] ** 2 + 0.3 * x[:, 1]
    return torch.stack([x[:, 0], second, x[:, 0] + second + 0.3 * x[:, 2]], 1)


def law(sigma: float, n: int = 40) -> DiffusedRows:
    y = rows(n)
    return DiffusedRows(y, GaussianParams(y.mean(0), torch.cov(y.mT, correction=0)), sigma)


@pytest.mark.parametrize("sigma", [0.15, 0.5, 1.0])
@pytest.mark.parametrize("observed", [[0], [1, 2], []])
def test_the_samples_are_those_of_the_mixture(sigma: float, observed: list[int]) -> None:
    """Mean and covariance of p(x | x_o) of the mixture in closed form, within five standard errors."""
    own, n = law(sigma), 20_000
    centres = own.params.mean + math.sqrt(1 - sigma**2) * (own.rows - own.params.mean)
    mixture = Mixture(torch.full((len(centres),), 1 / len(centres)), centres,
                      (sigma**2 * own.params.cov).expand(len(centres), D, D))
    z = torch.full((1, D), math.nan, dtype=torch.float64)
    if observed:
        z[0, observed] = own.rows[7, observed] + 0.2
        mixture = mixture.posterior(torch.eye(D, dtype=torch.float64)[observed], z[0, observed], 1e-5)
    draws, exact = own.draw(z, n, seed=3)[:, 0], mixture.sample(n, seed=4).double()
    assert torch.equal(draws[:, observed], z[:, observed].expand(n, -1))
    spread = exact.std(0)
    for moment in (1, 2, 3):
        a, b = draws**moment, exact**moment
        error = (a.var(0) / n + b.var(0) / n).sqrt()
        assert bool(((a.mean(0) - b.mean(0)).abs() <= 5 * error + 1e-3 * spread).all())


def test_mean_and_covariance_are_those_of_the_rows_at_every_level() -> None:
    z = torch.full((1, D), math.nan, dtype=torch.float64)
    for sigma in (0.2, 0.7, 1.0):
        own, n = law(sigma), 20_000
        draws = own.draw(z, n, seed=1)[:, 0]
        variance = own.params.cov.diagonal()
        assert bool(((draws.mean(0) - own.params.mean).abs() < 5 * (variance / n).sqrt()).all())
        assert torch.allclose(torch.cov(draws.mT), own.params.cov, rtol=0.1, atol=0.05)


def test_a_row_does_not_depend_on_the_others_and_an_excluded_one_is_not_used() -> None:
    own = law(0.1)
    z = own.rows[:9].clone()
    z[:, 1] = math.nan
    draws, alone = own.draw(z, 4, seed=2), own.draw(z[:5], 4, seed=2)
    assert torch.allclose(draws[:, :5], alone)
    excluded = torch.eye(40, dtype=torch.bool)[:9]
    distance = [(own.draw(z, 50, 2, 0, e)[..., 1] - own.rows[:9, 1]).abs().median() for e in (None, excluded)]
    assert distance[1] > 2 * distance[0]


def test_gaps_are_completed_on_the_curve() -> None:
    """A parabola with half of one column missing: the completed rows are nearer to it than those of the Gaussian."""
    y = rows(400)[:, :2]
    z = y.clone()
    z[uniform(0, Purpose.DATA, 1, 0, 400) < 0.5, 1] = math.nan
    params = fit_em(z)
    errors = [(full[:, 1] - full[:, 0] ** 2)[z[:, 1].isnan()].abs().median()
              for full in (complete(z, params, 0.1, 2, 0, 0), complete(z, params, 1.0, 2, 0, 0))]
    assert errors[0] < 0.4 < 0.8 < errors[1]
    assert torch.equal(complete(y, params, 0.1, 2, 0, 0), y)
