"""Guidance against closed forms: its scores are those of products of known densities, and its limits are identities."""

from __future__ import annotations

import pytest
import torch
from oracles import PROCESSES, class_posterior, f64, inner_times, random_mixture
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.guidance import autoguidance, classifier_free, classifier_guidance
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.model import Model
from undiffuse.processes import EDM, VP
from undiffuse.random import normal
from undiffuse.samplers.driver import sample
from undiffuse.sde import GaussianSDE

LAW = random_mixture(4, 3, labels=True)
X = 1.5 * normal(5, 0, 0, 0, 7, (3,), torch.float64)


def slope(density: Mixture, sde: GaussianSDE, x: Tensor, t: Tensor) -> Tensor:
    """∇log p_t by automatic differentiation of the density."""
    at = x.clone().requires_grad_(True)
    (out,) = torch.autograd.grad(density.diffused(sde, t).log_prob(at).sum(), at)
    return out


@pytest.mark.parametrize("process", PROCESSES)
def test_the_score_is_that_of_the_product_of_densities(process: str) -> None:
    sde, w = PROCESSES[process], 2.5
    model = LAW.denoiser(sde)
    for t in inner_times(sde, 3)[2:]:
        on, off, other = (slope(law, sde, X, t) for law in (LAW.given(1), LAW, LAW.given(0)))
        scale = off.abs().max()
        for guided, truth in (
            (classifier_free(model, w), w * on + (1 - w) * off),
            (classifier_free(model, w, negative={"label": 0}), w * on + (1 - w) * other),
            (classifier_free(model, {"label": w}), w * on + (1 - w) * off),
            (classifier_guidance(model, lambda x, s: class_posterior(LAW, sde, x, s).log(), w),
             off + w * (on - off)),
            (autoguidance(model, LAW.given(0).denoiser(sde), w).given(), w * off + (1 - w) * other),
        ):
            cond = {"label": 1} if guided.__class__.__name__ != "FixedConditions" else {}
            assert (guided.score(X, t, **cond) - truth).abs().max() < 1e-6 * scale


@pytest.mark.parametrize("method", ["heun", "dpmpp_2m_sde", "ode45", "euler_maruyama"])
def test_scale_one_is_the_conditional_and_zero_the_unconditional_sample(method: str) -> None:
    model = LAW.denoiser(VP())
    conditional, free = sample(model, 3, method, 6, label=1).x, sample(model, 3, method, 6).x
    assert torch.equal(sample(classifier_free(model, 1.0), 3, method, 6, label=1).x, conditional)
    assert torch.allclose(sample(classifier_free(model, 0.0), 3, method, 6, label=1).x, free, atol=1e-9)
    assert not torch.allclose(sample(classifier_free(model, 2.0), 3, method, 6, label=1).x, conditional, atol=1e-2)


def test_conditions_fixed_before_or_after_are_the_same() -> None:
    model = LAW.denoiser(VP())
    assert torch.equal(classifier_free(model.given(label=1), 3.0).denoise(X, 0.4),
                       classifier_free(model, 3.0).given(label=1).denoise(X, 0.4))
    labels = torch.arange(7) % 3  # 2 is "any"
    rows = classifier_free(model, 3.0).denoise(X, 0.4, label=labels)
    for i, label in enumerate(labels.tolist()):
        alone = classifier_free(model, 3.0).denoise(X[i : i + 1], 0.4, label=label)
        assert torch.allclose(rows[i : i + 1], alone, atol=1e-12)
    assert torch.allclose(rows[labels == 2], model.denoise(X[labels == 2], 0.4), atol=1e-12)


def test_the_interval_is_of_noise_levels_and_of_each_sample() -> None:
    model = LAW.denoiser(EDM())  # t is the noise level
    always, never = (classifier_free(model, w).given(label=0) for w in (3.0, 1.0))
    t = f64(0.1, 0.3, 0.5, 0.50001, 1, 2, 0.2)
    found = classifier_free(model, 3.0, interval=(0.2, 0.5)).denoise(X, t, label=0)
    inside = f64(0, 1, 1, 0, 0, 0, 0) > 0
    assert torch.equal(found, torch.where(inside[:, None], always.denoise(X, t), never.denoise(X, t)))
    several = classifier_free(model, {"label": 3.0}, interval=(0.2, 0.5)).denoise(X, t, label=0)
    assert torch.allclose(several, found, atol=1e-12)


def test_rescaling_keeps_the_deviation_and_projection_what_is_across() -> None:
    model = LAW.denoiser(VP())
    D, plain = model.denoise(X, 0.4, label=0), classifier_free(model, 4.0).denoise(X, 0.4, label=0)
    back = classifier_free(model, 4.0, rescale=1.0).denoise(X, 0.4, label=0)
    assert torch.allclose(back.std(1), D.std(1)) and not torch.allclose(plain.std(1), D.std(1), rtol=0.01)
    assert torch.allclose(back / back.norm(dim=1, keepdim=True), plain / plain.norm(dim=1, keepdim=True))
    half = classifier_free(model, 4.0, rescale=0.5).denoise(X, 0.4, label=0)
    assert torch.allclose(half, (plain + back) / 2)
    across = classifier_free(model, 4.0, projected=True).denoise(X, 0.4, label=0) - D
    assert ((across * D).sum(1)).abs().max() < 1e-9
    kept = plain - D - across  # parallel to D
    assert torch.allclose(kept, (kept * D).sum(1, keepdim=True) / D.square().sum(1, keepdim=True) * D)


@pytest.mark.slow
def test_guidance_does_not_sample_the_tilted_law() -> None:
    """Two Gaussians: the ODE of the guided score has a closed end, and it is not the law p_c^w p^(1−w)."""
    wide, narrow, w = Gaussian(f64(0.0), 1.0), Gaussian(f64(1.0), 0.25), 3.0
    tilted = 1 / (w / 0.25 + (1 - w) / 1.0)  # the variance of p_c^w p^{1−w}
    guided = autoguidance(narrow.denoiser(EDM()), wide.denoiser(EDM()), w)
    x = sample(guided, 4000, "rk4_log_snr", 60, t_end=1e-3).x
    # d log std / d(σ²/2) = w/(v_c + σ²) + (1 − w)/(v + σ²): std(0) = 80 (v_c/σ_T²)^{w/2} (v/σ_T²)^{(1−w)/2}, up to σ_T
    start = EDM().prior_std()
    closed = start * (0.25 / start**2) ** (w / 2) * (1.0 / start**2) ** ((1 - w) / 2)
    assert abs(float(x.std()) / closed - 1) < 4 / (2 * 4000) ** 0.5
    assert closed == pytest.approx(0.125, rel=1e-3) and tilted**0.5 == pytest.approx(0.316, rel=1e-2)


@pytest.mark.parametrize("wrong", [
    lambda m: classifier_free(m, float("nan")), lambda m: classifier_free(m, 2.0, interval=(1.0, 0.5)),
    lambda m: classifier_free(m, 2.0, rescale=2.0), lambda m: classifier_free(m, {"label": 2.0}, rescale=0.5),
    lambda m: autoguidance(m, LAW.denoiser(EDM())),
])
def test_nonsense_gets_a_sentence(wrong: object) -> None:
    with pytest.raises(InputError, match=r"got .*; expected"):
        wrong(LAW.denoiser(VP()))  # type: ignore[operator]


def test_a_model_keeps_what_it_is() -> None:
    model: Model = LAW.denoiser(VP())
    guided = classifier_free(model, 2.0)
    assert (guided.shape, guided.classes, guided.sde, guided.block) == (model.shape, 2, model.sde, model.block)
