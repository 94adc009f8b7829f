"""Covariance-matched steps: exact on Gaussian data at any step size, and better than DDPM's at few steps."""

from __future__ import annotations

import math

import pytest
import torch
from affine import LAW, errors, lambda_grid
from oracles import random_mixture

from benchmarks.measure.laws import digits, modes
from undiffuse.metrics import sliced_w2
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.processes import EDM, VE, VP, Cosine, PowerVE, RectifiedFlow, SubVP
from undiffuse.samplers.covariance_matched import PosteriorCovariance
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import nodes_of
from undiffuse.samplers.registry import as_method


@pytest.mark.parametrize("sde", [VP(), SubVP(), VE(), PowerVE(), EDM(), Cosine(), RectifiedFlow()],
                         ids=lambda sde: sde.name)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_mean_and_covariance_are_exact_on_gaussian_data(sde: VP, eta: float) -> None:
    for steps, high, low in ((1, 2.0, 0.4), (1, 4.0, 0.01), (3, 4.0, 0.01)):
        assert max(errors("matched", sde, lambda_grid(sde, steps, high, low), eta=eta)) < 1e-12


@pytest.mark.parametrize("sde", [Cosine(), RectifiedFlow()], ids=lambda sde: sde.name)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_it_is_exact_from_pure_noise(sde: Cosine, eta: float) -> None:
    times = torch.tensor([1.0, 0.7, 0.01], dtype=torch.float64)  # α(1) = 0
    assert max(errors("matched", sde, times, eta=eta)) < 1e-12


@pytest.mark.parametrize("name", ["matched", "matched_iso"])
def test_isotropic_data_are_exact_without_moments_and_with_one_variance(name: str) -> None:
    model = Gaussian([0.3, -0.2], 0.2).denoiser(VP())
    model.moments, model.sigma_data = None, math.sqrt(0.2)
    assert max(errors(name, VP(), lambda_grid(VP(), 2), model)) < 1e-12


def test_without_the_covariance_it_is_the_ancestral_step() -> None:
    """Data at one point: Cov(x_0|x_t) = 0."""
    model = Mixture([1.0], [[0.4, -1.0]], 0.0).denoiser(VP())
    a, b = (sample(model, 4, name, 6, t_end=1e-3, options={"eta": 1.0}).x for name in ("matched", "ancestral"))
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_measured_posterior_is_the_closed_form_of_gaussian_data() -> None:
    """(x_0 − D)(x_0 − D)ᵀ has the mean (C⁻¹ + I/σ̂²)⁻¹ and, entry by entry, the deviation √(P_ii P_jj + P_ij²)/√n."""
    model, n = LAW.denoiser(VP()), 20_000
    table = PosteriorCovariance.measure(model, LAW.sample(n), levels=4)
    for node in nodes_of(VP(), VP().time_of(table.log_snr)):
        true = torch.linalg.inv(torch.linalg.inv(LAW.covariance) + torch.eye(2) * (node.alpha / node.sigma) ** 2)
        scatter = (torch.outer(true.diagonal(), true.diagonal()) + true**2).sqrt() / math.sqrt(n)
        assert ((table.at(node) - true).abs() < 5 * scatter).all()


def test_the_average_uses_the_table_and_is_exact_with_an_exact_one() -> None:
    model = LAW.denoiser(VP())
    grid = lambda_grid(VP(), 3)
    lam = VP().log_snr(grid)
    one = torch.eye(2, dtype=torch.float64)
    exact = [torch.linalg.inv(torch.linalg.inv(LAW.covariance) + one * torch.exp(2 * v)) for v in lam]
    s2, level = model.sigma_data**2, torch.exp(-2 * lam)
    ratios = torch.stack([e / (s2 * v / (s2 + v)) for e, v in zip(exact, level, strict=True)])
    table, wrong = PosteriorCovariance(lam, ratios, s2), PosteriorCovariance(lam, 1.2 * ratios, s2)
    assert max(errors("matched_average", VP(), grid, model, covariance=table)) < 1e-12
    assert errors("matched_average", VP(), grid, model, covariance=wrong)[1] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("law", [modes, digits])
@pytest.mark.parametrize("evaluations", [5, 10])
def test_it_halves_the_distance_of_the_ancestral_sampler_at_few_steps(law: object, evaluations: int) -> None:
    truth = law()
    model, real, n = truth.denoiser(VP()), truth.sample(2048, seed=1), 2048
    model.block = n
    ours, theirs = (sliced_w2(sample(model, n, as_method(name), evaluations - 1, t_end=1e-3).x, real)
                    for name in ("matched", "ancestral"))
    assert float(ours) <= 0.5 * float(theirs)


def test_one_step_from_pure_noise_has_the_mean_and_the_covariance_of_a_mixture() -> None:
    """x_s = α E[x_0] + (α² C + σ²)^½ ξ; 4,000 samples, within five standard errors."""
    law, sde, n = random_mixture(), Cosine(), 4000
    out = sample(law.denoiser(sde), n, "matched", 1, t_end=0.3, denoise_last=False)
    exact, x = law.diffused(sde, out.t[-1]), out.x.double()
    deviation = exact.covariance.diagonal().sqrt()
    assert ((x.mean(0) - exact.mean).abs() < 5 * deviation / n**0.5).all()
    assert ((x.T.cov() - exact.covariance).abs() < 5 * (2 / n) ** 0.5 * deviation.outer(deviation)).all()
