"""The cosine basis: the transform of a well-known library, orthonormal colours without correlation, equal batches."""

from __future__ import annotations

import pytest
import torch
from scipy import fft

from undiffuse.cosines import colours, frequencies, mixed, mixed_by_frequency, mixes, principal, separable
from undiffuse.random import normal


def images(n: int, *shape: int) -> torch.Tensor:
    return normal(0, 0, 0, 0, n, shape, torch.float64)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 19, 19), (2, 5, 12)])
def test_the_transform_is_that_of_scipy_and_its_inverse_undoes_it(shape: tuple[int, ...]) -> None:
    x = images(3, *shape)
    y = separable(x.flatten(1), shape, inverse=False)
    expected = torch.from_numpy(fft.dctn(x.numpy(), type=2, axes=(2, 3), norm="ortho")).flatten(1)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(separable(y, shape, inverse=True), x.flatten(1), rtol=1e-12, atol=1e-12)


def test_principal_colours_are_orthonormal_and_uncorrelated() -> None:
    mixing = torch.tensor([[1.0, 0.8, 0.7], [0.0, 0.5, 0.3], [0.0, 0.0, 0.2]], dtype=torch.float64)
    x = torch.einsum("nchw,cd->ndhw", images(50, 3, 6, 6), mixing)
    basis = colours(x.flatten(1), (3, 6, 6))
    assert basis is not None
    torch.testing.assert_close(basis.T @ basis, torch.eye(3).double(), rtol=0, atol=1e-12)
    turned = mixed(x.flatten(1), basis).reshape(50, 3, -1).transpose(0, 1).flatten(1)
    covariance = turned @ turned.T
    assert float((covariance - covariance.diag().diag()).abs().max()) < 1e-9 * float(covariance.max())
    assert (covariance.diag().diff() < 0).all()  # the colour that varies most is first


def test_mixing_is_a_matrix_product_for_every_pixel_and_the_same_in_every_batch() -> None:
    x, basis = images(7, 3, 5, 5).float(), torch.linalg.qr(images(1, 3, 3)[0])[0]
    y = mixed(x.flatten(1), basis)
    expected = torch.einsum("nchw,cd->ndhw", x.double(), basis).flatten(1)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-6)
    assert all(torch.equal(y[i:i + 1], mixed(x[i:i + 1].flatten(1), basis)) for i in range(7))


def test_grey_images_and_many_channels_are_not_mixed() -> None:
    assert [mixes((c, 4, 4)) for c in (1, 2, 3, 16, 17)] == [False, True, True, True, False]
    assert colours(images(4, 1, 4, 4).flatten(1), (1, 4, 4)) is None


@pytest.mark.parametrize("shape", [(2, 9), (1, 6, 7), (3, 4, 5, 6)])
def test_waves_over_any_number_of_axes(shape: tuple[int, ...]) -> None:
    x, axes = images(3, *shape), tuple(range(2, len(shape) + 1))
    for kind, expected in (("cosine", fft.dctn(x.numpy(), type=2, axes=axes, norm="ortho")),
                           ("fourier", (lambda f: f.real - f.imag)(fft.fftn(x.numpy(), axes=axes, norm="ortho")))):
        y = frequencies(x.flatten(1), shape, kind)
        torch.testing.assert_close(y, torch.from_numpy(expected).flatten(1), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(frequencies(y, shape, kind, inverse=True), x.flatten(1), rtol=1e-12, atol=1e-12)


def test_every_periodic_stationary_covariance_is_diagonal_in_the_real_fourier_transform() -> None:
    """Also an anisotropic one, whose spectrum differs in (k, l) and (k, −l), which no product of waves diagonalises."""
    i, j = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    kernel = torch.exp(-0.7 * (1 - torch.cos(2 * torch.pi * (i / 6 + 2 * j / 5)))).double()
    cov = torch.stack([kernel.roll((a, b), (0, 1)).flatten() for a in range(6) for b in range(5)])
    waves = frequencies(torch.eye(30).double(), (1, 6, 5), "fourier")
    turned = waves.T @ ((cov + cov.T) / 2) @ waves
    assert float((turned - turned.diag().diag()).abs().max()) < 1e-12 * 30


def test_channels_are_uncorrelated_at_every_frequency() -> None:
    x = images(40, 3, 7)
    x[:, 1] += 2 * x[:, 0].cumsum(-1)
    waves = frequencies(x.flatten(1), (3, 7), "cosine")
    basis = principal(waves, (3, 7))
    assert basis is not None
    torch.testing.assert_close(torch.einsum("cjf,djf->fcd", basis, basis), torch.eye(3).double().expand(7, 3, 3),
                               rtol=0, atol=1e-12)
    turned = mixed_by_frequency(waves, basis)
    torch.testing.assert_close(mixed_by_frequency(turned, basis.transpose(0, 1)), waves, rtol=0, atol=1e-12)
    rows = turned.reshape(40, 3, 7)
    products = torch.einsum("ncf,ndf->fcd", rows, rows)
    assert float((products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))).abs().max()) < 1e-10 * float(
        products.max())
