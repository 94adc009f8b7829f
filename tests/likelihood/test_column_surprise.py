"""The surprise of columns: the closed form of independent columns, the sum of a Gaussian's, and a missing cell."""

from __future__ import annotations

import math

import torch

from undiffuse.likelihood import log_likelihood
from undiffuse.likelihood.column_surprise import column_surprise
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.processes import VP

MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
COV = torch.tensor([[2.0, 1.2, -0.4], [1.2, 1.5, 0.3], [-0.4, 0.3, 1.0]], dtype=torch.float64)
ROWS = MEAN + torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 0, -5], [3, -3, 0]], dtype=torch.float64)


def test_independent_normal_columns_have_the_closed_form() -> None:
    """½ (z² − 1), within the error of 256 reference samples, 4 √(½/256), and of the levels."""
    std = COV.diagonal().sqrt()
    surprise = column_surprise(Gaussian(MEAN, torch.diag(std**2)).denoiser(VP()), ROWS, levels=64)
    expected = 0.5 * (((ROWS - MEAN) / std) ** 2 - 1)
    assert bool(((surprise - expected).abs() < 4 * math.sqrt(0.5 / 256) + 0.08 * expected.abs()).all())


def test_they_add_up_to_what_the_row_lacks_in_log_likelihood() -> None:
    law = Gaussian(MEAN, COV)
    surprise = column_surprise(law.denoiser(VP()), ROWS, levels=64)
    lacking = float(law.log_prob(law.sample(20_000, seed=1)).mean()) - law.log_prob(ROWS)
    assert bool(((surprise.sum(1) - lacking).abs() < 4 * math.sqrt(1.5 / 256) + 0.08 * lacking.abs()).all())


def test_a_cell_that_contradicts_the_others_has_most_of_the_surprise() -> None:
    """Two groups in the first two columns; the third is independent and usual."""
    centres = torch.tensor([[0.0, 0, 0], [6, 6, 0]], dtype=torch.float64)
    model = Mixture(torch.tensor([0.5, 0.5]), centres, torch.eye(3, dtype=torch.float64).expand(2, 3, 3)).denoiser(VP())
    rows = torch.tensor([[0.0, 6, 0], [0, 0, 4], [math.nan, 0, 4], [0, 0, 0]], dtype=torch.float64)
    surprise = column_surprise(model, rows)
    assert float(surprise[0, :2].sum()) > 5 > 1 > float(surprise[0, 2].abs())
    assert int(surprise[1].argmax()) == 2 and int(surprise[2].argmax()) == 2 and float(surprise[2, 0]) == 0
    assert float(surprise[3].max()) < 1
    assert log_likelihood(model, rows[[0, 3]]).log_prob.diff() > 5


def test_a_row_does_not_depend_on_the_others() -> None:
    model = Gaussian(MEAN, COV).denoiser(VP())
    assert torch.equal(column_surprise(model, ROWS)[2:3], column_surprise(model, ROWS[2:3]))
