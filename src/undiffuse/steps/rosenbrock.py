"""An exponential Rosenbrock-type step: the linear part is measured at every step, sample by sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from undiffuse.sde import bcast
from undiffuse.steps.method import Plan
from undiffuse.steps.start import held
from undiffuse.steps.state import Node, State, Step, nodes_of


def rosenbrock(plan: Plan) -> Step:
    """dz/dλ = F = D − z by z' = z + h φ₁(hj) F + h² φ₂(hj) (F' − j F), j = ⟨F, F'⟩/⟨F, F⟩, of order 2 for any j.

    F' is a difference along a first-order step to the middle: two evaluations a step. Where D does not change, j = −1
    and the step is exact; with j = 0 it is Runge's midpoint method. From α = 0 a first-order step.

    Reference: Hochbruck, Ostermann and Schweitzer (2009), "Exponential Rosenbrock-type methods", eq. 2.6.
    """

    def step(state: State, s: Node) -> State:
        node, x = state.node, state.x
        D = state.model.denoise(x, node)
        if math.isinf(node.log_snr):
            return state.moved(held(x, D, node, s), s)
        h = node.step_to(s)
        (half,) = nodes_of(plan.sde, plan.sde.time_of(torch.tensor([node.log_snr + h / 2], dtype=torch.float64)))
        u = held(x, D, node, half)
        z, F = x / node.alpha, D - x / node.alpha
        slope = 2 / h * (state.model.denoise(u, half) - u / half.alpha - F)
        j = (F * slope).flatten(1).sum(1) / F.square().flatten(1).sum(1).clamp_min(1e-300)
        first, second = _phi((h * j).double().clamp(-50, 50))
        z = z + h * bcast(first, x) * F + h**2 * bcast(second, x) * (slope - bcast(j, x) * F)
        return state.moved(s.alpha * z, s)

    return step


def _phi(a: Tensor) -> tuple[Tensor, Tensor]:
    """φ₁ = (eᵃ − 1)/a and φ₂ = (φ₁ − 1)/a, by their series near 0."""
    small = a.abs() < 1e-3
    b = torch.where(small, torch.ones_like(a), a)
    first = torch.where(small, 1 + a / 2 + a**2 / 6, torch.expm1(b) / b)
    return first, torch.where(small, 0.5 + a / 6 + a**2 / 24, (first - 1) / b)
