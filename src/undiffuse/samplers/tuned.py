"""Steps with coefficients fitted to one model: rows of the multistep family in the frame of the data's moments.

With y the coordinates of the state, R_j the latest values of the remainder, and a row (c, w_j) of second order,

    y' = (1 + θ_0) c y + Σ_j (w_j + θ_{j+1} I_0) R_{i−j},        I_0 the weight of a held remainder,

so a step costs what an uncorrected one costs, and θ = 0 is the row itself. A gated one has θ + φ g for θ, with the gain
g = s²/(s² + σ̂²) of every direction at the end of the step. The times are fitted as well. Nothing here fits: see
`undiffuse.tuning`.

Reference: for coefficients fitted by descent, Zheng et al. (2023), arXiv:2310.13268.

A step fitted class by class: every class has coefficients, and where that helps a linear part, of its own.

All classes have the same nodes, and the model is asked once for a whole batch. A batch as a whole is turned to the
coordinates of each linear part, and every class keeps its own rows, so that a row is the same bytes whatever is beside
it. The class `REST` stands for all that have nothing of their own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.moments import Moments
from undiffuse.samplers.coefficients import DataPrediction, Kernel, StepCoefficients, step_coefficients
from undiffuse.samplers.exponential import Multistep, after, gaussian_flow_step
from undiffuse.samplers.method import Method, Node, SamplerContext, State, Step

OTHER_CLASSES = -1


class CoordinateGroup(NamedTuple):
    """A linear part, and the rows, one a step, of the classes that have it."""

    kernel: DataPrediction
    rows: dict[int, list[StepCoefficients]]


@dataclass(frozen=True)
class PerClassSampler:
    """The multistep method that combines `order` values, made of such parts."""

    parts: Sequence[CoordinateGroup]
    order: int

    def __call__(self, state: State, s: Node) -> State:
        """One step: evaluate once, move every row by the numbers of its class."""
        i, node, label, parts = state.index, state.node, *self._there(state)
        D = state.model.denoise(state.x, node)
        ys = [part.kernel.enter(state.x, node) for part in parts]
        new = [(part.kernel.value(y, D, node), *values)[: self.order]
               for part, y, values in zip(parts, ys, state.memory or [()] * len(parts), strict=True)]
        moved = [{c: rows[i](y, values, None) for c, rows in part.rows.items()}
                 for part, y, values in zip(parts, ys, new, strict=True)]
        return state.moved(self._left(state.x, s, label, parts, moved), s, new)

    def jump(self, state: State, s: Node) -> State:
        """The flow of a Gaussian with the moments of the part, at no evaluation (`start.jump`)."""
        label, parts = self._there(state)
        ys = [part.kernel.enter(state.x, state.node) for part in parts]
        moved = [dict.fromkeys(part.rows, y * step_coefficients(part.kernel, state.node, s, [0.0], like=y).carry)
                 for part, y in zip(parts, ys, strict=True)]
        return state.moved(self._left(state.x, s, label, parts, moved), s)

    def _there(self, state: State) -> tuple[Tensor, list[CoordinateGroup]]:
        """The classes (B,) of a batch, and the parts with those that it has."""
        asked, own = state.model.cond["label"], {c for part in self.parts for c in part.rows}
        label = torch.as_tensor(OTHER_CLASSES if asked is None else asked).expand(len(state.x))
        label = torch.tensor([c if c in own else OTHER_CLASSES for c in label.tolist()], device=state.x.device)
        there = set(label.tolist())
        found = (
            CoordinateGroup(kernel, {c: each for c, each in rows.items() if c in there}) for kernel, rows in self.parts
        )
        return label, [part for part in found if part.rows]

    @staticmethod
    def _left(like: Tensor, s: Node, label: Tensor, parts: Sequence[CoordinateGroup], moved: Sequence[dict[int, Tensor]]
              ) -> Tensor:
        """The states at s, of every row in the coordinates and by the numbers of its class."""
        x = torch.zeros_like(like)
        for part, ys in zip(parts, moved, strict=True):
            y, mine = torch.zeros_like(next(iter(ys.values()))), torch.zeros_like(label, dtype=torch.bool)
            for c, each in ys.items():
                y, mine = torch.where((label == c)[:, None], each, y), mine | (label == c)
            x = torch.where(mine.view(-1, *[1] * (x.ndim - 1)), part.kernel.leave(y, s), x)
        return x


VALUES = 4
"""How many values of the remainder a step combines."""


class ClassCoefficients(NamedTuple):
    """What a class has of its own: corrections, and the moments of its data or None for those of all."""

    theta: Tensor
    frame: Moments | None


@dataclass(frozen=True)
class TunedSampler:
    """A sampler fitted to one model for one number of evaluations.

    times (m + 1,): falling; theta (n, 1 + VALUES): the corrections θ of each step that evaluates, (n, 2 + 2 VALUES)
    with φ; leap: the first step evaluates nothing (m = n + 1), it follows the flow of a Gaussian of the data's moments.
    own: what classes have instead, by their numbers.
    """

    times: Tensor
    theta: Tensor
    leap: bool
    own: Mapping[int, ClassCoefficients] = field(default_factory=dict)

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

        def make(plan: SamplerContext) -> Step:
            nodes = plan.nodes[self.leap:]
            if self.own:
                step = PerClassSampler(self._parts(frame, nodes, plan.like), VALUES)
                return after(step.jump, step) if self.leap else step
            kernel = DataPrediction(frame=frame)
            plain = Multistep(kernel, VALUES, nodes, plan.like)
            plain.rows = fitted_rows(kernel, nodes, self.theta, plan.like)
            return after(gaussian_flow_step(frame), plain) if self.leap else plain

        return Method(make, 2, grid=self.times)

    def _parts(self, frame: Moments, nodes: list[Node], like: Tensor) -> list[CoordinateGroup]:
        """The classes by their linear parts, that of all classes first."""
        parts = [CoordinateGroup(DataPrediction(frame=frame), {})]
        for c, own in {OTHER_CLASSES: ClassCoefficients(self.theta, None), **self.own}.items():
            if own.frame is not None:
                parts.append(CoordinateGroup(DataPrediction(frame=own.frame), {}))
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
    table: Mapping[str, Mapping[int, TunedSampler]]
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    family: tuple[tuple[float, Tuning], ...] = ()
    at: str = ""
    model: str = ""

    def find(self, steps: int, ends: tuple[float | None, float | None], cond: Mapping[str, Any]) -> TunedSampler | None:
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
        return replace(interpolate_tuning(a, b, (value - low) / (high - low)), at=at)


def interpolate_tuning(a: Tuning, b: Tuning, share: float) -> Tuning:
    """The tuning at a share of the way from a to b, which have the same nodes; what one lacks is left out."""
    table = {given: {n: replace(c, theta=(1 - share) * c.theta + share * b.table[given][n].theta)
                     for n, c in known.items() if n in b.table[given]} for given, known in a.table.items()}
    return Tuning(a.frame, a.t_end, table)


def plain_rows(
    kernel: Kernel, nodes: list[Node], like: Tensor
) -> tuple[list[StepCoefficients], list[StepCoefficients]]:
    """The rows of second order, which are corrected, and those of first order, whose weight is I_0."""
    return Multistep(kernel, 2, nodes, like).rows, Multistep(kernel, 1, nodes, like).rows


def fitted_rows(kernel: DataPrediction, nodes: list[Node], theta: Tensor, like: Tensor) -> list[StepCoefficients]:
    """The rows of second order with their corrections, (n, 1 + VALUES) or (n, 2 + 2 VALUES)."""
    parts = zip(*plain_rows(kernel, nodes, like), theta.tolist(), nodes[1:], strict=True)
    return [apply_corrections(row, held, numbers, gain(kernel, s, like)) for row, held, numbers, s in parts]


def gain(kernel: DataPrediction, s: Node, like: Tensor) -> Tensor:
    """s²/(s² + σ̂²) at a node, (k,): which share of a direction the noise has left."""
    return like.new_tensor(kernel.s2 / (kernel.s2 + np.exp(-2 * s.log_snr)))


def apply_corrections(
    row: StepCoefficients, held: StepCoefficients, theta: list[float], gains: Tensor
) -> StepCoefficients:
    """The row with its corrections."""
    plain, gates = [*row.weights, *[0.0] * (VALUES - len(row.weights))], theta[1 + VALUES:]
    found: list[Any] = [a + b * gains for a, b in zip(theta, gates, strict=False)] if gates else list(theta)
    return StepCoefficients(
        row.carry * (1 + found[0]), [w + c * held.weights[0] for w, c in zip(plain, found[1:], strict=True)], row.spread
    )


def find_tuned(model: Any, steps: int, ends: tuple[float | None, float | None], cond: Mapping[str, Any]
          ) -> tuple[str, Method] | None:
    """The name and the sampler fitted to this model for the request, if there is one."""
    tuning: Tuning | None = getattr(model, "tuning", None)
    found = tuning.find(steps, ends, cond) if tuning is not None else None
    if tuning is None or found is None:
        return None
    by_class = ", class by class" * bool(found.own)
    return f"tuned to this model for {steps} evaluations{by_class}{tuning.at}", found.method(tuning.frame)


def require_tuned(model: Any, steps: int, ends: tuple[float | None, float | None], cond: Mapping[str, Any]
             ) -> tuple[str, Method]:
    """The same; raises InputError, saying what there is, where there is none."""
    found = find_tuned(model, steps, ends, cond)
    if found is None:
        tuning: Tuning | None = getattr(model, "tuning", None)
        there = {} if tuning is None else tuning.table.get(",".join(sorted(cond)), {})
        at = (tuning.at if tuning else "") or " for this request"
        have = f"has one for {', '.join(map(str, there))} steps" if there else f"has none{at}"
        raise InputError(f"got method='tuned' at {steps} steps for a model that {have}; tune it first")
    return found
