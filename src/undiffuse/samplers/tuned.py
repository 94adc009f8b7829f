"""Tuned samplers: multistep steps in the coordinates of the data's moments, with coefficients fitted to one model.

With y the coordinates of the state, R_j the latest values of the remainder, and second-order coefficients (c, w_j),

    y' = (1 + θ_0) c y + Σ_j (w_j + θ_{j+1} I_0) R_{i−j},        I_0 the weight of first order,

so a step costs as much as an uncorrected one, and θ = 0 is the second-order step. A gated sampler replaces θ
by θ + φ g, with the gain g = s²/(s² + σ̂²) of every direction at the end of the step. The times are fitted as well.
Classes may have separate coefficients and moments on the same nodes; each row of a batch uses the coefficients of its
class, so that a sample has the same bytes in any batch. Fitting is in `undiffuse.tuning`.

Reference: for coefficients fitted by gradient descent, Zheng et al. (2023), arXiv:2310.13268.
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
from undiffuse.guidance import ExtrapolationGuidance
from undiffuse.model import Model, ReverseModel
from undiffuse.moments import Moments
from undiffuse.samplers.coefficients import DataPrediction, Kernel, StepCoefficients, step_coefficients
from undiffuse.samplers.default import EndTimes
from undiffuse.samplers.exponential import Multistep, after, gaussian_flow_step
from undiffuse.samplers.method import Method, Node, SamplerContext, State, Step
from undiffuse.wrappers import TransparentWrapper

VALUES = 4
"""The number of values of the remainder that a step combines."""
OTHER_CLASSES = -1
"""The class that stands for all without separate coefficients."""


class CoordinateGroup(NamedTuple):
    """Coordinates, and for each class that uses them its coefficients, one entry per step."""

    kernel: DataPrediction
    coefficients: dict[int, list[StepCoefficients]]


@dataclass(frozen=True)
class PerClassSampler:
    """The multistep method whose coefficients depend on the class: one model evaluation per step for the batch."""

    groups: Sequence[CoordinateGroup]

    def __call__(self, state: State, s: Node) -> State:
        """One step: evaluate once, then move every row by the coefficients of its class."""
        i, node, (label, groups) = state.index, state.node, self._groups_of(state)
        D = state.model.denoise(state.x, node)
        ys = [group.kernel.to_coordinates(state.x, node) for group in groups]
        memory = [(group.kernel.residual(y, D, node), *values)[:VALUES]
                  for group, y, values in zip(groups, ys, state.memory or [()] * len(groups), strict=True)]
        moved = [{c: table[i](y, values, None) for c, table in group.coefficients.items()}
                 for group, y, values in zip(groups, ys, memory, strict=True)]
        return state.advance(_merge_classes(state.x, s, label, groups, moved), s, memory)

    def first_step(self, state: State, s: Node) -> State:
        """`gaussian_flow_step` with the moments of each class."""
        label, groups = self._groups_of(state)
        ys = [group.kernel.to_coordinates(state.x, state.node) for group in groups]
        decays = [step_coefficients(group.kernel, state.node, s, [0.0], template=y).decay
                  for group, y in zip(groups, ys, strict=True)]
        moved = [dict.fromkeys(group.coefficients, y * c) for group, y, c in zip(groups, ys, decays, strict=True)]
        return state.advance(_merge_classes(state.x, s, label, groups, moved), s)

    def _groups_of(self, state: State) -> tuple[Tensor, list[CoordinateGroup]]:
        """The classes (B,) of a batch, and the groups with those classes only."""
        label, fitted = state.model.cond["label"], {c for group in self.groups for c in group.coefficients}
        classes = torch.as_tensor(OTHER_CLASSES if label is None else label).expand(len(state.x)).tolist()
        present = torch.tensor([c if c in fitted else OTHER_CLASSES for c in classes], device=state.x.device)
        names = set(present.tolist())
        groups = (CoordinateGroup(kernel, {c: table for c, table in tables.items() if c in names})
                  for kernel, tables in self.groups)
        return present, [group for group in groups if group.coefficients]


def _merge_classes(template: Tensor, s: Node, label: Tensor, groups: Sequence[CoordinateGroup],
                   moved: Sequence[dict[int, Tensor]]) -> Tensor:
    """The states at s: each row from the coordinates and coefficients of its class."""
    x = torch.zeros_like(template)
    for group, ys in zip(groups, moved, strict=True):
        y, rows = torch.zeros_like(next(iter(ys.values()))), torch.zeros_like(label, dtype=torch.bool)
        for c, value in ys.items():
            y, rows = torch.where((label == c)[:, None], value, y), rows | (label == c)
        x = torch.where(rows.view(-1, *[1] * (x.ndim - 1)), group.kernel.from_coordinates(y, s), x)
    return x


class ClassCoefficients(NamedTuple):
    """The corrections θ of a class, and the moments of its data; None: the moments of all data."""

    theta: Tensor
    moments: Moments | None


@dataclass(frozen=True)
class TunedSampler:
    """A sampler fitted to one model for one number of evaluations.

    Args:
        times: (m + 1,), decreasing.
        theta: (n, 1 + VALUES), the corrections θ of each step that evaluates, or (n, 2 + 2 VALUES) with φ.
        first_step_free: the first step is the Gaussian flow of the data's moments, without evaluation (m = n + 1).
        per_class: separate coefficients by class.
    """

    times: Tensor
    theta: Tensor
    first_step_free: bool
    per_class: Mapping[int, ClassCoefficients] = field(default_factory=dict)

    @property
    def gated(self) -> bool:
        """Whether the corrections differ between directions."""
        return self.theta.shape[1] > 1 + VALUES

    @property
    def evaluations(self) -> int:
        """The number of model evaluations."""
        return len(self.theta)

    def method(self, moments: Moments) -> Method:
        """The `Method`, on its own times."""

        def make(context: SamplerContext) -> Step:
            nodes = context.nodes[self.first_step_free:]
            if self.per_class:
                step = PerClassSampler(self._groups(moments, nodes, context.template))
                return after(step.first_step, step) if self.first_step_free else step
            kernel = DataPrediction(frame=moments)
            tuned = Multistep(kernel, VALUES, nodes, context.template)
            tuned.predictions = fitted_coefficients(kernel, nodes, self.theta, context.template)
            return after(gaussian_flow_step(moments), tuned) if self.first_step_free else tuned

        return Method(make, 2, grid=self.times, first_step_free=self.first_step_free)

    def _groups(self, moments: Moments, nodes: list[Node], template: Tensor) -> list[CoordinateGroup]:
        """The classes by their coordinates, the coordinates of all data first."""
        groups = [CoordinateGroup(DataPrediction(frame=moments), {})]
        for c, part in {OTHER_CLASSES: ClassCoefficients(self.theta, None), **self.per_class}.items():
            if part.moments is not None:
                groups.append(CoordinateGroup(DataPrediction(frame=part.moments), {}))
            group = groups[0 if part.moments is None else -1]
            group.coefficients[c] = fitted_coefficients(group.kernel, nodes, part.theta, template)
        return groups


@dataclass(frozen=True)
class Tuning:
    """The samplers fitted to a model.

    Args:
        moments: moments of the coordinates in which they were fitted.
        t_end: end time of their trajectories.
        table: samplers by the names of the conditions ("" or "label") and the number of evaluations.
        rows: results on held-out noise samples.
        family: (strength, tuning) of the model at increasing guidance scales, on the same nodes.
        scale_text: the scale that this one is for, in words.
        model: SHA-256 of the model.
    """

    moments: Moments
    t_end: float
    table: Mapping[str, Mapping[int, TunedSampler]]
    rows: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    family: tuple[tuple[float, Tuning], ...] = ()
    scale_text: str = ""
    model: str = ""

    def find(self, steps: int, end_times: EndTimes, cond: Mapping[str, Any]) -> TunedSampler | None:
        """The sampler for a number of evaluations under these conditions, from T to the end it was fitted for.

        Args:
            steps: number of evaluations.
            end_times: t_start and t_end of the request; None: the model's defaults.
            cond: the conditions; only their names count.
        """
        t_start, t_end = end_times
        if t_start is not None or (t_end is not None and abs(t_end - self.t_end) >= 1e-9):
            return None
        return self.samplers(cond).get(steps)

    def samplers(self, cond: Mapping[str, Any]) -> Mapping[int, TunedSampler]:
        """The samplers for conditions of these names, by the number of evaluations.

        Args:
            cond: the conditions; only their names count.
        """
        return self.table.get(",".join(sorted(cond)), {})

    def strength(self, value: float) -> Tuning | None:
        """The tuning at a strength, with linearly interpolated coefficients; an empty one outside the fitted range, and
        None without a family."""
        strengths = [strength for strength, _ in self.family]
        if not strengths:
            return None
        if not strengths[0] <= value <= strengths[-1]:
            return Tuning(self.moments, self.t_end, {},
                          scale_text=f" at scale {value:g}, outside of {strengths[0]:g} to {strengths[-1]:g}")
        k = bisect_left(strengths, value)
        high, b = self.family[k]
        if value == high:
            return replace(b, scale_text=f" at scale {value:g}")
        low, a = self.family[k - 1]
        text = f" at scale {value:g}, between {low:g} and {high:g}"
        return replace(interpolate_tuning(a, b, (value - low) / (high - low)), scale_text=text)


class Tuned(TransparentWrapper):
    """A model with its tuning; `sample` uses the tuned samplers by default."""

    def __init__(self, inner: Model, tuning: Tuning) -> None:
        super().__init__(inner.inner if isinstance(inner, Tuned) else inner)
        self.tuning = tuning


class TunedChoice(NamedTuple):
    """A tuned sampler, and the request that it was fitted for in words."""

    tuned_for: str
    method: Method


def tuning_of(model: ReverseModel) -> Tuning | None:
    """The tuning of a model, or of its classifier-free guidance at this scale; None if it is not tuned."""
    if isinstance(model, Tuned):
        return model.tuning
    if isinstance(model, ExtrapolationGuidance) and model.plain and isinstance(model.inner, Tuned):
        return model.inner.tuning.strength(model.scale)
    return None


def find_tuned(model: ReverseModel, steps: int, end_times: EndTimes, cond: Mapping[str, Any]) -> TunedChoice | None:
    """The sampler fitted to a model for this request; None if there is not one.

    Args:
        model: the model.
        steps: number of evaluations.
        end_times: t_start and t_end of the request; None: the model's defaults.
        cond: the conditions; only their names count.
    """
    tuning = tuning_of(model)
    sampler = None if tuning is None else tuning.find(steps, end_times, cond)
    if tuning is None or sampler is None:
        return None
    by_class = ", class by class" if sampler.per_class else ""
    return TunedChoice(f"{steps} evaluations{by_class}{tuning.scale_text}", sampler.method(tuning.moments))


def require_tuned(model: ReverseModel, steps: int, end_times: EndTimes, cond: Mapping[str, Any]) -> TunedChoice:
    """The sampler fitted to a model for this request; raises InputError, listing the fitted ones, otherwise.

    Args:
        model: the model.
        steps: number of evaluations.
        end_times: t_start and t_end of the request; None: the model's defaults.
        cond: the conditions; only their names count.
    """
    choice = find_tuned(model, steps, end_times, cond)
    if choice is None:
        tuning = tuning_of(model)
        table = {} if tuning is None else tuning.samplers(cond)
        scale = (tuning.scale_text if tuning else "") or " for this request"
        state = f"has one for {', '.join(map(str, table))} steps" if table else f"has none{scale}"
        raise InputError(f"got method='tuned' at {steps} steps for a model that {state}; tune it first")
    return choice


def interpolate_tuning(a: Tuning, b: Tuning, fraction: float) -> Tuning:
    """The tuning between a and b, without entries that b lacks.

    Args:
        a: the tuning at fraction 0.
        b: the tuning at fraction 1, with the nodes of a.
        fraction: the position between them.
    """
    table = {names: {n: replace(c, theta=(1 - fraction) * c.theta + fraction * b.table[names][n].theta)
                     for n, c in samplers.items() if n in b.table[names]} for names, samplers in a.table.items()}
    return Tuning(a.moments, a.t_end, table)


def plain_coefficients(kernel: Kernel, nodes: list[Node], template: Tensor
                       ) -> tuple[list[StepCoefficients], list[StepCoefficients]]:
    """The second-order coefficients, which are corrected, and the first-order ones, whose weight is I_0.

    Args:
        kernel: the linear part and the remainder v.
        nodes: the grid.
        template: a tensor of the states' dtype and device.
    """
    second, first = (Multistep(kernel, order, nodes, template).predictions for order in (2, 1))
    return second, first


def fitted_coefficients(kernel: DataPrediction, nodes: list[Node], theta: Tensor, template: Tensor
                        ) -> list[StepCoefficients]:
    """The second-order coefficients with corrections θ.

    Args:
        kernel: the linear part and the remainder v.
        nodes: the grid.
        theta: the corrections θ of each step, (n, 1 + VALUES), or (n, 2 + 2 VALUES) with φ.
        template: a tensor of the states' dtype and device.
    """
    steps = zip(*plain_coefficients(kernel, nodes, template), theta.tolist(), nodes[1:], strict=True)
    return [apply_corrections(second, first, numbers, gain(kernel, s, template)) for second, first, numbers, s in steps]


def gain(kernel: DataPrediction, s: Node, template: Tensor) -> Tensor:
    """s²/(s² + σ̂²) at a node, (k,): the fraction of each direction's variance that is data.

    Args:
        kernel: the linear part, which holds s², the data's variance by direction.
        s: the node.
        template: a tensor of the states' dtype and device.
    """
    return template.new_tensor(kernel.s2 / (kernel.s2 + np.exp(-2 * s.log_snr)))


def apply_corrections(second: StepCoefficients, first: StepCoefficients, theta: list[float], gains: Tensor
                      ) -> StepCoefficients:
    """The second-order coefficients of a step with its corrections.

    Args:
        second: the second-order coefficients.
        first: the first-order coefficients, whose weight is I_0.
        theta: the corrections of the step: 1 + VALUES numbers θ, or twice as many with φ.
        gains: s²/(s² + σ̂²) at the end of the step, (k,).
    """
    plain, gates = [*second.weights, *[0.0] * (VALUES - len(second.weights))], theta[1 + VALUES:]
    total: list[Any] = [a + b * gains for a, b in zip(theta, gates, strict=False)] if gates else list(theta)
    weights = [w + c * first.weights[0] for w, c in zip(plain, total[1:], strict=True)]
    return StepCoefficients(second.decay * (1 + total[0]), weights, second.noise_std)
