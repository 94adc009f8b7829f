"""The local denoiser against the Wiener filter of the Gaussian of the nearest rows, written out."""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.likelihood.local_denoiser import LocalDenoiser
from undiffuse.random import Purpose, normal


def rows(n: int, d: int, draw: int) -> Tensor:
    return normal(0, Purpose.DATA, draw, 0, n, (d,), torch.float64)


def test_the_residual_is_that_of_the_wiener_filter_of_the_nearest_rows() -> None:
    train, x, level = rows(60, 3, 0), rows(7, 3, 1), 0.05
    residuals = LocalDenoiser(train, 8, (level,)).residuals(x)[:, 1]
    for i in range(len(x)):
        near = train[(train - x[i]).square().sum(1).argsort()[:8]]
        mean, variance = near.mean(0), level * (near - x[i]).square().sum(1).mean()
        cov = (near - mean).T @ (near - mean) / 8
        expected = variance * torch.linalg.solve(cov + variance * torch.eye(3).double(), x[i] - mean)
        assert bool((residuals[i] - expected).abs().max() < 1e-8)
    nearest = LocalDenoiser(train, 8, (level,)).residuals(x)[:, 0].norm(dim=1)
    assert bool((nearest - torch.cdist(x, train).amin(1)).abs().max() < 1e-8)


def test_the_residual_is_that_of_the_best_weights_of_the_nearest_rows() -> None:
    """No other weights that add up to 1 have a smaller penalised error."""
    train, x, level = rows(30, 2, 2), rows(1, 2, 3), 0.1
    near = train[(train - x).square().sum(1).argsort()[:5]]
    penalty = level * (near - x).square().sum()
    system = torch.zeros(6, 6, dtype=torch.float64)
    system[:5, :5] = (near - x) @ (near - x).T + penalty * torch.eye(5)
    system[5, :5] = system[:5, 5] = 1
    weights = torch.linalg.solve(system, torch.tensor([0.0] * 5 + [1.0]).double())[:5]
    residual = LocalDenoiser(train, 5, (level,)).residuals(x)[0, 1]
    assert bool((residual - (x[0] - weights @ near)).abs().max() < 1e-8)


def test_a_training_row_is_scored_without_itself() -> None:
    train = rows(40, 3, 4)
    residuals = LocalDenoiser(train, 6).residuals(train)
    for i in (0, 17):
        others = torch.cat([train[:i], train[i + 1:]])
        alone = LocalDenoiser(others, 6).residuals(train[i : i + 1])
        assert bool((residuals[i] - alone[0]).abs().max() < 1e-12)


def test_equal_rows_and_fewer_rows_than_neighbours_have_finite_scores() -> None:
    same = torch.ones(5, 2, dtype=torch.float64)
    assert bool(LocalDenoiser(same, 10).scores(torch.cat([same, 2 * same])).isfinite().all())
    few = LocalDenoiser(rows(3, 2, 5), 10)
    assert few.residuals(rows(4, 2, 6)).shape == (4, 4, 2) and bool(few.scores(rows(4, 2, 6)).isfinite().all())


def test_a_row_off_a_curve_is_unusual_although_it_is_near_the_others() -> None:
    """Equally far from the nearest row, a point off the curve has a larger score than one between two of its points."""
    t = torch.linspace(0, 3, 200, dtype=torch.float64)
    curve = torch.stack([torch.cos(t), torch.sin(t)], 1)
    angle, step = t[100] + (t[1] - t[0]) / 2, (t[1] - t[0]) / 2
    on = torch.stack([torch.cos(angle), torch.sin(angle)])
    off = curve[100] * (1 + step)
    scores = LocalDenoiser(curve).scores(torch.stack([on, off]))
    assert float(scores[1] - scores[0]) > 1.0


def test_a_row_between_two_groups_is_unusual_although_it_is_among_its_neighbours() -> None:
    """The Wiener filter of neighbours from both groups has a small residual there, the nearest row has not."""
    groups = torch.cat([rows(100, 2, 7) * 0.1 - 2, rows(100, 2, 8) * 0.1 + 2])
    scores = LocalDenoiser(groups).scores(torch.tensor([[0.0, 0.0], [2.02, 1.97]], dtype=torch.float64))
    assert float(scores[0]) > 2.0 > 1.0 > float(scores[1])
