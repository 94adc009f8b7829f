"""Rows of tables with levels, categories, frequent and missing values, against closed forms of a mixture."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood import log_likelihood
from undiffuse.likelihood.dequantization import end_time
from undiffuse.likelihood.table_rows import RowProposal
from undiffuse.mixture import Mixture
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.processes import EDM
from undiffuse.transforms.base import Table
from undiffuse.transforms.column_fitting import fit_column
from undiffuse.transforms.columns import Categories, Power, Quantiles

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64)
LEVELS = (0.0, 1.0, 5.0)
NAN = math.nan


def centre(k: int, level: int) -> float:
    """The mean of the number, given category and level."""
    return (-1.0, 0.3, 1.5)[k] + 0.2 * level


def exact() -> Denoiser:
    """The exact model of a category, a number with standard deviation 0.3, and a level."""
    steps = fit_column(np.repeat(LEVELS, [500, 300, 200]))
    table = Table((Categories(tuple(P.tolist())), Power(0.0, 1.0), steps))
    cells = list(itertools.product(range(3), range(3)))
    rows = torch.tensor([[float(k), centre(k, i), LEVELS[i]] for k, i in cells], dtype=torch.float64)
    cov = torch.diag(torch.tensor([1e-8, 1e-8, 1e-8, 0.09, 1e-8], dtype=torch.float64))
    law = Mixture(torch.stack([P[k] * Q[k, i] for k, i in cells]), table.forward(rows), cov.expand(9, 5, 5))
    model = law.denoiser(EDM())
    model.transform, model.moments = table, Moments.measure(law.sample(20_000, seed=1))
    return model


def truth(x: Tensor) -> Tensor:
    """log of the probability of category and level times the density of the number, whatever is missing left out."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for row, (k, i) in itertools.product(range(len(x)), itertools.product(range(3), range(3))):
        category, number, level = x[row].tolist()
        if (math.isnan(category) or category == k) and (math.isnan(level) or level == LEVELS[i]):
            z = (number - centre(k, i)) / 0.3
            density = 1.0 if math.isnan(number) else math.exp(-0.5 * z * z) / (0.3 * math.sqrt(2 * math.pi))
            total[row] += P[k] * Q[k, i] * density
    return total.log()


def test_complete_rows_have_the_probability_of_levels_times_the_density_of_numbers() -> None:
    x = torch.tensor([[0.0, -1.2, 0.0], [1.0, 0.5, 1.0], [2.0, 1.5, 5.0], [2.0, -1.5, 0.0], [0.0, -0.7, 5.0]])
    result = log_likelihood(exact(), x.double(), rtol=1e-4, atol=1e-4)
    assert result.bound and not result.discrete
    assert bool(((result.log_prob - truth(x.double())).abs() < 0.05).all())


@pytest.mark.slow
def test_missing_values_are_integrated_out() -> None:
    """The mean weight of many draws is unbiased for every pattern of missing values."""
    patterns = torch.tensor([[NAN, -1.2, 0.0], [1.0, NAN, 1.0], [2.0, 1.5, NAN], [NAN, NAN, 0.0], [0.0, NAN, NAN],
                             [NAN, NAN, NAN]], dtype=torch.float64)
    rows = patterns.repeat_interleave(20, 0)
    weights = log_likelihood(exact(), rows, rtol=1e-3, atol=1e-3, draws=16).log_prob.exp().reshape(6, 20)
    error = weights.mean(1) - truth(patterns).exp()
    assert bool((error.abs() < 3.5 * weights.std(1) / math.sqrt(20) + 0.01 * truth(patterns).exp()).all())
    assert bool((weights.std(1) / weights.mean(1) < 1.2).all())


def test_a_row_has_the_same_score_alone_and_among_rows_with_missing_values() -> None:
    model, x = exact(), torch.tensor([[0.0, -1.2, 0.0], [NAN, 0.5, 1.0]], dtype=torch.float64)
    both = log_likelihood(model, x, rtol=1e-3, atol=1e-3, draws=4).log_prob
    assert torch.equal(both[:1], log_likelihood(model, x[:1], rtol=1e-3, atol=1e-3, draws=4).log_prob)


def test_an_impossible_level_has_no_probability() -> None:
    x = torch.tensor([[0.0, -1.2, 2.0], [0.0, -1.2, 0.0]], dtype=torch.float64)
    result = log_likelihood(exact(), x, rtol=1e-3, atol=1e-3)
    assert result.log_prob[0] == -math.inf and result.log_prob[1].isfinite()


def test_a_frequent_value_has_a_probability_and_the_others_a_density() -> None:
    """A column that is 0 with probability 0.4 and else exponential, of which a normal z is the exact model."""
    u = (np.arange(5000) + 0.5) / 5000
    x = np.where(u < 0.4, 0.0, -np.log1p(-(u - 0.4) / 0.6))
    column = fit_column(x)
    assert isinstance(column, Quantiles)
    rows = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    half, z = column.half_width(rows)[:, 0], column.forward(rows)[:, 0]
    edges = torch.stack([z - half, z + half]) * column.std + column.mean
    mass = torch.diff(torch.special.ndtr(edges), dim=0)[0]
    assert abs(float(mass[0]) - 0.4) < 0.01 and half[1:].tolist() == [0.0, 0.0]
    assert float(column.log_measure(rows)[0]) == 0.0
    density = column.log_measure(rows[1:]) - 0.5 * (edges[0, 1:] ** 2 + math.log(2 * math.pi)) + math.log(column.std)
    assert bool((density - torch.log(0.6 * torch.exp(-rows[1:]))).abs().max() < 0.1)


def test_the_proposal_stays_within_the_cells_and_has_the_density_that_it_reports() -> None:
    model = exact()
    sigma = float(torch.exp(-model.sde.log_snr(torch.tensor(end_time(model, "table"), dtype=torch.float64))))
    proposal = RowProposal(model, sigma)
    x = torch.tensor([[1.0, 0.2, 1.0], [NAN, 0.2, NAN]], dtype=torch.float64).repeat(2000, 1)
    z, log_q = proposal.sample(x, 0, 0, 0)
    back = model.transform.inverse(z)
    assert bool((torch.where(x.isnan(), back, x) - back).abs().max() < 1e-9)
    half = model.transform.half_width(x[:1])[0]
    noise = ((z[::2] - model.transform.forward(x[:1]))[:, half > 0]) / sigma
    mass = torch.erf(half[half > 0] / sigma / math.sqrt(2))
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = (normal.log_prob(noise) - math.log(sigma) - mass.log()).sum(1)
    assert bool((log_q[::2] - expected).abs().max() < 1e-9)


def test_missing_values_need_moments() -> None:
    model = exact()
    model.moments = None
    with pytest.raises(InputError, match="without the data's moments"):
        log_likelihood(model, torch.tensor([[NAN, 0.1, 0.0]], dtype=torch.float64))
