"""Bounds and stochastic estimates against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import PROCESSES, random_mixture
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood import elbo, kl_bound, log_likelihood, path_log_likelihood
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.model import Wrapper
from undiffuse.processes import VP
from undiffuse.sde import as_time, bcast
from undiffuse.transforms.base import GreyLevels

LAW = random_mixture(3, 4)


class Scaled(Wrapper):
    """A model whose score is (1 + e) times the inner one's."""

    def __init__(self, inner, e: float) -> None:
        super().__init__(inner)
        self.e = e

    def denoise(self, x: Tensor, t: Tensor, **cond: object) -> Tensor:
        alpha = bcast(self.sde.alpha(as_time(t)), x)
        return ((1 + self.e) * alpha * self.inner.denoise(x, t) - self.e * x) / alpha


@pytest.mark.parametrize("name, control", [("vp", False), ("vp", True), ("ve", True),
                                           pytest.param("cosine", True, marks=pytest.mark.slow)])
def test_the_continuous_bound_of_the_exact_model_is_the_density(name: str, control: bool) -> None:
    x = LAW.sample(200, seed=1)
    found = elbo(LAW.denoiser(PROCESSES[name]), x, 64, control=control)
    gap = found.value - LAW.log_prob(x)
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(200) + 0.05
    assert 0.7 < float((gap.square().mean() / found.stderr.square().mean()).sqrt()) < 1.5


def test_the_wiener_control_variate_divides_the_variance_by_four_and_more() -> None:
    model, x = LAW.denoiser(VP()), LAW.sample(200, seed=2)
    with_, without = (elbo(model, x, 64, control=c).stderr.square().mean() for c in (True, False))
    assert float(without / with_) > 4


def test_on_gaussian_data_the_control_variate_leaves_no_chance() -> None:
    law = Gaussian([0.5, -1.0], [[1.0, 0.3], [0.3, 0.5]])
    x = law.sample(20, seed=3)
    found = elbo(law.denoiser(VP()), x, 8)
    assert float(found.stderr.max()) < 1e-9 and float((found.value - law.log_prob(x)).abs().max()) < 1e-3
    short = elbo(law.denoiser(VP()), x, 8, steps=100)
    assert float(short.stderr.max()) < 1e-9 and bool((short.value < found.value).all())


def test_a_chains_bound_falls_short_by_one_over_n() -> None:
    model, x = LAW.denoiser(VP()), LAW.sample(100, seed=4)
    truth = LAW.log_prob(x).mean()
    short = [float(truth - elbo(model, x, 64, steps=n).value.mean()) for n in (64, 128, 256)]
    assert short[0] > short[1] > short[2] > 0 and 1.6 < short[0] / short[1] < 3


def test_the_error_falls_with_the_signal_as_the_squared_posterior_covariance() -> None:
    """d mmse(x, γ) averaged over x: d mmse/dγ = −E tr Cov², γ = σ̂⁻² (Guo, Shamai and Verdú)."""
    law, model = random_mixture(3, 2), random_mixture(3, 2).denoiser(PROCESSES["edm"])
    gamma, h = 1.5, 0.05
    ends = [law.mmse(model.sde, as_time((gamma + s * h) ** -0.5), 20_000).value for s in (1, -1)]
    t = as_time(gamma**-0.5)
    x = law.diffused(model.sde, t).sample(20_000, seed=5)
    square = torch.cat([model.covariance(part, t).square().sum((1, 2)) for part in x.split(1000)])
    slope = float((ends[0] - ends[1]) / (2 * h))
    assert slope == pytest.approx(-float(square.mean()), rel=0.05)


@pytest.mark.parametrize("e", [0.02, 0.05, 0.1])
def test_the_kl_bound_has_its_closed_form_and_is_no_equality(e: float) -> None:
    """For N(0, 1) and s_θ = (1 + e) s: the bound is e² ½ log (1 + a_T)/(1 + a_0), a = σ̂², and with the variance v of
    the reverse SDE, dv/dτ = 1 − 2 (1 + e) v/(1 + a) for τ = −a, the divergence ½ (r − 1 − log r), r = (1 + a_0)/v."""
    law = Gaussian([0.0], 1.0)
    model = Scaled(law.denoiser(VP()), e)
    bound = kl_bound(model, law, 8192)
    first, last = math.exp(-2 * float(VP().log_snr(model.t_end()))), math.exp(-2 * float(VP().log_snr(1.0)))
    closed = e**2 * 0.5 * math.log((1 + last) / (1 + first))
    assert bound.value == pytest.approx(closed, abs=4 * bound.stderr + 1e-6)
    a = torch.linspace(math.log(1 + last), math.log(1 + first), 20_001, dtype=torch.float64).exp() - 1
    v = 1 + last
    for here, there in zip(a[:-1].tolist(), a[1:].tolist(), strict=True):
        h, middle = here - there, (here + there) / 2
        half = v + h / 2 * (1 - 2 * (1 + e) * v / (1 + here))
        v += h * (1 - 2 * (1 + e) * half / (1 + middle))
    ratio = (1 + first) / v
    assert 0 < 0.5 * (ratio - 1 - math.log(ratio)) < closed / 3


def test_the_exact_model_has_no_divergence_to_bound() -> None:
    bound = kl_bound(LAW.denoiser(VP()), LAW, 4096)
    assert abs(bound.value) < 4 * bound.stderr + 1e-3


@pytest.mark.slow
def test_the_ratio_of_a_path_is_below_and_closes_in() -> None:
    model, x = LAW.denoiser(VP()), LAW.sample(100, seed=6)
    truth = LAW.log_prob(x)
    one = [float((truth - path_log_likelihood(model, x, n, 1).value).mean()) for n in (32, 128)]
    many = path_log_likelihood(model, x, 128, 8)
    assert one[0] > 2 * one[1] > 0 and float((truth - many.value).mean()) < one[1] / 2
    weights = (many.log_weights - truth).exp()
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / math.sqrt(weights.numel()) + 0.02
    assert torch.equal(path_log_likelihood(model, x[9:10], 16, 2, first_index=9).value,
                       path_log_likelihood(model, x, 16, 2).value[9:10])


@pytest.mark.slow
def test_the_bound_of_a_level_is_below_its_probability() -> None:
    law = Mixture([1, 2], [[-0.5], [0.4]], 0.02)
    model, x = law.denoiser(VP()), torch.arange(5.0, dtype=torch.float64)[:, None].repeat(16, 1)
    model.transform = GreyLevels(5)
    t = float(VP().time_of(-math.log(0.08)))
    low = elbo(model, x, 64, t_end=t)
    exact = log_likelihood(model, x[:5], dequantise="normal", draws=16, t_end=t, rtol=1e-3, atol=1e-3)
    mean = low.value.reshape(16, 5).mean(0)
    assert bool((mean < exact.log_prob + 0.1).all()) and bool((low.reconstruction <= 0).all())


def test_a_row_has_the_same_bound_alone() -> None:
    model, x = LAW.denoiser(VP()), LAW.sample(30, seed=7)
    assert torch.equal(elbo(model, x[11:12], 8, first_index=11).value, elbo(model, x, 8).value[11:12])


@pytest.mark.parametrize("options", [{"samples": 4}, {"decoder": "levels"}, {"steps": 0}])
def test_a_mistake_is_one_sentence(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        elbo(LAW.denoiser(VP()), torch.zeros(1, 4), **options)
