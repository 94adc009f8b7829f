"""One exponential family: exact in the linear part, with an order, a stochasticity, a corrector and a frame.

A multistep method interpolates the remainder v of a `Kernel` through its latest values, a singlestep method through
values at stages inside the step. DDIM, DDPM's ancestral sampler, DPM-Solver, DPM-Solver++ (and its SDE form), UniPC and
SA-Solver are rows of this one table.

Reference: Lu et al. (2022), arXiv:2206.00927 and arXiv:2211.01095; Zhao et al. (2023), arXiv:2302.04867 (UniPC);
Xue et al. (2023), arXiv:2309.05019 (SA-Solver).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from undiffuse.sde import GaussianSDE
from undiffuse.steps.kernel import Array, Kernel
from undiffuse.steps.state import Node, State, nodes_of

Tweak = Callable[[Array, float], Array]


def exact(moments: Array, h: float) -> Array:
    """The moments as they are: every polynomial is integrated exactly."""
    return moments


def midpoint(moments: Array, h: float) -> Array:
    """I_1 = h I_0/2, as the published DPM-Solver++(2M) and UniPC's B₂(h) have it."""
    return np.stack([m if k != 1 else moments[0] * h / 2 for k, m in enumerate(moments)])


def half_curvature(moments: Array, h: float) -> Array:
    """I_2/2, as the published DPM-Solver++(3M) has it: second order only."""
    return np.stack([m if k != 2 else m / 2 for k, m in enumerate(moments)])


class Row(NamedTuple):
    """The numbers of one step: y' = carry·y + Σ weights_j·v_j + spread·ξ."""

    carry: float | Tensor
    weights: list[float | Tensor]
    spread: float | Tensor

    def __call__(self, y: Tensor, values: Sequence[Tensor], noise: Tensor | None) -> Tensor:
        """y'."""
        out = self.carry * y
        for w, v in zip(self.weights, values, strict=False):
            out = out + w * v
        return out if noise is None else out + self.spread * noise


def row(kernel: Kernel, node: Node, s: Node, offsets: Sequence[float], tweak: Tweak, like: Tensor) -> Row:
    """The row of a step from node to s that interpolates v at λ + offsets: Σ_j w_j ν_jᵏ = I_k."""
    moments = tweak(kernel.moments(node, s, len(offsets)), node.step_to(s))
    powers = np.asarray(offsets)[None] ** np.arange(len(offsets))[:, None]
    weights = np.linalg.solve(powers, moments.reshape(len(offsets), -1)).reshape(moments.shape)
    return Row(_number(kernel.carry(node, s), like), [_number(w, like) for w in weights],
               _number(kernel.spread(node, s), like))


def _number(c: Array, like: Tensor) -> float | Tensor:
    return float(c) if np.ndim(c) == 0 else like.new_tensor(c)


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
    tweak: Tweak = exact
    lower_final: bool = False

    def __post_init__(self) -> None:
        steps = range(len(self.nodes) - 1)
        self.rows = [self._predictor(i) for i in steps]
        self.corrections = [self._correction(i) for i in steps] if self.corrector else []

    def _offsets(self, i: int, order: int) -> list[float]:
        """λ_{i−j} − λ_i of the values in use, newest first; a node at λ = −∞ has no place in a polynomial."""
        here = self.nodes[i].log_snr
        if math.isinf(here):
            return [0.0]
        lams = [self.nodes[i - j].log_snr - here for j in range(min(order, i + 1))]
        return [nu for nu in lams if not math.isinf(nu)]

    def _order(self, i: int) -> int:
        return min(self.order, len(self.nodes) - 1 - i) if self.lower_final else self.order

    def _predictor(self, i: int) -> Row:
        node, s = self.nodes[i], self.nodes[i + 1]
        return row(self.kernel, node, s, self._offsets(i, self._order(i)), self.tweak, self.like)

    def _correction(self, i: int) -> Row | None:
        """The row of step i that also uses v at its end (the first of its values)."""
        node, s = self.nodes[i], self.nodes[i + 1]
        if math.isinf(node.step_to(s)):
            return None
        return row(self.kernel, node, s, [node.step_to(s), *self._offsets(i, self._order(i))], self.tweak, self.like)

    def __call__(self, state: State, s: Node) -> State:
        """One step: evaluate, correct the last step, predict the next."""
        i, node = state.index, state.node
        y = self.kernel.enter(state.x, node)
        v = self.kernel.value(y, state.model.denoise(state.x, node), node)
        values, last = state.memory or ((), None)
        values = (v, *values)[: self.order + 1]
        if last is not None and (correct := self.corrections[i - 1]):
            y = correct(last[0], values, last[1])
        noise = self.kernel.enter_noise(state.normal(s)) if self.kernel.stochastic else None
        x = self.kernel.leave(self.rows[i](y, values, noise), s)
        return state.moved(x, s, (values, (y, noise) if self.corrector else None))


class Stage(NamedTuple):
    """A stage of a singlestep method: where it ends, how it is reached from the start of the step through the values
    `use`, and how the noise grows from the end of the stage before it."""

    end: Node
    row: Row
    use: tuple[int, ...]
    growth: Row


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
    tweak: Tweak = exact

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

    def _row(self, node: Node, s: Node, offsets: list[float]) -> Row:
        return row(self.kernel, node, s, offsets, self.tweak, self.like)

    def __call__(self, state: State, s: Node) -> State:
        """One step through all stages."""
        node, x, key = state.node, state.x, (state.node.log_snr, s.log_snr)
        plan = self.plans[key] = self.plans.get(key) or self._plan(node, s)
        y, noise, before = self.kernel.enter(x, node), torch.zeros(()), node
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

