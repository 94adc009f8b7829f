"""Runge-Kutta methods: their tableaux, one step of any explicit one, and a solution with a step size for each sample.

Reference: Hairer, Nørsett and Wanner (1993), "Solving ordinary differential equations I", chapter II.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.errors import InputError

Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: nodes c, rows a of the stages, weights b, order of convergence.

    `error` are the weights of the estimated error, b less those of an embedded method; a method that has one evaluates
    its last stage at the end of the step, where the next one begins. `dense` are those of the quartic term of its
    interpolant: see `Step.at`.
    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int
    error: tuple[float, ...] = ()
    dense: tuple[float, ...] = ()


EULER = Tableau((0.0,), ((),), (1.0,), 1)
MIDPOINT = Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), 2)
HEUN = Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), 2)
RK4 = Tableau((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4)
BOGACKI_SHAMPINE = Tableau(
    (0.0, 1 / 2, 3 / 4, 1.0), ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)), (2 / 9, 1 / 3, 4 / 9, 0.0), 3,
    (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
)
_LAST = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
DORMAND_PRINCE = Tableau(
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    ((), (1 / 5,), (3 / 40, 9 / 40), (44 / 45, -56 / 15, 32 / 9),
     (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
     (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656), _LAST),
    (*_LAST, 0.0), 5, (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    (-12715105075 / 11282082432, 0.0, 87487479700 / 32700410799, -10690763975 / 1880347072,
     701980252875 / 199316789632, -1453857185 / 822651844, 69997945 / 29380423),
)


def rk_step(tableau: Tableau, field: Field, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x(s) from x(t) for x' = field(x, t): x + h Σ b_i k_i with k_i = field(x + h Σ_j a_ij k_j, t + c_i h)."""
    return _combine(x, s - t, tableau.b, _slopes(tableau, field, x, t, s, []))


def _slopes(tableau: Tableau, field: Field, x: Tensor, t: Tensor, s: Tensor, known: list[Tensor]) -> list[Tensor]:
    """The k_i, the first of which may be known."""
    h, slopes = s - t, list(known)
    for c, row in list(zip(tableau.c, tableau.a, strict=True))[len(known):]:
        slopes.append(field(_combine(x, h, row, slopes), s if c == 1 else t + c * h))
    return slopes


def _combine(x: Tensor, h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """x + h Σ w_i k_i, skipping zeros; h is () or (B,)."""
    used = [(weight, slope) for weight, slope in zip(weights, slopes, strict=True) if weight]
    if h.ndim:
        size = _rows(h, x)
        return sum(((size * weight) * slope for weight, slope in used), x)
    out, step = x, float(h)
    for weight, slope in used:
        out = torch.add(out, slope, alpha=step * weight, out=None if out is x else out)
    return out


def _rows(c: Tensor, x: Tensor) -> Tensor:
    """A number per sample (B,) made to multiply x (B, *event)."""
    return c.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))


class Step(NamedTuple):
    """A step from x at t (B,) to `new` at s (B,), its slopes and the error that the embedded method sees in `new`."""

    tableau: Tableau
    t: Tensor
    s: Tensor
    x: Tensor
    new: Tensor
    slopes: list[Tensor]
    error: Tensor

    def at(self, c: float) -> Tensor:
        """x at t + c (s − t) to the fourth order, by both ends, their slopes and one more term.

        Reference: Hairer, Nørsett and Wanner (1993), section II.6, eq. 6.13 and the code DOPRI5.
        """
        h, whole = _rows(self.s - self.t, self.x), self.new - self.x
        enter, leave = h * self.slopes[0] - whole, whole - h * self.slopes[-1]
        bend = _combine(torch.zeros_like(self.x), self.s - self.t, self.tableau.dense, self.slopes)
        return self.x + c * (whole + (1 - c) * (enter + c * (leave - enter + (1 - c) * bend)))


OnStep = Callable[[Step, Tensor], Tensor]


class Solution(NamedTuple):
    """x (B, *event) at the end, the evaluations of the field per sample (B,), and the sum over its accepted steps of
    what `on_step` returned (B,)."""

    x: Tensor
    evaluations: Tensor
    error: Tensor


def solve(tableau: Tableau, field: Field, x: Tensor, t: Tensor, s: Tensor, rtol: float = 1e-5, atol: float = 1e-5, *,
          first: float = 0.1, on_step: OnStep | None = None, set_active: Callable[[Tensor], None] | None = None
          ) -> Solution:
    """x(s) from x(t) for x' = field(x, t), with steps of its own for every sample.

    The step of a sample is kept where the root mean square of error/(atol + rtol |x|) over its coordinates is at most
    1, and the next one is 0.8 (that number)^{−1/order} times as long, at most twice, and not longer after a refusal. No
    sample sees another one's error. `first` is the first step as a part of s − t. A sample that cannot reach s is NaN.
    `on_step(step, accepted)` returns a number per sample, (B,), which is summed over the steps that a sample accepts.
    `set_active(active)` is called before every step with the samples that take it, (B,); the field may return anything
    for the others.

    Reference: Hairer, Nørsett and Wanner (1993), section II.4.
    """
    if not (tableau.error and rtol >= 0 and atol > 0):
        raise InputError(f"got rtol={rtol}, atol={atol}; expected rtol ≥ 0, atol > 0 and a method with an error")
    at, h = x.new_zeros(len(x), dtype=torch.float64), x.new_full((len(x),), first, dtype=torch.float64)
    k, spent, refused = field(x, t.expand(len(x))), torch.ones_like(at), at > 0
    total = torch.zeros_like(at)
    while bool((going := at < 1).any()):
        if set_active is not None:
            set_active(going)
        left, grow = 1 - at, torch.where(refused, 1.0, 2.0)
        h = _fit(h, left)
        here, there = t + (s - t) * at, t + (s - t) * (at + h)
        slopes = _slopes(tableau, field, x, here, there, [k])
        new = _combine(x, there - here, tableau.b, slopes)
        error = _combine(torch.zeros_like(x), there - here, tableau.error, slopes)
        ratio = _size(error / (atol + rtol * torch.maximum(x.abs(), new.abs())))
        kept = going & (ratio <= 1)
        if on_step is not None:
            step = Step(tableau, here, there, x, new, slopes, error)
            total = torch.where(kept, total + on_step(step, kept), total)
        x, k = torch.where(_rows(kept, x) > 0, new, x), torch.where(_rows(kept, x) > 0, slopes[-1], k)
        at, spent = torch.where(kept, torch.where(h < left, at + h, 1.0), at), spent + going * (len(slopes) - 1)
        h = h * (0.8 * ratio.clamp_min(1e-10) ** (-1 / tableau.order)).clamp_min(0.2).minimum(grow)
        refused, lost = going & ~kept, going & ~kept & (h < 1e-12)
        x, at = torch.where(_rows(lost, x) > 0, torch.nan, x), torch.where(lost, 1, at)
    return Solution(x, spent, total)


def _fit(h: Tensor, left: Tensor) -> Tensor:
    """The next step: all that is left if it nearly reaches, half of it if it reaches more than halfway."""
    return torch.where(h > 0.99 * left, left, torch.minimum(h, left / 2))


def _size(e: Tensor) -> Tensor:
    """The root mean square of every sample, ∞ where it is not a number, float64."""
    return e.double().flatten(1).square().mean(1).sqrt().nan_to_num(nan=torch.inf)
