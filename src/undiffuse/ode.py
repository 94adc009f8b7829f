"""Runge-Kutta methods: their tableaux, and one step of any explicit one.

Reference: Hairer, Nørsett and Wanner (1993), "Solving ordinary differential equations I", chapter II.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: nodes c, rows a of the stages, weights b, order of convergence."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int


EULER = Tableau((0.0,), ((),), (1.0,), 1)
MIDPOINT = Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), 2)
HEUN = Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), 2)
RK4 = Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4)


def rk_step(tableau: Tableau, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x(s) from x(t) for x' = field(x, t): x + h Σ b_i k_i with k_i = field(x + h Σ_j a_ij k_j, t + c_i h)."""
    h = s - t
    slopes: list[Tensor] = []
    for c, row in zip(tableau.c, tableau.a, strict=True):
        slopes.append(field(_combine(x, h, row, slopes), s if c == 1 else t + c * h))
    return _combine(x, h, tableau.b, slopes)


def _combine(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """x + h Σ w_i k_i, skipping zeros."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (h * weight) * slope
    return x
