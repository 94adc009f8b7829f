"""The theory page, P9 to P11: likelihood along the flow, the bound on the divergence, and DDPM's own bound."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from oracles import f64, random_mixture
from torch import Tensor

from undiffuse.chains import DDPM, linear_betas
from undiffuse.mixture import Gaussian
from undiffuse.ode import RK4, rk_step
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample


def divergence(model, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """∇·v of the probability flow, coordinate by coordinate."""
    with torch.enable_grad():
        y = x.detach().requires_grad_(True)
        v = model.velocity(y, t)
        return sum(torch.autograd.grad(v[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(x.shape[1]))


def test_p9_the_log_density_grows_by_the_divergence_along_the_path() -> None:
    law, sde, start, end = random_mixture(), VP(), 0.02, 1.0
    model, x0 = law.denoiser(sde), law.diffused(sde, start).sample(16)

    def field(state: Tensor, t: Tensor) -> Tensor:
        x = state[:, :2]
        return torch.cat([model.velocity(x, t).detach(), divergence(model, x, t)[:, None]], 1)

    state = torch.cat([x0, torch.zeros(16, 1, dtype=torch.float64)], 1)
    times = torch.linspace(math.sqrt(start), math.sqrt(end), 101, dtype=torch.float64) ** 2
    for t, s in itertools.pairwise(times):
        state = rk_step(RK4, field, state, t, s)
    truth = law.diffused(sde, start).log_prob(x0)
    at_end = law.diffused(sde, end).log_prob(state[:, :2])
    assert torch.allclose(at_end + state[:, 2], truth, atol=1e-4)
    assert (at_end - state[:, 2] - truth).abs().median() > 0.5  # the sign matters


def test_p9_the_variance_of_hutchinsons_estimate() -> None:
    A = normal(0, Purpose.PROBE, 0, 0, 4, (4,), torch.float64)
    S = (A + A.T) / 2
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    values = torch.einsum("ni,ij,nj->n", signs, A, signs)  # all 16 Rademacher probes
    assert float(values.mean()) == pytest.approx(float(A.trace()))
    assert float(values.var(correction=0)) == pytest.approx(2 * float(S.square().sum() - S.diagonal().square().sum()))
    u = normal(1, Purpose.PROBE, 0, 0, 200_000, (4,), torch.float64)
    gauss = torch.einsum("ni,ij,nj->n", u, A, u)
    assert float(gauss.mean()) == pytest.approx(float(A.trace()), abs=4 * float(gauss.std()) / math.sqrt(len(u)))
    assert float(gauss.var()) == pytest.approx(2 * float(S.square().sum()), rel=0.03)


def kl(var: float, of: float) -> float:
    return 0.5 * (var / of - 1 - math.log(var / of))


def test_p10_the_bound_is_met_by_the_score_of_a_genuine_diffusion() -> None:
    sde, truth, other = VP(), Gaussian([0.0], 0.25), Gaussian([0.0], 0.36)
    t = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    p, q = (sde.alpha(t) ** 2 * v + sde.variance(t) for v in (0.25, 0.36))  # x_t is N(0, p) and N(0, q)
    gap = (1 / p - 1 / q) ** 2 * p  # E_p (s − s_θ)² with s = −x/p, s_θ = −x/q
    bound = kl(float(p[-1]), 1.0) + 0.5 * float(torch.trapezoid(sde.g2(t.clamp_min(1e-9)) * gap, t))
    model = kl(float(truth.covariance), float(other.covariance))
    assert model == pytest.approx(0.02954, abs=5e-6) and bound == pytest.approx(model, abs=2e-5)


def posterior_step(betas: Tensor, i: int) -> tuple[float, float, float]:
    """√α_i, β_i and ᾱ_i of the chain."""
    bar = (1 - betas[: i + 1]).prod()
    return math.sqrt(1 - float(betas[i])), float(betas[i]), float(bar)


def test_p11_a_term_of_the_bound_is_a_weighted_denoising_loss() -> None:
    betas = torch.tensor(linear_betas(100), dtype=torch.float64)
    for i in (1, 20, 80):
        root, b, bar = posterior_step(betas, i)
        before = bar / (1 - b)
        x0, z, guess = f64(0.7), f64(-1.3), f64(-0.4)
        x = math.sqrt(bar) * x0 + math.sqrt(1 - bar) * z
        # by Bayes: q(x_{i−1} | x_i, x_0) is the product of N(x_{i−1}; √ᾱ x_0, 1 − ᾱ_{i−1}) and N(x_i; √α x_{i−1}, β)
        precision = 1 / (1 - before) + root**2 / b
        mean = (math.sqrt(before) * x0 / (1 - before) + root * x / b) / precision
        ours = (x - b * z / math.sqrt(1 - bar)) / root
        assert torch.allclose(mean, ours, rtol=1e-10)
        model = (x - b * guess / math.sqrt(1 - bar)) / root
        weight = b**2 / (2 * b * root**2 * (1 - bar))  # ς² = β
        assert torch.allclose((mean - model) ** 2 / (2 * b), weight * (z - guess) ** 2, rtol=1e-9)


def elbo_terms(n: int, c: float) -> float:
    """Σ_i weight_i E(s − s_θ)² for data N(0, ¼) and the model s_θ = c s."""
    betas = torch.tensor(linear_betas(n), dtype=torch.float64)
    bar = (1 - betas).cumprod(0)
    weight = betas / (2 * (1 - betas))
    return float((weight * (c - 1) ** 2 / (0.25 * bar + 1 - bar)).sum())


def test_p11_the_sum_of_the_terms_tends_to_the_integral_of_p10() -> None:
    sde, c, t = VP(), 1.1, torch.linspace(0, 1, 20_001, dtype=torch.float64)
    var = 0.25 * sde.alpha(t) ** 2 + sde.variance(t)
    integral = 0.5 * float(torch.trapezoid(sde.g2(t.clamp_min(1e-9)) * (c - 1) ** 2 / var, t))
    errors = [abs(elbo_terms(n, c) - integral) for n in (250, 500, 1000, 2000)]
    assert errors[-1] < 0.01 * integral
    assert [a / b for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2, 2], rel=0.1)


def test_p11_an_ancestral_step_is_euler_maruyama_to_second_order() -> None:
    law, x, gaps = Gaussian([0.0], 0.25), f64(-1.0, 0.3, 2.0)[:, None], []
    for n in (200, 400, 800):
        sde = DDPM(linear_betas(n))
        i = n // 2
        root, b, bar = posterior_step(torch.tensor(sde.betas, dtype=torch.float64), i - 1)
        s = -x / (0.25 * bar + 1 - bar)
        ancestral = (x + b * s) / root
        euler = x + 0.5 * b * x + b * s  # dx = [−½βx − βs] dt with dt < 0
        gaps.append(float((ancestral - euler).norm()))
        z = law.denoiser(sde).noise(x, i / n)
        assert torch.allclose(z, -math.sqrt(1 - bar) * s, rtol=1e-8)  # z is −√(1 − ᾱ) s: not a constant times s
    assert [a / b for a, b in itertools.pairwise(gaps)] == pytest.approx([4, 4], rel=0.1)


def test_p11_ddim_is_an_exponential_step_of_the_flow() -> None:
    law, sde = random_mixture(), VP()
    model, x = law.denoiser(sde), normal(2, Purpose.PROBE, 0, 0, 6, (2,), torch.float64)

    def gap(end: Callable[[float], Tensor], h: float) -> float:
        times = torch.linspace(0.5, 0.5 - h, 65, dtype=torch.float64)
        fine = sample(model, method="rk4_log_snr", grid=times, x_T=x, denoise_last=False).x
        return float((end(0.5 - h) - fine).norm())

    def ddim(s: float) -> Tensor:
        return sde.alpha(f64(s)) * model.denoise(x, 0.5) + sde.sigma(f64(s)) * model.noise(x, 0.5)

    assert gap(ddim, 0.1) / gap(ddim, 0.05) == pytest.approx(4, rel=0.35)  # a local error of second order
