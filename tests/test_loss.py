"""Losses against closed forms: weights, minimisers, floors, the KL divergence that likelihood weighting integrates."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import PROCESSES, correlated_gaussian, f64, inner_times, random_mixture
from torch import Tensor, nn

from undiffuse.errors import InputError
from undiffuse.loss import WEIGHTINGS, NoiseLevelDistribution, denoising_loss, loss_floor, weight
from undiffuse.mixture import Gaussian
from undiffuse.model import Denoiser, Model
from undiffuse.nets import build, initialize
from undiffuse.predictions import PREDICTIONS, UNDEFINED_AT_ZERO
from undiffuse.processes import EDM, VP
from undiffuse.random import Purpose, normal
from undiffuse.sde import GaussianSDE, Time, as_time, bcast

NAMES = list(PROCESSES)
LAWS = [
    NoiseLevelDistribution(),
    NoiseLevelDistribution(mean=-0.5, std=2.0, sigma_data=1.3),
    NoiseLevelDistribution("log_uniform"),
    NoiseLevelDistribution("time"),
    NoiseLevelDistribution("importance"),
    NoiseLevelDistribution("importance", sigma_data=1.3),
]


class Linear(Model):
    """D = a x, for sweeps of the coefficient a."""

    dtype = torch.float64

    def __init__(self, sde: GaussianSDE, a: Tensor, d: int = 1) -> None:
        super().__init__()
        self.sde, self.a, self.shape = sde, a, (d,)

    def denoise(self, x: Tensor, t: Time, **cond: object) -> Tensor:
        return bcast(self.a, x) * x


class Oracle(nn.Module):
    """A network that answers with what it has been told."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None = None) -> Tensor:
        return self.answer


def z(n: int, d: int = 1, stream: int = 0) -> Tensor:
    """Standard normals (n, d), float64."""
    return normal(11, Purpose.PROBE, stream, 0, n, (d,), torch.float64)


def within(estimate: Tensor, value: Tensor | float, errors: float = 4.0) -> bool:
    """Whether the mean of a sample is within some standard errors of a value."""
    return bool((estimate.mean() - value).abs() < errors * estimate.std() / math.sqrt(len(estimate)))


# ---------------------------------------------------------------- the weights


@pytest.mark.parametrize("name", NAMES)
def test_simple_is_the_error_of_the_noise(name: str) -> None:
    """(α/σ)²‖D − x_0‖² = ‖ε̂ − ε‖² with ε̂ = (x_t − α D)/σ."""
    sde, x0, eps = PROCESSES[name], z(9, 3), z(9, 3, 1)
    t = sde.T * torch.linspace(0.05, 0.95, 9, dtype=torch.float64)
    model = Linear(sde, f64(0.3)[0], 3)
    noise = model.noise(sde.perturb(x0, t, eps), t)
    torch.testing.assert_close(denoising_loss(model, x0, t, eps, "simple"), (noise - eps).square().mean(1), rtol=1e-9,
                               atol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sigma_data", [0.5, 1.7])
def test_edm_is_one_over_c_out_squared(name: str, sigma_data: float) -> None:
    """With EDM's weight the loss is ‖F − F*‖²: the target has unit variance at every level."""
    sde = PROCESSES[name]
    t = inner_times(sde)[2:]
    c_out = PREDICTIONS["edm"](sde, t, sde.alpha(t), sde.sigma(t), sigma_data)[1]
    torch.testing.assert_close(
        weight("edm", sde, t, NoiseLevelDistribution(sigma_data=sigma_data)), c_out**-2, rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.distribution)
@pytest.mark.parametrize("name", NAMES)
def test_likelihood_is_g2_over_the_density_of_the_times(name: str, law: NoiseLevelDistribution) -> None:
    """w‖D − x_0‖² = ½ g² ‖s − ∇log p(x_t|x_0)‖²/p(t), where p(t) = p(λ)|λ'| and |λ'| = g²/(2σ²)."""
    sde = PROCESSES[name]
    t = sde.T * f64(0.1, 0.4, 0.8)
    density = law.density(sde, t) * sde.g2(t) / (2 * sde.variance(t))
    expected = 0.5 * sde.g2(t) * (sde.alpha(t) / sde.variance(t)) ** 2 / density
    torch.testing.assert_close(weight("likelihood", sde, t, law), expected, rtol=1e-9, atol=0)


def test_min_snr_is_capped_at_five() -> None:
    """min(α²/σ², 5)."""
    sde = VP()
    t = sde.time_of(0.5 * f64(0.01, 1.0, 4.9, 5.1, 1e4).log())
    torch.testing.assert_close(
        weight("min_snr", sde, t, NoiseLevelDistribution()), f64(0.01, 1.0, 4.9, 5.0, 5.0), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("weighting", [*WEIGHTINGS, *LAWS[1:]])
@pytest.mark.parametrize("name", NAMES)
def test_finite_from_zero_to_the_end(name: str, weighting: str | NoiseLevelDistribution) -> None:
    """Defect D6: at t = 0 the target −ε/σ is infinite and σ²·(ε/σ)² is 0·∞; our loss is finite there, and at T."""
    sde, x0, eps = PROCESSES[name], z(2, 3).float(), z(2, 3, 1).float()
    t = f64(0.0, sde.T)
    sigma = sde.sigma(t).float()[:, None]
    textbook = (sigma * (-eps / sigma)).square()
    assert textbook[1].isfinite().all() and textbook[0].isfinite().all() == (sigma[0] > 0).item()
    model = Denoiser(build("mlp", (3,)), sde, shape=(3,))
    law = weighting if isinstance(weighting, NoiseLevelDistribution) else NoiseLevelDistribution()
    loss = denoising_loss(
        model, x0, t, eps, "likelihood" if isinstance(weighting, NoiseLevelDistribution) else weighting, law
    )
    assert loss.isfinite().all()
    assert sigma[0] > 0 or loss[0] < 1e-4  # nothing is asked of a network that is shown the data


# ---------------------------------------------------------------- the denoising loss


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_all_parameterisations_recover_the_data_from_the_right_answer(name: str, predict: str) -> None:
    """F = x_0, ε, −ε (that is σ·score), (α ε − σ x_0)/√(α² + σ²), α' x_0 + σ' ε or EDM's target: D = x_0, no loss."""
    sde, x0, eps = PROCESSES[name], z(5, 2), z(5, 2, 1)
    if predict in UNDEFINED_AT_ZERO and float(sde.alpha(as_time(sde.T))) == 0:
        pytest.skip("not supported: they do not determine x_0 where α = 0")
    t = sde.T * torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    a, s = bcast(sde.alpha(t), x0), bcast(sde.sigma(t), x0)
    da, ds = (bcast(rate, x0) for rate in sde.rates(t))
    x, sd = a * x0 + s * eps, 0.5
    right = {"data": x0, "noise": eps, "score": -eps, "v": (a * eps - s * x0) / (a**2 + s**2).sqrt(),
             "velocity": da * x0 + ds * eps,
             "edm": ((a**2 * sd**2 + s**2) * x0 - a * sd**2 * x) / (s * sd * (a**2 * sd**2 + s**2).sqrt())}
    right |= {"edm_v": -right["edm"], "gradient": -eps / s}
    model = Denoiser(Oracle(right[predict]), sde, predict, shape=(2,), sigma_data=sd)
    torch.testing.assert_close(model(x, t), x0, rtol=0, atol=1e-9 * float((s / a).max() + 1))
    assert denoising_loss(model, x0, t, eps, "min_snr").max() < 1e-15


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_the_least_loss_of_a_linear_denoiser_is_wieners(name: str, weighting: str) -> None:
    """On N(0, s²) the loss as a function of D = a x is a parabola with vertex a* = α s²/(α² s² + σ²)."""
    sde, s, n = PROCESSES[name], 0.8, 4000
    t, x0, eps = as_time(0.3 * sde.T), 0.8 * z(n), z(n, 1, 1)
    low, middle, high = (denoising_loss(Linear(sde, f64(a)[0]), x0, t, eps, weighting).mean() for a in (-1.0, 0.0, 1.0))
    vertex = 0.5 * (low - high) / (low + high - 2 * middle)
    alpha, variance = sde.alpha(t), sde.variance(t)
    total = alpha**2 * s**2 + variance
    error = (s**2 * variance / total / (n * total)).sqrt()  # of a regression slope: residual over regressor
    assert (vertex - alpha * s**2 / total).abs() < 4 * error


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_per_sample_values_do_not_depend_on_the_batch(weighting: str) -> None:
    """The loss of a batch is that of its rows, one time for all or one each, and a mean over coordinates."""
    sde, x0, eps, t = VP(), z(6, 4), z(6, 4, 1), f64(0.5).expand(6)
    model = correlated_gaussian(4).denoiser(sde)
    together = denoising_loss(model, x0, t, eps, weighting)
    rows = [denoising_loss(model, x0[i : i + 1], t[0], eps[i : i + 1], weighting) for i in range(6)]
    torch.testing.assert_close(torch.cat(rows), together)
    doubled = Linear(sde, f64(0.2)[0], 8)
    twice = denoising_loss(doubled, x0.repeat(1, 2), t, eps.repeat(1, 2), weighting)
    torch.testing.assert_close(twice, denoising_loss(Linear(sde, f64(0.2)[0], 4), x0, t, eps, weighting))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_floor_of_a_gaussian(name: str, weighting: str) -> None:
    """w σ² s²/(α² s² + σ²), with no error, and the mean loss of the exact denoiser agrees."""
    sde, s, n = PROCESSES[name], 0.7, 4000
    law, t = Gaussian([0.3], s**2), sde.T * f64(0.02, 0.5, 0.9)
    floor = loss_floor(law, sde, t, weighting)
    alpha, variance = sde.alpha(t), sde.variance(t)
    expected = weight(weighting, sde, t, NoiseLevelDistribution()) * s**2 * variance / (alpha**2 * s**2 + variance)
    torch.testing.assert_close(floor.value, expected, rtol=1e-9, atol=0)
    assert floor.stderr.max() < 1e-12 * floor.value.max()
    losses = denoising_loss(law.denoiser(sde), 0.3 + s * z(n), t[1], z(n, 1, 1), weighting, NoiseLevelDistribution())
    assert within(losses, floor.value[1])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_floor_of_a_mixture_is_the_loss_of_its_exact_denoiser_and_nothing_is_below(weighting: str) -> None:
    """Mean loss of the exact model = floor; a denoiser that is 2 % off lies above it by w E‖0.02 D‖²."""
    law, sde, n = random_mixture(3, 2), VP(), 20_000
    t, eps = as_time(0.25), normal(5, Purpose.NOISE, 0, 0, n, (2,), torch.float64)
    x0, exact = law.sample(n, seed=8), law.denoiser(sde)
    floor = loss_floor(law, sde, t, weighting)
    assert floor.stderr > 0
    losses = denoising_loss(exact, x0, t, eps, weighting, NoiseLevelDistribution())
    error = (floor.stderr**2 + losses.var() / n).sqrt()
    assert (losses.mean() - floor.value).abs() < 4 * error

    class Off(Linear):
        def denoise(self, x: Tensor, t: Time, **cond: object) -> Tensor:
            return 1.02 * exact(x, t)

    excess = denoising_loss(Off(sde, f64(0.0)[0], 2), x0, t, eps, weighting, NoiseLevelDistribution()) - losses
    w = weight(weighting, sde, t, NoiseLevelDistribution())
    assert within(excess, w * (0.02 * exact(sde.perturb(x0, t, eps), t)).square().mean())


def test_likelihood_weighting_integrates_to_the_kl_divergence() -> None:
    """For two Gaussian laws p and q, the expected excess loss of q's denoiser under p is KL at `low` minus at `high`.

    d KL(p_t‖q_t)/dt = −½ g² E‖s_p − s_q‖², so ∫ e^{2λ} E‖D_q − D_p‖² dλ telescopes. Evaluated by quadrature.
    """
    law, sde, p, q = NoiseLevelDistribution("log_uniform", low=0.01, high=20.0), EDM(), 0.8**2, 0.5**2
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    t = law.quantile(sde, u)
    apart = (p / (p + t**2) - q / (q + t**2)) ** 2 * (p + t**2)  # E‖D_p − D_q‖²
    total = (weight("likelihood", sde, t, law) * apart).mean()

    def kl(sigma: float) -> float:
        ratio = (p + sigma**2) / (q + sigma**2)
        return 0.5 * (ratio - 1 - math.log(ratio))

    assert abs(total - (kl(0.01) - kl(20.0))) < 1e-6


def test_gradients_by_finite_differences() -> None:
    """Automatic differentiation through the loss agrees with differences, for the weights of a network."""
    net = initialize(build("mlp", (2,), width=4, depth=1, condition=4), 0).double()
    model, x0, eps, t = Denoiser(net, VP(), shape=(2,)), z(3, 2), z(3, 2, 1), f64(0.2, 0.5, 0.9)

    def value(weights: Tensor) -> Tensor:
        bound = nn.utils.stateless._reparametrize_module(net, {"last.weight": weights})
        with bound:
            return denoising_loss(model, x0, t, eps)

    start = normal(2, 0, 0, 0, 2, (4,), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(value, start)


# ---------------------------------------------------------------- the levels


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.distribution)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "linear"])  # ddpm has no closed t(λ) either
def test_density_is_the_derivative_of_the_quantile(name: str, law: NoiseLevelDistribution) -> None:
    """dλ/du = −1/p(λ), by central differences; and no draw is t = 0, not even u = 0."""
    sde, u, h = PROCESSES[name], (torch.arange(19, dtype=torch.float64) + 0.37) / 19, 1e-5
    slope = (sde.log_snr(law.quantile(sde, u + h)) - sde.log_snr(law.quantile(sde, u - h))) / (2 * h)
    torch.testing.assert_close(-1 / slope, law.density(sde, law.quantile(sde, u)), rtol=2e-4, atol=0)
    assert law.quantile(sde, f64(0.0))[0] >= 0 and sde.sigma(law.quantile(sde, f64(0.0)))[0] > 0
    assert law.quantile(sde, f64(1.0))[0] <= sde.T


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_lognormal_levels_are_karras(sigma_data: float) -> None:
    """log(σ̂ · ½/σ_data) has mean −1.2 and deviation 1.2 (Karras et al., table 1), whatever the process."""
    for sde in (EDM(sigma_max=1e5), VP(beta_max=60.0)):
        t = NoiseLevelDistribution(sigma_data=sigma_data).times(sde, 0, 0, 0, 50_000, 50_000)
        log_sigma = -sde.log_snr(t) - math.log(2 * sigma_data)
        assert abs(log_sigma.mean() + 1.2) < 1e-3 and abs(log_sigma.std() - 1.2) < 1e-3


def test_levels_are_stratified_and_a_function_of_the_slot() -> None:
    """Slot i of a batch of B lies in the i-th B-ile; cut into parts the batch is the same; steps and seeds differ."""
    sde, law, B = VP(), NoiseLevelDistribution(), 64
    t = law.times(sde, 5, 9, 0, B, B)
    edges = law.quantile(sde, torch.arange(B + 1, dtype=torch.float64) / B)
    assert (edges[:-1] <= t).all() and (t <= edges[1:]).all()
    assert torch.equal(torch.cat([law.times(sde, 5, 9, 0, 16, B), law.times(sde, 5, 9, 16, 48, B)]), t)
    assert not torch.equal(law.times(sde, 5, 10, 0, B, B), t) and not torch.equal(law.times(sde, 6, 9, 0, B, B), t)


def test_stratification_lowers_the_variance_of_the_batch_mean_without_bias() -> None:
    """Over many steps the batch mean of a smooth function has the right mean and 1/B of the independent variance."""
    sde, law, B = EDM(), NoiseLevelDistribution(), 32
    means = torch.stack([law.times(sde, 0, k, 0, B, B).log().mean() for k in range(400)])
    assert within(means, -1.2)
    assert means.var() < 0.1 * 1.2**2 / B


def test_the_short_training_of_a_network_reaches_the_floor() -> None:
    """300 steps of Adam on a correlated Gaussian bring the loss from that of D = c_skip x to the analytic least.

    The start D = c_skip x is the best for white data; here it is above the floor by a fifth.
    """
    law, sde = Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]]), EDM(sigma_max=20.0)
    model = Denoiser(initialize(build("mlp", (2,), width=32, depth=1), 0), sde, shape=(2,), sigma_data=1.0)
    weights, draws = NoiseLevelDistribution(sigma_data=1.0), torch.optim.Adam(model.parameters(), 1e-2)
    u = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    floor = float(loss_floor(law, sde, weights.quantile(sde, u), "edm", weights).value.mean())

    def held_out() -> Tensor:
        t = weights.times(sde, 1, 0, 0, 4096, 4096)
        order = torch.argsort(z(4096)[:, 0])  # levels are sorted by slot, and so must not meet sorted data
        eps = normal(1, Purpose.NOISE, 0, 0, 4096, (2,))
        return denoising_loss(model, law.sample(4096, seed=1).float(), t[order], eps, levels=weights)

    start = held_out().detach()
    for step in range(300):
        x0, eps = law.sample(256, 0, 256 * step).float(), normal(0, Purpose.NOISE, step, 0, 256, (2,))
        for group in draws.param_groups:
            group["lr"] = 1e-2 * (1 - step / 300)
        draws.zero_grad()
        denoising_loss(model, x0, weights.times(sde, 0, step, 0, 256, 256), eps, levels=weights).mean().backward()
        draws.step()
    end = held_out().detach()
    assert start.mean() > 1.15 * floor
    assert abs(end.mean() - floor) < 0.02 * floor + 4 * end.std() / math.sqrt(4096)


def test_errors_say_what_to_do() -> None:
    """Unknown names and empty ranges are a sentence."""
    with pytest.raises(InputError, match="lognormal, log_uniform, importance or time"):
        NoiseLevelDistribution("normal")
    with pytest.raises(InputError, match="low < high"):
        NoiseLevelDistribution(low=2.0, high=1.0)
    with pytest.raises(InputError, match="expected one of simple"):
        denoising_loss(Linear(VP(), f64(0.1)[0]), z(2), 0.5, z(2), "snr")
