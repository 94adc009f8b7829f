"""Combinators: functions that build a step from other steps.

    chain(predict, correct, ...)   go to s with the first, then correct at s with the others
    repeat(step, k)                go to s k times, diffusing back to t in between (resampling, "time travel")
    churn(step, ...)               raise the noise a little before every step
    restart(step, ...)             go back to more noise and down again k times
    impute(step, observed, mask)    keep the observed entries on their own diffusion

`sample(model, method=Method(lambda context: impute(repeat(step, 10), observed, mask), order=1))` runs one.
A step that starts from nodes outside the grid (in churn and restart) has to depend on its two endpoints only: any
`Singlestep`, any Runge-Kutta method, Euler-Maruyama, but no multistep method. Different combinators can be nested.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.ode import HEUN
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import Node, SamplerContext, State, Step, nodes_of
from undiffuse.samplers.runge_kutta import runge_kutta_sigma
from undiffuse.sde import SDE, GaussianSDE, euler_maruyama

_CHAIN, _REPEAT, _CHURN, _RESTART, _IMPUTE = 0, 128, 256, 384, 896
_MOST_CHURN = math.sqrt(2) - 1


def chain(first: Step, *others: Step) -> Step:
    """The first step goes from t to s, every other one starts and ends at s, like a corrector."""

    def step(state: State, s: Node) -> State:
        out = first(state, s)
        for k, other in enumerate(others):
            out = replace(out, x=other(state.substep(out.x, s, _CHAIN + k), s).x)
        return out

    return step


def repeat(step: Step, times: int) -> Step:
    """The step from t to s taken `times` times; before each further one x_s is diffused from s to t again.

    Reference: Lugmayr et al. (2022), RePaint, section 4.2. arXiv:2201.09865
    """
    _count("times", times, 1)

    def repeated(state: State, s: Node) -> State:
        out = step(state, s)
        for k in range(1, times):
            start = state.substep(out.x, state.node, _REPEAT + k)
            x = diffuse(_process(state), out.x, s, state.node, start.normal(state.node, 8, s))
            out = step(replace(start, x=x), s)
        return replace(out, noise=state.noise)

    return repeated


def churn(step: Step, amount: float, low: float = 0.0, high: float = math.inf, s_noise: float = 1.0) -> Step:
    """Raise σ̂ to (1 + γ) σ̂ by noise of standard deviation s_noise √(σ̂'² − σ̂²), then take the step from there.

    γ = min(amount, √2 − 1) where low ≤ σ̂ ≤ high, else 0.

    Args:
        step: the step to take from the raised level; it may depend on its two endpoints only.
        amount: S_churn/N, the largest γ; at most √2 − 1 is used.
        low: lowest σ̂ at which noise is added.
        high: highest σ̂ at which noise is added.
        s_noise: factor of the added noise's standard deviation.

    Reference: Karras et al. (2022), algorithm 2. arXiv:2206.00364
    """

    def churned(state: State, s: Node) -> State:
        node, level = state.node, math.exp(-state.node.log_snr)
        if amount <= 0 or not low <= level <= high or math.isinf(level):
            return step(state, s)
        up = _node(state, (1 + min(amount, _MOST_CHURN)) * level)
        start = state.substep(state.x, up, _CHURN)
        added = math.sqrt(max(0.0, (up.sigma / up.alpha) ** 2 - level**2))
        x = up.alpha * (state.x / node.alpha + s_noise * added * start.normal(up, 8, node))
        return replace(step(replace(start, x=x), s), noise=state.noise)

    return churned


def restart(step: Step, low: float, high: float, times: int, steps: int = 3) -> Step:
    """After the step that passes σ̂ = low: `times` times, add noise up to σ̂ = high and take `steps` steps down again.

    The added noise contracts earlier errors; the steps are usually deterministic.

    Args:
        step: the step; it may depend on its two endpoints only.
        low: σ̂ that the step has to pass for a restart.
        high: σ̂ up to which noise is added.
        times: number of restarts.
        steps: number of steps of each restart.

    Reference: Xu et al. (2023), "Restart sampling", algorithm 1. arXiv:2306.14878
    """
    _count("times", times, 0)
    _count("steps", steps, 1)
    if times * steps > _IMPUTE - _RESTART:
        raise InputError(f"got times={times} of steps={steps}; expected at most {_IMPUTE - _RESTART} steps in all")

    def restarted(state: State, s: Node) -> State:
        out = step(state, s)
        if state.node.log_snr >= -math.log(low) or s.log_snr < -math.log(low):
            return out
        ladder, index = _ladder(state, high, s, steps), _RESTART
        for _ in range(times if len(ladder) > 1 else 0):
            up = state.substep(out.x, s, index)
            current = replace(up, x=diffuse(_process(state), out.x, s, ladder[0], up.normal(ladder[0], 8)))
            for node, lower in pairwise(ladder):
                current, index = step(state.substep(current.x, node, index), lower), index + 1
            out = replace(out, x=current.x)
        return out

    return restarted


def edm_churn(context: SamplerContext, *, churn_total: float = 40.0, low: float = 0.1, high: float = 100.0,
              s_noise: float = 1.0) -> Step:
    """EDM's stochastic sampler: Heun in σ̂ with churn S_churn/N.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        churn_total: S_churn, divided by the number N of steps.
        low: S_min, lowest σ̂ at which noise is added, in standard deviations of the data.
        high: S_max, highest such σ̂, in standard deviations of the data.
        s_noise: factor of the added noise; the authors use 1.003 to 1.007 to compensate for the networks' shrinkage.

    Reference: Karras et al. (2022), algorithm 2 and table 5. arXiv:2206.00364
    """
    scale, steps = context.data_std, len(context.nodes) - 1
    return churn(runge_kutta_sigma(HEUN)(context), churn_total / steps, low * scale, high * scale, s_noise)


def edm_restart(context: SamplerContext, *, low: float = 0.12, high: float = 0.6, times: int = 2, steps: int = 3
                ) -> Step:
    """Heun in σ̂ with restarts from `low` to `high`.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        low: σ̂ that triggers the restarts, in standard deviations of the data.
        high: σ̂ up to which noise is added, in standard deviations of the data.
        times: number of restarts.
        steps: number of steps of each restart.

    Reference: Xu et al. (2023), table 3 (0.06 to 0.30 at standard deviation 0.5). arXiv:2306.14878
    """
    scale = context.data_std
    return restart(runge_kutta_sigma(HEUN)(context), low * scale, high * scale, times, steps)


def impute(step: Step, observed: Tensor, mask: Tensor) -> Step:
    """After every step the entries in `mask` become samples of their diffusion, α_s observed + σ_s ε.

    Args:
        step: the step.
        observed: values (*event) in model units.
        mask: (*event), True where the value is observed.

    Reference: Lugmayr et al. (2022), algorithm 1. arXiv:2201.09865. Song et al. (2021), appendix I.2.
    """

    def noised(state: State, eps: Tensor) -> Tensor:
        x = state.node.alpha * observed.to(eps) + state.node.sigma * eps
        return torch.where(mask.to(eps.device), x, state.x)

    return after_step(step, noised)


def after_step(step: Step, update: Callable[[State, Tensor], Tensor]) -> Step:
    """After every step x becomes update(state, ε), with separate standard normals ε."""

    def updated(state: State, s: Node) -> State:
        out = step(state, s)
        if math.isnan(s.alpha):
            raise InputError("got a process without a closed-form kernel; impute needs a Gaussian one")
        return replace(out, x=update(out, state.substep(out.x, s, _IMPUTE).normal(s, 8, s)))

    return updated


def diffuse(sde: SDE, x: Tensor, s: Node, t: Node, eps: Tensor) -> Tensor:
    """A sample of x_t given x_s for s ≤ t; by one Euler-Maruyama step if the process is not Gaussian.

    Args:
        sde: the process.
        x: x_s, (B, *event) in model units.
        s: the node of x.
        t: the node to diffuse to, with at least as much noise.
        eps: standard normals like x.
    """
    if isinstance(sde, GaussianSDE):
        return sde.renoise(x, s.t, t.t, eps)
    return euler_maruyama(sde, x, s.t, t.t, eps)


def _process(state: State) -> SDE:
    return state.model.model.process()


def _gaussian(state: State) -> GaussianSDE:
    sde = _process(state)
    if not isinstance(sde, GaussianSDE):
        raise InputError(f"got a {type(sde).__name__}; noise levels σ/α need a Gaussian process")
    return sde


def _node(state: State, sigma_hat: float) -> Node:
    """The node of a noise level, at most T."""
    sde = _gaussian(state)
    return nodes_of(sde, sde.time_of(torch.tensor([-math.log(sigma_hat)], dtype=torch.float64)))[0]


def _ladder(state: State, high: float, s: Node, steps: int) -> list[Node]:
    """The nodes from σ̂ = high down to s, on Karras' grid; only s if `high` is not above it."""
    top, sde = _node(state, high), _gaussian(state)
    if top.log_snr >= s.log_snr:
        return [s]
    return [*nodes_of(sde, time_grid(sde, steps, "karras", float(top.t), float(s.t)))[:-1], s]


def _count(name: str, value: int, least: int) -> None:
    if not least <= value < 128:
        raise InputError(f"got {name}={value}; expected a number from {least} to 127")
