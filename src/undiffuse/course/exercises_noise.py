"""Checks of chapters 0 to 2: variances, Brownian motion, processes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from undiffuse.course.checking import ExerciseCheck, compare
from undiffuse.processes import Linear

Rate = Callable[[Tensor], Tensor]
X = torch.tensor([-1.5, 0.2, 2.0], dtype=torch.float64)


def variance(answer: Any) -> str | None:
    """variances add after squaring the factors"""
    complaint = compare(answer, 0.6**2 * 2 + 0.8**2, {
        "you added the factors; a factor c multiplies the variance by c²": 0.6 * 2 + 0.8,
        "that is the standard deviation; the variance is its square": math.sqrt(0.6**2 * 2 + 0.8**2),
        "X has variance 2, not 1": 1.0, "2 is already the variance of X; do not square it": 0.6**2 * 4 + 0.8**2,
        "square the factor of Z too": 0.6**2 * 2 + 0.8})
    hint = "; square each factor, multiply it by its variance, and add"
    return complaint.replace(", expected 1.36", hint) if complaint else None


def euler_maruyama(step: Any) -> str | None:
    """drift times dt, plus diffusion times the given increment"""
    dt, dw = 0.01, torch.tensor([0.1, -0.05, 0.2], dtype=torch.float64)

    def f(x: Tensor, t: float) -> Tensor:
        return -x

    def g(t: float) -> float:
        return 0.5 + t

    drift, noise = f(X, 0.3) * dt, g(0.3) * dw
    return compare(step(X, f, g, 0.3, dt, dw), X + drift + noise, {
        "dw is an increment already; do not multiply it by √dt": X + drift + noise * math.sqrt(dt),
        "dw is an increment already; do not multiply it by dt": X + drift + noise * dt,
        "the drift has to be multiplied by dt": X + f(X, 0.3) + noise,
        "the diffusion coefficient g(t) is missing": X + drift + dw,
        "the noise is g dw; its variance is g² dt": X + drift + g(0.3) ** 2 * dw,
        "add the drift; f contains its sign": X - drift + noise,
        "that is only the change; add it to x": drift + noise,
        "the noise is missing": X + drift})


def rates(answer: Any) -> str | None:
    """the drift is an increment per unit of time, and g² dt is the variance of a step"""
    b, dt = 0.004, 1e-3
    right = (-0.5 * b / dt, math.sqrt(b / dt))
    got = answer(b, dt)
    exact = ((math.sqrt(1 - b) - 1) / dt, math.sqrt(b / dt))
    mistakes = {
        "√(1−β) and √β describe one step; give rates per unit of time": (math.sqrt(1 - b), math.sqrt(b)),
        "the noise of a step is g √dt, so g is √β divided by √dt": (right[0], math.sqrt(b) / dt),
        "√(1−β) multiplies x; the drift is its increment √(1−β) − 1 per unit of time": (math.sqrt(1 - b), right[1]),
        "divide by dt: a rate is an increment per unit of time": (-0.5 * b, math.sqrt(b)),
        "that is g²; take its square root": (right[0], b / dt),
        "a factor ½ is missing: √(1−β) = 1 − β/2 + ...": (-b / dt, right[1]),
        "the drift pulls towards zero; check its sign": (0.5 * b / dt, right[1])}
    return None if compare(got, exact) is None else compare(got, right, mistakes)


def kernel(answer: Any) -> str | None:
    """α is the exponential of the integral of f, and noise added at s shrinks by α(t)/α(s)"""
    cases: dict[str, tuple[Rate, Rate]] = {
        "VP": (lambda t: -0.05 - 9.95 * t, lambda t: 0.1 + 19.9 * t),
        "Ornstein-Uhlenbeck": (lambda t: -0.7 + 0 * t, lambda t: 1.69 + 0 * t)}
    for name, (f, g2) in cases.items():
        truth, t = Linear(f, g2), torch.tensor(0.4, dtype=torch.float64)
        log_alpha = truth.alpha(t).log()
        alpha, s = truth.alpha(t), torch.linspace(0, 0.4, 4001, dtype=torch.float64)
        shrunk = [torch.trapezoid(g2(s) * (alpha / truth.alpha(s)) ** k, s) for k in (0, 1, -2)]
        complaint = compare(answer(f, g2, 0.4), (alpha, truth.variance(t)), {
            "that is log α; take the exponential": (log_alpha, truth.variance(t)),
            "the variances shrink after they are added: weight g² by α(t)²/α(s)²": (alpha, shrunk[0]),
            "noise shrinks by α(t)/α(s), so its variance shrinks by the square": (alpha, shrunk[1]),
            "the ratio is inverted: noise added at s shrinks by α(t)/α(s)": (alpha, shrunk[2]),
            "σ² = 1 − α² holds for VP only": (alpha, 1 - alpha**2),
            "a sum is not an integral: multiply by the step, or use torch.trapezoid": (alpha, 1e4 * truth.variance(t)),
            "that is the standard deviation; return the variance": (alpha, truth.variance(t).sqrt()),
        }, 2e-3)
        if complaint:
            return f"{name}: {complaint}"
    return None


def vp_kernel(answer: Any) -> str | None:
    """e^{−B/2} is the coefficient of the mean itself, without another square root"""
    t = 0.3
    B = 0.1 * t + 9.95 * t**2
    alpha = math.exp(-B / 2)
    return compare(answer(torch.tensor(t, dtype=torch.float64)), (alpha, math.sqrt(1 - alpha**2)), {
        "that is still .793 and .609: one square root too many": (math.sqrt(alpha), math.sqrt(1 - alpha)),
        "the mean is right now; the standard deviation is √(1 − α²), not √(1 − α)": (alpha, math.sqrt(1 - alpha)),
        "the mean is right now; under the square root use ᾱ = α², not its square": (
            alpha, math.sqrt(1 - alpha**4)),
        "that is ᾱ = α²; the mean is multiplied by α": (alpha**2, math.sqrt(1 - alpha**2)),
        "that is the variance; return the standard deviation": (alpha, 1 - alpha**2)})


def sub_vp(answer: Any) -> str | None:
    """below the standard deviation of VP at every time"""
    B = 0.7
    return compare(answer(torch.tensor(B, dtype=torch.float64)), float(-math.expm1(-B)), {
        "that is the standard deviation of VP": math.sqrt(-math.expm1(-B)),
        "1 − e^{−2B} is in g²; insert V = (1 − e^{−B})² into the equation and check": -math.expm1(-2 * B),
        "that is the variance; take the square root": math.expm1(-B) ** 2,
        "that is e^{−B}; subtract it from 1": math.exp(-B)})


def schedule(answer: Any) -> str | None:
    """log-SNR decreases by the same amount in every step, and little of the data is left at the end"""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha = torch.as_tensor(answer(t), dtype=torch.float64)
    if alpha.shape != t.shape:
        return f"got shape {tuple(alpha.shape)} for {len(t)} times, expected one α per time"
    if not ((alpha > 0) & (alpha < 1)).all():
        return "α has to lie strictly between 0 and 1 at every t in [0, 1]; at 0 and 1 the log-SNR is infinite"
    if alpha[-1] >= 0.01:
        return f"α(1) = {float(alpha[-1]):.3g}: too much of the data is left; bring it below .01"
    if alpha[0] < 0.99:
        return f"α(0) = {float(alpha[0]):.3g}: at t = 0 almost all of the data should be left"
    steps = torch.diff(torch.log(alpha) - 0.5 * torch.log1p(-alpha**2))
    uneven = float((steps / steps.mean() - 1).abs().max())
    return None if uneven < 1e-3 else (
        f"log(α/√(1 − α²)) changes unevenly (by up to {100 * uneven:.0f} %); solve λ = a − bt for α")


CHECKS: dict[str, ExerciseCheck] = {
    "c0.1": variance, "c1.1": euler_maruyama, "c1.2": rates, "c2.1": kernel, "c2.2": vp_kernel, "c2.3": sub_vp,
    "c2.4": schedule,
}
