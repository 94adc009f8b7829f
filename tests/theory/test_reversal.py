"""The theory page, P6 to P8, P12 and P16: densities by automatic differentiation, paths by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from oracles import moments_of_steps, order
from torch import Tensor

from undiffuse.mixture import Gaussian, Mixture
from undiffuse.ode import EULER, HEUN, RK4, rk_step
from undiffuse.processes import OU, VP, SubVP
from undiffuse.random import Purpose, brownian, normal
from undiffuse.samplers.driver import sample
from undiffuse.score_model import reverse
from undiffuse.sde import GaussianSDE, NonlinearSDE, euler_maruyama

LAW = Mixture([0.4, 0.6], [[-1.0], [1.2]], [0.1, 0.2])
X = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)
Field = Callable[[Tensor, Tensor], Tensor]


def density(sde: GaussianSDE) -> Field:
    """p_t(x) as a function of x (N,) and t (N,) that can be differentiated in both."""

    def p(x: Tensor, t: Tensor) -> Tensor:
        var = sde.alpha(t)[:, None] ** 2 * LAW.covariances[:, 0, 0] + sde.variance(t)[:, None]
        gap = x[:, None] - sde.alpha(t)[:, None] * LAW.means[:, 0]
        return (LAW.weights * torch.exp(-0.5 * gap**2 / var) / (2 * math.pi * var).sqrt()).sum(1)

    return p


def along(fn: Field, x: Tensor, t: Tensor, which: int) -> Tensor:
    """∂fn/∂x (which = 0) or ∂fn/∂t (1), itself differentiable."""
    (slope,) = torch.autograd.grad(fn(x, t).sum(), (x, t)[which], create_graph=True)
    return slope


def grid(t: float) -> tuple[Tensor, Tensor]:
    return X.clone().requires_grad_(True), torch.full_like(X, t).requires_grad_(True)


@pytest.mark.parametrize("sde", [VP(), SubVP(), OU(theta=0.7, scale=1.3)], ids=lambda sde: sde.name)
def test_p6_the_density_obeys_fokker_and_planck(sde: GaussianSDE) -> None:
    p = density(sde)
    for time in (0.1, 0.4):
        x, t = grid(time)
        flux = along(lambda x, t: sde.f(t).detach() * x * p(x, t), x, t, 0)
        bend = along(lambda x, t: along(p, x, t, 0), x, t, 0)
        left, right = along(p, x, t, 1), -flux + 0.5 * sde.g2(t).detach() * bend
        assert torch.allclose(left, right, atol=1e-9 * float(left.detach().abs().max()))
        assert left.abs().max() > 0.05  # it does move


def test_p7a_the_reversed_density_obeys_the_equation_of_the_reverse_sde() -> None:
    sde = VP()
    p, model = density(sde), LAW.denoiser(sde)
    x, t = grid(0.3)

    def reverse_flux(x: Tensor, t: Tensor) -> Tensor:  # of dY = (−f + g² s) ds + g dW, in s = T − t
        s = along(p, x, t, 0) / p(x, t)
        return (-sde.f(t).detach() * x + sde.g2(t).detach() * s) * p(x, t)

    bend = along(lambda x, t: along(p, x, t, 0), x, t, 0)
    left, right = -along(p, x, t, 1), -along(reverse_flux, x, t, 0) + 0.5 * sde.g2(t).detach() * bend
    assert torch.allclose(left, right, atol=1e-9 * float(left.detach().abs().max()))
    drift = model.reverse_drift(X[:, None], 0.3)[:, 0]
    s = model.score(X[:, None], 0.3)[:, 0]
    assert torch.allclose(drift, sde.f(0.3) * X - sde.g2(0.3) * s)


def one_step(n: int, dt: float = 1e-3, t: float = 0.3) -> tuple[Tensor, Tensor, Tensor, float]:
    """Draws of x_t after one exact forward step, its noise ΔW, the score at x_t, and g(t)."""
    sde = VP()
    before = LAW.diffused(sde, t - dt).sample(n)[:, 0]
    w = math.sqrt(dt) * normal(1, Purpose.STEP, 0, 0, n, (), torch.float64)
    g = float(sde.g2(t - dt).sqrt())
    x = before + float(sde.f(t - dt)) * before * dt + g * w
    return x, w, LAW.diffused(sde, t).score(x[:, None])[:, 0], g


def test_p7b_past_noise_is_correlated_with_the_present_state_by_the_score() -> None:
    n, dt = 400_000, 1e-3
    _, w, s, g = one_step(n, dt)
    slope = float((w * s).mean() / (s * s).mean())
    error = math.sqrt(dt / n / float((s * s).mean()))
    assert slope == pytest.approx(-g * dt, abs=4 * error + 0.02 * g * dt)  # the bias is of first order in dt
    assert abs(slope) > 10 * error


def test_p7c_the_backward_noise_is_what_is_left_and_minus_dw_is_not_it() -> None:
    n, dt = 400_000, 1e-3
    x, w, s, g = one_step(n, dt)
    error = 4 * math.sqrt(dt / n)
    bar = w + g * s * dt
    for seen in (s / s.std(), x / x.std(), torch.sin(3 * x)):  # uncorrelated with the present
        assert abs(float((bar * seen).mean())) < error + 0.02 * g * dt
    assert float(bar.var()) == pytest.approx(dt, rel=0.02)
    assert abs(float((-w * s / s.std()).mean())) > 5 * error


def test_p7d_every_eta_has_the_same_marginals() -> None:
    law, sde = Gaussian([0.0], 0.25), VP()
    times = torch.linspace(1, 1e-3, 4001, dtype=torch.float64)
    truth = [float(law.diffused(sde, t).covariance) for t in (1.0, 1e-3)]
    one, zero = torch.ones(4000, 1, dtype=torch.float64), torch.zeros(4000, 1, dtype=torch.float64)
    for eta in (0.0, 0.5, 1.0, 1.5):
        process = reverse(law.denoiser(sde), eta)
        a = euler_maruyama(process, one, times[:-1], times[1:], zero)
        b = euler_maruyama(process, zero, times[:-1], times[1:], one)
        mean, var = moments_of_steps(a, b)
        assert mean**2 * truth[0] + var == pytest.approx(truth[1], rel=0.02)


def test_p8_the_density_is_carried_by_the_probability_flow() -> None:
    sde = VP()
    p = density(sde)
    x, t = grid(0.3)

    def flux(x: Tensor, t: Tensor) -> Tensor:
        s = along(p, x, t, 0) / p(x, t)
        return (sde.f(t).detach() * x - 0.5 * sde.g2(t).detach() * s) * p(x, t)

    left = along(p, x, t, 1)
    assert torch.allclose(left, -along(flux, x, t, 0), atol=1e-9 * float(left.detach().abs().max()))


def test_p8_on_a_line_the_flow_keeps_quantiles() -> None:
    sde = VP()

    def cdf(law: Mixture, x: Tensor) -> Tensor:
        return torch.special.ndtr((x - law.means[:, 0]) / law.covariances[:, 0, 0].sqrt()) @ law.weights

    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    out = sample(LAW.denoiser(sde), method="rk4_log_snr", steps=200, x_T=start, t_end=0.01, denoise_last=False).x
    before, after = cdf(LAW.diffused(sde, 1.0), start), cdf(LAW.diffused(sde, 0.01), out)
    assert torch.allclose(before, after, atol=1e-6) and (out[:, 0].diff() > 0).all()


def test_p12_a_stochastic_integral_is_the_limit_of_left_point_sums() -> None:
    n, sums, variances = 4000, [], []
    for refine in (0, 1, 2, 3):
        t, w = brownian(n, 16, refine=refine, seed=3)
        sums.append((torch.exp(t[:-1]) * w.diff(dim=1)).sum(1))
        variances.append(float((torch.exp(2 * t[:-1]) * t.diff()).sum()))
    gaps = [float((b - a).square().mean().sqrt()) for a, b in itertools.pairwise(sums)]
    assert 0.9 < order(gaps) < 1.1  # the sums settle
    exact = (math.e**2 - 1) / 2  # ∫ e^{2t} dt
    errors = [abs(v - exact) for v in variances]
    assert 0.9 < order(errors) < 1.1
    assert float(sums[-1].var()) == pytest.approx(exact, rel=4 * math.sqrt(2 / n) + 0.02)


def test_p12_a_brownian_path_has_no_derivative() -> None:
    squares, lengths, slopes = [], [], []
    for refine in (0, 2, 4):
        t, w = brownian(500, 64, refine=refine)
        dw = w.diff(dim=1)
        squares.append(float(dw.square().sum(1).mean()))
        lengths.append(float(dw.abs().sum(1).mean()))
        slopes.append(float((dw / t.diff()).var()))
    assert squares == pytest.approx([1, 1, 1], abs=4 * math.sqrt(2 / 500 / 64))
    assert [lengths[1] / lengths[0], lengths[2] / lengths[1]] == pytest.approx([2, 2], rel=0.02)  # √N
    assert [slopes[1] / slopes[0], slopes[2] / slopes[1]] == pytest.approx([4, 4], rel=0.05)  # Var(Δw/Δt) = 1/Δt


def test_p16_euler_maruyama_is_of_strong_order_one_for_additive_noise() -> None:
    process = NonlinearSDE(lambda x, t: -torch.sin(2 * x), lambda x, t: 0.8)
    t_fine, w_fine = brownian(500, 8, refine=6)
    ends = []
    for level in range(7):
        t, w = t_fine[:: 64 // 2**level], w_fine[:, :: 64 // 2**level]
        x, dt = torch.ones(500, dtype=torch.float64), t[1] - t[0]
        for i in range(len(t) - 1):
            x = euler_maruyama(process, x, t[i], t[i + 1], (w[:, i + 1] - w[:, i]) / dt.sqrt())
        ends.append(x)
    errors = [float((x - ends[-1]).abs().mean()) for x in ends[:5]]
    assert 0.85 < order(errors) < 1.25


def test_p16_the_orders_of_the_flows_solvers() -> None:
    model, start = LAW.denoiser(VP()), X[:, None]

    def end(tableau, n: int) -> Tensor:  # type: ignore[no-untyped-def]
        x, times = start, torch.linspace(0.8, 0.2, n + 1, dtype=torch.float64)
        for i in range(n):
            x = rk_step(tableau, model.velocity, x, times[i], times[i + 1])
        return x

    truth = end(RK4, 200)
    for tableau, steps, claimed in ((EULER, (40, 80, 160), 1), (HEUN, (20, 40, 80), 2), (RK4, (10, 20, 40), 4)):
        found = order([float((end(tableau, n) - truth).norm()) for n in steps])
        assert found == pytest.approx(claimed, abs=0.4)
