"""The log-likelihood against closed forms, in data units, and invalid arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from oracles import Opaque, absolute_error, class_posterior, correlated_gaussian, f64, random_mixture
from torch import Tensor

from benchmarks.measure.laws import digits, modes
from undiffuse.errors import InputError
from undiffuse.guidance import classifier_guidance
from undiffuse.inverse import observe
from undiffuse.likelihood import (
    decode,
    elbo,
    encode,
    interpolate,
    kl_bound,
    log_likelihood,
    path_log_likelihood,
)
from undiffuse.mixture import Mixture
from undiffuse.model import Model, Wrapper
from undiffuse.processes import VP
from undiffuse.score_model import ScoreModel
from undiffuse.transforms.base import Standardise

PLANE = random_mixture(3, 2)


def test_separated_modes_in_the_plane_to_a_ten_thousandth_of_a_nat() -> None:
    law = modes()
    x = law.sample(256, seed=5)
    ll = log_likelihood(law.denoiser(VP()), x)
    wrong = absolute_error(ll, law.log_prob(x))
    assert float(wrong.mean()) <= 1e-4 and float(wrong.max()) <= 0.01 and float(ll.nfe.median()) <= 110


@pytest.mark.slow
@pytest.mark.parametrize("wrap, n", [(lambda model: model, 64), (Opaque, 16)], ids=["closed form", "products"])
def test_ten_full_covariances_in_64_dimensions(wrap: Callable[[Model], Model], n: int) -> None:
    law = digits()
    x = law.sample(n, seed=5)
    ll = log_likelihood(wrap(law.denoiser(VP())), x, rtol=1e-4, atol=1e-4)
    assert float(absolute_error(ll, law.log_prob(x)).mean()) <= 0.02 and float(ll.nfe.median()) <= 100


def test_data_units_add_the_transforms_determinant() -> None:
    model = PLANE.denoiser(VP())
    model.transform = Standardise((3.0, -1.0), (2.0, 0.5))
    z = PLANE.sample(20, seed=3)
    ll = log_likelihood(model, model.transform.inverse(z))
    assert torch.allclose(ll.log_prob, PLANE.log_prob(z) - math.log(2.0 * 0.5), atol=1e-3)
    assert torch.allclose(ll.bits_per_dim, -ll.log_prob / (2 * math.log(2)))


@pytest.mark.slow
def test_the_density_of_a_wrong_denoiser_is_one_too() -> None:
    class Off(Wrapper):
        def denoise(self, x: Tensor, t: Tensor, **cond: object) -> Tensor:
            D = self.inner.denoise(x, t, **cond)
            return D + 0.2 * torch.sin(3 * D)

    law = Mixture([1, 2], [[-1.0], [0.7]], 0.2)
    x = torch.linspace(-4, 4, 601, dtype=torch.float64)[:, None]
    density = log_likelihood(Off(law.denoiser(VP())), x, truncation=False).log_prob.exp()
    assert abs(float(torch.trapezoid(density, x[:, 0])) - 1) < 1e-3
    assert float((density - law.log_prob(x).exp()).abs().max()) > 0.01


def test_nothing_gives_nothing() -> None:
    assert len(log_likelihood(PLANE.denoiser(VP()), torch.zeros(0, 2)).log_prob) == 0


@pytest.mark.parametrize("x, options, words", [
    (f64(0.0, 1.0), {}, "single point"),
    (torch.zeros(2, 3), {}, "expected"),
    (torch.full((1, 2), math.nan), {}, "finite"),
    (torch.zeros(1, 2), {"divergence": "magic"}, "hutchinson"),
    (torch.zeros(1, 2), {"probes": 0}, "at least 1"),
    (torch.zeros(1, 2), {"dequantise": "uniform"}, "not grey levels"),
    (torch.zeros(1, 2), {"t_end": 1.5}, "t_end"),
    (torch.zeros(1, 2), {"t_end": 0.0}, "t_end"),
    (torch.zeros(1, 2), {"rtol": -1.0}, "rtol"),
])
def test_a_mistake_is_one_sentence(x: Tensor, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        log_likelihood(PLANE.denoiser(VP()), x, **options)


def test_a_model_without_a_denoiser_is_refused() -> None:
    score = ScoreModel(lambda x, t: -x, VP(), shape=(2,))
    with pytest.raises(InputError, match="denoiser"):
        log_likelihood(score, torch.zeros(1, 2))


def test_a_posterior_that_no_denoiser_describes_is_refused() -> None:
    x, model = torch.zeros(1, 2), PLANE.denoiser(VP())
    drawn = observe(model, torch.eye(2)[:1], [0.3], 0.1, "gibbs")
    for call in (log_likelihood, elbo, path_log_likelihood, encode, decode, partial(interpolate, y=x),
                 lambda model, x: kl_bound(model, PLANE)):
        with pytest.raises(InputError, match="own sampler"):
            call(drawn, x)


@pytest.mark.parametrize("operator", [torch.eye(2)[:1], lambda x: x[..., :1]])
def test_the_density_of_a_guided_model_is_that_of_the_posterior(operator: Tensor | Callable[[Tensor], Tensor]) -> None:
    """Of Gaussian data, where `mmps` is exact; its Jacobian goes through that of the denoiser."""
    law = correlated_gaussian(2)
    guided, x = observe(law.denoiser(VP()), operator, [0.3], 0.1), law.sample(4)
    exact = law.posterior(torch.eye(2)[:1], [0.3], 0.1).log_prob(x)
    assert torch.allclose(log_likelihood(guided, x, rtol=1e-5, atol=1e-5).log_prob, exact, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
def test_the_density_with_an_exact_classifier_is_the_conditional_one() -> None:
    law, sde = random_mixture(3, 2, labels=True), VP()
    guided = classifier_guidance(law.denoiser(sde), lambda x, t: class_posterior(law, sde, x, t).log(), 1.0)
    x = law.sample(3)
    density = log_likelihood(guided, x, label=1, rtol=1e-6, atol=1e-6).log_prob
    assert torch.allclose(density, law.given(1).log_prob(x), rtol=5e-3, atol=1e-2)
