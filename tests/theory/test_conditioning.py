"""The theory page, P13 and P18: what an observation and a guidance scale do to a score."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import f64
from torch import Tensor

from undiffuse.mixture import Gaussian, Mixture
from undiffuse.model import Model, Wrapper
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.sde import Time

SDE, T = VP(), 0.3
LAW = Mixture([0.5, 0.3, 0.2], [[-1.0], [0.6], [1.5]], [0.05, 0.1, 0.02])
Y, NOISE = 0.4, 0.5


def log_likelihood(x: Tensor) -> Tensor:
    """log p_t(y | x_t) = log ∫ p(y | x_0) p(x_0 | x_t) dx_0, by a sum over a fine grid of x_0."""
    x0 = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    alpha, var = float(SDE.alpha(f64(T)[0])), float(SDE.variance(f64(T)[0]))
    joint = LAW.log_prob(x0[:, None]) - 0.5 * (x[:, None] - alpha * x0) ** 2 / var
    seen = joint - 0.5 * ((Y - x0) / NOISE) ** 2
    return seen.logsumexp(1) - joint.logsumexp(1)


def pull(x: Tensor) -> Tensor:
    y = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(log_likelihood(y).sum(), y)
    return slope


def test_p13_scores_add_by_bayes_at_every_time() -> None:
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)
    posterior = LAW.posterior([[1.0]], [Y], NOISE)
    both = LAW.diffused(SDE, T).score(x[:, None])[:, 0] + pull(x)
    assert torch.allclose(posterior.diffused(SDE, T).score(x[:, None])[:, 0], both, atol=1e-6)


def test_p13_the_likelihoods_gradient_is_not_zero_and_not_the_clean_ones() -> None:
    x = torch.linspace(-2, 2, 21, dtype=torch.float64)
    assert pull(x).abs().mean() > 0.1
    clean = (Y - x) / NOISE**2
    assert (clean - pull(x)).abs().mean() > pull(x).abs().mean()


def test_p13_tweedies_covariance_is_exact_for_gaussian_data_and_dps_is_not() -> None:
    cov, A = f64(1.0, 0.6, 0.6, 0.8).reshape(2, 2), f64(1.0, 0.5)[None]
    law = Gaussian([0.2, -0.1], cov)
    x, y = normal(0, Purpose.PROBE, 0, 0, 6, (2,), torch.float64), f64(1.1)
    truth = law.posterior(A, y, NOISE).diffused(SDE, T).score(x) - law.diffused(SDE, T).score(x)
    model = law.denoiser(SDE)
    D, C = model.denoise(x, T), model.covariance(x, T)
    J = C * SDE.alpha(f64(T)) / SDE.variance(f64(T))
    residual = y - D @ A.mT

    def guess(spread: Tensor) -> Tensor:
        return (J @ A.mT / (NOISE**2 + A @ spread @ A.mT))[..., 0] * residual

    assert torch.allclose(guess(C), truth, rtol=1e-8)
    assert (guess(torch.zeros_like(C)) - truth).norm() > 0.3 * truth.norm()  # DPS leaves C out


class Guided(Wrapper):
    """D_u + w (D_c − D_u)."""

    def __init__(self, inner: Model, label: int, w: float) -> None:
        super().__init__(inner)
        self.label, self.w, self.moments = label, w, None

    def denoise(self, x: Tensor, t: Time, **cond: Any) -> Tensor:
        """The extrapolated denoiser."""
        free, tied = self.inner.denoise(x, t), self.inner.denoise(x, t, label=self.label)
        return free + self.w * (tied - free)


PAIR = Mixture([1, 1], [[-1.0], [1.0]], 0.49, labels=[0, 1])


def target(w: float) -> tuple[float, float]:
    """Mean and deviation of p(x|c)^w p(x)^{1−w}/Z."""
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)[:, None]
    log = w * PAIR.given(1).log_prob(x) + (1 - w) * PAIR.log_prob(x)
    p = log.softmax(0)
    mean = float(p @ x[:, 0])
    return mean, math.sqrt(float(p @ x[:, 0] ** 2) - mean**2)


@pytest.mark.parametrize("w, asked, sde, ode", [(2.0, (1.127, 0.618), (1.295, 0.587), (1.440, 0.509)),
                                                (4.0, (1.223, 0.569), (1.527, 0.553), (1.947, 0.405))])
def test_p18_guidance_does_not_sample_the_distribution_of_its_score_at_time_zero(
        w: float, asked: tuple[float, float], sde: tuple[float, float], ode: tuple[float, float]) -> None:
    assert target(w) == pytest.approx(asked, abs=1e-3)
    model, n = Guided(PAIR.denoiser(SDE), 1, w), 4000
    for method, steps, known in (("ancestral", 250, sde), ("rk4_log_snr", 40, ode)):
        x = sample(model, n, method, steps, t_end=1e-3, block=n).x
        error = known[1] / math.sqrt(n)
        found = float(x.mean()), float(x.std())
        assert found == pytest.approx(known, abs=5 * error + 0.004)
        assert abs(found[0] - asked[0]) > 10 * error
