"""Langevin steps: at one noise level, x ← x + ε ∇log p_t(x) + √(2ε) ξ leaves p_t as it is, up to O(ε).

Reference: Song and Ermon (2019), algorithm 1. arXiv:1907.05600. Song et al. (2021), algorithms 4 and 5.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from undiffuse.model import Model, ScoreModel
from undiffuse.sde import bcast
from undiffuse.steps.combinators import chain
from undiffuse.steps.method import Plan
from undiffuse.steps.state import Node, State, Step
from undiffuse.steps.stochastic import euler_maruyama, reverse_diffusion


def langevin(state: State, s: Node, size: Tensor | float, stage: int = 0) -> Tensor:
    """x + ε ∇log p_s(x) + √(2ε) ξ with the step ε = `size`, a number or one a sample (B,)."""
    score, eps = state.model.score(state.x, s.t), bcast(torch.as_tensor(size, dtype=torch.float64), state.x)
    return state.x + eps * score + (2 * eps).sqrt() * state.normal(s, stage, s)


def corrector(plan: Plan, r: float = 0.16) -> Step:
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


def predictor_corrector(plan: Plan, *, r: float = 0.16, corrections: int = 1) -> Step:
    """Reverse diffusion (Euler-Maruyama where the process is not Gaussian), then Langevin corrections.

    r: the signal-to-noise ratio of a correction.

    Reference: Song et al. (2021), algorithm 1. arXiv:2011.13456
    """
    predict = reverse_diffusion(plan) if isinstance(plan.model, Model) else euler_maruyama(plan)
    return chain(predict, *[corrector(plan, r)] * corrections)


def annealed_langevin(plan: Plan, *, size: float = 0.1, repeats: int = 5) -> Step:
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


def _variance(plan: Plan, s: Node) -> float:
    """The variance of x_s per coordinate, of the prior where the process is not Gaussian."""
    if isinstance(plan.model, Model):
        return (s.alpha * plan.model.sigma_data) ** 2 + s.sigma**2
    return float(plan.model.prior_std.square().mean()) if isinstance(plan.model, ScoreModel) else 1.0


def _thinning(t: Node, s: Node) -> float:
    return 1.0 if math.isnan(t.alpha) else (t.alpha / s.alpha) ** 2


def _square(x: Tensor) -> Tensor:
    """‖x‖² of every sample."""
    return x.flatten(1).square().sum(1)
