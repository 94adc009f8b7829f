"""The linear part: moments against NumPy, the Wiener filter against regression, the prior against its covariance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.moments import Moments, measurable
from undiffuse.random import Purpose, normal


def correlated(n: int, *shape: int) -> Tensor:
    """Rows whose entries are neighbouring sums of normals, so that no direction is like another."""
    z = normal(0, Purpose.DATA, 0, 0, n, shape, torch.float64)
    return 1.5 + z.cumsum(-1) * torch.linspace(0.2, 1, shape[-1], dtype=torch.float64)


def dense(frame: Moments) -> Tensor:
    """The covariance matrix that the moments stand for, from the images of the unit vectors."""
    d = len(frame.mean)
    rows = frame.rotate(torch.eye(d, dtype=torch.float64).reshape(d, *frame.shape))
    return (rows * frame.spectrum) @ rows.T


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3, 4)])
def test_principal_directions_give_the_whole_covariance(shape: tuple[int, ...]) -> None:
    x = correlated(300, *shape)
    frame = Moments.measure(x)
    flat = x.flatten(1).numpy()
    np.testing.assert_allclose(dense(frame), np.cov(flat.T, bias=True).reshape(len(flat.T), -1), atol=1e-12)
    np.testing.assert_allclose(frame.mean, flat.mean(0), atol=1e-12)
    assert frame.total_std == pytest.approx(np.sqrt(flat.var(0).mean()), rel=1e-12)


@pytest.mark.parametrize("make", [lambda x: Moments.measure(x), lambda x: Moments.measure(x, "dct"),
                                  lambda x: Moments.measure(x, rank=5), lambda x: Moments.measure(x, "low_rank"),
                                  lambda x: Moments.measure(x, "cosine"), lambda x: Moments.measure(x, "fourier")],
                         ids=["full", "dct", "rank", "low_rank", "cosine", "fourier"])
def test_coordinates_lead_back(make: object) -> None:
    x = correlated(60, 2, 4, 6)
    frame = make(x)  # type: ignore[operator]
    torch.testing.assert_close(frame.unrotate(frame.rotate(x)), x, rtol=0, atol=1e-12)


def test_cosines_are_orthonormal_and_their_variances_those_of_the_data() -> None:
    x = correlated(500, 1, 6, 8)
    frame = Moments.measure(x, "dct")
    rows = frame.rotate(torch.eye(48, dtype=torch.float64).reshape(48, 1, 6, 8))
    torch.testing.assert_close(rows.T @ rows, torch.eye(48, dtype=torch.float64), rtol=0, atol=1e-12)
    cov = torch.from_numpy(np.cov(x.flatten(1).T.numpy(), bias=True))
    torch.testing.assert_close(frame.variances, (rows.T @ cov @ rows).diagonal(), rtol=1e-10, atol=1e-12)


def test_a_low_rank_keeps_the_leading_directions_and_the_total_variance() -> None:
    x = correlated(400, 12)
    full, low = Moments.measure(x), Moments.measure(x, rank=3)
    torch.testing.assert_close(low.variances, full.variances[:3], rtol=1e-10, atol=0)
    assert low.total_std == pytest.approx(full.total_std, rel=1e-12)
    assert low.residual_variance == pytest.approx(float(full.variances[3:].mean()), rel=1e-10)


@pytest.mark.parametrize("level", [0.01, 0.7, 30.0])
def test_the_wiener_filter_is_the_regression_of_data_on_noisy_data(level: float) -> None:
    """With the exact second moments, E[x₀ zᵀ] E[z zᵀ]⁻¹ = C (C + σ̂² I)⁻¹."""
    x = correlated(200, 6)
    frame = Moments.measure(x)
    cov = torch.from_numpy(np.cov(x.T.numpy(), bias=True))
    gain = cov @ torch.linalg.inv(cov + level**2 * torch.eye(6, dtype=torch.float64))
    z = normal(1, Purpose.NOISE, 0, 0, 9, (6,), torch.float64) * 3
    torch.testing.assert_close(frame.wiener(z, level), frame.mean + (z - frame.mean) @ gain.T, rtol=1e-10, atol=1e-11)


def test_the_prior_is_an_affine_image_of_the_noise_with_the_right_law() -> None:
    """Its matrix A, from unit inputs, has A Aᵀ = α² C + σ² I, and no input gives the mean α μ."""
    x, alpha, sigma = correlated(200, 5), 0.3, 0.8
    frame = Moments.measure(x)
    centre = frame.prior_sample(torch.zeros(1, 5, dtype=torch.float64), alpha, sigma)
    A = frame.prior_sample(torch.eye(5, dtype=torch.float64), alpha, sigma) - centre
    cov = torch.from_numpy(np.cov(x.T.numpy(), bias=True))
    torch.testing.assert_close(A.T @ A, alpha**2 * cov + sigma**2 * torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(centre[0], alpha * frame.mean)


def test_what_is_stored_is_all_there_is() -> None:
    x = correlated(50, 7)
    frame = Moments.measure(x)
    again = Moments.from_config(frame.config(), frame.tensors())
    assert torch.equal(again.rotate(x), frame.rotate(x)) and torch.equal(again.spectrum, frame.spectrum)
    kinds = {"pca": (7,), "low_rank": (300,), "cosine": (3, 8), "fourier": (1, 4, 6), "dct": (3, 4, 4)}
    for kind, shape in kinds.items():
        rows = correlated(20, *shape)
        frame, blank = Moments.measure(rows, kind), Moments.blank(shape, kind)
        assert {k: t.shape for k, t in blank.tensors().items()} == {k: t.shape for k, t in frame.tensors().items()}
        again = Moments.from_config(blank.config(), frame.tensors())
        assert torch.equal(again.spectrum, frame.spectrum)
        assert torch.equal(again.wiener(rows, 0.3), frame.wiener(rows, 0.3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [None, 3])
def test_a_row_is_turned_to_the_same_bytes_wherever_it_stands(rank: int | None, dtype: torch.dtype) -> None:
    """A matrix product of an odd size may take another kernel for a row by its place in the block."""
    for d in range(4, 24):
        frame = Moments.measure(correlated(60, d), "pca", rank)
        rows = correlated(1, d).to(dtype).expand(256, d).contiguous()
        y = frame.rotate(rows)
        for turned in (y, frame.unrotate(y)):
            assert torch.equal(turned, turned[:1].expand_as(turned)), d
        assert torch.allclose(frame.unrotate(y), rows, atol=1e-4 if dtype == torch.float32 else 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_is_turned_to_the_same_bytes_wherever_it_stands(dtype: torch.dtype) -> None:
    for shape in ((3, 19, 19), (1, 33, 33), (1, 21, 50)):
        frame = Moments.measure(correlated(4, math.prod(shape)).reshape(4, *shape), "dct")
        rows = correlated(1, math.prod(shape)).reshape(1, *shape).to(dtype).expand(256, *shape).contiguous()
        y = frame.rotate(rows)
        for turned in (y, frame.unrotate(y)):
            assert torch.equal(turned, turned[:1].expand_as(turned)), shape
        assert torch.allclose(frame.unrotate(y), rows, atol=1e-4 if dtype == torch.float32 else 1e-11)


def test_few_images_are_described_by_cosines_which_denoise_new_ones_better() -> None:
    """Smooth images of 64 pixels: principal directions of 40 of them span 39 directions and erase the others of new
    images; with 1,000 of them the covariance is known, and principal directions are best."""
    i = torch.arange(8, dtype=torch.float64)
    root = torch.linalg.cholesky(torch.exp(-(i[:, None] - i) ** 2 / 8) + 0.01 * torch.eye(8))

    def smooth(n: int, seed: int) -> torch.Tensor:
        return root @ normal(seed, 0, 0, 0, n, (1, 8, 8), torch.float64) @ root.T

    new, sigma = smooth(400, 2), 0.05
    noisy = new + sigma * normal(3, 0, 0, 0, 400, (1, 8, 8), torch.float64)
    for rows, best in ((40, "dct"), (1000, "pca")):
        x = smooth(rows, 1)
        error = {kind: float((Moments.measure(x, kind).wiener(noisy, sigma) - new).square().mean())
                 for kind in ("pca", "dct")}
        assert Moments.measure(x).kind == best == min(error, key=lambda kind: error[kind])


def test_one_row_has_no_covariance_and_long_rows_no_full_one() -> None:
    with pytest.raises(InputError, match="at least 2"):
        Moments.measure(torch.zeros(1, 3))
    assert measurable((1024,)) and measurable((3, 64, 64)) and measurable((1025,)) and not measurable((40_000,))
