"""Processes: what is derived from α and σ² equals the papers' formulas, and the kernel is that of the SDE itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from oracles import ENDS_IN_ZERO, PROCESSES, f64, inner_times, moments_of_steps, order
from torch import Tensor

from undiffuse.chains import DDPM, Chain, chain_of, linear_betas
from undiffuse.errors import InputError
from undiffuse.processes import EDM, OU, VE, VP, Cosine, Linear, PowerVE, SubVP, make_sde
from undiffuse.random import Purpose, normal
from undiffuse.sde import GaussianSDE, NonlinearSDE, bcast, euler_maruyama, simulate

EVERY = pytest.mark.parametrize("name", PROCESSES)


# --- f and g² against the papers -------------------------------------------------------------------------------------

def _vp(t: Tensor, b0: float, b1: float, T: float) -> tuple[Tensor, Tensor]:
    """β and ∫β of Song et al. (2021), eq. 32."""
    return b0 + t / T * (b1 - b0), b0 * t + (b1 - b0) * t**2 / (2 * T)


def _ddpm(t: Tensor) -> tuple[Tensor, Tensor]:
    """f and g² of a chain: λ is linear between the levels, and f = ½ d log ᾱ/dt = σ² λ', g² = −2 σ² λ' = −2f."""
    betas = np.linspace(0.1, 20, 100) / 100
    bars = np.cumprod(1 - betas)
    lam = 0.5 * np.log(bars / (1 - bars))
    k = np.clip(np.floor(t.numpy() * 100).astype(int), 1, 99)
    slope = np.where(t.numpy() <= 0.01, -0.5 / t.numpy(), (lam[k] - lam[k - 1]) * 100)
    at = np.where(t.numpy() <= 0.01, lam[0] - 0.5 * np.log(t.numpy() * 100),
                  lam[k - 1] + (lam[k] - lam[k - 1]) * (t.numpy() * 100 - k))
    f = torch.from_numpy(slope / (1 + np.exp(2 * at)))
    return f, -2 * f


def paper(name: str, t: Tensor) -> tuple[Tensor, Tensor]:
    """f and g² in the closed forms of the papers, written down independently of α and σ."""
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    if name in ("vp", "vp_long", "subvp"):
        beta, B = _vp(t, *((0.2, 3.0, 2.0) if name == "vp_long" else (0.1, 20.0, 1.0)))
        return -beta / 2, beta * (-torch.expm1(-2 * B) if name == "subvp" else 1)
    ve = {"ve": (0.01, 50.0), "ve_from_data": (0.02, 20.0)}
    if name in ve:
        low, r = ve[name][0], ve[name][1] / ve[name][0]
        return zero, low**2 * r ** (2 * t) * 2 * math.log(r)  # Song et al., eq. 30
    tan = torch.tan(math.pi / 2 * (t + 0.008) / 1.008)
    return {
        "power_ve": lambda: (zero, 25.0 ** (2 * t)),
        "brownian": lambda: (zero, one),
        "edm": lambda: (zero, 2 * t),
        "cosine": lambda: (-math.pi / (2 * 1.008) * tan, math.pi / 1.008 * tan),
        "rectified_flow": lambda: (-1 / (1 - t), 2 * t / (1 - t)),
        "ou": lambda: (-0.7 * one, 1.69 * one),
        "ddpm": lambda: _ddpm(t),
        "linear": lambda: (-0.5 - t, 0.3 + t**2),
    }[name]()


@EVERY
def test_the_derived_f_and_g2_are_the_papers(name: str) -> None:
    sde, t = PROCESSES[name], inner_times(PROCESSES[name], 17)
    for derived, closed in zip((sde.f(t), sde.g2(t)), paper(name, t), strict=True):
        assert torch.allclose(derived, closed, rtol=1e-10, atol=1e-13 if name == "ve" else 0)


@pytest.mark.parametrize("name", ["vp", "vp_long", "subvp", "ve_from_data", "power_ve", "cosine", "ou", "edm"])
def test_nothing_cancels_in_float32(name: str) -> None:
    sde = PROCESSES[name]
    t = sde.T * torch.logspace(-6, -0.02, 60)
    for fn in (sde.sigma, sde.alpha, sde.variance):
        exact = fn(t.double())
        assert ((fn(t) - exact) / exact).abs().max() < (3e-5 if name == "ve_from_data" else 2e-6)


@EVERY
def test_log_snr_falls_and_is_inverted_by_time_of(name: str) -> None:
    sde, t = PROCESSES[name], inner_times(PROCESSES[name], 40)
    lam = sde.log_snr(t)
    assert (lam.diff() < 0).all()
    assert torch.allclose(lam, sde.alpha(t).log() - sde.sigma(t).log(), rtol=1e-12, atol=1e-12)
    # rounding λ moves t by at most |dt/dλ| ε = 2σ²/g² ε
    slack = 1e-13 * (1 + lam.abs()) * 2 * sde.variance(t) / sde.g2(t) + 1e-15 * sde.T
    assert ((sde.time_of(lam) - t).abs() < 8 * slack).all()
    assert torch.allclose(GaussianSDE.time_of(sde, lam), sde.time_of(lam), rtol=1e-9, atol=1e-12 * sde.T)


@EVERY
def test_time_of_stays_within_the_process(name: str) -> None:
    sde = PROCESSES[name]
    t = sde.time_of(f64(-800.0, 0.0, 800.0))
    assert t.isfinite().all() and t[0] == pytest.approx(sde.T, rel=1e-9) and 0 <= t[2] < 1e-12 * sde.T + 1e-300


@EVERY
def test_perturb_and_renoise_are_a_semigroup(name: str) -> None:
    sde = PROCESSES[name]
    times = inner_times(sde)
    one, zero = f64(1.0)[:, None], f64(0.0)[:, None]
    for s, t in itertools.pairwise(times):
        mean = sde.renoise(sde.perturb(one, s, zero), s, t, zero)
        var = sde.renoise(sde.perturb(zero, s, one), s, t, zero) ** 2 + sde.renoise(zero, s, t, one) ** 2
        assert mean.item() == pytest.approx(sde.alpha(t).item(), rel=1e-12)
        assert var.item() == pytest.approx(sde.variance(t).item(), rel=1e-12)


@EVERY
def test_times_may_differ_from_row_to_row(name: str) -> None:
    sde, t = PROCESSES[name], inner_times(PROCESSES[name], 4)[2:]
    x, eps = normal(0, Purpose.DATA, 0, 0, 4, (3, 2)), normal(0, Purpose.NOISE, 0, 0, 4, (3, 2))
    for fn in (lambda x, t, e: sde.perturb(x, t, e), lambda x, t, e: sde.drift(x, t),
               lambda x, t, e: sde.renoise(x, 0.5 * t, t, e), lambda x, t, e: sde.diffusion(x, t) * e):
        rows = torch.cat([fn(x[i : i + 1], t[i], eps[i : i + 1]) for i in range(4)])
        assert torch.allclose(fn(x, t, eps), rows, rtol=1e-6) and fn(x, t, eps).dtype == torch.float32


# --- the kernel is that of the SDE -----------------------------------------------------------------------------------

def reach(name: str) -> float:
    """Up to where Euler-Maruyama can go: before α = 0, where f is infinite."""
    return 0.9 if name in ENDS_IN_ZERO else PROCESSES[name].T


def moments_of_euler(sde: GaussianSDE, t_end: float, steps: int) -> tuple[float, float]:
    """Mean coefficient and variance of Euler-Maruyama after `steps` steps, exactly: every step is affine in (x, z)."""
    t = torch.linspace(0, t_end, steps + 1, dtype=torch.float64)
    one, zero = torch.ones(steps, 1, dtype=torch.float64), torch.zeros(steps, 1, dtype=torch.float64)
    a = torch.cat([sde.perturb(one[:1], t[0], zero[:1]), euler_maruyama(sde, one, t[:-1], t[1:], zero)])
    b = torch.cat([sde.perturb(zero[:1], t[0], one[:1]), euler_maruyama(sde, zero, t[:-1], t[1:], one)])
    return moments_of_steps(a, b)


@EVERY
def test_forward_euler_tends_to_the_kernel_at_order_one(name: str) -> None:
    sde, end = PROCESSES[name], reach(name)
    errors = []
    for steps in (800, 1600, 3200):
        mean, var = moments_of_euler(sde, end, steps)
        errors.append(float((mean / sde.alpha(f64(end)) - 1).abs() + (var / sde.variance(f64(end)) - 1).abs()))
    exact = errors[0] < 1e-9  # where f is 0 and g is constant, every number of steps is exact
    assert exact == (name == "brownian")
    assert exact or 0.9 < order(errors) < 1.15
    assert errors[-1] < 0.01


@EVERY
@pytest.mark.slow
def test_forward_simulation_agrees_with_the_kernel(name: str) -> None:
    sde, n, steps, end = PROCESSES[name], 4000, 200, reach(name)
    x0 = torch.full((n, 1), 1.5, dtype=torch.float64)
    start = sde.perturb(x0, 0.0, normal(0, Purpose.NOISE, 0, 0, n, (1,), torch.float64))
    x = simulate(sde, start, steps, t_end=end)
    mean, var = moments_of_euler(sde, end, steps)  # the scheme's own moments: no allowance for its bias
    assert abs(x.mean() - 1.5 * mean) < 4 * math.sqrt(var / n)
    assert abs(x.var() / var - 1) < 4 * math.sqrt(2 / n)


def test_a_trajectory_holds_every_state_and_ends_in_the_result() -> None:
    x0 = normal(0, Purpose.DATA, 0, 0, 5, (2,))
    path = simulate(VP(), x0, 10, trajectory=True)
    assert path.shape == (11, 5, 2)
    assert torch.equal(path[0], x0) and torch.equal(path[-1], simulate(VP(), x0, 10))
    assert torch.equal(path[:, 2:3], simulate(VP(), x0[2:3], 10, first_index=2, trajectory=True))


# --- priors ----------------------------------------------------------------------------------------------------------

PRIORS = {
    "vp": math.sqrt(-math.expm1(-10.05)), "vp_long": math.sqrt(-math.expm1(-3.2)), "subvp": -math.expm1(-10.05),
    "ve": 50.0, "ve_from_data": math.sqrt(20.0**2 - 0.02**2), "power_ve": math.sqrt(624 / (2 * math.log(25))),
    "brownian": 1.0, "edm": 80.0, "cosine": 1.0, "rectified_flow": 1.0,
    "ou": math.sqrt(1.69 * -math.expm1(-4.2) / 1.4), "ddpm": math.sqrt(1 - math.prod(1 - b for b in linear_betas(100))),
}


@pytest.mark.parametrize("name", PRIORS)
def test_the_prior_has_the_deviation_of_the_kernel_at_the_end(name: str) -> None:
    assert PROCESSES[name].prior_std() == pytest.approx(PRIORS[name], rel=1e-12)


@pytest.mark.parametrize("name", ENDS_IN_ZERO)
def test_nothing_is_left_of_the_data_where_alpha_ends_in_zero(name: str) -> None:
    assert float(PROCESSES[name].alpha(f64(1.0))) == 0.0


def test_power_ve_is_continuous_at_rate_one() -> None:
    t = f64(0.1, 0.5, 1.0)
    assert torch.equal(PowerVE(1.0).variance(t), t)
    for rate in (1 - 1e-9, 1 + 1e-9):
        assert torch.allclose(PowerVE(rate).variance(t), t, rtol=1e-8)
        assert torch.allclose(PowerVE(rate).time_of(PowerVE(rate).log_snr(t)), t, rtol=1e-8)


# --- chains ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_a_chain_is_met_exactly(n: int) -> None:
    betas = linear_betas(n) if n > 20 else (0.3, 0.2)[:n]
    sde, k = DDPM(betas), torch.arange(1, n + 1, dtype=torch.float64)
    alpha_bar = torch.from_numpy(np.cumprod(1 - np.array(betas)))
    assert torch.allclose(sde.alpha(k / n) ** 2, alpha_bar, rtol=1e-12)
    assert torch.allclose(sde.variance(k / n), 1 - alpha_bar, rtol=1e-12)
    assert np.allclose(chain_of(sde, n), betas, rtol=1e-10)


def test_a_chain_tends_to_vp() -> None:
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64)
    errors = [float((DDPM(linear_betas(n)).log_snr(t) - VP().log_snr(t)).abs().max()) for n in (200, 400, 800)]
    assert 0.9 < order(errors) < 1.1


@pytest.mark.parametrize("name", [n for n in PROCESSES if n not in ENDS_IN_ZERO])
def test_any_process_gives_a_chain_with_its_log_snr(name: str) -> None:
    sde, n = PROCESSES[name], 200
    t = torch.linspace(0, 1, n + 1, dtype=torch.float64)[1:]
    assert torch.allclose(DDPM(chain_of(sde, n)).log_snr(t), sde.log_snr(sde.T * t), rtol=1e-9, atol=1e-9)


def zero_snr(n: int) -> Chain:
    """A chain with ᾱ_N = 0: a linear one, its √ᾱ shifted and scaled."""
    root = np.sqrt(np.cumprod(1 - np.array(linear_betas(n))))
    return Chain(tuple(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2))


@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_a_chain_of_alpha_bar_is_the_chain_of_its_betas(n: int) -> None:
    betas = linear_betas(n) if n > 20 else (0.3, 0.2)[:n]
    t = torch.linspace(0, 1, 777, dtype=torch.float64)[1:]
    chain = Chain(tuple(np.cumprod(1 - np.array(betas)).tolist()))
    assert torch.allclose(chain.log_snr(t), DDPM(betas).log_snr(t), rtol=1e-9, atol=1e-9)
    assert torch.allclose(chain.time_of(chain.log_snr(t)), t, rtol=1e-12)


@pytest.mark.parametrize("n", [30, 1000])
def test_a_chain_may_end_in_pure_noise(n: int) -> None:
    sde, k = zero_snr(n), torch.arange(1, n + 1, dtype=torch.float64)
    assert torch.allclose(sde.alpha(k / n) ** 2, torch.tensor(sde.alpha_bar, dtype=torch.float64), rtol=1e-9)
    assert float(sde.alpha(1.0)) == 0 and float(sde.variance(1.0)) == 1 and float(sde.log_snr(1.0)) == -math.inf
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:]
    assert bool((sde.log_snr(t).diff() < 0).all())                        # the pieces meet
    assert torch.allclose(sde.alpha(t) ** 2 + sde.variance(t), torch.ones(()).double(), rtol=1e-14)
    assert torch.allclose(sde.time_of(sde.log_snr(t)), t, rtol=1e-10, atol=1e-12)
    near = torch.tensor([1 - 1.5 / n, 1 - 0.5 / n], dtype=torch.float64)  # on both sides of the last level but one
    difference = (sde.alpha(near + 1e-7) - sde.alpha(near - 1e-7)) / 2e-7
    assert torch.allclose(sde.rates(near)[0], difference, rtol=1e-5)


@pytest.mark.parametrize("alpha_bar", [(), (0.5, 0.6), (1.0, 0.5), (0.9, 0.0, 0.0), (0.9, -0.1), (math.nan,), (0.0,)])
def test_a_wrong_chain_is_refused(alpha_bar: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected decreasing numbers"):
        Chain(alpha_bar)


@pytest.mark.parametrize("n", [30, 50, 100, 300, 1000])
def test_a_linear_chain_of_any_length_ends_in_noise(n: int) -> None:
    betas = linear_betas(n)
    assert math.prod(1 - b for b in betas) < math.exp(-10.05)  # 1 − β < e^{−β}
    assert betas[0] == pytest.approx(0.1 / n) and betas[-1] == pytest.approx(20 / n)


# --- processes from functions ----------------------------------------------------------------------------------------

def test_quadrature_gives_vp() -> None:
    vp = VP()
    sde = Linear(lambda t: -0.5 * (0.1 + 19.9 * t), lambda t: 0.1 + 19.9 * t)
    t = inner_times(vp, 30)
    for fn in ("alpha", "variance", "f", "g2"):
        assert torch.allclose(getattr(sde, fn)(t), getattr(vp, fn)(t), rtol=1e-11, atol=0)


def test_quadrature_takes_numbers_for_functions_and_another_end() -> None:
    sde = Linear(lambda t: -0.7, lambda t: 1.69, T=3.0)  # type: ignore[arg-type, return-value]
    t = inner_times(PROCESSES["ou"])
    assert torch.allclose(sde.alpha(t), PROCESSES["ou"].alpha(t), rtol=1e-11)
    assert torch.allclose(sde.variance(t), PROCESSES["ou"].variance(t), rtol=1e-11)


def test_a_user_sde_with_the_drift_of_ou_is_ou() -> None:
    ou = OU(theta=0.7, scale=1.3, T=3.0)
    user = NonlinearSDE(lambda x, t: -0.7 * x, lambda x, t: 1.3, T=3.0)
    x0 = normal(0, Purpose.DATA, 0, 0, 50, (2, 2), torch.float64)
    assert torch.allclose(simulate(user, x0, 50), simulate(ou, x0, 50), rtol=1e-12)


def test_a_double_well_settles_in_its_stationary_law() -> None:
    # dx = −U'(x) dt + √2 dw with U = x⁴/4 − x²/2 has the stationary density ∝ e^{−U}
    sde = NonlinearSDE(lambda x, t: x - x**3, lambda x, t: math.sqrt(2), T=6.0)
    x = simulate(sde, torch.zeros(4000, 1, dtype=torch.float64), 600).squeeze()
    grid = np.linspace(-6, 6, 4001)
    p = np.exp(grid**2 / 2 - grid**4 / 4)
    for power in (2, 4):
        truth = (p * grid**power).sum() / p.sum()
        assert abs((x**power).mean() - truth) < 4 * (x**power).std() / math.sqrt(4000) + 0.02 * truth  # + bias O(dt)


# --- the object ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [n for n in PROCESSES if n != "linear"])
def test_a_process_is_its_configuration(name: str) -> None:
    sde = PROCESSES[name]
    again = make_sde(**json.loads(json.dumps(sde.config())))
    assert again == sde and hash(again) == hash(sde)
    with pytest.raises(dataclasses.FrozenInstanceError):
        sde.T = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [
    lambda: VP(beta_min=0), lambda: VP(beta_min=2, beta_max=1), lambda: SubVP(T=-1),
    lambda: VE(sigma_min=2, sigma_max=1),
    lambda: PowerVE(rate=0), lambda: EDM(sigma_max=-1), lambda: DDPM(()), lambda: DDPM((0.1, 1.0)),
    lambda: linear_betas(20), lambda: linear_betas(1), lambda: make_sde("vpp"), lambda: make_sde("vp", beta=1),
    lambda: bcast(f64(1.0, 2.0), torch.zeros(3, 2)), lambda: bcast(f64(1.0, 2.0)[:, None], torch.zeros(2, 2)),
    lambda: Cosine(offset=-1.0), lambda: OU(scale=0),
])
def test_wrong_parameters_are_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="got"):
        wrong()


@EVERY
def test_drift_and_diffusion_at_the_start_are_their_limits(name: str) -> None:
    """g grows like √t at most, so that g(0) and g(10⁻¹⁰ T) differ by at most 10⁻⁴ of a unit here."""
    sde, x = PROCESSES[name], torch.ones(2, 1, dtype=torch.float64)
    near = f64(1e-10 * sde.T)[0]
    for t in (0.0, torch.zeros(2, dtype=torch.float64)):
        assert torch.allclose(sde.drift(x, t), sde.drift(x, near), atol=1e-6)
        assert torch.allclose(sde.diffusion(x, t).expand(2, 1), sde.diffusion(x, near).expand(2, 1), atol=2e-4)


@pytest.mark.parametrize("panels", [16, 64])
def test_a_linear_process_has_variance_zero_at_zero(panels: int) -> None:
    """Exactly, not −1e−19, whose square root is NaN; g² there is that of the definition."""
    for k in range(20):
        sde = Linear(lambda t, k=k: -0.3 * k * t, lambda t, k=k: 1 + 0.1 * k * t, panels=panels)
        assert float(sde.variance(0.0)) == 0.0 and float(sde.alpha(0.0)) == 1.0
        assert float(sde.g2(0.0)) == pytest.approx(1.0, abs=1e-11)
