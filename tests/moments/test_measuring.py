"""Moments where rows are few, long, stationary or in part missing: what matters is how new rows are described."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from undiffuse.moments import Moments, kind_for, moments_with_missing, regress, shrunk
from undiffuse.moments.measuring import _log_likelihood
from undiffuse.random import normal, uniform


def randn(n: int, *shape: int, seed: int = 0) -> Tensor:
    return normal(seed, 0, 0, 0, n, shape, torch.float64)


def factors(n: int, d: int) -> Tensor:
    """Rows of unit variance that five factors explain in part."""
    x = randn(n, 5, seed=1) @ randn(5, d, seed=2) + randn(n, d, seed=3)
    return (x - x.mean(0)) / x.std(0)


@pytest.mark.parametrize("kind", ["pca", "low_rank"])
def test_more_columns_than_rows_describe_new_rows(kind: str) -> None:
    """Of 60 rows of 150 columns the plain covariance says that 91 directions do not vary, and a denoiser that believes
    it errs without bound at small noise; variances of rows left out are better than independent columns."""
    rows, new = factors(400, 150).split([60, 340])
    plain = Moments.measure(rows, kind)
    better = shrunk(plain, rows)
    apart = Moments((150,), rows.mean(0), rows.var(0), basis=torch.eye(150, dtype=torch.float64))
    for sigma in (0.002, 0.02, 0.1, 0.5, 2.0, 20.0):
        noisy, weight = new + sigma * randn(340, 150, seed=4), (1 + sigma**2) / sigma**2
        loss = weight * float((better.wiener(noisy, sigma) - new).square().mean())
        assert loss < 1.1
        assert loss < 1.02 * weight * float((apart.wiener(noisy, sigma) - new).square().mean())
    assert _log_likelihood(plain, new) < -1e4 < _log_likelihood(apart, new) + 10 < _log_likelihood(better, new)
    assert math.isclose(better.total_std, 1, rel_tol=0.05)


def test_many_rows_are_left_as_they_are() -> None:
    x = factors(200, 20)
    assert shrunk(plain := Moments.measure(x, "pca"), x) is plain


def ring(n: int, length: int, seed: int) -> Tensor:
    """A periodic stationary series, white noise smoothed around a ring."""
    kernel = torch.exp(-torch.minimum(torch.arange(length), length - torch.arange(length)).double() / 3)
    return torch.fft.irfft(torch.fft.rfft(randn(n, 1, length, seed=seed)) * torch.fft.rfft(kernel), n=length)


def walk(n: int, length: int, seed: int) -> Tensor:
    """Windows of an autoregressive series, which do not close to a ring."""
    x = randn(n, 1, length, seed=seed)
    for t in range(1, length):
        x[..., t] = 0.95 * x[..., t - 1] + math.sqrt(1 - 0.95**2) * x[..., t]
    return x


def test_the_kind_is_the_one_that_describes_new_rows() -> None:
    uneven = walk(2000, 24, 3) * torch.linspace(0.05, 3, 24).double()
    assert [kind_for(z) for z in (ring(60, 64, 1), walk(60, 64, 2), uneven)] == ["fourier", "cosine", "pca"]


@pytest.mark.parametrize("kind", ["pca", "cosine"])
def test_missing_entries_are_regressed_on_the_others(kind: str) -> None:
    """Against the normal equations, by the inverse covariance and, above 1,024 entries, by conjugate gradients."""
    frame = Moments.measure(walk(400, 30, 1), kind)
    cov = frame.rotate(torch.eye(30).double())
    cov = (cov * frame.spectrum) @ cov.T
    z, centre = walk(20, 30, 5).flatten(1), frame.mean.expand(20, -1)
    z[uniform(0, 0, 1, 0, 20, (30,)) < 0.4] = math.nan
    z[0], z[1, 5] = math.nan, 0.3
    moved = regress(z, centre, frame, ridge=0.0)
    for row, answer in zip(z, moved, strict=True):
        o = ~row.isnan()
        expected = frame.mean + cov[:, o] @ torch.linalg.solve(cov[o][:, o], row[o] - frame.mean[o])
        torch.testing.assert_close(answer[~o], expected[~o], rtol=0, atol=1e-8)
        assert torch.equal(answer[o], row[o])


def test_a_long_series_is_regressed_without_a_matrix() -> None:
    series = walk(300, 1100, 1)
    frame = Moments.measure(series, "cosine")
    z = series[:3].flatten(1).clone()
    z[:, ::3] = math.nan
    moved = regress(z, frame.mean.expand(3, -1), frame)
    # A value between two neighbours of an autoregression: weight φ/(1 + φ²) of each, error variance (1 − φ²)/(1 + φ²).
    inner = slice(3, 1098, 3)
    expected = 0.95 / (1 + 0.95**2) * (series[:3, 0, 2:1097:3] + series[:3, 0, 4:1099:3])
    assert float((moved[:, inner] - expected).square().mean()) < 0.1 * (1 - 0.95**2) / (1 + 0.95**2)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "most"), [("pca", 0.5), ("cosine", 0.15)])
def test_moments_of_windows_with_missing_values_are_those_of_complete_ones(kind: str, most: float) -> None:
    """A third of the values is missing in 500 windows of 144 entries: the logarithms of the variances by frequency are
    near those of the complete windows, for a stationary kind, of which there are few, and far for those of windows
    filled by their mean."""
    whole = walk(500, 144, 7)
    z = torch.where(uniform(0, 0, 2, 0, 500, (1, 144)) < 1 / 3, math.nan, whole)
    frame, filled = moments_with_missing(z, kind), z.nan_to_num(0.0)
    truth = Moments.measure(whole, "cosine").variances
    directions = Moments.measure(whole, "cosine").unrotate(torch.eye(144).double()).flatten(1)
    cov = frame.rotate(directions).square() @ frame.spectrum
    plain = Moments.measure(filled, "cosine").variances
    assert float((cov / truth).log().abs().mean()) < most < 0.8 < float((plain / truth).log().abs().mean())
