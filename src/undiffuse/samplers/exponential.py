"""Exponential integrators: the linear part is exact, the remainder v of a `Kernel` is interpolated by a polynomial.

    y' = decay · y + Σ_j w_j v_j + noise_std · ξ

`Multistep` interpolates the latest values of v, `Singlestep` values at stages inside the step. DDIM, DDPM's ancestral
sampler, DPM-Solver, DPM-Solver++ (and its SDE form), UniPC and SA-Solver are entries of one table (`registry`). Also
here: first steps for methods that cannot or need not begin at T, and an exponential Rosenbrock step.

Reference: Lu et al. (2022), arXiv:2206.00927 and arXiv:2211.01095; Zhao et al. (2023), arXiv:2302.04867 (UniPC);
Xue et al. (2023), arXiv:2309.05019 (SA-Solver).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.moments import Moments
from undiffuse.samplers.coefficients import (
    DataPrediction,
    Kernel,
    Rule,
    StepCoefficients,
    batch_step_coefficients,
    exact,
    step_coefficients,
)
from undiffuse.samplers.method import FirstKnown, Node, SamplerContext, State, Step, nodes_of
from undiffuse.sde import GaussianSDE, bcast


def ddim_update(x: Tensor, D: Tensor, node: Node, s: Node) -> Tensor:
    """The flow with constant D, x_s = (σ_s/σ_t) x + (α_s − α_t σ_s/σ_t) D; finite where α_t = 0.

    Args:
        x: x_t, (B, *event) in model units.
        D: the denoiser's value at x_t, like x.
        node: the node of x.
        s: the node to go to.
    """
    ratio = s.sigma / node.sigma
    return ratio * x + (s.alpha - node.alpha * ratio) * D


def first_order(state: State, s: Node) -> State:
    """DDIM's step."""
    return state.advance(ddim_update(state.x, state.model.denoise(state.x, state.node), state.node, s), s)


def gaussian_flow_step(moments: Moments) -> Step:
    """The flow of a Gaussian with the data's moments, y_s = (α_s Ψ_s/(α_t Ψ_t)) y_t in whitened coordinates.

    It needs no model evaluation. At noise levels far above the data's standard deviation, x_t has that Gaussian
    distribution up to the third cumulant over σ̂³.

    Reference: Wang and Vastola (2024), "analytical teleportation". arXiv:2412.09726
    """
    kernel = DataPrediction(frame=moments)

    def step(state: State, s: Node) -> State:
        y = kernel.to_coordinates(state.x, state.node)
        step_of = step_coefficients(kernel, state.node, s, [0.0], template=y)
        return state.advance(kernel.from_coordinates(y * step_of.decay, s), s)

    return step


def scale_noise(state: State, s: Node) -> State:
    """Noise at another level, (σ_s/σ_t) x: the first step of `from_noise`, without evaluation."""
    return state.advance(s.sigma / state.node.sigma * state.x, s)


def from_noise(method: Step) -> Step:
    """A method whose first state σ ε is noise alone: there x = σ ε + α D(σ ε), and D is not evaluated again.

    The law at that level is that of α x_0 + σ ε. With D in place of x_0 the state is on the path from pure noise along
    which D does not change, and ε is not asked of a network at levels where it says nothing of the data.
    """

    def step(state: State, s: Node) -> State:
        if state.index:
            return method(state, s)
        D = state.model.denoise(state.x, state.node)
        x = state.x + state.node.alpha * D
        return replace(method(replace(state, x=x, model=FirstKnown(state.model, D)), s), model=state.model)

    return step


def after(first: Step, method: Step) -> Step:
    """The step `first` once, then a method built for the other nodes, which counts its steps from 0."""

    def step(state: State, s: Node) -> State:
        if state.index == 0:
            return first(state, s)
        return replace(method(replace(state, index=state.index - 1), s), index=state.index + 1)

    return step


def rosenbrock(context: SamplerContext) -> Step:
    """dz/dλ = F = D − z by z' = z + h φ₁(hj) F + h² φ₂(hj) (F' − j F), j = ⟨F, F'⟩/⟨F, F⟩, of order 2 for any j.

    F' is a difference along a first-order step to the middle: two evaluations per step. For constant D, j = −1 and the
    step is exact; j = 0 is Runge's midpoint method. From α = 0 the step is of first order.

    Reference: Hochbruck, Ostermann and Schweitzer (2009), "Exponential Rosenbrock-type methods", eq. 2.6.
    """

    def step(state: State, s: Node) -> State:
        node, x = state.node, state.x
        D = state.model.denoise(x, node)
        if math.isinf(node.log_snr):
            return state.advance(ddim_update(x, D, node, s), s)
        h = node.step_to(s)
        (half,) = nodes_of(context.sde, context.sde.time_of(torch.tensor([node.log_snr + h / 2], dtype=torch.float64)))
        u = ddim_update(x, D, node, half)
        z, F = x / node.alpha, D - x / node.alpha
        slope = 2 / h * (state.model.denoise(u, half) - u / half.alpha - F)
        j = (F * slope).flatten(1).sum(1) / F.square().flatten(1).sum(1).clamp_min(1e-300)
        first, second = _phi((h * j).double().clamp(-50, 50))
        z = z + h * bcast(first, x) * F + h**2 * bcast(second, x) * (slope - bcast(j, x) * F)
        return state.advance(s.alpha * z, s)

    return step


def _phi(a: Tensor) -> tuple[Tensor, Tensor]:
    """φ₁ = (eᵃ − 1)/a and φ₂ = (φ₁ − 1)/a, by their series near 0."""
    small = a.abs() < 1e-3
    b = torch.where(small, torch.ones_like(a), a)
    first = torch.where(small, 1 + a / 2 + a**2 / 6, torch.expm1(b) / b)
    return first, torch.where(small, 0.5 + a / 6 + a**2 / 24, (first - 1) / b)


@dataclass
class Multistep:
    """An exponential multistep method.

    Args:
        kernel: the linear part and the remainder v.
        order: number of values of v that a step combines.
        nodes: the grid.
        template: a tensor of the states' dtype and device.
        corrector: repeat the last step with the new value of v (order + 1), without an evaluation.
        rule: weights from moments.
        lower_final: the order falls to 1 towards the end, as in DPM-Solver++ and UniPC at few steps.
    """

    kernel: Kernel
    order: int
    nodes: list[Node]
    template: Tensor
    corrector: bool = False
    rule: Rule = exact
    lower_final: bool = False

    @cached_property
    def predictions(self) -> list[StepCoefficients]:
        """The coefficients of every step."""
        offsets = [self._offsets(i) for i in range(len(self._steps))]
        return batch_step_coefficients(self.kernel, self._steps, offsets, self.rule, template=self.template)

    @cached_property
    def corrections(self) -> list[StepCoefficients]:
        """Those with v at the end of the step as the first value; not used from α = 0."""
        offsets = [[node.step_to(s), *self._offsets(i)] for i, (node, s) in enumerate(self._steps)]
        return batch_step_coefficients(self.kernel, self._steps, offsets, self.rule, template=self.template)

    @property
    def _steps(self) -> list[tuple[Node, Node]]:
        return list(pairwise(self.nodes))

    def _offsets(self, i: int) -> list[float]:
        """λ_{i−j} − λ_i of the values in use, newest first; a node at λ = −∞ has no place in a polynomial."""
        order = min(self.order, len(self.nodes) - 1 - i) if self.lower_final else self.order
        lams = [self.nodes[i - j].log_snr for j in range(min(order, i + 1))]
        return [lam - lams[0] for lam in lams if not math.isinf(lam)] or [0.0]

    def _corrects(self, node: Node) -> bool:
        return self.corrector and not math.isinf(node.log_snr)

    def __call__(self, state: State, s: Node) -> State:
        """One step: evaluate, correct the last step, predict the next."""
        i, node = state.index, state.node
        y = self.kernel.to_coordinates(state.x, node)
        values, last = state.memory or ((), None)
        spare = values[self.order] if len(values) > self.order else None  # no longer used by any step
        v = self.kernel.residual(y, state.model.denoise(state.x, node), node, spare)
        values = (v, *values)[: self.order + 1]
        if last is not None:
            y = self.corrections[i - 1](last[0], values, last[1])
        noise = self.kernel.noise_to_coordinates(state.normal(s)) if self.kernel.stochastic else None
        x = self.kernel.from_coordinates(self.predictions[i](y, values, noise), s)
        return state.advance(x, s, (values, (y, noise) if self._corrects(node) else None))


class Stage(NamedTuple):
    """A stage of a singlestep method: its end, its coefficients from the start of the step, the indices `use` of the
    values that they combine, and the coefficients of the noise from the end of the stage before it."""

    end: Node
    coefficients: StepCoefficients
    use: tuple[int, ...]
    growth: StepCoefficients


@dataclass
class Singlestep:
    """An exponential Runge-Kutta method: v at stages λ + r h, each reached through the stages before it.

    All stages of a step share one Brownian path: the noise of a stage is the noise of the stage before it, propagated,
    plus new noise for the interval between. A step depends on its two endpoints only, so it fits any two nodes.

    Args:
        kernel: the linear part and the remainder v.
        stages: r of each stage, increasing.
        final: indices of the stages that the step itself interpolates; 0 is the start.
        sde: the process.
        template: a tensor of the states' dtype and device.
        rule: weights from moments.
    """

    kernel: Kernel
    stages: tuple[float, ...]
    final: tuple[int, ...]
    sde: GaussianSDE
    template: Tensor
    rule: Rule = exact

    def __post_init__(self) -> None:
        self.stages_of: dict[tuple[float, float], list[Stage]] = {}

    def _build(self, node: Node, s: Node) -> list[Stage]:
        """All stages, the step itself last; from λ = −∞ a first-order step."""
        h = node.step_to(s)
        rs = () if math.isinf(h) else self.stages
        inner = self.sde.time_of(torch.tensor([node.log_snr + r * h for r in rs], dtype=torch.float64))
        offsets, ends = [0.0, *(r * h for r in rs)], [*nodes_of(self.sde, inner), s]
        uses = [*(tuple(range(j + 1)) for j in range(len(rs))), self.final if rs else (0,)]
        coefficients = self._coefficients
        return [Stage(e, coefficients(node, e, [offsets[k] for k in use]), use, coefficients(before, e, [0.0]))
                for before, e, use in zip([node, *ends], ends, uses, strict=False)]

    def _coefficients(self, node: Node, s: Node, offsets: list[float]) -> StepCoefficients:
        return step_coefficients(self.kernel, node, s, offsets, self.rule, template=self.template)

    def __call__(self, state: State, s: Node) -> State:
        """One step through all stages."""
        node, x, key = state.node, state.x, (state.node.log_snr, s.log_snr)
        stages = self.stages_of[key] = self.stages_of.get(key) or self._build(node, s)
        y, before = self.kernel.to_coordinates(x, node), node
        noise = torch.zeros_like(y)
        values = [self.kernel.residual(y, state.model.denoise(x, node), node)]
        for k, (end, step, use, growth) in enumerate(stages):
            inner = step(y, [values[j] for j in use], None)
            if self.kernel.stochastic:
                noise = growth(noise, (), self.kernel.noise_to_coordinates(state.normal(end, k, before)))
                inner, before = inner + noise, end
            x = self.kernel.from_coordinates(inner, end)
            if end is not s:
                values.append(self.kernel.residual(inner, state.model.denoise(x, end), end))
        return state.advance(x, s)
