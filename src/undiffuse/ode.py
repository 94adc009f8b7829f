"""Runge-Kutta methods: tableaux, a step of any explicit method, and a solver with a separate step size per sample.

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
    """An explicit Runge-Kutta method: nodes c, stage rows a, weights b, order of convergence.

    error: weights of the error estimate, b minus the weights of the embedded method, whose last stage is the first of
    the next step. dense: weights of the quartic term of the interpolant, see `Step.at`.
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
    """x(s) from x(t) for x' = field(x, t): x + h Σ b_i k_i with k_i = field(x + h Σ_j a_ij k_j, t + c_i h).

    Args:
        tableau: coefficients a, b, c of the method.
        field: right-hand side, a function of x and t.
        x: state at t, (B, ...).
        t: time of the state, () or (B,).
        s: time of the result, () or (B,).
    """
    return _combine(x, s - t, tableau.b, _stages(tableau, field, x, t, s, []))


def _stages(tableau: Tableau, field: Field, x: Tensor, t: Tensor, s: Tensor, first_stages: list[Tensor]
            ) -> list[Tensor]:
    """The stages k_i, continuing from those in first_stages."""
    h, stages = s - t, list(first_stages)
    for c, row in list(zip(tableau.c, tableau.a, strict=True))[len(first_stages):]:
        stages.append(field(_combine(x, h, row, stages), s if c == 1 else t + c * h))
    return stages


def _combine(x: Tensor, h: Tensor, weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    """x + h Σ w_i k_i, skipping zeros; h is () or (B,)."""
    terms = [(weight, k) for weight, k in zip(weights, stages, strict=True) if weight]
    if h.ndim:
        size = _rows(h, x)
        return sum(((size * weight) * k for weight, k in terms), x)
    out, step = x, float(h)
    for weight, k in terms:
        out = torch.add(out, k, alpha=step * weight, out=None if out is x else out)
    return out


def _rows(c: Tensor, x: Tensor) -> Tensor:
    """A number per sample (B,) reshaped to multiply x (B, *event)."""
    return c.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))


class Step(NamedTuple):
    """A step from x at t (B,) to `new` at s (B,), with its stages and the error estimate of `new`."""

    tableau: Tableau
    t: Tensor
    s: Tensor
    x: Tensor
    new: Tensor
    stages: list[Tensor]
    error: Tensor

    def at(self, c: float) -> Tensor:
        """x at t + c (s − t) to fourth order, from both endpoints, their derivatives and one more term.

        Reference: Hairer, Nørsett and Wanner (1993), section II.6, eq. 6.13 and the code DOPRI5.
        """
        h, change = _rows(self.s - self.t, self.x), self.new - self.x
        first, last = h * self.stages[0] - change, change - h * self.stages[-1]
        quartic = _combine(torch.zeros_like(self.x), self.s - self.t, self.tableau.dense, self.stages)
        return self.x + c * (change + (1 - c) * (first + c * (last - first + (1 - c) * quartic)))


OnStep = Callable[[Step, Tensor], Tensor]


class Solution(NamedTuple):
    """x (B, *event) at the end, the evaluations of the field per sample (B,), and the sum of `on_step` over the
    accepted steps (B,)."""

    x: Tensor
    evaluations: Tensor
    error: Tensor


def solve(tableau: Tableau, field: Field, x: Tensor, t: Tensor, s: Tensor, rtol: float = 1e-5, atol: float = 1e-5, *,
          first: float = 0.1, on_step: OnStep | None = None, set_active: Callable[[Tensor], None] | None = None
          ) -> Solution:
    """Solve x' = field(x, t) from t to s with an adaptive step size per sample.

    The step of a sample is accepted if r, the root mean square of error/(atol + rtol |x|) over its coordinates, is at
    most 1; the next step is 0.8 r^{−1/order} times as long, at most 2 times, and not longer after a rejection. Samples
    do not influence each other. A sample that cannot reach s is NaN.

    Args:
        tableau: Method with an error estimate.
        field: Function (x, t) -> dx/dt.
        x: Initial states (B, *event).
        t: Initial time, () or (B,).
        s: Final time.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        first: First step as a fraction of s − t.
        on_step: Function (step, accepted) -> a number per sample (B,), summed over the accepted steps.
        set_active: Called before each step with the samples that take it (B,); other samples are ignored.

    Reference: Hairer, Nørsett and Wanner (1993), section II.4.
    """
    if not (tableau.error and rtol >= 0 and atol > 0):
        raise InputError(f"got rtol={rtol}, atol={atol}; expected rtol ≥ 0, atol > 0 and a method with an error")
    done, h = x.new_zeros(len(x), dtype=torch.float64), x.new_full((len(x),), first, dtype=torch.float64)
    k, nfe, rejected = field(x, t.expand(len(x))), torch.ones_like(done), done > 0
    total = torch.zeros_like(done)
    while bool((active := done < 1).any()):
        if set_active is not None:
            set_active(active)
        remaining, max_factor = 1 - done, torch.where(rejected, 1.0, 2.0)
        h = _fit(h, remaining)
        start, stop = t + (s - t) * done, t + (s - t) * (done + h)
        stages = _stages(tableau, field, x, start, stop, [k])
        new = _combine(x, stop - start, tableau.b, stages)
        error = _combine(torch.zeros_like(x), stop - start, tableau.error, stages)
        ratio = _size(error / (atol + rtol * torch.maximum(x.abs(), new.abs())))
        accepted = active & (ratio <= 1)
        if on_step is not None:
            step = Step(tableau, start, stop, x, new, stages, error)
            total = torch.where(accepted, total + on_step(step, accepted), total)
        x, k = torch.where(_rows(accepted, x) > 0, new, x), torch.where(_rows(accepted, x) > 0, stages[-1], k)
        nfe = nfe + active * (len(stages) - 1)
        done = torch.where(accepted, torch.where(h < remaining, done + h, 1.0), done)
        h = h * (0.8 * ratio.clamp_min(1e-10) ** (-1 / tableau.order)).clamp_min(0.2).minimum(max_factor)
        rejected, failed = active & ~accepted, active & ~accepted & (h < 1e-12)
        x, done = torch.where(_rows(failed, x) > 0, torch.nan, x), torch.where(failed, 1, done)
    return Solution(x, nfe, total)


def _fit(h: Tensor, remaining: Tensor) -> Tensor:
    """The next step: the rest of the interval if h is at least 99 % of it, at most half of it otherwise."""
    return torch.where(h > 0.99 * remaining, remaining, torch.minimum(h, remaining / 2))


def _size(e: Tensor) -> Tensor:
    """The root mean square per sample, float64; ∞ for NaN."""
    return e.double().flatten(1).square().mean(1).sqrt().nan_to_num(nan=torch.inf)
