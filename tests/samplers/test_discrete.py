"""Steps of published chains: variances, the doubled first step, and distilled networks, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from affine import LAW
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.model import Denoiser
from undiffuse.predictions import Reading
from undiffuse.random import normal
from undiffuse.samplers import ALL
from undiffuse.samplers.registry import DISTILLED

S = 0.6


class Ends(nn.Module):
    """The end of the trajectory of N(0, S²) through x: S x/√(α² S² + σ²), as a network that predicts data."""

    def __init__(self, sde: Any) -> None:
        super().__init__()
        self.sde = sde

    def forward(self, x: Tensor, c: Tensor, label: object = None) -> Tensor:
        t = c.double()
        return (S / (self.sde.alpha(t) ** 2 * S**2 + self.sde.variance(t)).sqrt()).to(x)[:, None] * x


def distilled(sde: Any = None, kind: str = "consistency") -> Denoiser:
    sde = sde or ud.VP()
    reading = Reading("data", 1.0, "time", float(sde.T), scaled_input=False, kind=kind)
    return Denoiser(Ends(sde), sde, reading, shape=(2,))


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_the_variance_of_a_step_is_that_of_the_chain(spread: float) -> None:
    """Of the last step before s, x_s | x_t has the variance β̃^{1−v} β^v, measured as the response to its noise."""
    model, grid = LAW.denoiser(ud.VP()), torch.tensor([0.5, 0.3], dtype=torch.float64)
    x = normal(1, 0, 0, 0, 64, (2,), torch.float64)
    out = ud.sample(model, 64, ALL["ddpm"], grid=grid, x_T=x, denoise_last=False, options={"spread": spread}).x
    mean = ud.sample(model, 64, ALL["ancestral"], grid=grid, x_T=x, denoise_last=False, options={"eta": 1.0}).x
    alpha, sigma2 = model.sde.alpha(grid), model.sde.variance(grid)
    beta = float(sigma2[0] - (alpha[0] / alpha[1]) ** 2 * sigma2[1])
    small = beta * float(sigma2[1] / sigma2[0])
    xi = ud.sample(model, 64, ALL["ddpm"], grid=grid, x_T=x, denoise_last=False, options={"spread": 1.0}).x - ud.sample(
        model, 64, ALL["ddpm"], grid=grid, x_T=x, denoise_last=False, options={"spread": 0.0}).x
    xi = xi / (beta**0.5 - small**0.5)  # the noise of the step
    torch.testing.assert_close(out - mean, (small ** ((1 - spread) / 2) * beta ** (spread / 2) - small**0.5) * xi,
                               rtol=1e-9, atol=1e-9)
    assert float(xi.var()) == pytest.approx(1, abs=0.3)  # 128 numbers: 2.4 standard errors


def test_a_learned_variance_needs_a_network_that_has_one() -> None:
    for spread, words in (("learned", "twice the channels"), (2.0, "from 0 to 1"), ("small", "from 0 to 1")):
        with pytest.raises(InputError, match=words):
            ud.sample(LAW.denoiser(ud.VP()), 2, ALL["ddpm"], 3, options={"spread": spread})


def test_the_first_step_of_plms_is_heuns_and_costs_two() -> None:
    model, grid = LAW.denoiser(ud.VP()), torch.tensor([0.5, 0.3], dtype=torch.float64)
    x = normal(1, 0, 0, 0, 4, (2,), torch.float64)
    out = ud.sample(model, 4, ALL["plms"], grid=grid, x_T=x, denoise_last=False)
    heun = ud.sample(model, 4, ALL["heun_sigma"], grid=grid, x_T=x, denoise_last=False)
    torch.testing.assert_close(out.x, heun.x, rtol=1e-9, atol=1e-9)
    assert out.nfe == 2 and ud.sample(model, 4, ALL["plms"], 7).nfe == 9
    cosine = LAW.denoiser(ud.Cosine())  # α(T) = 0
    assert ud.sample(cosine, 2, ALL["plms"], 4).x.isfinite().all()


@pytest.mark.parametrize("sde", [ud.VP(), ud.EDM(), ud.RectifiedFlow()], ids=lambda sde: sde.name)
def test_a_consistency_model_is_sampled_exactly_by_noise_and_denoising(sde: Any) -> None:
    """x_s = α_s D + σ_s ξ has the variance α_s² S² + σ_s² for any grid, so that the samples are N(0, S²)."""
    for steps in (1, 3):
        x = ud.sample(distilled(sde), 4000, steps=steps, seed=2)
        assert x.method == "consistency" and x.nfe == steps + 1
        assert float(x.x.var()) == pytest.approx(S**2, rel=4 * (2 / 8000) ** 0.5)


def test_without_noise_the_consistency_sampler_is_ddim() -> None:
    model, x = distilled(), normal(1, 0, 0, 0, 8, (2,))
    ours = ud.sample(model, 8, DISTILLED["consistency"], 4, grid="log_snr", x_T=x, options={"gamma": 0.0}).x
    torch.testing.assert_close(ours, ud.sample(model, 8, "ddim", 4, x_T=x).x, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="gamma"):
        ud.sample(model, 2, DISTILLED["consistency"], options={"gamma": 2.0})


@pytest.mark.parametrize("use", [
    lambda m: ud.log_likelihood(m, torch.zeros(1, 2)), lambda m: ud.tune(m, evaluations=[4]),
    lambda m: ud.observe(m, torch.tensor([True, False]), torch.zeros(1), 0.1),
    lambda m: ud.encode(m, torch.zeros(1, 2)), lambda m: ud.log_likelihood(ud.classifier_free(m), torch.zeros(1, 2))])
def test_what_needs_a_denoiser_refuses_a_distilled_network(use: Any) -> None:
    with pytest.raises(InputError, match="consistency model"):
        use(distilled())
    assert replace(distilled().reading, kind="denoiser").kind == "denoiser"
