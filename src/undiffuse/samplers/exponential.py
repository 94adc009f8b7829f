"""One exponential family: exact in the linear part, with an order, a stochasticity, a corrector and a frame.

A multistep method interpolates the remainder v of a `Kernel` through its latest values, a singlestep method through
values at stages inside the step. DDIM, DDPM's ancestral sampler, DPM-Solver, DPM-Solver++ (and its SDE form), UniPC and
SA-Solver are rows of this one table.

Reference: Lu et al. (2022), arXiv:2206.00927 and arXiv:2211.01095; Zhao et al. (2023), arXiv:2302.04867 (UniPC);
Xue et al. (2023), arXiv:2309.05019 (SA-Solver).

First steps: where a method cannot begin at T itself, or need not.

An exponential Rosenbrock-type step: the linear part is measured at every step, sample by sample.
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
from undiffuse.samplers.method import Node, SamplerContext, State, Step, nodes_of
from undiffuse.sde import GaussianSDE, bcast


def ddim_update(x: Tensor, D: Tensor, node: Node, s: Node) -> Tensor:
    """The flow with D held, x_s = (σ_s/σ_t) x + (α_s − α_t σ_s/σ_t) D; finite where α_t = 0."""
    ratio = s.sigma / node.sigma
    return ratio * x + (s.alpha - node.alpha * ratio) * D


def first_order(state: State, s: Node) -> State:
    """DDIM's step."""
    return state.moved(ddim_update(state.x, state.model.denoise(state.x, state.node), state.node, s), s)


def gaussian_flow_step(frame: Moments) -> Step:
    """The flow of a Gaussian with the data's moments, y_s = (α_s Ψ_s/(α_t Ψ_t)) y_t in their frame: no evaluation.

    At noise levels far above the data's deviation the law of x_t is that Gaussian, and so is its flow, up to the third
    cumulant over σ̂³.

    Reference: Wang and Vastola (2024), "analytical teleportation". arXiv:2412.09726
    """
    kernel = DataPrediction(frame=frame)

    def step(state: State, s: Node) -> State:
        y = kernel.enter(state.x, state.node)
        only = step_coefficients(kernel, state.node, s, [0.0], like=y)
        return state.moved(kernel.leave(y * only.carry, s), s)

    return step


def after(first: Step, method: Step) -> Step:
    """The step `first` once, then a method made for the other nodes, which counts its steps from 0."""

    def step(state: State, s: Node) -> State:
        if state.index == 0:
            return first(state, s)
        return replace(method(replace(state, index=state.index - 1), s), index=state.index + 1)

    return step


def rosenbrock(plan: SamplerContext) -> Step:
    """dz/dλ = F = D − z by z' = z + h φ₁(hj) F + h² φ₂(hj) (F' − j F), j = ⟨F, F'⟩/⟨F, F⟩, of order 2 for any j.

    F' is a difference along a first-order step to the middle: two evaluations a step. Where D does not change, j = −1
    and the step is exact; with j = 0 it is Runge's midpoint method. From α = 0 a first-order step.

    Reference: Hochbruck, Ostermann and Schweitzer (2009), "Exponential Rosenbrock-type methods", eq. 2.6.
    """

    def step(state: State, s: Node) -> State:
        node, x = state.node, state.x
        D = state.model.denoise(x, node)
        if math.isinf(node.log_snr):
            return state.moved(ddim_update(x, D, node, s), s)
        h = node.step_to(s)
        (half,) = nodes_of(plan.sde, plan.sde.time_of(torch.tensor([node.log_snr + h / 2], dtype=torch.float64)))
        u = ddim_update(x, D, node, half)
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


@dataclass
class Multistep:
    """The multistep method of an order, made for a list of nodes.

    corrector: after the new value of v is known, the last step is done again with it (order + 1), at no evaluation.
    lower_final: the order falls to 1 towards the end, as DPM-Solver++ and UniPC do at few steps.
    """

    kernel: Kernel
    order: int
    nodes: list[Node]
    like: Tensor
    corrector: bool = False
    rule: Rule = exact
    lower_final: bool = False

    @cached_property
    def rows(self) -> list[StepCoefficients]:
        """The rows that predict."""
        offsets = [self._offsets(i) for i in range(len(self._steps))]
        return batch_step_coefficients(self.kernel, self._steps, offsets, self.rule, like=self.like)

    @cached_property
    def corrections(self) -> list[StepCoefficients]:
        """The rows that also use v at the end of their step (the first of its values); from α = 0 they are not used."""
        offsets = [[node.step_to(s), *self._offsets(i)] for i, (node, s) in enumerate(self._steps)]
        return batch_step_coefficients(self.kernel, self._steps, offsets, self.rule, like=self.like)

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
        y = self.kernel.enter(state.x, node)
        values, last = state.memory or ((), None)
        spare = values[self.order] if len(values) > self.order else None  # too old for any further step
        v = self.kernel.value(y, state.model.denoise(state.x, node), node, spare)
        values = (v, *values)[: self.order + 1]
        if last is not None:
            y = self.corrections[i - 1](last[0], values, last[1])
        noise = self.kernel.enter_noise(state.normal(s)) if self.kernel.stochastic else None
        x = self.kernel.leave(self.rows[i](y, values, noise), s)
        return state.moved(x, s, (values, (y, noise) if self._corrects(node) else None))


class Stage(NamedTuple):
    """A stage of a singlestep method: where it ends, how it is reached from the start of the step through the values
    `use`, and how the noise grows from the end of the stage before it."""

    end: Node
    row: StepCoefficients
    use: tuple[int, ...]
    growth: StepCoefficients


@dataclass
class Singlestep:
    """An exponential Runge-Kutta method: v at stages λ + r h (r rising), each reached through the stages before it.

    `final` names the stages through which the step itself interpolates (0 is the start). All stages of a step see one
    Brownian path: the noise of a stage is that of the stage before it, carried on, plus new noise for what lies
    between. A step depends on nothing but its two ends, so it can be used between any two nodes.
    """

    kernel: Kernel
    stages: tuple[float, ...]
    final: tuple[int, ...]
    sde: GaussianSDE
    like: Tensor
    rule: Rule = exact

    def __post_init__(self) -> None:
        self.plans: dict[tuple[float, float], list[Stage]] = {}

    def _plan(self, node: Node, s: Node) -> list[Stage]:
        """Every stage, the step itself last; from λ = −∞ a first-order step."""
        h = node.step_to(s)
        rs = () if math.isinf(h) else self.stages
        inner = self.sde.time_of(torch.tensor([node.log_snr + r * h for r in rs], dtype=torch.float64))
        offsets, ends = [0.0, *(r * h for r in rs)], [*nodes_of(self.sde, inner), s]
        uses = [*(tuple(range(j + 1)) for j in range(len(rs))), self.final if rs else (0,)]
        return [Stage(e, self._row(node, e, [offsets[k] for k in use]), use, self._row(before, e, [0.0]))
                for before, e, use in zip([node, *ends], ends, uses, strict=False)]

    def _row(self, node: Node, s: Node, offsets: list[float]) -> StepCoefficients:
        return step_coefficients(self.kernel, node, s, offsets, self.rule, like=self.like)

    def __call__(self, state: State, s: Node) -> State:
        """One step through all stages."""
        node, x, key = state.node, state.x, (state.node.log_snr, s.log_snr)
        plan = self.plans[key] = self.plans.get(key) or self._plan(node, s)
        y, before = self.kernel.enter(x, node), node
        noise = torch.zeros_like(y)
        values = [self.kernel.value(y, state.model.denoise(x, node), node)]
        for k, (end, step, use, growth) in enumerate(plan):
            inner = step(y, [values[j] for j in use], None)
            if self.kernel.stochastic:
                noise = growth(noise, (), self.kernel.enter_noise(state.normal(end, k, before)))
                inner, before = inner + noise, end
            x = self.kernel.leave(inner, end)
            if end is not s:
                values.append(self.kernel.value(inner, state.model.denoise(x, end), end))
        return state.moved(x, s)
