"""Checks of chapters 3 to 5: the score, time reversal, and learning the score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from undiffuse.course.checking import BLANK, ExerciseCheck, compare
from undiffuse.course.helpers import randn
from undiffuse.mixture import Mixture
from undiffuse.processes import VP

MIXTURE = Mixture([0.3, 0.7], [[-2.0], [2.0]], 0.25)
W, MU = MIXTURE.weights, MIXTURE.means[:, 0]


def mixture_score(answer: Any) -> str | None:
    """a softmax of log densities; p itself would underflow"""
    near = torch.tensor([-2.3, 0.0, 0.4, 1.9], dtype=torch.float64)
    truth = MIXTURE.score(near[:, None])[:, 0]
    nearest = torch.where(near > 0, 2 - near, -2 - near) / 0.25
    joint, pulls = W.log() - 2 * (near[:, None] - MU) ** 2, (MU - near[:, None]) / 0.25
    complaint = compare(answer(near, W, MU, 0.25), truth, {
        "that is the nearest mode only; weight all pulls by their responsibilities": nearest,
        "the sign is wrong: the score points towards the modes": -truth,
        "the softmax has to run over the components, dim 1": (joint.softmax(0) * pulls).sum(1),
        "those are the weights of the modes; use the responsibilities at the point": (W * pulls).sum(1),
        "divide by the sum over the components: responsibilities sum to 1": (joint.exp() * pulls).sum(1),
        "sum over the components; the responsibilities already average": truth / 2,
        "that is log p, up to a constant; the score is its gradient": joint.logsumexp(1),
        "divide by the variance: a pull is (μ − x)/σ²": truth * 0.25}, 1e-4)
    if complaint:
        return complaint
    far = torch.tensor([50.0], dtype=torch.float64)
    value = answer(far, W, MU, 0.25)
    if value is None or not torch.as_tensor(value).isfinite().all() or abs(float(value)) < 1:
        return "at x = 50 the densities underflow to 0; use the softmax of log w + log N"
    return compare(value, MIXTURE.score(far[:, None])[:, 0])


def fokker_planck(answer: Any) -> str | None:
    """transport by the drift and diffusion with ½ g²"""
    sde, n, start, end = VP(), 4000, 0.05, 0.15
    x = torch.linspace(-5, 5, 401, dtype=torch.float64)
    p, dx, dt = MIXTURE.diffused(sde, start).log_prob(x[:, None]).exp(), float(x[1] - x[0]), (end - start) / n
    if complaint := _coefficients(answer, p, x, dx, dt):
        return complaint
    for i in range(n):
        t = torch.tensor(start + i * dt, dtype=torch.float64)
        beta = 0.1 + 19.9 * float(t)
        p = answer(p, -0.5 * beta * x, beta, dx, dt)
        if not p.isfinite().all() or p.abs().max() > 10:
            return "the density blew up: check the signs of drift and diffusion, and the powers of dx"
    error = float((p - MIXTURE.diffused(sde, end).log_prob(x[:, None]).exp()).abs().sum() * dx)
    mass_error = abs(float(p.sum()) * dx - 1)
    hint = "mass is lost" if mass_error > 0.02 else "check ½ g² and the sign of the derivative of f p"
    return None if error < 0.01 else f"after the run ∫|p − exact| = {error:.3f}, expected below .01: {hint}"


def _coefficients(answer: Any, p: Tensor, x: Tensor, dx: float, dt: float) -> str | None:
    """A hint from the coefficients of p, (f p)' and g² p'' in one step, which should be 1, −1 and ½."""
    after, f, g2 = answer(p, -0.5 * x, 1.0, dx, dt), -0.5 * x, 1.0
    if after is None or after is ...:
        return BLANK
    first = (torch.roll(f * p, -1) - torch.roll(f * p, 1)) / (2 * dx)
    second = (torch.roll(p, -1) - 2 * p + torch.roll(p, 1)) / dx**2
    terms = torch.stack([p, dt * first, dt * g2 * second], 1)
    identity, drift, spread = torch.linalg.lstsq(terms, after).solution.tolist()
    mistakes = {"that is only the change; add it to p": abs(identity) < 0.1,
             "the change has to be multiplied by dt": max(abs(drift), abs(spread)) > 100,
             "the transport term is minus the derivative of f p": drift > 0.1,
             "the derivative of f p is missing": abs(drift) < 0.1,
             "the diffusion term is plus ½ g² times the second derivative of p": spread < -0.1,
             "the second derivative of p is missing": abs(spread) < 0.1,
             "the diffusion coefficient is ½ g²": abs(spread - 1) < 0.1}
    return next((hint for hint, applies in mistakes.items() if applies), None)


def importance(answer: Any) -> str | None:
    """the average of the kernel scores over the posterior"""
    x0, alpha, sigma, x = MIXTURE.sample(20_000, 5)[:, 0], 0.7, 0.6, torch.tensor([-0.5, 0.3, 1.2], dtype=torch.float64)
    pull = (alpha * x0 - x[:, None]) / sigma**2
    weight = (-0.5 * ((x[:, None] - alpha * x0) / sigma) ** 2).softmax(1)
    truth = (weight * pull).sum(1)
    got = torch.stack([torch.as_tensor(answer(point, x0, alpha, sigma), dtype=torch.float64) for point in x])
    return compare(got, truth, {
        "all samples have equal weight; weight each by the likelihood of x given it": pull.mean(1),
        "the weight is the density of α x₀ + σ z at x, whose mean is α x₀": (
            (-0.5 * ((x[:, None] - x0) / sigma) ** 2).softmax(1) * pull).sum(1),
        "divide by the sum of the weights": (weighted := (-0.5 * sigma**2 * pull**2).exp() * pull).sum(1),
        "divide by the sum of the weights, not by n": weighted.mean(1),
        "the sign is wrong: the score of a kernel is (α x₀ − x)/σ²": -truth,
        "divide by σ², not by σ": truth * sigma})


def reverse_drift(answer: Any) -> str | None:
    """f − g² s, with dt < 0"""
    f, g, s = -0.4, 1.5, 0.8
    return compare(answer(f, g, s), f - g**2 * s, {
        "that sign is for dt > 0; here dt < 0": f + g**2 * s,
        "that is −(f − g² s): this is for dt > 0; here dt < 0": -f + g**2 * s,
        "that is the probability-flow ODE; the SDE has all of g² s": f - 0.5 * g**2 * s,
        "f keeps its sign: it is the same drift, with dt < 0": -f - g**2 * s,
        "g has to be squared": f - g * s})


def signs(answer: Any) -> str | None:
    """one of the four combinations reaches the data"""
    return compare(answer, (1, -1), {
        "the score pushes away from the data with this sign when dt < 0": (1, 1),
        "f keeps its sign: dx = f dt holds forward and backward": (-1, -1),
        "both signs are for dt > 0": (-1, 1)})


def family(answer: Any) -> str | None:
    """noise η g needs the score term ½ (1 + η²) g² s"""
    f, g, s = -0.4, 1.5, 0.8
    etas = (0.0, 0.5, 1.0, 1.5)

    def values(weight: Any) -> list[float]:
        return [f - weight(e) * g**2 * s for e in etas]

    return compare([answer(f, g, s, e) for e in etas], values(lambda e: 0.5 * (1 + e**2)), {
        "η enters squared, as in the variance of the noise": values(lambda e: 0.5 * (1 + e)),
        "at η = 0 half of the score term must remain": values(lambda e: 0.5 * e**2),
        "that is Anderson's drift for every η": values(lambda e: 1.0),
        "without noise half of the score must remain: ½ (1 + η²)": values(lambda e: e**2),
        "the factor is 1 + η², not (1 + η)²": values(lambda e: 0.5 * (1 + e) ** 2),
        "the factor ½ is missing": values(lambda e: 1 + e**2)})


def dsm(answer: Any) -> str | None:
    """zero for a single data point, and the lower bound for the exact score of a distribution"""
    alpha, sigma, n = 0.8, 0.5, 20_000
    z = randn(n, 2, seed=3)
    point = torch.full((n, 2), 1.5, dtype=torch.float64)

    def of_point(x: Tensor) -> Tensor:
        return (alpha * 1.5 - x) / sigma**2

    loss = torch.as_tensor(answer(of_point, point, z, alpha, sigma))
    if loss.shape != (n,):
        return f"got shape {tuple(loss.shape)}, expected one loss per sample, ({n},)"
    if float(loss.abs().max()) < 1e-9:
        x0 = randn(n, 2, seed=4)
        got = answer(lambda x: -x / (alpha**2 + sigma**2), x0, z, alpha, sigma).mean()
        floor = 2 * alpha**2 / (alpha**2 + sigma**2)
        hint = "sum over the coordinates" if abs(float(got) - floor / 2) < 0.05 else "weight by σ²"
        return None if abs(float(got) - floor) < 0.05 else (
            f"for N(0, I) the exact score should reach the lower bound {floor:.3f}, got {float(got):.3f}: {hint}")
    return compare(loss, torch.zeros(n), {
        "the target of σ s is −z, so the error is σ s + z": (2 * z).square().sum(1),
        "σ s has the target −z; the σ is missing": (of_point(alpha * point + sigma * z) + z).square().sum(1),
        "the noisy point is α x₀ + σ z": _unscaled(of_point, point, z, alpha, sigma)})


def _unscaled(score: Any, x0: Tensor, z: Tensor, alpha: float, sigma: float) -> Tensor:
    error: Tensor = (sigma * score(x0 + sigma * z) + z).square().sum(1)
    return error


def bias_variance(answer: Any) -> str | None:
    """the cross term has mean zero"""
    z, a = randn(500, 3, seed=1) * 2 + 1, torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    mean = z.mean(0)
    bias, spread = (mean - a).square().sum(), (z - mean).square().sum(1).mean()
    return compare(answer(z, a), (bias, spread), {
        "square and sum the first": ((mean - a).norm(), spread),
        "the order is wrong: first the squared bias, then the variance": (spread, bias),
        "an average divides by n; var divides by n − 1": (bias, spread * 500 / 499),
        "the first is the distance of the mean from a, not of the samples": (bias + spread, spread),
        "that is the mean over coordinates; sum over them": (bias / 3, spread / 3),
        "the variance is about the mean of Z, not about a": (bias, (z - a).square().sum(1).mean())})


def embedding(answer: Any) -> str | None:
    """a network can distinguish all noise levels"""
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    features = torch.as_tensor(answer(t), dtype=torch.float64)
    if features.ndim != 2 or len(features) != 400 or features.shape[1] < 8:
        return f"got shape {tuple(features.shape)}, expected (400, at least 8)"
    s = torch.linalg.svdvals(features - features.mean(0))
    rank = int((s > 1e-2 * s[0]).sum())
    return None if rank >= 8 else f"only {rank} directions change visibly with t; scale t, or spread the frequencies"


def adam(answer: Any) -> str | None:
    """both averages are bias-corrected"""
    p, g = torch.tensor([0.3, -0.2], dtype=torch.float64), torch.tensor([0.5, -2.0], dtype=torch.float64)
    reference = p.clone().requires_grad_(True)
    optimizer, m, v = torch.optim.Adam([reference], lr=0.1), torch.zeros_like(p), torch.zeros_like(p)
    for k in (1, 2, 3):
        gradient = g * k
        reference.grad = gradient
        optimizer.step()
        got = answer(p, gradient, m, v, k)
        if not isinstance(got, tuple) or len(got) != 3:
            return "return three tensors: the parameters, and the two averages"
        p, m, v = got
        if complaint := compare(p, reference, tol=1e-5):
            hint = f"after step {k}: {complaint}; are both averages divided by 1 − bᵏ?"
            return complaint if "blank" in complaint else hint
    return None


CHECKS: dict[str, ExerciseCheck] = {
    "c3.1": mixture_score, "c3.2": fokker_planck, "c3.3": importance, "c4.1": signs, "c4.2": reverse_drift,
    "c4.3": family, "c5.1": dsm, "c5.2": bias_variance, "c5.3": embedding, "c5.4": adam,
}
