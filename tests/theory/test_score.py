"""The theory page, P1 to P5, P14, P15 and P17: each statement against a sum or an integral that is taken directly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import f64, random_mixture, ridge
from scipy.integrate import solve_ivp
from torch import Tensor

from undiffuse.loss import loss_floor
from undiffuse.mixture import Mixture
from undiffuse.processes import VE, VP, PowerVE, RectifiedFlow, SubVP
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.sde import GaussianSDE

SDE, T = VP(), 0.3
ALPHA, SIGMA = float(SDE.alpha(f64(T)[0])), float(SDE.sigma(T))
ATOMS, SHARES = f64(-1.0, 0.5, 2.0), f64(0.2, 0.5, 0.3)
DATA = Mixture(SHARES, ATOMS, 0.0)  # three points: the posterior is a sum of three terms
X = torch.linspace(-7, 7, 7001, dtype=torch.float64)


def posterior(x: Tensor) -> Tensor:
    """p(x_0 = atom | x_t = x), by Bayes, (B, 3)."""
    joint = SHARES * torch.exp(-0.5 * ((x[:, None] - ALPHA * ATOMS) / SIGMA) ** 2)
    return joint / joint.sum(1, keepdim=True)


def kernel_score(x: Tensor) -> Tensor:
    """∇log k(x | atom), (B, 3)."""
    return -(x[:, None] - ALPHA * ATOMS) / SIGMA**2


def density(x: Tensor) -> Tensor:
    return DATA.diffused(SDE, T).log_prob(x[:, None]).exp()


def test_p1_the_score_is_the_posterior_mean_of_the_kernels_scores() -> None:
    x = X.clone().requires_grad_(True)
    log_p = torch.logsumexp(SHARES.log() - 0.5 * ((x[:, None] - ALPHA * ATOMS) / SIGMA) ** 2, 1)
    (slope,) = torch.autograd.grad(log_p.sum(), x)
    mean = (posterior(X) * kernel_score(X)).sum(1)
    assert torch.allclose(slope, mean, rtol=1e-9, atol=1e-9)
    assert torch.allclose(DATA.diffused(SDE, T).score(X[:, None])[:, 0], mean, rtol=1e-9, atol=1e-9)


def test_p2_a_squared_error_is_bias_and_variance() -> None:
    z, p = normal(0, Purpose.PROBE, 0, 0, 5, (3,), torch.float64), f64(0.1, 0.2, 0.3, 0.15, 0.25)
    mean = p @ z
    for k in range(4):
        a = normal(1, Purpose.PROBE, 0, k, 1, (3,), torch.float64)[0]
        whole = p @ (z - a).square().sum(1)
        assert whole == pytest.approx(float((mean - a).square().sum() + p @ (z - mean).square().sum(1)), rel=1e-12)


def test_p3_denoising_and_explicit_score_matching_differ_by_a_constant() -> None:
    p, post, target = density(X), posterior(X), kernel_score(X)
    score = (post * target).sum(1)

    def expect(values: Tensor) -> float:
        return float(torch.trapezoid(p * values, X))

    gaps = []
    for model in (torch.zeros_like(X), -X, 0.7 * score, torch.sin(3 * X)):
        gaps.append(expect((post * (target - model[:, None]) ** 2).sum(1)) - expect((score - model) ** 2))
    assert gaps == pytest.approx([gaps[0]] * 4, rel=1e-9)
    assert gaps[0] == pytest.approx(1 / SIGMA**2 - expect(score**2), rel=1e-6)  # C = d/σ² − E‖s‖²
    floor = loss_floor(DATA, SDE, T, "simple")  # with λ = σ²
    assert float(floor.value) == pytest.approx(SIGMA**2 * gaps[0], abs=4 * float(floor.stderr))
    point = loss_floor(Mixture([1], [[1.5]], 0.0), SDE, T, "simple")
    assert float(point.value) == 0  # one possible origin leaves nothing to guess


def test_p4_tweedies_mean_and_covariance() -> None:
    post, model = posterior(X), DATA.denoiser(SDE)
    mean = post @ ATOMS
    spread = post @ ATOMS**2 - mean**2
    x = X[:, None].clone().requires_grad_(True)
    D = model.denoise(x, T)
    (slope,) = torch.autograd.grad(D.sum(), x)
    assert torch.allclose(D[:, 0], mean, atol=1e-10)
    assert torch.allclose((X + SIGMA**2 * model.score(X[:, None], T)[:, 0]) / ALPHA, mean, atol=1e-10)
    assert torch.allclose(SIGMA**2 / ALPHA * slope[:, 0], spread, atol=1e-9)
    assert torch.allclose(model.covariance(X[:, None], T)[:, 0, 0], spread, atol=1e-9)


def beta(t: float) -> float:
    return 0.1 + 19.9 * t


def big_b(t: float) -> float:
    return 0.1 * t + 9.95 * t**2


KERNELS = {
    "vp": (VP(), lambda t: -beta(t) / 2, lambda t: beta(t)),
    "subvp": (SubVP(), lambda t: -beta(t) / 2, lambda t: beta(t) * -math.expm1(-2 * big_b(t))),
    "ve": (VE(0.02, 20.0, from_data=True), lambda t: 0.0, lambda t: 2 * math.log(1e3) * 4e-4 * 1e6**t),
    "g_25^t": (PowerVE(25.0), lambda t: 0.0, lambda t: 25.0 ** (2 * t)),
    "g_e^t": (PowerVE(math.e), lambda t: 0.0, lambda t: math.exp(2 * t)),
    "brownian": (PowerVE(1.0), lambda t: 0.0, lambda t: 1.0),
}


@pytest.mark.parametrize("name", KERNELS)
def test_p5_the_kernels_solve_their_moment_equations(name: str) -> None:
    sde, f, g2 = KERNELS[name]
    t = np.array([0.05, 0.3, 0.7, 1.0])
    path = solve_ivp(lambda s, y: [f(s) * y[0], 2 * f(s) * y[1] + g2(s)], (0, 1), [1.0, 0.0], t_eval=t, rtol=1e-10,
                     atol=1e-14)
    times = torch.from_numpy(t)
    assert np.allclose(sde.alpha(times).numpy(), path.y[0], rtol=1e-7)
    assert np.allclose(sde.variance(times).numpy(), path.y[1], rtol=1e-7)


def test_p5_brownian_motion_is_the_limit_of_rate_one() -> None:
    t = f64(0.1, 0.5, 1.0)
    errors = [float((PowerVE(1 + h).variance(t) - t).abs().max()) for h in (1e-2, 1e-3, 1e-4)]
    assert errors == pytest.approx([1e-2, 1e-3, 1e-4], rel=0.02)  # t + t² log λ + ...: first order, no 0/0
    assert torch.allclose(DATA.diffused(SDE, T).covariance, SDE.alpha(f64(T)[0]) ** 2 * DATA.covariance + SIGMA**2)


def test_p14_the_kernels_score_has_the_mean_square_d_over_sigma_squared() -> None:
    n, d = 40_000, 3
    x0, eps = random_mixture(d=d).sample(n), normal(0, Purpose.NOISE, 0, 0, n, (d,), torch.float64)
    for t in (0.05, 0.4, 1.0):
        x = SDE.perturb(x0, t, eps)
        square = ((SDE.alpha(f64(t)) * x0 - x) / SDE.variance(f64(t))).square().sum(1)
        assert float(square.mean() * SDE.variance(f64(t))) == pytest.approx(d, abs=4 * math.sqrt(2 * d / n))


def test_p15_score_noise_data_and_velocity_are_one_thing() -> None:
    law = random_mixture()
    x, t = normal(3, Purpose.PROBE, 0, 0, 8, (2,), torch.float64), 0.6
    for sde in (VP(), SubVP(), VE(), RectifiedFlow()):
        model, alpha, sigma = law.denoiser(sde), sde.alpha(f64(t)), sde.sigma(f64(t))
        s, z, D = model.score(x, t), model.noise(x, t), model.denoise(x, t)
        assert torch.allclose(z, -sigma * s) and torch.allclose(D, (x + sigma**2 * s) / alpha)
        flow = sde.drift(x, t) - 0.5 * sde.g2(f64(t)) * s
        assert torch.allclose(model.velocity(x, t), flow, rtol=1e-8)


def test_p15_ddim_moves_along_the_noise_that_it_predicts() -> None:
    law, times = random_mixture(), f64(0.7, 0.4)
    model, x = law.denoiser(SDE), normal(4, Purpose.PROBE, 0, 0, 5, (2,), torch.float64)
    D, z = model.denoise(x, times[0]), model.noise(x, times[0])
    ours = sample(model, method="ddim", grid=times, x_T=x, denoise_last=False).x
    assert torch.allclose(ours, SDE.alpha(times[1]) * D + SDE.sigma(times[1]) * z, rtol=1e-10)


def test_p15_all_families_are_one_trajectory_rescaled() -> None:
    law, levels, ends = random_mixture(), torch.linspace(-1.5, 2.5, 9, dtype=torch.float64), []
    x = normal(5, Purpose.PROBE, 0, 0, 5, (2,), torch.float64)
    processes: tuple[GaussianSDE, ...] = (VP(), SubVP(), VE(), RectifiedFlow())
    for sde in processes:
        t = sde.time_of(levels)
        out = sample(law.denoiser(sde), method="ddim", grid=t, x_T=sde.alpha(t[0]) * x, denoise_last=False).x
        ends.append(out / sde.alpha(t[-1]))
    for other in ends[1:]:
        assert torch.allclose(ends[0], other, rtol=1e-6)


def test_p17_the_score_is_a_weighted_pull_and_its_jacobian_has_their_covariance() -> None:
    law, x = random_mixture(), 2 * normal(6, Purpose.PROBE, 0, 0, 5, (2,), torch.float64)
    inverse = torch.linalg.inv(law.covariances)
    pulls = torch.einsum("kij,bkj->bki", inverse, law.means - x[:, None])
    r = law.responsibilities(x)
    s = torch.einsum("bk,bki->bi", r, pulls)
    assert torch.allclose(law.score(x), s, rtol=1e-9)
    apart = pulls - s[:, None]
    slope = torch.einsum("bk,bki,bkj->bij", r, apart, apart) - torch.einsum("bk,kij->bij", r, inverse)
    rows = [torch.autograd.functional.jacobian(lambda y: law.score(y[None])[0], row) for row in x]
    assert torch.allclose(torch.stack(rows), slope, rtol=1e-8, atol=1e-10)


def test_p17_on_the_ridge_the_score_is_zero_and_unstable() -> None:
    (slope,) = torch.autograd.functional.jacobian(lambda y: ridge().score(y[:, None])[:, 0], f64(0.0))
    assert float(ridge().score(f64(0.0)[:, None])) == 0
    assert float(slope) == pytest.approx(2**2 / 0.25**2 - 1 / 0.25)  # Cov_r of the pulls ± 2/.25, less 1/.25
