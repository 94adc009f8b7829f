"""Stochastic steps: Euler-Maruyama, reverse diffusion, and the rows of the exponential family with ℓ > 0.

The reverse SDE dx = [f − ½ (1 + η²) g² s] dt + η g dw has the marginals p_t for every η; ℓ of the exponential family is
this η. All their options are keywords of `sample(..., options={...})`.

Noise where it corrects errors, the flow where it would only blur.

Langevin steps: at one noise level, x ← x + ε ∇log p_t(x) + √(2ε) ξ leaves p_t as it is, up to O(ε).

Reference: Song and Ermon (2019), algorithm 1. arXiv:1907.05600. Song et al. (2021), algorithms 4 and 5.

A stochastic method with steps of each sample's own: Euler-Maruyama checked against a stochastic Heun step.

Noise is keyed by time, so a step that is refused and done again in two halves sees the same Brownian path, and no
sample sees another one's error.

Reference: Jolicoeur-Martineau et al. (2021), "Gotta go fast", algorithm 1. arXiv:2105.14080
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model, ScoreModel
from undiffuse.samplers.coefficients import DataPrediction, NoisePrediction, Rule, exact, midpoint
from undiffuse.samplers.combinators import chain
from undiffuse.samplers.exponential import Multistep, Singlestep
from undiffuse.samplers.method import Node, SamplerContext, State, Step
from undiffuse.samplers.runge_kutta import step_from_pure_noise
from undiffuse.sde import bcast


def sde_then_ode(plan: SamplerContext, *, eta: float = 0.7, low: float = 0.1, order: int = 3) -> Step:
    """The reverse SDE with noise η down to σ̂ = low data deviations, from there the probability-flow ODE.

    Both are exponential multistep rows: data prediction of order 2 while there is noise, along which D is smooth and
    ε̂ is not; then noise prediction, which is nearer on the flow's last stretch. The first step of the flow still goes
    through D, so that it uses the value before it; those after it interpolate ε̂ at the nodes of the flow.
    """
    level = low * plan.deviation
    edge = next((i for i, node in enumerate(plan.nodes) if math.exp(-node.log_snr) <= level), len(plan.nodes))
    noisy = Multistep(DataPrediction(lambda at: eta if at > level else 0.0), 2, plan.nodes, plan.like, rule=midpoint)
    flow = Multistep(NoisePrediction(), order, plan.nodes[edge:], plan.like)

    def step(state: State, s: Node) -> State:
        if state.index > edge:
            return replace(flow(replace(state, index=state.index - edge), s), index=state.index + 1)
        moved = noisy(state, s)
        if state.index < edge:
            return moved
        (D, *_), _ = moved.memory
        return replace(moved, memory=((flow.kernel.value(state.x, D, state.node),), None))

    return step


_CELLS = 1 << 16


@dataclass
class _Walk:
    """Where every sample is: x at t, its next step h, its last Euler-Maruyama value, what it has spent."""

    x: Tensor
    t: Tensor
    h: Tensor
    before: Tensor
    spent: Tensor


def adaptive_sde(
    plan: SamplerContext, *, rtol: float = 0.02, atol: float = 0.01, first: float = 0.01, eta: float = 1.0
) -> Step:
    """x' by Euler and Maruyama, x'' = ½ (x' + x~) with x~ = x + drift(x', t − h) h + g(t − h) √h ξ.

    x'' is kept where the root mean square of (x' − x'')/max(atol, rtol |x'|, rtol |x'_before|) is at most 1; in either
    case h ← 0.9 h/error^0.9.

    first: the first step as a part of the way. Two evaluations a step, one for a step that is tried again. Times are
    rounded to 2⁻¹⁶ of the way, so that few bridges lead to each; a step of one such cell is kept whatever its error.
    """
    if not (rtol >= 0 and atol > 0 and 0 < first <= 1):
        raise InputError(f"got rtol={rtol}, atol={atol}, first={first}; expected rtol ≥ 0, atol > 0, 0 < first ≤ 1")

    def step(state: State, s: Node) -> State:
        if state.node.alpha == 0:
            return state.moved(step_from_pure_noise(state, s, state.normal(s)), s)
        calls, n = state.model.calls, len(state.x)
        way = float(state.node.t - s.t)
        t = torch.full((n,), float(state.node.t), dtype=torch.float64)
        walk = _Walk(state.x, t, torch.full_like(t, first * way), state.x, torch.zeros_like(t))
        fresh = torch.ones(n, dtype=torch.bool)
        while bool((walk.t > s.t).any()):
            fresh = _advance(state, walk, s, eta, rtol, atol, fresh, way)
        state.model.count_each(walk.spent, calls)
        return state.moved(walk.x, s)

    return step


def _advance(state: State, walk: _Walk, s: Node, eta: float, rtol: float, atol: float, fresh: Tensor, way: float
             ) -> Tensor:
    """Try one step of every sample that is not there yet; which ones moved."""
    going, left = walk.t > s.t, walk.t - s.t
    cell = way / _CELLS
    after = s.t + cell * ((left - walk.h) / cell).ceil().minimum((left / cell).ceil() - 1).clamp_min(0)
    h = walk.t - after
    xi = state.noise(0, 0, walk.t, after)
    euler = _move(state, walk.x, walk.x, walk.t, h, eta, xi)
    heun = (euler + _move(state, walk.x, euler, after, h, eta, xi)) / 2
    scale = torch.maximum(rtol * torch.maximum(euler.abs(), walk.before.abs()), torch.full_like(euler, atol))
    error = ((euler - heun) / scale).double().flatten(1).square().mean(1).sqrt().nan_to_num(nan=torch.inf)
    kept = going & ((error <= 1) | (h < 1.5 * cell))
    column = bcast(kept.double(), walk.x) > 0
    walk.x, walk.before = torch.where(column, heun, walk.x), torch.where(column, euler, walk.before)
    walk.t = torch.where(kept, after, walk.t)
    walk.spent = walk.spent + going * (1.0 + fresh)
    walk.h = h * (0.9 * error.clamp_min(1e-6) ** -0.9).clamp(0.1, 5)
    return kept


def _move(state: State, x: Tensor, at: Tensor, t: Tensor, h: Tensor, eta: float, xi: Tensor) -> Tensor:
    """x − drift(at, t) h + η g(at, t) √h ξ: one Euler-Maruyama step of length h with the slopes of another place."""
    g = state.model.model.process().diffusion(at, t)
    return x - state.model.drift(at, t, eta) * bcast(h, x) + eta * g * bcast(h.sqrt(), x) * xi


Make = Callable[..., Step]


def euler_maruyama(plan: SamplerContext, *, eta: float = 1.0) -> Step:
    """The reverse SDE with noise η g by Euler and Maruyama: x + drift (s − t) + η g √|s − t| ξ.

    From α = 0, where g is infinite, one exponential step.

    Reference: Song et al. (2021), eq. 6. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node.t
        if eta and state.node.alpha == 0:
            return state.moved(step_from_pure_noise(state, s, state.normal(s)), s)
        x = state.x + state.model.drift(state.x, t, eta) * (s.t - t)
        if not eta:
            return state.moved(x, s)
        g = state.model.model.process().diffusion(state.x, t)
        return state.moved(x + bcast(eta * g, x) * (t - s.t).sqrt() * state.normal(s), s)

    return step


def reverse_diffusion(plan: SamplerContext) -> Step:
    """The chain run backwards as it was run forwards: x + (1 − a) x + G² ∇log p_t + G ξ.

    Forwards x_t = a x_s + G ε with a = α_t/α_s and G² = σ_t² − a² σ_s².

    Reference: Song et al. (2021), eq. 46. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node
        a = t.alpha / s.alpha
        G2 = t.sigma**2 - a**2 * s.sigma**2
        score = (t.alpha * state.model.denoise(state.x, t) - state.x) / t.sigma**2
        return state.moved((2 - a) * state.x + G2 * score + G2**0.5 * state.normal(s), s)

    return step


def multistep_sde(order: int, rule: Rule = exact, eta: float = 1.0, frame: bool = False) -> Make:
    """A multistep row with ℓ = η: DDPM's ancestral step (order 1), DPM-Solver++(2M) and (3M) for the SDE.

    eta, frame: the defaults of its options; frame integrates the linear part that the data's moments give exactly,
    so that Gaussian data are sampled exactly by steps of any size.

    Reference: Lu et al. (2022), arXiv:2211.01095, appendix B.
    """

    def make(plan: SamplerContext, *, eta: float = eta, frame: bool = frame) -> Step:
        return Multistep(DataPrediction(eta, plan.frame if frame else None), order, plan.nodes, plan.like, rule=rule)

    return make


def singlestep_sde(stages: tuple[float, ...], final: tuple[int, ...], rule: Rule = exact) -> Make:
    """An exponential stochastic Runge-Kutta method with ℓ = η, whose stages see one Brownian path.

    Reference: Gonzalez et al. (2023), "SEEDS", arXiv:2305.14267; Lu et al. (2022), arXiv:2211.01095.
    """

    def make(plan: SamplerContext, *, eta: float = 1.0, frame: bool = False) -> Step:
        return Singlestep(DataPrediction(eta, plan.frame if frame else None), stages, final, plan.sde, plan.like, rule)

    return make


def window(sigma_hat: float) -> float:
    """SA-Solver's τ: 1 for 0.05 ≤ σ̂ ≤ 1, where the noise corrects errors, else 0."""
    return float(0.05 <= sigma_hat <= 1)


def sa_solver(plan: SamplerContext, *, order: int = 3, corrector: bool = True,
              tau: float | Callable[[float], float] = window) -> Step:
    """SA-Solver: the multistep row with ℓ = τ(σ̂) and a corrector that reuses the step's noise; τ = 0 is UniPC.

    Reference: Xue et al. (2023), arXiv:2309.05019
    """
    return Multistep(DataPrediction(tau), order, plan.nodes, plan.like, corrector)


def langevin(state: State, s: Node, size: Tensor | float, stage: int = 0) -> Tensor:
    """x + ε ∇log p_s(x) + √(2ε) ξ with the step ε = `size`, a number or one a sample (B,)."""
    score, eps = state.model.score(state.x, s.t), bcast(torch.as_tensor(size, dtype=torch.float64), state.x)
    return state.x + eps * score + (2 * eps).sqrt() * state.normal(s, stage, s)


def corrector(plan: SamplerContext, r: float = 0.16) -> Step:
    """One Langevin step at s with ε = 2 α (r ‖ξ‖/‖∇log p‖)², the norms of each sample its own.

    α is 1 − β of the step of the chain, (α_t/α_s)², and 1 without drift. ‖∇log p‖² is taken to be at least d/v, v the
    variance of x_s: by Cramér and Rao's inequality its mean is, and without this a sample at a mode would fly off.

    Reference: Song et al. (2021), algorithms 4 and 5. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        score, xi = state.model.score(state.x, s.t), state.normal(s, 0, s)
        least = math.prod(state.x.shape[1:]) / _variance(plan, s)
        ratio = _square(xi) / _square(score).clamp_min(least)
        size = bcast(2 * _thinning(plan.nodes[state.index], s) * r**2 * ratio, state.x)
        return state.moved(state.x + size * score + (2 * size).sqrt() * xi, s)

    return step


def predictor_corrector(plan: SamplerContext, *, r: float = 0.16, corrections: int = 1) -> Step:
    """Reverse diffusion (Euler-Maruyama where the process is not Gaussian), then Langevin corrections.

    r: the signal-to-noise ratio of a correction.

    Reference: Song et al. (2021), algorithm 1. arXiv:2011.13456
    """
    predict = reverse_diffusion(plan) if isinstance(plan.model, Model) else euler_maruyama(plan)
    return chain(predict, *[corrector(plan, r)] * corrections)


def annealed_langevin(plan: SamplerContext, *, size: float = 0.1, repeats: int = 5) -> Step:
    """At every node `repeats` Langevin steps with ε = size · σ²; from node to node z = x/α stays.

    Reference: Song and Ermon (2019), algorithm 1 (size 0.1, 100 repeats). arXiv:1907.05600
    """

    def step(state: State, s: Node) -> State:
        scale = s.alpha / state.node.alpha if state.node.alpha else s.sigma / state.node.sigma
        here = replace(state, x=scale * state.x)
        for k in range(repeats):
            here = replace(here, x=langevin(here, s, size * s.sigma**2, k))
        return here.moved(here.x, s)

    return step


def _variance(plan: SamplerContext, s: Node) -> float:
    """The variance of x_s per coordinate, of the prior where the process is not Gaussian."""
    if isinstance(plan.model, Model):
        return (s.alpha * plan.model.sigma_data) ** 2 + s.sigma**2
    return float(plan.model.prior_std.square().mean()) if isinstance(plan.model, ScoreModel) else 1.0


def _thinning(t: Node, s: Node) -> float:
    return 1.0 if math.isnan(t.alpha) else (t.alpha / s.alpha) ** 2


def _square(x: Tensor) -> Tensor:
    """‖x‖² of every sample."""
    return x.flatten(1).square().sum(1)
