"""The museum of errors: formulas found in lecture notes and notebooks, each shown to fail, beside ours that hold.

Every test writes down the erroneous formula, measures the property that it breaks, and measures ours. docs/museum.md
explains each of them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import f64, moments_of_steps, order, ridge
from torch import Tensor, nn

import undiffuse
from undiffuse.chains import DDPM, linear_betas
from undiffuse.experiment import Experiment
from undiffuse.likelihood import log_likelihood
from undiffuse.loss import NoiseLevelDistribution, denoising_loss, loss_floor
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.model import Denoiser
from undiffuse.nets import Sinusoidal, build
from undiffuse.ode import EULER, HEUN, rk_step
from undiffuse.processes import EDM, VE, VP, SubVP
from undiffuse.random import Purpose, brownian, normal
from undiffuse.samplers import SamplerContext, State
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import CountingModel, nodes_of
from undiffuse.samplers.stochastic import corrector
from undiffuse.score_model import ScoreModel, reverse
from undiffuse.sde import SDE, NonlinearSDE, bcast, euler_maruyama, simulate
from undiffuse.training.optimizers import learning_rate

SDE_ = VP()
NARROW = Gaussian([0.0], 0.25)


def beta(t: Tensor) -> Tensor:
    return 0.1 + 19.9 * t


def B(t: Tensor) -> Tensor:
    """∫₀ᵗ β."""
    return 0.1 * t + 19.9 * t**2 / 2


def run(sde: SDE, times: Tensor, var: float = 0.0) -> tuple[float, float]:
    """Mean coefficient and variance after Euler-Maruyama through `times`, from a start of variance `var`, exactly.

    The process must be linear in x; the steps may go forward or backward.
    """
    one, zero = torch.ones(len(times) - 1, 1, dtype=torch.float64), torch.zeros(len(times) - 1, 1, dtype=torch.float64)
    a = euler_maruyama(sde, one, times[:-1], times[1:], zero)
    b = euler_maruyama(sde, zero, times[:-1], times[1:], one)
    mean, spread = moments_of_steps(a, b)
    return mean, mean**2 * var + spread


def line(start: float, end: float, n: int) -> Tensor:
    return torch.linspace(start, end, n + 1, dtype=torch.float64)


def from_rates(f: Callable[[Tensor], Tensor], g: Callable[[Tensor], Tensor]) -> SDE:
    """dx = f(t) x dt + g(t) dw."""
    return NonlinearSDE(lambda x, t: bcast(f(t), x) * x, lambda x, t: bcast(g(t), x))  # type: ignore[arg-type]


def test_d1_the_coefficient_of_the_mean_is_not_rooted_twice() -> None:
    def seed(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = torch.exp(-0.5 * B(t))  # calls e^{−½∫β} the square of the coefficient, and takes another root
        return alpha_bar.sqrt(), 1 - alpha_bar

    t = f64(0.3)[0]
    mean, var = run(SDE_, line(0, 0.3, 4000))
    assert [float(seed(t)[0]), float(seed(t)[1].sqrt())] == pytest.approx([0.793, 0.609], abs=5e-4)
    assert abs(float(seed(t)[0]) - mean) > 0.15 and abs(float(seed(t)[1]) - var) > 0.2
    assert [float(SDE_.alpha(t)), float(SDE_.variance(t))] == pytest.approx([mean, var], abs=1e-3)


def test_d2_every_row_gets_its_time() -> None:
    def seed(x0: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * B(t)) * x0

    t = f64(0.1, 0.8)
    with pytest.raises(RuntimeError):
        seed(torch.ones(2, 3, dtype=torch.float64), t)  # does not fit
    x0, zero = torch.ones(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    wrong, ours = seed(x0, t), SDE_.perturb(x0, t, zero)
    assert wrong[0, 0] != wrong[0, 1]  # fits by accident, and mixes rows with columns
    assert torch.equal(ours[:, 0], ours[:, 1]) and torch.allclose(ours[:, 0], SDE_.alpha(t))


MODES = Mixture([1, 1], [[0.0, 0.0], [4.0, 0.0]], 1.0)


def test_d3_the_score_of_a_mixture_takes_any_number_of_points() -> None:
    def seed(x: Tensor) -> Tensor:
        num = torch.zeros_like(x)
        for m, w in zip(MODES.means, MODES.weights, strict=True):
            p = w * torch.exp(-0.5 * (x - m).square().sum(-1))
            num = num - (x - m) * p  # (n, d) times (n,)
        return num

    x = normal(0, Purpose.PROBE, 0, 0, 5, (2,), torch.float64)
    with pytest.raises(RuntimeError):
        seed(x)
    rows = torch.cat([MODES.score(row[None]) for row in x])  # single points
    assert torch.allclose(MODES.score(x), rows, rtol=1e-12)


def test_d4_the_score_does_not_vanish_in_the_tails() -> None:
    def seed(x: Tensor) -> Tensor:
        p = torch.stack([w * torch.exp(-0.5 * (x - m).square().sum(-1)) / (2 * math.pi)
                         for m, w in zip(MODES.means, MODES.weights, strict=True)], 1)
        pull = MODES.means[None] - x[:, None]
        return (p[..., None] * pull).sum(1) / (p.sum(1, keepdim=True) + 1e-8)

    near, far = f64(-1.0, 0.0)[None], f64(-8.0, 0.0)[None]
    assert torch.allclose(seed(near), MODES.score(near), rtol=1e-6)
    assert seed(far)[0, 0] < 1e-4 and MODES.score(far)[0, 0] == pytest.approx(8, rel=1e-9)


def test_d5_the_embedding_tells_noise_levels_apart() -> None:
    def seed(t: Tensor, size: int = 32) -> Tensor:
        freq = torch.exp(-math.log(10_000) * torch.arange(size // 2, dtype=torch.float64) / (size // 2 - 1))
        return torch.cat([(t[:, None] * freq).sin(), (t[:, None] * freq).cos()], 1)  # t in [0, 1], not 0 ... 1000

    def rank(features: Tensor) -> int:
        s = torch.linalg.svdvals(features - features.mean(0))
        return int((s > 1e-2 * s[0]).sum())

    c = torch.linspace(-1.6, 1.3, 400, dtype=torch.float64)
    assert rank(seed(torch.linspace(0, 1, 400, dtype=torch.float64))) <= 2
    assert rank(Sinusoidal(32)(c)) >= 8


def test_d6_the_loss_is_finite_at_time_zero_and_time_zero_is_not_sampled() -> None:
    model = Denoiser(build("mlp", (2,), width=8, depth=1), SDE_, shape=(2,))
    x0, z, t = torch.ones(2, 2), normal(0, Purpose.NOISE, 0, 0, 2, (2,)), torch.tensor([0.0, 0.5], dtype=torch.float64)

    def seed() -> Tensor:
        std = bcast(SDE_.sigma(t), x0)
        return (model.score(SDE_.perturb(x0, t, z), t) + z / std).square().sum(1)

    assert not seed().isfinite().all()
    assert denoising_loss(model, x0, t, z).isfinite().all()
    assert NoiseLevelDistribution().times(SDE_, 0, 0, 0, 4096, 4096).min() > 0


def test_d7_a_brownian_path_starts_at_zero_and_its_variance_is_the_time() -> None:
    n, N, T = 4000, 8, 1.0
    z = normal(0, Purpose.PATH, 0, 0, n, (N,), torch.float64)
    grid = torch.cat([torch.zeros(1), torch.linspace(0, T, N)])  # N + 1 nodes, two of them 0
    seed = torch.cat([torch.zeros(n, 1), (math.sqrt(T / N) * z).cumsum(1)], 1)
    path = brownian(n, N, T)
    assert grid[0] == grid[1] == 0 and (path.t.diff() > 0).all()
    error = 4 * math.sqrt(2 / n)
    assert ((seed.var(0)[1:-1] - grid[1:-1]) / grid[2:]).abs().max() > 10 * error
    assert ((path.w.var(0)[1:] - path.t[1:]) / path.t[1:]).abs().max() < error
    few = brownian(10 * 400, 1, 1.0, seed=1).w[:, -1].reshape(400, 10).var(1)  # ten paths tell little
    assert torch.quantile(few, 0.05) < 0.4 and torch.quantile(few, 0.95) > 1.6


def test_d8_the_last_state_is_kept_and_every_state_has_its_own_time() -> None:
    N = 500
    after = [i for i in range(N) if i % 50 == 0]  # the start is kept, and the states after these steps
    true = [1.0, *(1 - (i + 1) / N for i in after)]
    label = [1 - k / len(true) for k in range(len(true))]
    assert after[-1] == 450 and true[-1] > 0.09 and max(abs(a - b) for a, b in zip(label, true, strict=True)) > 0.08
    out = sample(NARROW.denoiser(SDE_), 3, "ancestral", 10, trajectory=True)
    times, states = zip(*out.trajectory, strict=True)
    assert list(times) == [*out.t.tolist(), 0.0] and torch.equal(states[-1], out.x)
    start = NARROW.denoiser(SDE_).prior_sample(256, 0, 0)[:3]
    assert torch.equal(states[0], start)


def test_d9_the_ode_is_as_diverse_as_the_sde_but_not_if_the_noise_is_just_left_out() -> None:
    model = NARROW.denoiser(SDE_)
    times, start = line(1, 1e-3, 4000), float(NARROW.diffused(SDE_, 1.0).covariance)
    end = float(NARROW.diffused(SDE_, 1e-3).covariance)
    for eta in (0.0, 0.5, 1.0, 1.5):
        assert run(reverse(model, eta), times, start)[1] == pytest.approx(end, rel=0.02)
    anderson = reverse(model, 1.0)
    no_noise = NonlinearSDE(anderson.drift, lambda x, t: 0.0)  # all of g² s, but no noise
    assert run(no_noise, times, start)[1] < 0.2 * end


def test_d10_as_many_steps_as_intervals_and_no_step_beyond_the_end() -> None:
    N, eps = 20, 1e-3
    seed = torch.linspace(1, eps, N, dtype=torch.float64)  # N nodes and N steps of their spacing
    assert seed[-1] - (seed[0] - seed[1]) < 0
    out = sample(NARROW.denoiser(SDE_), 1, "euler", N, grid="time", t_end=eps)
    assert len(out.t) == N + 1 and out.t[0] == 1 and out.t[-1] == eps and (out.t.diff() < 0).all()
    assert out.nfe == N + 1  # the steps, and the last denoising


def test_d11_the_score_is_zero_on_the_ridge_and_steep_beside_it() -> None:
    x = f64(0.0, 0.01, 0.2, 1.0)[:, None]
    nearest = torch.where(x >= 0, 2 - x, -2 - x) / 0.25  # "large, and towards the nearest mode"
    assert nearest[0] == 8 and nearest[1] > 7.9
    got = ridge().score(x)[:, 0]
    assert got[0] == 0 and got[1:].tolist() == pytest.approx([0.60, 6.57, 4.0], abs=0.005)
    inside = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(ridge().score(inside).sum(), inside)
    assert slope[0] > 0  # an unstable equilibrium


def test_d12_more_variance_does_not_make_the_reverse_process_easier() -> None:
    law, errors = Mixture([1, 1], [[-1.0], [1.0]], 0.04), []
    x, z = law.sample(100), normal(0, Purpose.NOISE, 0, 0, 100, (1,), torch.float64)
    for sigma_max in (8.0, 80.0, 8000.0):  # prior and law of x_T agree in all three: all else is the solver's
        model = law.denoiser(EDM(sigma_max))
        start = model.sde.perturb(x, sigma_max, z)
        coarse, fine = (sample(model, x_T=start, method="heun", steps=n, grid="log_snr").x for n in (8, 100))
        errors.append(float((coarse - fine).square().mean().sqrt()))
    assert errors[0] < errors[1] < errors[2]


def test_d13_one_of_the_four_sign_combinations_reaches_the_data() -> None:
    times, start = line(1, 1e-3, 2000), float(NARROW.diffused(SDE_, 1.0).covariance)
    end = float(NARROW.diffused(SDE_, 1e-3).covariance)
    model = NARROW.denoiser(SDE_)
    home = []
    for sign_f, sign_s in itertools.product((1, -1), repeat=2):
        def drift(x: Tensor, t: Tensor, f: int = sign_f, s: int = sign_s) -> Tensor:
            return f * SDE_.drift(x, t) + s * bcast(SDE_.g2(t), x) * model.score(x, t)

        var = run(NonlinearSDE(drift, SDE_.diffusion), times, start)[1]  # type: ignore[arg-type]
        home += [(sign_f, sign_s)] if var == pytest.approx(end, rel=0.02) else []
    assert home == [(1, -1)]  # dx = [f − g² s] dt + g dw with dt < 0
    assert run(reverse(model), times, start)[1] == pytest.approx(end, rel=0.02)


def test_d14_a_cosine_schedule_is_a_cosine() -> None:
    made = Experiment(data="digits", steps=1000, warmup=0, lr=1.0, schedule="cosine")
    seed, ours = ([fn(k) for k in (0, 250, 500, 750, 999)] for fn in (
        lambda k: max(0.2, 1 - k / 1000), lambda k: learning_rate(made, k)))
    cosine = [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]
    assert ours == pytest.approx(cosine, abs=1e-5) and max(abs(a - b) for a, b in zip(seed, cosine, strict=True)) > 0.1


def test_d15_the_drift_is_the_logarithmic_derivative_and_g2_is_the_rate_of_the_variance() -> None:
    kernel = float(SDE_.alpha(f64(0.5)[0])), float(SDE_.variance(f64(0.5)[0]))
    times = line(0, 0.5, 4000)
    ours = run(from_rates(SDE_.f, lambda t: SDE_.g2(t).sqrt()), times)
    assert ours == pytest.approx(kernel, rel=2e-3)
    coefficient = from_rates(lambda t: -beta(t) / 2 * SDE_.alpha(t), lambda t: SDE_.g2(t).sqrt())  # f = α'
    assert run(coefficient, times)[0] > 1.5 * kernel[0]
    rate_of_std = from_rates(SDE_.f, lambda t: SDE_.rates(t.clamp_min(1e-6))[1].clamp_min(0).sqrt())  # g² = σ'
    assert abs(run(rate_of_std, times)[1] / kernel[1] - 1) > 0.3
    step = 1 / 1000  # and of a chain, √(1 − β_i) − 1 is the drift over one step, not √(1 − β_i)
    b = linear_betas(1000)[499]
    assert (math.sqrt(1 - b) - 1) / step == pytest.approx(float(VP().f(f64(0.5)[0])), rel=0.01)


def gaussian_kl(var: float, of: float) -> float:
    """KL(N(0, var) ‖ N(0, of))."""
    return 0.5 * (var / of - 1 - math.log(var / of))


@pytest.mark.parametrize("c, kl, gap, kl_ode", [(1.0, 0.0, 0.0, 0.0), (1.1, 0.00884, 0.04834, 0.49724),
                                                (0.8, 0.05533, 0.17340, 0.69441)])
def test_d16_the_score_matching_integral_bounds_the_divergence_of_the_sde_and_nothing_of_the_ode(
        c: float, kl: float, gap: float, kl_ode: float) -> None:
    # a score c times the exact one, on data N(0, .25): the figures of the theory page, P10
    exact = NARROW.denoiser(SDE_)
    model = ScoreModel(lambda x, t: c * exact.score(x, t), SDE_, shape=(1,))
    times = 1 + (1e-6 - 1) * (torch.linspace(0, 1, 20_001, dtype=torch.float64) * (2 - torch.linspace(0, 1, 20_001)))
    p_T = float(NARROW.diffused(SDE_, 1.0).covariance)
    diverged = [gaussian_kl(0.25, run(reverse(model, eta), times, 1.0)[1]) for eta in (1.0, 0.0)]
    t = line(0, 1, 20_000)
    v = 0.25 * torch.exp(-B(t)) + 1 - torch.exp(-B(t))
    bound = gaussian_kl(p_T, 1.0) + 0.5 * float(torch.trapezoid(beta(t) * (c - 1) ** 2 / v, t))  # ½∫g² E‖s − s_θ‖²
    assert diverged == pytest.approx([kl, kl_ode], abs=3e-4)
    assert bound - diverged[0] == pytest.approx(gap, abs=3e-4)
    assert c == 1 or diverged[0] < bound < diverged[1]


def test_d17_a_backward_increment_has_variance_dt_and_no_further_dt() -> None:
    ours, seed = [], []
    for n in (100, 1000):
        t = line(1, 0, n)
        ours.append(run(from_rates(torch.zeros_like, torch.ones_like), t)[1])
        seed.append(n * ((1 / n) ** 0.5 / n) ** 2)  # N(0, ds) ds
    assert ours == pytest.approx([1, 1], rel=1e-10) and seed == pytest.approx([1e-4, 1e-6])


def test_d18_nothing_depends_on_a_model_of_somebody_elses_hub() -> None:
    withdrawn = re.compile(r"(stabilityai|runwayml|sd2-community)/|stable-diffusion-(2|v1)")
    root = Path(undiffuse.__file__).parent
    files = [*root.rglob("*.py"), *(root.parent.parent / "tutorials").glob("*.py")]
    assert withdrawn.search("stabilityai/stable-diffusion-2-1") and len(files) > 50
    assert [file.name for file in files if withdrawn.search(file.read_text("utf-8"))] == []


def test_d19_the_likelihood_pulls_at_every_time_and_is_not_that_of_the_clean_image() -> None:
    law = Gaussian([0.0, 0.0], [[1.0, 0.6], [0.6, 1.0]])
    A, y, noise = f64(1.0, 0.0)[None], f64(1.5), 0.3
    post, t = law.posterior(A, y, noise), f64(0.3)[0]
    x = normal(0, Purpose.PROBE, 0, 0, 6, (2,), torch.float64)
    truth = post.diffused(SDE_, t).score(x) - law.diffused(SDE_, t).score(x)  # ∇ log p_t(y | x_t), by Bayes
    model = law.denoiser(SDE_)
    D, C = model(x, t), model.covariance(x, t)
    J = C * SDE_.alpha(t) / SDE_.variance(t)  # ∂D/∂x
    pull = (J @ A.mT / (noise**2 + A @ C @ A.mT))[..., 0] * (y - D @ A.mT)
    assert torch.allclose(pull, truth, rtol=1e-8)
    assert truth.abs().min() > 1e-3  # "zero everywhere"
    clean = (y - x @ A.mT) @ A / noise**2  # "both terms are known": p(y | x_0) taken at x_t
    assert (clean - truth).norm() > truth.norm()


def test_d20_beta_is_minus_the_derivative_of_log_alpha_bar() -> None:
    n = 1000
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, n))
    seed = -2 * np.gradient(np.log(bar), 1 / n)
    assert seed[499] == pytest.approx(20.2, abs=0.1)
    ours, step = float(DDPM(linear_betas(n)).g2(f64(0.4995)[0])), linear_betas(n)[499]
    assert ours == pytest.approx(-n * math.log1p(-step), rel=1e-3) and ours == pytest.approx(seed[499] / 2, rel=2e-3)


def test_d21_the_std_of_an_exploding_process_from_its_data_starts_at_zero() -> None:
    r, times = 20.0 / 0.02, line(0, 0.3, 20_000)
    g = from_rates(torch.zeros_like, lambda t: 0.02 * r**t * math.sqrt(2 * math.log(r)))
    var = run(g, times)[1]  # from a point
    seed, ours, t = VE(0.02, 20.0), VE(0.02, 20.0, from_data=True), f64(0.3)[0]
    assert float(ours.variance(t)) == pytest.approx(var, rel=1e-3) and float(ours.sigma(0.0)) == 0
    assert float(seed.sigma(0.0)) == 0.02  # its data are blurred by σ_min already, and it says so
    assert float(seed.variance(t)) == pytest.approx(var + 0.02**2, rel=1e-3)


def test_d22_the_std_of_sub_vp_is_not_the_std_of_vp() -> None:
    process = from_rates(lambda t: -beta(t) / 2, lambda t: (beta(t) * -torch.expm1(-2 * B(t))).sqrt())
    for t, simulated in ((0.1, 0.1035), (0.3, 0.607)):
        std = math.sqrt(run(process, line(0, t, 8000))[1])
        assert std == pytest.approx(simulated, abs=5e-3)
        assert float(SubVP().sigma(t)) == pytest.approx(std, rel=2e-3)
        seed = math.sqrt(-math.expm1(-float(B(f64(t)[0]))))
        assert seed > 1.25 * std


def test_d23_time_runs_backward_and_may_be_a_number() -> None:
    model, times = NARROW.denoiser(SDE_), line(1, 0.01, 2000)
    truth = math.sqrt(float(NARROW.diffused(SDE_, 0.01).covariance / NARROW.diffused(SDE_, 1.0).covariance))

    seed = NonlinearSDE(lambda x, t: -model.velocity(x, t), lambda x, t: 0.0)  # dt = −1/N, then x + drift · (−dt)
    assert run(reverse(model, 0.0), times)[0] == pytest.approx(truth, rel=0.01) and run(seed, times)[0] > 1.5
    x = torch.ones(3, 1, dtype=torch.float64)
    for fn in (model.velocity, model.score, SDE_.drift, SDE_.diffusion):
        assert torch.equal(fn(x, 0.5), fn(x, f64(0.5)[0]))


@pytest.mark.slow
def test_d24_there_and_back_is_as_exact_as_the_order_of_the_solver() -> None:
    law = Mixture([1, 2], [[-1.5], [1.0]], 0.16)
    model, x = law.denoiser(SDE_), law.sample(50)

    def cycle(tableau, n: int) -> float:  # type: ignore[no-untyped-def]
        there, state = line(0.01, 1, n), x
        for grid in (there, there.flip(0)):
            for t, s in itertools.pairwise(grid):
                state = rk_step(tableau, model.velocity, state, t, s)
        return float((state - x).square().mean().sqrt())

    euler, heun = ([cycle(tableau, n) for n in (40, 80, 160)] for tableau in (EULER, HEUN))
    assert euler[0] > 0.01 and 0.7 < order(euler) < 1.3  # "perfectly consistent"
    assert heun[2] < 0.02 * euler[2] and order(heun) > 1.7


def test_d25_the_divergence_is_added_and_the_prior_is_the_processes_own() -> None:
    law, t = Gaussian([0.0], 0.25), 1e-6 + (1 - 1e-6) * torch.linspace(0, 1, 20_001, dtype=torch.float64) ** 2
    for sde in (VP(), VE(0.02, 20.0, from_data=True)):
        model, scale = law.denoiser(sde), sde.alpha(t) ** 2 * 0.25 + sde.variance(t)
        x = f64(0.3)[:, None]
        x_T = x * (scale[-1] / scale[0]).sqrt()  # the flow of Gaussian data multiplies
        probe = torch.ones(len(t), 1, dtype=torch.float64)
        div = model.velocity(probe, t)[:, 0]  # linear in x: its slope
        change = float(torch.trapezoid(div, t))
        ours = float(law.diffused(sde, 1.0).log_prob(x_T)) + change
        seed = float(Gaussian([0.0], 1.0).log_prob(x_T)) - change  # log p = log N(x_T; 0, I) − ∫ div
        truth = float(law.log_prob(x))
        assert ours == pytest.approx(truth, abs=1e-3) and abs(seed - truth) > 1
    with torch.no_grad(), pytest.raises(RuntimeError):  # and in a function that switches gradients off
        torch.autograd.grad(model.velocity(x.requires_grad_(True), 0.5).sum(), x)


def test_d26_a_langevin_step_is_as_long_as_its_noise() -> None:
    d, n, r, s = 64, 100, 0.16, SDE_.time_of(0.0)
    model = Gaussian(torch.zeros(d), 1.0).denoiser(SDE_)
    node = nodes_of(SDE_, s[None])[0]
    start = 0.5**0.5 * normal(0, Purpose.INIT, 0, 0, n, (d,), torch.float64)
    ours, seed = start, start
    step = corrector(SamplerContext(model, [node, node], start), r)
    for k in range(60):
        noise = lambda *address, k=k: normal(1, Purpose.STEP, k, 0, n, (d,), torch.float64)  # noqa: E731
        ours = step(State(ours, node, 0, CountingModel(model, {}), noise), node).x
        score = model.score(seed, node.t)
        eps = 2 * (r / score.norm(dim=1, keepdim=True)) ** 2  # without ‖ξ‖², which is about d
        seed = seed + eps * score + (2 * eps).sqrt() * noise()
    error = 4 * math.sqrt(2 / (n * d)) + r**2 + 2 / d  # chance, Euler's bias ε/2, and the spread of ‖ξ‖² in ε
    assert float(ours.var()) == pytest.approx(1, abs=error) and float(seed.var()) < 0.6


def test_d25_the_likelihood_adds_what_the_flow_contracts() -> None:
    """The notebook has log π(x_T) − ∫ div v dt, under `no_grad`, and the prior N(0, 1) for every process."""
    x, dt = NARROW.sample(200, seed=1), 1 / 4000
    var = SDE_.alpha(line(0, 1, 4000)) ** 2 * 0.25 + SDE_.variance(line(0, 1, 4000))
    rate = -0.5 * beta(line(0, 1, 4000)) * (1 - 1 / var)  # v = rate x, and its divergence, for Gaussian data
    change = float(torch.trapezoid(rate, dx=dt))
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0] * math.exp(change))
    truth, ours = NARROW.log_prob(x), log_likelihood(NARROW.denoiser(SDE_), x).log_prob
    assert float((prior - change - truth).mean()) < -1 and torch.allclose(prior + change, truth, atol=1e-3)
    assert torch.allclose(ours, truth, atol=1e-6)
    exploding = VE(from_data=True)
    end = exploding.sigma(1.0) ** 2 + 0.25
    there = x[:, 0] * (end / 0.25).sqrt()  # the exact flow of N(0, 1/4)
    seed = torch.distributions.Normal(0.0, 1.0).log_prob(there) + 0.5 * (end / 0.25).log()
    assert float((seed - truth).mean()) < -100
    assert torch.allclose(log_likelihood(NARROW.denoiser(exploding), x).log_prob, truth, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(log_likelihood(NARROW.denoiser(SDE_), x).log_prob, ours)


def test_d27_a_denoiser_that_ignores_the_noise_level_cannot_reach_the_floor() -> None:
    times = torch.linspace(0.05, 0.95, 40, dtype=torch.float64)
    alpha, var = SDE_.alpha(times), SDE_.variance(times)
    floor = loss_floor(NARROW, SDE_, times).value
    weight = floor / NARROW.mmse(SDE_, times, n=4).value
    # x_0 is N(0, .25); a x_t misses it by (1 − a α)² .25 + a² σ². One a for all levels, the best one:
    a = (weight * alpha * 0.25).sum() / (weight * (alpha**2 * 0.25 + var)).sum()
    seed = weight * ((1 - a * alpha) ** 2 * 0.25 + a**2 * var)
    assert (seed >= floor - 1e-12).all() and seed.mean() > 1.3 * floor.mean() and seed[0] > 5 * floor[0]

    class Ear(nn.Module):
        """A network that answers with what it hears of the noise level."""

        def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
            return c[:, None].expand_as(x)

    heard = Denoiser(Ear(), SDE_, "data", shape=(1,))(torch.zeros(40, 1, dtype=torch.float64), times)[:, 0]
    assert (heard.diff() > 0).all()


def test_d28_a_short_chain_with_the_rates_of_a_long_one_never_reaches_noise() -> None:
    seed = DDPM(tuple(np.linspace(1e-4, 0.02, 100).tolist()))
    ours = DDPM(linear_betas(100))
    assert float(seed.alpha(f64(1.0)[0]) ** 2) == pytest.approx(0.364, abs=1e-3)
    assert float(ours.alpha(f64(1.0)[0]) ** 2) < 5e-5
    for chain, ends_in_noise in ((seed, False), (ours, True)):
        x = simulate(chain, torch.full((4000, 1), 3.0, dtype=torch.float64), 100)
        assert (abs(x.mean()) < 4 / math.sqrt(4000) + 0.02) == ends_in_noise
