"""Gaussian fields and volumes of a known spectrum: samples, likelihood and posteriors against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.model import Denoiser
from undiffuse.moments import Moments, covariance
from undiffuse.random import Purpose, normal, uniform

SIZES = [pytest.param((12, 12), id="12x12"), pytest.param((6, 6, 6), id="6^3"),
         pytest.param((64, 64), id="64x64", marks=pytest.mark.slow),
         pytest.param((16, 16, 16), id="16^3", marks=pytest.mark.slow)]


class Silent(nn.Module):
    """A network of zeros, whose denoiser is the Wiener filter."""

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


def law(space: tuple[int, ...]) -> Moments:
    """A periodic field of unit variance with spectrum ∝ (1 + |k|²)^{−1.5}, anisotropic."""
    waves = torch.meshgrid(*[torch.fft.fftfreq(n, 1 / n).double() for n in space], indexing="ij")
    squared = sum((1 + axis) * k**2 for axis, k in enumerate(waves)) + 0.5 * waves[0] * waves[1]
    spectrum = (1 + squared) ** -1.5
    d = math.prod(space)
    return Moments((1, *space), torch.full((d,), 0.7, dtype=torch.float64), (spectrum * d / spectrum.sum()).flatten(),
                   "fourier")


def exact(space: tuple[int, ...]) -> Denoiser:
    model = Denoiser(Silent(), ud.EDM(), "wiener", shape=(1, *space), sigma_data=1.0, block=20).double()
    model.register_buffer("one", torch.ones(1, dtype=torch.float64))
    model.moments = law(space)
    return model


def drawn(space: tuple[int, ...], n: int, seed: int) -> Tensor:
    frame = law(space)
    return frame.prior_sample(normal(seed, Purpose.DATA, 9, 0, n, frame.shape, torch.float64), 1.0, 0.0)


@pytest.mark.parametrize("space", SIZES)
def test_samples_have_the_spectrum(space: tuple[int, ...]) -> None:
    """|x_k|²/s_k² has mean 1 and variance 2 in every one of eight bands, after two steps of the method that integrates
    the Gaussian part exactly."""
    model, n = exact(space), 40
    frame = model.moments
    assert frame is not None
    samples = ud.sample(model, n, method="dpmpp_2m", steps=2, seed=3, options={"frame": True}).x
    y = frame.rotate(samples) - frame.rotated_mean(samples)
    ratio = (y.square() / frame.variances).mean(0)
    for band in frame.variances.argsort().tensor_split(8):
        assert abs(float(ratio[band].mean()) - 1) < 4 * math.sqrt(2 / (n * len(band)))


@pytest.mark.parametrize("space", SIZES)
def test_the_likelihood_is_the_density(space: tuple[int, ...]) -> None:
    model, rows = exact(space), drawn(space, 2, 5)
    frame = model.moments
    assert frame is not None
    y = frame.rotate(rows) - frame.rotated_mean(rows)
    expected = -0.5 * ((2 * math.pi * frame.variances).log().sum() + (y.square() / frame.variances).sum(1))
    found = ud.log_likelihood(model, rows, probes=4)
    assert ((found.log_prob - expected).abs() < 4 * found.error + 1e-5 * expected.abs()).all()


@pytest.mark.parametrize(("space", "gaps"), [
    ((12, 12), "points"), ((12, 12), "block"), ((6, 6, 6), "points"), ((6, 6, 6), "block"),
    pytest.param((64, 64), "points", marks=pytest.mark.slow),
    pytest.param((16, 16, 16), "block", marks=pytest.mark.slow)])
def test_posteriors_given_gaps_are_the_conditional_law(space: tuple[int, ...], gaps: str) -> None:
    """Mean and covariance of 60 draws, or 12 of large fields: the squares of the standardised errors of the mean
    average 1, and so do those of the draws in the directions of the conditional law, within three standard errors of
    independent ones."""
    model, truth, draws = exact(space), drawn(space, 1, 7), 60 if math.prod(space) < 1024 else 12
    hidden = uniform(1, Purpose.DATA, 3, 0, 1, (1, *space))[0] < 0.3
    if gaps == "block":
        hidden = torch.zeros(1, *space, dtype=torch.bool)
        hidden[(0, *(slice(n // 4, n // 4 + max(2, n // 6)) for n in space))] = True
    filled = ud.impute(model, torch.where(hidden, math.nan, truth), draws, seed=2, steps=40)
    m = hidden.flatten()
    cov, frame = covariance(law(space)), law(space)
    gain = torch.linalg.solve(cov[~m][:, ~m], cov[~m][:, m]).T
    mean = frame.mean[m] + gain @ (truth.flatten()[~m] - frame.mean[~m])
    root = torch.linalg.cholesky(cov[m][:, m] - gain @ cov[~m][:, m])
    z = torch.linalg.solve_triangular(root, (filled.flatten(1)[:, m] - mean).T, upper=False)
    count = int(m.sum())
    assert torch.equal(filled.flatten(1)[:, ~m], truth.flatten()[~m].expand(draws, -1))
    assert abs(float(draws * z.mean(1).square().mean()) - 1) < 3 * math.sqrt(2 / count)
    assert abs(float(z.square().mean()) - 1) < 3 * math.sqrt(2 / (count * draws)) + 0.01


@pytest.mark.slow
def test_a_short_training_keeps_what_the_moments_know(tmp_path: object) -> None:
    """Trained on 400 fields, the samples' power by band is within 12 % of the spectrum, and the mean held-out
    log-density within 2 % of the entropy of the law."""
    space = (16, 16)
    model = ud.train(drawn(space, 400, 1)[:, 0], layout="NHW", steps=60, progress=False)
    frame = law(space)
    y = frame.rotate(ud.sample(model, 200, seed=1).x[:, None].double()) - frame.rotated_mean(torch.zeros(1).double())
    for band in frame.variances.argsort().tensor_split(6):
        assert abs(float((y.square() / frame.variances)[:, band].mean()) - 1) < 0.12
    entropy = 0.5 * (2 * math.pi * math.e * frame.variances).log().sum()
    found = ud.log_likelihood(model, drawn(space, 20, 2)[:, 0].float(), probes=4)
    assert abs(float(found.log_prob.mean() + entropy)) < 0.02 * 256 * 1.5
