"""Rows with empty cells: the likelihood is stationary, monotone gaps have a closed form, draws are conditional."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from undiffuse import moments
from undiffuse.data import Dataset
from undiffuse.experiment import Experiment
from undiffuse.loss import weight
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal, uniform
from undiffuse.training.batches import Feed, batch_losses
from undiffuse.training.model_config import describe, initialized

COV = torch.tensor([[2.0, 1.2, -0.4], [1.2, 1.5, 0.3], [-0.4, 0.3, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def rows(n: int, share: float = 0.3) -> Tensor:
    z = MEAN + normal(0, Purpose.DATA, 60, 0, n, (3,), torch.float64) @ torch.linalg.cholesky(COV).mT
    return torch.where(uniform(0, Purpose.DATA, 61, 0, n, (3,)) < share, math.nan, z)


def log_likelihood(z: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row in z:
        o = ~row.isnan()
        if o.any():
            law = torch.distributions.MultivariateNormal(mean[o], cov[o][:, o])
            total = total + law.log_prob(row[o])
    return total


def test_the_likelihood_of_what_is_there_is_stationary() -> None:
    """Its gradient per row at EM's answer is 0 to what is left when EM stops (changes below 10⁻⁴)."""
    z = rows(120)
    law = moments.fit_em(z, prior=0.0)
    mean, factor = law.mean.requires_grad_(), torch.linalg.cholesky(law.cov).requires_grad_()
    (at_mean, at_factor) = torch.autograd.grad(log_likelihood(z, mean, factor @ factor.mT), (mean, factor))
    start = moments.pairwise_covariance(z)
    away = torch.autograd.grad(log_likelihood(z, start.mean.requires_grad_(), start.cov), start.mean)[0]
    assert float(at_mean.abs().max()) / 120 < 1e-3 < float(away.abs().max()) / 120
    assert float(at_factor.tril().abs().max()) / 120 < 1e-3


def test_gaps_in_one_column_have_anderson_s_closed_form() -> None:
    """Two columns, the second with gaps: mean and variance of the first from all rows, the regression of the second on
    it from the complete ones. Reference: Anderson (1957), J. Am. Stat. Assoc. 52, 200-203."""
    z = rows(200, 0.0)[:, :2]
    z[uniform(0, Purpose.DATA, 62, 0, 200, ()) < 0.4, 1] = math.nan
    whole, a = z[~z[:, 1].isnan()], z[:, 0]
    mean, var = a.mean(), a.var(unbiased=False)
    x, y = whole.T - whole.mean(0)[:, None]
    slope = (x * y).sum() / (x * x).sum()
    noise = (y - slope * x).square().mean()
    second = whole[:, 1].mean() + slope * (mean - whole[:, 0].mean())
    law = moments.fit_em(z, prior=0.0)
    expected = torch.stack([mean, second, var, slope * var, noise + slope**2 * var])
    found = torch.stack([*law.mean, law.cov[0, 0], law.cov[0, 1], law.cov[1, 1]])
    assert torch.allclose(found, expected, atol=2e-3)


def test_without_gaps_it_is_the_sample_covariance_and_the_prior_shrinks_it() -> None:
    z = rows(50, 0.0)
    plain = torch.cov(z.T, correction=0)
    assert torch.allclose(moments.fit_em(z, prior=0.0).cov, plain, atol=1e-12)
    shrunk = (50 * plain + 3 * torch.diag(plain.diagonal())) / 53
    assert torch.allclose(moments.fit_em(z).cov, shrunk, atol=1e-12)


@pytest.mark.parametrize("gaps", [[0], [1, 2], [0, 1, 2]])
def test_draws_have_the_conditional_law(gaps: list[int]) -> None:
    """Mean and covariance in closed form, within five standard errors of 20,000 draws."""
    values, basis = torch.linalg.eigh(COV)
    law = Moments((3,), MEAN, values, "pca", basis)
    row = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)
    z = row.repeat(20_000, 1)
    z[:, gaps] = math.nan
    filled = moments.fill_missing(z, law, 0, 0)
    o = [j for j in range(3) if j not in gaps]
    assert torch.equal(filled[:, o], z[:, o])
    gain = COV[gaps][:, o] @ torch.linalg.inv(COV[o][:, o])
    mean, cov = MEAN[gaps] + gain @ (row[o] - MEAN[o]), COV[gaps][:, gaps] - gain @ COV[o][:, gaps]
    drawn = filled[:, gaps]
    assert ((drawn.mean(0) - mean).abs() < 5 * (cov.diagonal() / 20_000).sqrt()).all()
    assert ((torch.cov(drawn.T).reshape(cov.shape) - cov).abs() < 5 * 2 * cov.diagonal().max() / 20_000**0.5).all()


def test_the_loss_counts_what_is_there_and_every_column_alike() -> None:
    """Over an epoch a column's shares add up to the number of rows, whatever is missing; known cells are as they are,
    and the squares of others drop out: where D = 0 the loss is w(t) times the mean of share · x_0²."""
    z = rows(40)
    data = Dataset(z.float(), None, "table", "t", columns=("a", "b", "c"))
    experiment = Experiment(data="t", batch_size=40, net_args={"width": 8, "depth": 1, "condition": 8},
                            prediction_type="data")
    model = initialized(describe(experiment, data, ""), 0, data)
    feed = Feed(experiment, data, model)
    batch, seen = feed.batch(0), ~data.x.isnan()
    assert batch.entry_weights is not None and torch.allclose(batch.entry_weights.sum(0), torch.full((3,), 40.0))
    known = seen[batch.rows]
    assert torch.equal(batch.entry_weights > 0, known)
    assert torch.equal(batch.x0[known], model.transform.forward(data.x)[batch.rows][known])
    assert not torch.equal(batch.x0, feed.at(1, batch.rows).x0) and torch.equal(feed.at(1, batch.rows).x0[known],
                                                                                 batch.x0[known])
    expected = weight("edm", model.sde, batch.t, feed.levels) * (batch.entry_weights * batch.x0**2).mean(1)
    assert torch.allclose(batch_losses(feed, batch), expected.float(), rtol=1e-5)  # an untrained output is 0
