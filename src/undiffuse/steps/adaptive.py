"""A stochastic method with steps of each sample's own: Euler-Maruyama checked against a stochastic Heun step.

Noise is keyed by time, so a step that is refused and done again in two halves sees the same Brownian path, and no
sample sees another one's error.

Reference: Jolicoeur-Martineau et al. (2021), "Gotta go fast", algorithm 1. arXiv:2105.14080
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.sde import bcast
from undiffuse.steps.flow import leap
from undiffuse.steps.method import Plan
from undiffuse.steps.state import Node, State, Step

_CELLS = 1 << 16


@dataclass
class _Walk:
    """Where every sample is: x at t, its next step h, its last Euler-Maruyama value, what it has spent."""

    x: Tensor
    t: Tensor
    h: Tensor
    before: Tensor
    spent: Tensor


def adaptive_sde(plan: Plan, *, rtol: float = 0.02, atol: float = 0.01, first: float = 0.01, eta: float = 1.0) -> Step:
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
            return state.moved(leap(state, s, state.normal(s)), s)
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
