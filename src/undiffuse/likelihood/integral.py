"""Two ways to b = ∫ tr J_R dλ along the paths: in one system with u, or by quadrature over the steps of u alone.

u does not depend on b. In one system Dormand and Prince's method wants a trace at five places a step, all of which it
evaluates anyway: the fewest evaluations. Lobatto's rule wants three a step, at places that are evaluated for it: the
least work where a trace takes many products with the Jacobian.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.likelihood.rows import packed
from undiffuse.likelihood.trace import Traced
from undiffuse.ode import Step

MANY = 4  # products a trace takes beyond which they are the work

_PLACES = (0.0, 0.5 - 0.5 / math.sqrt(5), 0.5 + 0.5 / math.sqrt(5), 1.0)
_WEIGHTS = (1 / 12, 5 / 12, 5 / 12, 1 / 12)
_CUBIC = (-1 / 4, math.sqrt(5) / 4, -math.sqrt(5) / 4, 1 / 4)  # of Legendre's P₃ in the cubic through the places
_MISSED = 0.44  # what the rule makes of Legendre's P₆, the first whose integral it misses: 1/6 + 5/6 P₆(1/√5)


class Path(NamedTuple):
    """The end of the paths: u and its pace du/dλ (B, k), b and its rate (B, n), evaluations and claimed error (B,)."""

    u: Tensor
    pace: Tensor
    b: Tensor
    rate: Tensor
    spent: Tensor
    seen: Tensor


class Joint(Traced):
    """The ODE for (u, b), b in a unit in which a tolerance for u is √k times as large for log p."""

    def path(self, rtol: float, atol: float) -> Path:
        """From the data to T."""
        self.size, k, frame = self.pack, len(self.frame.spectrum), self.frame
        self.unit = math.sqrt(self.n * k / (k + self.n))
        u = frame.enter(self.z, frame.start)
        y = torch.cat([u, u.new_zeros(len(u), self.n)], 1)
        found = self.solve(y, frame.start, frame.end, rtol, atol)
        self.going = self.real
        (u, b), (pace, rate) = map(self._parts, (found.x, self.field(found.x, frame.end.expand(len(u)))))
        return Path(u, pace, b, rate, found.evaluations + 1, found.error)

    def slope(self, rows: Tensor, y: Tensor, lam: Tensor) -> Tensor:
        """d(u, b)/dλ of one pack."""
        u, _ = self._parts(y)
        D, rate = self.residual(rows, u, lam)
        return torch.cat([self.frame.slope(u, D, lam), rate / self.unit], 1)

    def judge(self, step: Step, kept: Tensor) -> Tensor:
        """What the step's errors of b and of u do to log p, (B,)."""
        (u, _), (pace, _), (wrong_u, wrong_b) = map(self._parts, (step.new, step.slopes[-1], step.error))
        return (wrong_b.mean(1) + self.matter(u, pace, step.s, wrong_u)).abs()

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return y[:, : -self.n], self.unit * y[:, -self.n :]


class Apart(Traced):
    """The ODE for u, and over every step that is kept Lobatto's rule on its interpolant."""

    def path(self, rtol: float, atol: float) -> Path:
        """From the data to T."""
        frame, u = self.frame, self.frame.enter(self.z, self.frame.start)
        rows, self.b = self.real.nonzero()[:, 0].to(u.device), u.new_zeros(len(u), self.n)
        self.spent, self.pace = u.new_ones(len(u)), torch.zeros_like(u)
        self.rate = torch.zeros_like(self.b).index_copy(0, rows, self._rates(rows, u, frame.start.expand(len(u))))
        found = self.solve(u, frame.start, frame.end, rtol, atol)
        return Path(found.x, self.pace, self.b, self.rate, found.evaluations + self.spent, found.error)

    def judge(self, step: Step, kept: Tensor) -> Tensor:
        """Adds the step's part of b; what its errors of b and of u do to log p, (B,)."""
        rows = (kept.cpu() & self.real).nonzero()[:, 0].to(kept.device)
        claim = self.matter(step.new, step.slopes[-1], step.s, step.error).abs()
        if not len(rows):
            return claim
        h, count = (step.s - step.t)[rows].to(self.b)[:, None], len(kept)
        u = torch.cat([step.at(c) for c in _PLACES[1:]])
        lam = torch.cat([step.t + c * (step.s - step.t) for c in _PLACES[1:]])
        new = self._rates(torch.cat([rows + i * count for i in range(3)]), u, lam)
        rates = (self.rate[rows], *new.split(len(rows)))
        self.b[rows] += h * _weighted(_WEIGHTS, rates)
        self.rate[rows], self.pace[rows] = rates[-1], step.slopes[-1][rows]
        self.spent[rows] += 3
        return claim.index_add(0, rows, (h[:, 0] * _missed(tuple(rate.mean(1) for rate in rates))).abs().to(claim))

    def _rates(self, places: Tensor, u: Tensor, lam: Tensor) -> Tensor:
        """db/dλ of u at λ for some places (m,), where place i belongs to row i modulo the number of rows: (m, n)."""
        (found,) = packed(lambda part: self.residual(part % len(self.z), u[part], lam[part])[1:], places, self.pack)
        return found


def _weighted(weights: tuple[float, ...], values: tuple[Tensor, ...]) -> Tensor:
    return sum((w * value for w, value in zip(weights, values, strict=True)), torch.zeros_like(values[0]))


def _missed(rates: tuple[Tensor, ...]) -> Tensor:
    """What the rule misses, if the coefficients of Legendre's polynomials fall geometrically: c₆ = c₃²/c₀."""
    size = torch.stack(rates).abs().amax(0).clamp_min(1e-30)
    return _MISSED * _weighted(_CUBIC, rates) ** 2 / size
