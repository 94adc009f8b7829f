"""Steps with coefficients fitted to one model: rows of the multistep family in the frame of the data's moments.

With y the coordinates of the state, R_j the latest values of the remainder, and a row (c, w_j) of second order,

    y' = (1 + θ_0) c y + Σ_j (w_j + θ_{j+1} I_0) R_{i−j},        I_0 the weight of a held remainder,

so a step costs what an uncorrected one costs, and θ = 0 is the row itself. A gated one has θ + φ g for θ, with the gain
g = s²/(s² + σ̂²) of every direction at the end of the step. The times are fitted as well. Nothing here fits: see
`undiffuse.tuning`.

Reference: for coefficients fitted by descent, Zheng et al. (2023), arXiv:2310.13268.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.gaussian import Moments
from undiffuse.steps.by_class import REST, ByClass, Part
from undiffuse.steps.exponential import Multistep
from undiffuse.steps.kernel import Data, Kernel
from undiffuse.steps.method import Method, Plan
from undiffuse.steps.rows import Row
from undiffuse.steps.start import after, jump
from undiffuse.steps.state import Node, Step

VALUES = 4
"""How many values of the remainder a step combines."""


class Own(NamedTuple):
    """What a class has of its own: corrections, and the moments of its data or None for those of all."""

    theta: Tensor
    frame: Moments | None


@dataclass(frozen=True)
class Calibration:
    """A sampler fitted to one model for one number of evaluations.

    times (m + 1,): falling; theta (n, 1 + VALUES): the corrections θ of each step that evaluates, (n, 2 + 2 VALUES)
    with φ; leap: the first step evaluates nothing (m = n + 1), it follows the flow of a Gaussian of the data's moments.
    own: what classes have instead, by their numbers.
    """

    times: Tensor
    theta: Tensor
    leap: bool
    own: Mapping[int, Own] = field(default_factory=dict)

    @property
    def gated(self) -> bool:
        """Whether the corrections differ from direction to direction."""
        return self.theta.shape[1] > 1 + VALUES

    @property
    def evaluations(self) -> int:
        """How many evaluations it makes."""
        return len(self.theta)

    def method(self, frame: Moments) -> Method:
        """The sampler, on its own grid."""

        def make(plan: Plan) -> Step:
            nodes = plan.nodes[self.leap:]
            if self.own:
                step = ByClass(self._parts(frame, nodes, plan.like), VALUES)
                return after(step.jump, step) if self.leap else step
            kernel = Data(frame=frame)
            plain = Multistep(kernel, VALUES, nodes, plan.like)
            plain.rows = fitted_rows(kernel, nodes, self.theta, plan.like)
            return after(jump(frame), plain) if self.leap else plain

        return Method(make, 2, grid=self.times)

    def _parts(self, frame: Moments, nodes: list[Node], like: Tensor) -> list[Part]:
        """The classes by their linear parts, that of all classes first."""
        parts = [Part(Data(frame=frame), {})]
        for c, own in {REST: Own(self.theta, None), **self.own}.items():
            if own.frame is not None:
                parts.append(Part(Data(frame=own.frame), {}))
            part = parts[0 if own.frame is None else -1]
            part.rows[c] = fitted_rows(part.kernel, nodes, own.theta, like)
        return parts


@dataclass(frozen=True)
class Tuning:
    """The calibrations of a model by the names of the conditions given and the number of evaluations.

    frame: the moments they were fitted with; t_end: where their paths end; rows: what was measured on held-out noises;
    family: tunings of the model at rising strengths of something, such as guidance, on the same nodes; at: the strength
    that this one is for, in words. model: its SHA-256.
    """

    frame: Moments
    t_end: float
    table: Mapping[str, Mapping[int, Calibration]]
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    family: tuple[tuple[float, Tuning], ...] = ()
    at: str = ""
    model: str = ""

    def find(self, steps: int, ends: tuple[float | None, float | None], cond: Mapping[str, Any]) -> Calibration | None:
        """The sampler for so many evaluations under these conditions, from T to the end it was fitted for."""
        if ends[0] is not None or (ends[1] is not None and abs(ends[1] - self.t_end) >= 1e-9):
            return None
        return self.table.get(",".join(sorted(cond)), {}).get(steps)

    def strength(self, value: float) -> Tuning | None:
        """The tuning of that strength, coefficients interpolated linearly; an empty one outside of what was fitted, and
        none without a family."""
        known = [strength for strength, _ in self.family]
        if not known:
            return None
        if not known[0] <= value <= known[-1]:
            return Tuning(self.frame, self.t_end, {},
                          at=f" at scale {value:g}, outside of {known[0]:g} to {known[-1]:g}")
        k = bisect_left(known, value)
        high, b = self.family[k]
        if value == high:
            return replace(b, at=f" at scale {value:g}")
        low, a = self.family[k - 1]
        at = f" at scale {value:g}, between {low:g} and {high:g}"
        return replace(between(a, b, (value - low) / (high - low)), at=at)


def between(a: Tuning, b: Tuning, share: float) -> Tuning:
    """The tuning at a share of the way from a to b, which have the same nodes; what one lacks is left out."""
    table = {given: {n: replace(c, theta=(1 - share) * c.theta + share * b.table[given][n].theta)
                     for n, c in known.items() if n in b.table[given]} for given, known in a.table.items()}
    return Tuning(a.frame, a.t_end, table)


def plain_rows(kernel: Kernel, nodes: list[Node], like: Tensor) -> tuple[list[Row], list[Row]]:
    """The rows of second order, which are corrected, and those of first order, whose weight is I_0."""
    return Multistep(kernel, 2, nodes, like).rows, Multistep(kernel, 1, nodes, like).rows


def fitted_rows(kernel: Data, nodes: list[Node], theta: Tensor, like: Tensor) -> list[Row]:
    """The rows of second order with their corrections, (n, 1 + VALUES) or (n, 2 + 2 VALUES)."""
    parts = zip(*plain_rows(kernel, nodes, like), theta.tolist(), nodes[1:], strict=True)
    return [corrected(row, held, numbers, gain(kernel, s, like)) for row, held, numbers, s in parts]


def gain(kernel: Data, s: Node, like: Tensor) -> Tensor:
    """s²/(s² + σ̂²) at a node, (k,): which share of a direction the noise has left."""
    return like.new_tensor(kernel.s2 / (kernel.s2 + np.exp(-2 * s.log_snr)))


def corrected(row: Row, held: Row, theta: list[float], gains: Tensor) -> Row:
    """The row with its corrections."""
    plain, gates = [*row.weights, *[0.0] * (VALUES - len(row.weights))], theta[1 + VALUES:]
    found: list[Any] = [a + b * gains for a, b in zip(theta, gates, strict=False)] if gates else list(theta)
    return Row(row.carry * (1 + found[0]), [w + c * held.weights[0] for w, c in zip(plain, found[1:], strict=True)],
               row.spread)


def tuned(model: Any, steps: int, ends: tuple[float | None, float | None], cond: Mapping[str, Any]
          ) -> tuple[str, Method] | None:
    """The name and the sampler fitted to this model for the request, if there is one."""
    tuning: Tuning | None = getattr(model, "tuning", None)
    found = tuning.find(steps, ends, cond) if tuning is not None else None
    if tuning is None or found is None:
        return None
    by_class = ", class by class" * bool(found.own)
    return f"tuned to this model for {steps} evaluations{by_class}{tuning.at}", found.method(tuning.frame)


def required(model: Any, steps: int, ends: tuple[float | None, float | None], cond: Mapping[str, Any]
             ) -> tuple[str, Method]:
    """The same; raises InputError, saying what there is, where there is none."""
    found = tuned(model, steps, ends, cond)
    if found is None:
        tuning: Tuning | None = getattr(model, "tuning", None)
        there = {} if tuning is None else tuning.table.get(",".join(sorted(cond)), {})
        at = (tuning.at if tuning else "") or " for this request"
        have = f"has one for {', '.join(map(str, there))} steps" if there else f"has none{at}"
        raise InputError(f"got method='tuned' at {steps} steps for a model that {have}; tune it first")
    return found
