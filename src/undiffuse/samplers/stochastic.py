"""Stochastic samplers: steps of the reverse SDE dx = [f − ½ (1 + η²) g² ∇log p_t] dt + η g dw, and Langevin steps.

The SDE has the marginals p_t for every η; ℓ of the exponential kernels is this η. Keyword arguments of the functions
are `options` of `sample`. Langevin steps x ← x + ε ∇log p_t(x) + √(2ε) ξ leave p_t invariant up to O(ε).

Reference: Song et al. (2021), arXiv:2011.13456; Song and Ermon (2019), arXiv:1907.05600.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.samplers.coefficients import DataPrediction, NoisePrediction, Rule, exact, midpoint
from undiffuse.samplers.combinators import chain
from undiffuse.samplers.exponential import Multistep, Singlestep
from undiffuse.samplers.method import Node, SamplerContext, State, Step, StepFactory
from undiffuse.samplers.runge_kutta import step_from_pure_noise
from undiffuse.score_model import ScoreModel
from undiffuse.sde import bcast


def sde_then_ode(context: SamplerContext, *, eta: float = 0.7, low: float = 0.1, order: int = 3) -> Step:
    """The reverse SDE with noise η down to σ̂ = low, then the probability-flow ODE.

    Both parts are exponential multistep methods: data prediction of order 2 for the SDE, along which D is smooth and ε̂
    is not; noise prediction for the ODE, where it is more accurate at the end. The first ODE step still interpolates D,
    so that it can use the value before it; later ones interpolate ε̂ at the nodes of the ODE.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        eta: noise η of the SDE.
        low: σ̂ at which the ODE begins, in standard deviations of the data.
        order: order of the multistep method of the ODE.
    """
    level = low * context.data_std
    edge = next((i for i, node in enumerate(context.nodes) if math.exp(-node.log_snr) <= level), len(context.nodes))
    kernel = DataPrediction(lambda sigma_hat: eta if sigma_hat > level else 0.0)
    sde = Multistep(kernel, 2, context.nodes, context.template, rule=midpoint)
    flow = Multistep(NoisePrediction(), order, context.nodes[edge:], context.template)

    def step(state: State, s: Node) -> State:
        if state.index > edge:
            return replace(flow(replace(state, index=state.index - edge), s), index=state.index + 1)
        out = sde(state, s)
        if state.index < edge:
            return out
        (D, *_), _ = out.memory
        return replace(out, memory=((flow.kernel.residual(state.x, D, state.node),), None))

    return step


_CELLS = 1 << 16


@dataclass
class _Walk:
    """The state of every sample: x at t, its next step h, its last Euler-Maruyama value, its model evaluations."""

    x: Tensor
    t: Tensor
    h: Tensor
    previous: Tensor
    nfe: Tensor


def adaptive_sde(
    context: SamplerContext, *, rtol: float = 0.02, atol: float = 0.01, first: float = 0.01, eta: float = 1.0
) -> Step:
    """Euler-Maruyama x' with the error estimated by x'' = ½ (x' + x~), x~ = x + drift(x', t − h) h + g(t − h) √h ξ.

    x'' is accepted if the root mean square of (x' − x'')/max(atol, rtol |x'|, rtol |x'_previous|) is at most 1; in both
    cases h ← 0.9 h/error^0.9. Steps are separate for each sample, and noise is addressed by time, so that a rejected
    step and its two halves see the same Brownian path. A step costs two evaluations, a repeated one one. Times are
    rounded to 2⁻¹⁶ of the interval, so that few Brownian bridges lead to each; a step of one such cell is accepted
    with any error.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        rtol: tolerance relative to |x|.
        atol: absolute tolerance in model units.
        first: the first step as a fraction of the interval.
        eta: noise η of the reverse SDE.

    Reference: Jolicoeur-Martineau et al. (2021), "Gotta go fast", algorithm 1. arXiv:2105.14080
    """
    if not (rtol >= 0 and atol > 0 and 0 < first <= 1):
        raise InputError(f"got rtol={rtol}, atol={atol}, first={first}; expected rtol ≥ 0, atol > 0, 0 < first ≤ 1")

    def step(state: State, s: Node) -> State:
        if state.node.alpha == 0:
            return state.advance(step_from_pure_noise(state, s, state.normal(s)), s)
        before, n = state.model.nfe, len(state.x)
        length = float(state.node.t - s.t)
        t = torch.full((n,), float(state.node.t), dtype=torch.float64)
        walk = _Walk(state.x, t, torch.full_like(t, first * length), state.x, torch.zeros_like(t))
        fresh = torch.ones(n, dtype=torch.bool)
        while bool((walk.t > s.t).any()):
            fresh = _advance(state, walk, s, eta, rtol, atol, fresh, length)
        state.model.count_per_sample(walk.nfe, before)
        return state.advance(walk.x, s)

    return step


def _advance(state: State, walk: _Walk, s: Node, eta: float, rtol: float, atol: float, fresh: Tensor, length: float
             ) -> Tensor:
    """Try one step of every sample that has not reached s; returns which ones moved."""
    active, left = walk.t > s.t, walk.t - s.t
    cell = length / _CELLS
    after = s.t + cell * ((left - walk.h) / cell).ceil().minimum((left / cell).ceil() - 1).clamp_min(0)
    h = walk.t - after
    xi = state.noise(0, 0, walk.t, after)
    euler = _move(state, walk.x, walk.x, walk.t, h, eta, xi)
    heun = (euler + _move(state, walk.x, euler, after, h, eta, xi)) / 2
    scale = torch.maximum(rtol * torch.maximum(euler.abs(), walk.previous.abs()), torch.full_like(euler, atol))
    error = ((euler - heun) / scale).double().flatten(1).square().mean(1).sqrt().nan_to_num(nan=torch.inf)
    accepted = active & ((error <= 1) | (h < 1.5 * cell))
    column = bcast(accepted.double(), walk.x) > 0
    walk.x, walk.previous = torch.where(column, heun, walk.x), torch.where(column, euler, walk.previous)
    walk.t = torch.where(accepted, after, walk.t)
    walk.nfe = walk.nfe + active * (1.0 + fresh)
    walk.h = h * (0.9 * error.clamp_min(1e-6) ** -0.9).clamp(0.1, 5)
    return accepted


def _move(state: State, x: Tensor, at: Tensor, t: Tensor, h: Tensor, eta: float, xi: Tensor) -> Tensor:
    """x − drift(at, t) h + η g(at, t) √h ξ: one Euler-Maruyama step of length h with the coefficients at (at, t)."""
    g = state.model.model.process().diffusion(at, t)
    return x - state.model.drift(at, t, eta) * bcast(h, x) + eta * g * bcast(h.sqrt(), x) * xi


def euler_maruyama(context: SamplerContext, *, eta: float = 1.0) -> Step:
    """The reverse SDE with noise η g by Euler and Maruyama: x + drift (s − t) + η g √|s − t| ξ.

    From α = 0, where g is infinite, one exponential step.

    Reference: Song et al. (2021), eq. 6. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node.t
        if eta and state.node.alpha == 0:
            return state.advance(step_from_pure_noise(state, s, state.normal(s)), s)
        x = state.x + state.model.drift(state.x, t, eta) * (s.t - t)
        if not eta:
            return state.advance(x, s)
        g = state.model.model.process().diffusion(state.x, t)
        return state.advance(x + bcast(eta * g, x) * (t - s.t).sqrt() * state.normal(s), s)

    return step


def reverse_diffusion(context: SamplerContext) -> Step:
    """The reverse of the discrete chain: x + (1 − a) x + G² ∇log p_t + G ξ.

    The forward step is x_t = a x_s + G ε with a = α_t/α_s and G² = σ_t² − a² σ_s².

    Reference: Song et al. (2021), eq. 46. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node
        a = t.alpha / s.alpha
        G2 = t.sigma**2 - a**2 * s.sigma**2
        score = (t.alpha * state.model.denoise(state.x, t) - state.x) / t.sigma**2
        return state.advance((2 - a) * state.x + G2 * score + G2**0.5 * state.normal(s), s)

    return step


def multistep_sde(order: int, rule: Rule = exact, eta: float = 1.0, frame: bool = False) -> StepFactory:
    """A multistep method with ℓ = η: DDPM's ancestral step (order 1), DPM-Solver++(2M) and (3M) for the SDE.

    Args:
        order: number of values of D that a step combines.
        rule: weights from moments.
        eta: default of the option eta.
        frame: default of the option frame: integrate the linear part of the data's moments exactly, so that steps of
            any size are exact for Gaussian data.

    Reference: Lu et al. (2022), arXiv:2211.01095, appendix B.
    """

    def make(context: SamplerContext, *, eta: float = eta, frame: bool = frame) -> Step:
        kernel = DataPrediction(eta, context.moments if frame else None)
        return Multistep(kernel, order, context.nodes, context.template, rule=rule)

    return make


def singlestep_sde(stages: tuple[float, ...], final: tuple[int, ...], rule: Rule = exact) -> StepFactory:
    """An exponential stochastic Runge-Kutta method with ℓ = η, whose stages share one Brownian path.

    Args:
        stages: position r of each stage as a fraction of the step in log-SNR, increasing.
        final: indices of the stages that the step itself interpolates; 0 is the start.
        rule: weights from moments.

    Reference: Gonzalez et al. (2023), "SEEDS", arXiv:2305.14267; Lu et al. (2022), arXiv:2211.01095.
    """

    def make(context: SamplerContext, *, eta: float = 1.0, frame: bool = False) -> Step:
        kernel = DataPrediction(eta, context.moments if frame else None)
        return Singlestep(kernel, stages, final, context.sde, context.template, rule)

    return make


def window(sigma_hat: float) -> float:
    """SA-Solver's τ: 1 for 0.05 ≤ σ̂ ≤ 1, else 0."""
    return float(0.05 <= sigma_hat <= 1)


def sa_solver(context: SamplerContext, *, order: int = 3, corrector: bool = True,
              tau: float | Callable[[float], float] = window) -> Step:
    """SA-Solver: the multistep method with ℓ = τ(σ̂) and a corrector that reuses the step's noise.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        order: number of values of D that a step combines.
        corrector: repeat the last step with the new value of D, without an evaluation.
        tau: τ, a constant or a function of σ̂; 0 is UniPC.

    Reference: Xue et al. (2023), arXiv:2309.05019
    """
    return Multistep(DataPrediction(tau), order, context.nodes, context.template, corrector)


def langevin(state: State, s: Node, size: Tensor | float, stage: int = 0) -> Tensor:
    """x + ε ∇log p_s(x) + √(2ε) ξ.

    Args:
        state: the state; its node is not used.
        s: the node of the step, which gives the score.
        size: the step ε, a number or (B,).
        stage: number of the noise stage.
    """
    score, eps = state.model.score(state.x, s.t), bcast(torch.as_tensor(size, dtype=torch.float64), state.x)
    return state.x + eps * score + (2 * eps).sqrt() * state.normal(s, stage, s)


def corrector(context: SamplerContext, r: float = 0.16) -> Step:
    """One Langevin step at s with ε = 2 α (r ‖ξ‖/‖∇log p‖)², the norms taken per sample.

    α is 1 − β of the step of the chain, (α_t/α_s)², and 1 without drift. ‖∇log p‖² is bounded below by d/v, v the
    variance of x_s, the Cramér-Rao bound of its mean; otherwise the step diverges at a mode.

    Reference: Song et al. (2021), algorithms 4 and 5. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        score, xi = state.model.score(state.x, s.t), state.normal(s, 0, s)
        least = math.prod(state.x.shape[1:]) / _variance(context, s)
        ratio = _square(xi) / _square(score).clamp_min(least)
        size = bcast(2 * _thinning(context.nodes[state.index], s) * r**2 * ratio, state.x)
        return state.advance(state.x + size * score + (2 * size).sqrt() * xi, s)

    return step


def predictor_corrector(context: SamplerContext, *, r: float = 0.16, corrections: int = 1) -> Step:
    """Reverse diffusion (Euler-Maruyama if the process is not Gaussian), then Langevin corrections.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        r: signal-to-noise ratio of a correction.
        corrections: number of corrections per step.

    Reference: Song et al. (2021), algorithm 1. arXiv:2011.13456
    """
    predict = reverse_diffusion(context) if isinstance(context.model, Model) else euler_maruyama(context)
    return chain(predict, *[corrector(context, r)] * corrections)


def annealed_langevin(context: SamplerContext, *, size: float = 0.1, repeats: int = 5) -> Step:
    """At every node `repeats` Langevin steps with ε = size · σ²; between nodes z = x/α is constant.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        size: ε/σ², the size of a Langevin step.
        repeats: number of Langevin steps at every node.

    Reference: Song and Ermon (2019), algorithm 1 (size 0.1, 100 repeats). arXiv:1907.05600
    """

    def step(state: State, s: Node) -> State:
        scale = s.alpha / state.node.alpha if state.node.alpha else s.sigma / state.node.sigma
        current = replace(state, x=scale * state.x)
        for k in range(repeats):
            current = replace(current, x=langevin(current, s, size * s.sigma**2, k))
        return current.advance(current.x, s)

    return step


def _variance(context: SamplerContext, s: Node) -> float:
    """The variance of x_s per coordinate, of the prior if the process is not Gaussian."""
    if isinstance(context.model, Model):
        return (s.alpha * context.model.sigma_data) ** 2 + s.sigma**2
    return float(context.model.prior_std.square().mean()) if isinstance(context.model, ScoreModel) else 1.0


def _thinning(t: Node, s: Node) -> float:
    return 1.0 if math.isnan(t.alpha) else (t.alpha / s.alpha) ** 2


def _square(x: Tensor) -> Tensor:
    """‖x‖² per sample."""
    return x.flatten(1).square().sum(1)
