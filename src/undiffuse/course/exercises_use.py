"""Checks of chapters 6 to 11: solvers, likelihood, DDPM, images, inverse problems, latents."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from undiffuse.chains import DDPM, linear_betas
from undiffuse.course.checking import BLANK, ExerciseCheck, compare
from undiffuse.course.helpers import randn
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample

MIXTURE = Mixture([0.4, 0.6], [[-1.5], [1.0]], [0.06, 0.1])


def heun(answer: Any) -> str | None:
    """halving the step divides the error by four"""
    def v(x: Tensor, t: float) -> Tensor:
        return -x * (1 + t)

    x, errors = torch.tensor([1.0, -2.0], dtype=torch.float64), []
    truth = x * math.exp(1.5)  # from t = 1 back to t = 0
    for n in (20, 40):
        y = x
        for i in range(n):
            y = answer(v, y, 1 - i / n, 1 - (i + 1) / n)
            if y is None or y is ...:
                return BLANK
        errors.append(float((y - truth).abs().max()))
    order = math.log2(errors[0] / errors[1]) if min(errors) > 0 else math.inf
    if errors[1] > 1:
        return "the direction is wrong: the step is s − t, which is negative backward in time"
    if order < 1.7:
        return f"the order is {order:.1f}, expected 2: average v at (x, t) and v at the Euler step's end, at time s"
    return None


def langevin_size(answer: Any) -> str | None:
    """noise and score have the same ratio at every noise level"""
    r, z, s, a = 0.16, 28.0, 14.0, 0.99
    return compare(answer(r, z, s, a), 2 * a * (r * z / s) ** 2, {
        "‖ξ‖ is missing: in d dimensions the step is d times too small": 2 * a * (r / s) ** 2,
        "the ratio is inverted: a long score needs a short step": 2 * a * (r * s / z) ** 2,
        "square the ratio of the norms": 2 * a * r * z / s,
        "α is missing": 2 * (r * z / s) ** 2, "the factor 2 is missing": a * (r * z / s) ** 2})


def grid(answer: Any) -> str | None:
    """the steps are where the flow bends most"""
    times = torch.as_tensor(answer, dtype=torch.float64)
    if times.shape != (11,) or not bool((times.diff() < 0).all()):
        return "give 11 strictly decreasing times"
    if abs(float(times[0]) - 1) > 1e-6 or abs(float(times[-1]) - 1e-3) > 1e-5:
        return "the grid has to run from 1 to .001"
    mixture = Mixture([1, 2, 1.5], [[-1.0, 0.4], [0.8, 0.9], [0.3, -1.0]], [0.02, 0.01, 0.03])
    start, model = randn(300, 2, seed=8), mixture.denoiser(VP())
    truth = sample(model, method="rk4_log_snr", steps=80, x_T=start, t_end=1e-3, denoise_last=False, block=300).x
    even = torch.linspace(1, 1e-3, 11, dtype=torch.float64)
    ends = [sample(model, method="ddim", grid=g, x_T=start, denoise_last=False, block=300).x for g in (times, even)]
    ratio = float((ends[0] - truth).abs().mean() / (ends[1] - truth).abs().mean())
    return None if ratio < 0.7 else (
        f"your error is {ratio:.2f} times the error of even steps; expected below .7 (try arctan σ/α)")


def quantile(answer: Any) -> str | None:
    """the flow on a line is the quantile map"""
    def cdf(x: Tensor) -> Tensor:
        std = MIXTURE.covariances[:, 0, 0].sqrt()
        value: Tensor = torch.special.ndtr((x[:, None] - MIXTURE.means[:, 0]) / std) @ MIXTURE.weights
        return value

    x = torch.tensor([-1.6, -1.0, 0.9, 1.3], dtype=torch.float64)
    return compare(answer(x, cdf), torch.special.ndtri(cdf(x)), {
        "that is the fraction of the data below x; which normal number has that fraction below it?": cdf(x)})


def kl_bound(answer: Any) -> str | None:
    """½ ∫ g² × squared error, plus the KL of the prior"""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    g2, err2 = 0.1 + 19.9 * t, 0.01 / (1 + t)
    integral = torch.trapezoid(g2 * err2, t)
    return compare(answer(t, g2, err2, 0.02), 0.02 + 0.5 * integral, {
        "a factor ½ is missing": 0.02 + integral, "KL(p_T‖π) is missing": 0.5 * integral,
        "that sums over the indices; use trapezoid with t": 0.02 + 0.5 * (g2 * err2).sum()})


def flow_density(answer: Any) -> str | None:
    """the divergence of the flow lowers the density"""
    return compare(answer(-1.4, 0.6), -0.8, {
        "check the sign: along the trajectory d log p/dt = −∇·v, so going back adds": -2.0})


def betas_back(answer: Any) -> str | None:
    """β = −d log ᾱ/dt, with factor one"""
    b = torch.tensor(linear_betas(200), dtype=torch.float64)
    bar = (1 - b).cumprod(0)
    right = -200 * torch.log1p(-b)
    return compare(answer(bar), right, {
        "too large by a factor of 2: −2 belongs to log √ᾱ": 2 * right,
        "too small by a factor of 2: ᾱ is already α²": right / 2,
        "divide by the step 1/N: multiply by N": right / 200, "check the sign: log ᾱ decreases": -right})


def rescale_betas(answer: Any) -> str | None:
    """the same noise in a tenth of the steps"""
    b = torch.as_tensor(answer, dtype=torch.float64)
    if b.shape != (100,) or not ((b > 0) & (b < 1)).all():
        return "give 100 numbers between 0 and 1"
    end = float((1 - b).prod())
    if end > 1e-3:
        return f"ᾱ at the end is {end:.3f}: too much signal is left to start from pure noise"
    gap = float((DDPM(tuple(b.tolist())).alpha(torch.tensor(0.5)) ** 2 - VP().alpha(torch.tensor(0.5)) ** 2).abs())
    return None if gap < 0.02 else (
        "the end is noise, but the middle differs from the long chain; scale all β by the same factor")


def to_score(answer: Any) -> str | None:
    """the factor depends on t"""
    e, bar = 0.7, 0.4
    return compare(answer(e, bar), -e / math.sqrt(1 - bar), {
        "check the sign: noise points away from the data, the score towards them": e / math.sqrt(1 - bar),
        "divide by σ instead of multiplying": -e * math.sqrt(1 - bar),
        "divide by σ = √(1 − ᾱ), not by σ²": -e / (1 - bar), "σ² is 1 − ᾱ, not ᾱ": -e / math.sqrt(bar),
        "the factor is not constant: divide by σ = √(1 − ᾱ)": -e})


def elbo_weight(answer: Any) -> str | None:
    """½ g² Δt in the limit"""
    b = torch.tensor([0.1, 0.01, 1e-4], dtype=torch.float64)
    return compare(answer(b), b / (2 * (1 - b)), {
        "that is the limit; for a finite step divide by 1 − β": b / 2, "the factor ½ is missing": b / (1 - b),
        "the denominator contains ς² = β": b**2 / (2 * (1 - b))})


def dropout(answer: Any) -> str | None:
    """one network learns p(x|y) and p(x)"""
    labels, u = torch.arange(8) % 4, torch.tensor([0.05, 0.5, 0.2, 0.09, 0.9, 0.11, 0.0, 0.3])
    right = torch.where(u < 0.1, 4, labels)
    return compare(answer(labels, u, 0.1, 4), right, {
        "the condition is inverted: replace where u < p": torch.where(u < 0.1, labels, 4),
        "0 is a class; the null label is a separate number": torch.where(u < 0.1, 0, labels)})


def guidance(answer: Any) -> str | None:
    """w = 0 unconditional, w = 1 conditional, above 1 extrapolation"""
    u, c = torch.tensor([0.2, -1.0]), torch.tensor([0.9, 0.5])
    ws = (0.0, 1.0, 3.0)
    return compare([answer(u, c, w) for w in ws], [u + w * (c - u) for w in ws], {
        "that starts from the conditional: here w = 1 is plain conditional": [c + w * (c - u) for w in ws],
        "the roles are swapped: w = 0 is unconditional": [c + w * (u - c) for w in ws]})


def kalman(answer: Any) -> str | None:
    """observed values shift the unobserved ones through their covariance"""
    mu, cov = torch.tensor([0.2, -0.1]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.8]]).double()
    A, y, s = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64), 0.5
    post = Gaussian(mu, cov).posterior(A, y, s)
    free, rough = (cov @ A.T @ torch.linalg.inv(A @ cov @ A.T + v * torch.eye(1)) for v in (0, s))
    return compare(answer(mu, cov, A, y, s), (post.mean, post.covariance.diagonal()), {
        "the noise of the observation is missing: S = A Σ Aᵀ + s² I": (
            mu + (free @ (y - A @ mu)), (cov - free @ A @ cov).diagonal()),
        "s is a standard deviation; its square is the variance": (
            mu + (rough @ (y - A @ mu)), (cov - rough @ A @ cov).diagonal()),
        "use the residual y − A μ, not y": (mu + cov @ A.T @ torch.linalg.inv(A @ cov @ A.T + s**2 * torch.eye(1)) @ y,
                                           post.covariance.diagonal())})


def likelihood_score(answer: Any) -> str | None:
    """the uncertainty of x₀ adds to the observation noise"""
    J, C = torch.tensor([[0.8, 0.1], [0.3, 0.5]]).double(), torch.tensor([[0.3, 0.1], [0.1, 0.2]]).double()
    A, e, s = torch.tensor([[1.0, 0.5]]).double(), torch.tensor([0.7]).double(), 0.2
    S = A @ C @ A.T + s**2 * torch.eye(1)
    return compare(answer(J, A, e, s, C), J.T @ A.T @ torch.linalg.solve(S, e), {
        "that is DPS: C, the uncertainty of x₀, is missing": J.T @ A.T @ e / s**2,
        "Jᵀ, not J: the Jacobian of a network is not symmetric": J @ A.T @ torch.linalg.solve(S, e),
        "the Jacobian ∂D/∂x is missing": A.T @ torch.linalg.solve(S, e),
        "square s": J.T @ A.T @ torch.linalg.solve(A @ C @ A.T + s * torch.eye(1), e)})


def class_weights(answer: Any) -> str | None:
    """every class has equal total weight, and the loss keeps its scale"""
    labels = torch.tensor([0, 0, 2, 1, 0, 1])
    counts = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    right = 2.0 / counts[labels]
    return compare(answer(labels), right, {
        "inverted: rare rows need larger weights": 2 * counts[labels] / 4,
        "those are the counts; divide by them": counts[labels],
        "their mean has to be 1, or the effective learning rate changes: multiply by N/K": 1 / counts[labels],
        "their sum is 1; their mean has to be 1": right / len(labels),
        "one weight per row, not per class: index by the labels": 2.0 / counts})


def impute_table(answer: Any) -> str | None:
    """the observed columns give mean and standard deviation of the missing ones"""
    from sklearn.datasets import load_wine

    rows = torch.as_tensor(load_wine().data, dtype=torch.float64)
    rows = (rows - rows.mean(0)) / rows.std(0)
    mean, cov = rows[::2].mean(0), rows[::2].T.cov()
    hidden = randn(len(rows[1::2]), rows.shape[1], seed=3) > 0.5
    scores = []
    for row, gone in zip(rows[1::2], hidden, strict=True):
        S, F = cov[~gone][:, ~gone], cov[gone][:, ~gone]
        gain = torch.linalg.solve(S, F.T).T
        right = (mean[gone] + gain @ (row[~gone] - mean[~gone]), (cov[gone][:, gone] - gain @ F.T).diagonal().sqrt())
        plain = (mean[gone], cov.diagonal()[gone].sqrt())
        if complaint := compare(answer(torch.where(gone, torch.nan, row), ~gone, mean, cov), right, {
                "that is the mean and standard deviation of the column; use the observed values": plain,
                "that is the variance; take the square root": (right[0], right[1].square()),
                "the mean is right; the observed values reduce the variance: subtract gain @ F.T": (right[0], plain[1]),
                "subtract the mean of the observed values first": (mean[gone] + gain @ row[~gone], right[1]),
                "add the mean of the missing values": (gain @ (row[~gone] - mean[~gone]), right[1])}):
            return complaint
        scores.append([crps(row[gone], *pair).sum() for pair in (right, plain)])
    score, baseline = (torch.tensor(scores, dtype=torch.float64).sum(0) / hidden.sum()).tolist()
    print(f"   CRPS on the hidden cells {score:.2f}; with column means and standard deviations {baseline:.2f}")
    return None


def crps(y: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The continuous ranked probability score of N(mean, std²) at y, smaller is better: Gneiting and Raftery (2007)."""
    z = (y - mean) / std
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    score: Tensor = std * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return score


def attention(answer: Any) -> str | None:
    """the values are averaged with the softmax of the scaled products"""
    q, k, v = randn(4, seed=1)[:, None], randn(3, 4, seed=2), randn(3, 4, seed=3)
    q = 2 * q[:, 0]
    fit = k @ q
    return compare(answer(q, k, v), (fit / 2).softmax(0) @ v, {
        "divide by √d before the softmax": fit.softmax(0) @ v,
        "divide by √d, not by d": (fit / 4).softmax(0) @ v,
        "the weights have to sum to 1: take the softmax": fit / 2 @ v,
        "those are the weights; average the values with them": (fit / 2).softmax(0),
        "the values are averaged, not the keys": (fit / 2).softmax(0) @ k})


def treatment(answer: Any) -> str | None:
    """the simulated effect is recovered by the decoder"""
    effect = torch.as_tensor(answer, dtype=torch.float64)
    if tuple(effect.shape) == (8,):
        return "that is the effect on the eight latents; decode it with axes.T"
    if tuple(effect.shape) != (60,):
        return f"got shape {tuple(effect.shape)}, expected (60,): average over the cells"
    six, others = float(effect[:6].mean()), float(effect[6:].abs().mean())
    if six < -1:
        return f"the six genes fall by {-six:.2f}: treated minus untreated"
    if others > 0.2:
        return f"the other genes seem to change by {others:.2f}: the centre cancels in a difference; do not add it"
    return None if abs(six - 1.5) < 0.2 else f"the six genes change by {six:.2f}; expected 1.5"


def pipeline_roles(answer: Any) -> str | None:
    """one network, evaluated at every step, and a rule for the steps"""
    if not isinstance(answer, dict) or ... in answer.values():
        return BLANK
    right = {"score model": "unet", "solver": "scheduler", "map to pixels": "vae", "prompt": "text_encoder"}
    wrong = [role for role, name in right.items() if answer.get(role) != name]
    return None if not wrong else f"check {' and '.join(wrong)}: print the parts of the pipeline"


def copy_ratio(answer: Any) -> str | None:
    """a ratio far below 1 means a copy"""
    train = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]], dtype=torch.float64)
    x = torch.tensor([[0.01, 0.0], [0.5, 0.1]], dtype=torch.float64)
    d = torch.cdist(x, train).sort(1).values
    return compare(answer(x, train), d[:, 0] / d[:, 1], {
        "that is the distance itself; divide by the distance to the second nearest": d[:, 0],
        "inverted: divide nearest by second nearest": d[:, 1] / d[:, 0]})


CHECKS: dict[str, ExerciseCheck] = {
    "c6.1": heun, "c6.2": langevin_size, "c6.3": grid, "c7.1": quantile, "c7.2": kl_bound, "c7.3": flow_density,
    "c8.1": betas_back, "c8.2": rescale_betas, "c8.3": to_score, "c8.4": elbo_weight, "c9.1": dropout, "c9.2": guidance,
    "c9.3": class_weights, "c10.1": kalman, "c10.2": likelihood_score, "c10.3": impute_table, "c11.1": attention,
    "c11.2": pipeline_roles, "c11.3": copy_ratio, "c11.4": treatment,
}
