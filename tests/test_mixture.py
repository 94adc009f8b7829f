"""Exact laws: density, score, denoiser and posterior against autograd, SciPy, Bayes on a grid, and Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles import PROCESSES, class_posterior, correlated_gaussian, f64, random_mixture, ridge
from scipy import stats
from torch import Tensor
from torch.func import jacrev, vmap

from undiffuse.errors import InputError
from undiffuse.metrics import agreement, classifier
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.processes import EDM, VP
from undiffuse.random import Purpose, normal, permutation

VP_ = VP()
LAWS = {
    "line": ridge(), "plane": random_mixture(4, 2), "space": random_mixture(3, 5, labels=True),
    "gaussian": correlated_gaussian(3), "image": Mixture([1, 2], normal(0, 0, 0, 0, 2, (1, 2, 3)), [0.3, 0.1]),
    "numbers": Mixture([1, 3], [-1.0, 1.0], 0.2),
}
EVERY = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


def points(law: Mixture, n: int = 20, scale: float = 3.0) -> Tensor:
    return scale * normal(1, Purpose.PROBE, 0, 0, n, law.shape, torch.float64)


def gradient(fn, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(fn(x).sum(), x)[0]


# --- density and score -----------------------------------------------------------------------------------------------

@EVERY
def test_the_density_is_scipys(law: Mixture) -> None:
    x = points(law)
    parts = zip(law.weights, law.means.reshape(len(law.weights), -1), law.covariances, strict=True)
    density = sum(float(w) * stats.multivariate_normal(m, c).pdf(x.reshape(len(x), -1)) for w, m, c in parts)
    assert np.allclose(law.log_prob(x), np.log(density), rtol=1e-10)


@EVERY
def test_the_score_is_the_gradient_of_the_log_density(law: Mixture) -> None:
    x = points(law)
    assert torch.allclose(law.score(x), gradient(law.log_prob, x), rtol=1e-9, atol=1e-10)


@EVERY
def test_responsibilities_are_bayes_rule(law: Mixture) -> None:
    x, r = points(law), law.responsibilities(points(law))
    assert torch.allclose(r.sum(1), torch.ones(len(x), dtype=torch.float64), rtol=1e-12)
    alone = [Mixture([1], m[None], c[None]) for m, c in zip(law.means, law.covariances, strict=True)]
    joint = torch.stack([w * a.log_prob(x).exp() for w, a in zip(law.weights, alone, strict=True)], 1)
    assert torch.allclose(r, joint / joint.sum(1, keepdim=True), rtol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 16])
def test_the_score_is_right_at_fifty_deviations(d: int) -> None:
    law = Mixture([1, 1, 2], torch.stack([-2 * torch.ones(d), 2 * torch.ones(d), torch.zeros(d)]), 0.25)
    far = 50 * 0.5 * torch.eye(d, dtype=torch.float64)[:1] + 2
    # only the component at +2 is left, to 1e-80: the score is that of one Gaussian
    assert torch.allclose(law.score(far), (2 - far) / 0.25, rtol=1e-12, atol=1e-12)
    expected = math.log(0.25) - d / 2 * math.log(2 * math.pi * 0.25) - (far - 2).square().sum() / 0.5
    assert law.log_prob(far).item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(law.denoiser(VP_)(1e3 * far, 0.5) * 0, 0 * far)  # finite at 25,000 deviations


@EVERY
def test_a_single_point_is_one_row_of_many(law: Mixture) -> None:
    x = points(law)
    for fn in (law.score, law.log_prob, law.responsibilities, lambda x: law.denoiser(VP_)(x, 0.3)):
        assert torch.allclose(fn(x[3:4]), fn(x)[3:4], rtol=1e-12, atol=1e-14)


@EVERY
def test_float32_and_integers_are_computed_in_float64(law: Mixture) -> None:
    x = points(law).float()
    assert torch.equal(law.score(x), law.score(x.double()))
    model = law.denoiser(VP_)
    assert model(x, 0.3).dtype == torch.float32 and torch.equal(model(x, 0.3), model(x.double(), 0.3).float())


# --- draws -----------------------------------------------------------------------------------------------------------

@EVERY
def test_draws_have_the_moments_of_the_law(law: Mixture) -> None:
    n = 20_000
    x = law.sample(n).reshape(n, -1)
    sd = law.covariance.diagonal().sqrt()
    assert ((x.mean(0) - law.mean.reshape(-1)).abs() < 4.5 * sd / math.sqrt(n)).all()
    outer = torch.einsum("ni,nj->nij", x - law.mean.reshape(-1), x - law.mean.reshape(-1))
    assert ((outer.mean(0) - law.covariance).abs() < 4.5 * outer.std(0) / math.sqrt(n) + 1e-12).all()


def test_draws_follow_the_law_in_full() -> None:
    law = LAWS["plane"]
    x, k = law.sample(20_000, seed=4, labels=True)
    assert stats.chisquare(torch.bincount(k).numpy(), 20_000 * law.weights.numpy()).pvalue > 1e-3
    for i in range(4):
        alone = Mixture([1], law.means[i : i + 1], law.covariances[i : i + 1])
        assert stats.kstest(alone.radii(x[k == i]).square().numpy(), stats.chi2(2).cdf).pvalue > 1e-3


@EVERY
def test_a_draw_is_the_same_in_every_batch(law: Mixture) -> None:
    whole = law.sample(9, seed=2, first_index=5)
    assert torch.equal(whole[4:7], law.sample(3, seed=2, first_index=9))
    assert torch.equal(whole[8:], law.sample(1, seed=2, first_index=13))


# --- the diffused law ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", PROCESSES)
def test_the_diffused_law_is_that_of_perturbed_draws(name: str) -> None:
    law, sde, n = LAWS["plane"], PROCESSES[name], 20_000
    t = 0.4 * sde.T
    x0, eps = law.sample(n), normal(9, Purpose.NOISE, 0, 0, n, (2,), torch.float64)
    x, diffused = sde.perturb(x0, t, eps), law.diffused(sde, t)
    x = (x - diffused.mean) @ torch.linalg.inv(torch.linalg.cholesky(diffused.covariance)).mT
    assert (x.mean(0).abs() < 4.5 / math.sqrt(n)).all()
    assert ((x.mT @ x / n - torch.eye(2)).abs() < 4.5 * math.sqrt(3 / n)).all()


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("law", [LAWS["plane"], LAWS["image"]], ids=["plane", "image"])
def test_the_denoiser_satisfies_tweedies_formula(law: Mixture, name: str) -> None:
    sde = PROCESSES[name]
    model = law.denoiser(sde)
    for t in sde.T * f64(0.05, 0.5, 0.9):
        diffused, x = law.diffused(sde, t), law.diffused(sde, t).sample(30)
        tweedie = (x + sde.variance(t) * gradient(diffused.log_prob, x)) / sde.alpha(t)
        assert torch.allclose(model(x, t), tweedie, rtol=1e-8, atol=1e-8)
        assert torch.allclose(model.score(x, t), diffused.score(x), rtol=1e-8, atol=1e-8)
        assert torch.equal(model(x, t), model(x, t.expand(30))) or torch.allclose(
            model(x, t), model(x, t.expand(30)), rtol=1e-12)


def test_times_may_differ_from_row_to_row() -> None:
    law, t = LAWS["space"], torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x, model = points(law, 6), law.denoiser(VP_)
    for fn in (model, model.covariance, model.error, lambda x, t: class_posterior(law, VP_, x, t)):
        rows = torch.cat([fn(x[i : i + 1], t[i]) for i in range(6)])
        assert torch.allclose(fn(x, t), rows, rtol=1e-10)


@pytest.mark.parametrize("name", ["cosine", "rectified_flow"])
def test_at_the_end_of_a_flow_the_denoiser_is_the_mean(name: str) -> None:
    law = LAWS["plane"]
    assert torch.allclose(law.denoiser(PROCESSES[name])(points(law), 1.0), law.mean.expand(20, 2), rtol=1e-12)


@EVERY
def test_the_conditional_covariance_is_the_derivative_of_the_denoiser(law: Mixture) -> None:
    # Cov(x_0 | x_t) = (σ²/α) ∂D/∂x_t
    model, x, t, d = law.denoiser(VP_), points(law, 6), f64(0.3)[0], law.dim
    J = vmap(jacrev(lambda row: model(row[None], t)[0]))(x).reshape(6, d, d)
    assert torch.allclose(model.covariance(x, t), VP_.variance(t) / VP_.alpha(t) * J, rtol=1e-8, atol=1e-10)
    assert torch.allclose(model.error(x, t), model.covariance(x, t).diagonal(dim1=1, dim2=2).sum(-1), rtol=1e-10)


def test_the_least_error_is_the_closed_form_of_a_gaussian_and_the_error_of_draws_of_a_mixture() -> None:
    times = f64(0.05, 0.3, 0.9)
    gaussian, eye = LAWS["gaussian"], torch.eye(3, dtype=torch.float64)
    closed = [torch.trace(gaussian.covariance - VP_.alpha(t) ** 2 * gaussian.covariance @ torch.linalg.solve(
        VP_.alpha(t) ** 2 * gaussian.covariance + VP_.variance(t) * eye, gaussian.covariance)) for t in times]
    got = gaussian.mmse(VP_, times, n=16)
    assert torch.allclose(got.value, torch.stack(closed), rtol=1e-10) and (got.stderr < 1e-12).all()
    law, n = LAWS["plane"], 50_000
    x0, eps = law.sample(n, seed=8), normal(8, Purpose.NOISE, 0, 0, n, (2,), torch.float64)
    for t in times:
        loss = (law.denoiser(VP_)(VP_.perturb(x0, t, eps), t) - x0).square().sum(1)
        least = law.mmse(VP_, t)
        assert abs(least.value - loss.mean()) < 4 * math.hypot(least.stderr, loss.std() / math.sqrt(n))
        assert least.value.ndim == 0


def test_point_masses_are_a_law_of_x_t() -> None:
    data = points(LAWS["plane"], 50)
    law, x, t = Mixture(torch.ones(50), data, 0.0), points(LAWS["plane"], 7), f64(0.2)[0]
    distance = torch.cdist(x, VP_.alpha(t) * data).square()
    weights = (-0.5 * distance / VP_.variance(t)).softmax(1)
    assert torch.allclose(law.denoiser(VP_)(x, t), weights @ data, rtol=1e-10)
    assert torch.equal(law.sample(5), data[law.sample(5, labels=True)[1]])


# --- classes ---------------------------------------------------------------------------------------------------------

def test_a_label_is_the_law_of_that_class() -> None:
    law, x, t = LAWS["space"], points(LAWS["space"]), f64(0.3)[0]
    model = law.denoiser(VP_)
    for c in range(2):
        alone = law.given(c).denoiser(VP_)
        assert torch.allclose(model(x, t, label=c), alone(x, t), rtol=1e-10)
        assert torch.allclose(model.given(label=torch.full((20,), c))(x, t), alone(x, t), rtol=1e-10)
        assert torch.allclose(model.covariance(x, t, label=c), alone.covariance(x, t), rtol=1e-9)
    assert torch.equal(model(x, t, label=2), model(x, t))  # the null label
    mixed = model(x, t, label=torch.tensor([0, 1] * 10))
    assert torch.allclose(mixed[::2], model(x[::2], t, label=0), rtol=1e-12)
    assert torch.allclose(mixed[1::2], model(x[1::2], t, label=1), rtol=1e-12)


def test_the_class_posterior_is_bayes_rule_at_time_t() -> None:
    law, x, t = LAWS["space"], points(LAWS["space"]), f64(0.3)[0]
    share = torch.stack([law.weights[law.labels == c].sum() for c in range(2)])
    joint = torch.stack([share[c] * law.given(c).diffused(VP_, t).log_prob(x).exp() for c in range(2)], 1)
    assert torch.allclose(class_posterior(law, VP_, x, t), joint / joint.sum(1, keepdim=True), rtol=1e-9)


# --- observations ----------------------------------------------------------------------------------------------------

def test_the_posterior_is_bayes_rule_on_a_grid() -> None:
    law, A, y, noise = LAWS["plane"], f64(1.0, -0.5)[None], f64(0.7), 0.4
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    joint = law.log_prob(grid) - 0.5 * ((y - (grid @ A.mT)[:, 0]) / noise) ** 2
    weight = joint.softmax(0)
    post = law.posterior(A, y, noise)
    mean = weight @ grid
    assert torch.allclose(post.mean, mean, atol=1e-8)
    assert torch.allclose(post.covariance, torch.einsum("n,ni,nj->ij", weight, grid - mean, grid - mean), atol=1e-8)
    cell = float(axis[1] - axis[0]) ** 2
    assert torch.allclose(post.log_prob(grid[::997]).exp(), weight[::997] / cell, rtol=1e-6, atol=1e-9)


@EVERY
def test_observing_everything_without_noise_leaves_a_point(law: Mixture) -> None:
    x = law.sample(1)
    post = law.posterior(torch.eye(law.dim), x, 1e-6)
    assert torch.allclose(post.mean, x[0], atol=1e-9) and post.covariance.diagonal().max() < 1e-11


def test_denoising_is_the_posterior_under_a_multiple_of_the_identity() -> None:
    # x_t = α x_0 + σ ε is an observation of x_0
    law, t = LAWS["plane"], f64(0.3)[0]
    x = points(law, 5)
    for row in x:
        post = law.posterior(VP_.alpha(t) * torch.eye(2, dtype=torch.float64), row, VP_.sigma(t))
        assert torch.allclose(law.denoiser(VP_)(row[None], t)[0], post.mean, rtol=1e-9)
        assert torch.allclose(law.denoiser(VP_).covariance(row[None], t)[0], post.covariance, rtol=1e-8)


def test_noise_may_differ_from_observation_to_observation() -> None:
    law, A, y = LAWS["gaussian"], normal(0, 0, 0, 0, 2, (3,), torch.float64), f64(0.3, -1.0)
    whole = law.posterior(A, y, f64(0.2, 0.7))
    one_by_one = law.posterior(A[:1], y[:1], 0.2).posterior(A[1:], y[1:], 0.7)
    assert torch.allclose(whole.mean, one_by_one.mean, rtol=1e-10)
    assert torch.allclose(whole.covariance, one_by_one.covariance, rtol=1e-9, atol=1e-12)


# --- fitting ---------------------------------------------------------------------------------------------------------

def test_fitting_finds_the_law_of_its_draws() -> None:
    law = Mixture([1, 3], [[-3.0, 0.0], [3.0, 1.0]], [[[1.0, 0.5], [0.5, 1.0]], [[0.3, 0.0], [0.0, 0.6]]])
    fitted = Mixture.fit(law.sample(8000), 2, reg=1e-9)
    order = fitted.means[:, 0].argsort()
    assert torch.allclose(fitted.weights[order], law.weights, atol=4 * math.sqrt(0.1875 / 8000))
    assert torch.allclose(fitted.means[order], law.means, atol=4 / math.sqrt(2000))
    assert torch.allclose(fitted.covariances[order], law.covariances, atol=4 * math.sqrt(2 / 2000))
    again = Mixture.fit(law.sample(8000), 2, reg=1e-9)
    assert torch.equal(again.means, fitted.means)


@pytest.mark.slow
def test_a_mixture_of_digits_draws_digits() -> None:
    from sklearn.datasets import load_digits

    images, y = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
    x = (images / 8 - 1).reshape(-1, 1, 8, 8)
    order = permutation(0, Purpose.ORDER, 0, len(x))
    train, held = order[:1300], order[1300:]
    law = Mixture.fit(x[train], 3, labels=y[train])
    assert law.classes == 10 and law.shape == (1, 8, 8)
    drawn, asked = law.sample(500, labels=True)
    predict = classifier(x[train], y[train])
    assert agreement(predict(x[held]), y[held]).value > 0.97
    assert agreement(predict(drawn), asked).value > 0.97
    posterior = class_posterior(law, EDM(), x[held], 0.3).argmax(1)
    assert agreement(posterior, y[held]).value > 0.93


# --- mistakes --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [
    lambda: LAWS["plane"].score(torch.zeros(2)), lambda: LAWS["plane"].log_prob(torch.zeros(5, 3)),
    lambda: LAWS["image"].score(torch.zeros(2, 6)), lambda: LAWS["numbers"].score(torch.zeros(3)),
    lambda: LAWS["plane"].denoiser(VP_)(torch.zeros(3, 2), f64(0.1, 0.2)),
    lambda: LAWS["plane"].diffused(VP_, f64(0.1, 0.2)),
    lambda: Mixture([1, -1], [[0.0], [1.0]], 1.0), lambda: Mixture([0, 0], [[0.0], [1.0]], 1.0),
    lambda: Mixture([1], [[0.0], [1.0]], 1.0), lambda: Mixture([1], 0.0, 1.0),
    lambda: Mixture([1], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]),
    lambda: Mixture([1], [[0.0, 0.0]], [[[1.0, 0.5], [0.1, 1.0]]]),
    lambda: Mixture([1], [[0.0, 0.0]], [[1.0, 1.0]]), lambda: Mixture([1], [[math.nan]], 1.0),
    lambda: Mixture([1, 1], [[0.0], [1.0]], 1.0, labels=[0]), lambda: Gaussian([0.0], -1.0),
    lambda: LAWS["plane"].denoiser(VP_)(torch.zeros(1, 2), 0.1, label=0),
    lambda: LAWS["space"].denoiser(VP_)(torch.zeros(1, 5), 0.1, label=3),
    lambda: LAWS["space"].denoiser(VP_)(torch.zeros(1, 5), 0.1, label=torch.tensor([-1])),
    lambda: LAWS["space"].given(2),
    lambda: LAWS["plane"].posterior(torch.eye(2), f64(1.0), 0.1), lambda: Mixture.fit(torch.zeros(3, 2), 2),
])
def test_mistakes_are_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="got"):
        wrong()


@EVERY
def test_the_model_knows_the_moments_and_starts_from_them(law: Mixture) -> None:
    model, n = law.denoiser(VP(beta_max=1.0)), 20_000  # far from all noise at T
    assert model.sigma_data == pytest.approx(float(law.covariance.diagonal().mean().sqrt()), rel=1e-10)
    start, end = model.prior_sample(n, 0, 0).reshape(n, -1), law.diffused(model.sde, 1.0)
    centred = start - end.mean.reshape(-1)
    sd = end.covariance.diagonal().sqrt()
    assert (centred.mean(0).abs() < 4.5 * sd / math.sqrt(n)).all()
    assert ((centred.mT @ centred / n - end.covariance).abs() < 4.5 * math.sqrt(2 / n) * sd[:, None] * sd).all()


def test_a_gaussian_is_restored_by_its_moments_alone() -> None:
    law, t = LAWS["gaussian"], f64(0.3)[0]
    model, x = law.denoiser(VP_), points(law)
    assert model.moments is not None
    linear = model.moments.wiener(x / VP_.alpha(t), float(VP_.sigma(t) / VP_.alpha(t)))
    assert torch.allclose(model(x, t), linear, rtol=1e-9, atol=1e-12)
