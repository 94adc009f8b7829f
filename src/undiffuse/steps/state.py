"""What a step sees and returns: the state of a sampler between two nodes of its grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from undiffuse.model import ReverseModel
from undiffuse.sde import SDE, GaussianSDE


class Node(NamedTuple):
    """A time of the grid with its coefficients as numbers: t (0-d float64), α, σ, λ = log(α/σ)."""

    t: Tensor
    alpha: float
    sigma: float
    log_snr: float

    def step_to(self, s: Node) -> float:
        """h = λ_s − λ_t, infinite from a node where α = 0."""
        return s.log_snr - self.log_snr


def nodes_of(sde: SDE, times: Tensor) -> list[Node]:
    """The nodes of a grid of times, all coefficients computed in one call; NaN for a process without them."""
    if not isinstance(sde, GaussianSDE):
        return [Node(t, math.nan, math.nan, math.nan) for t in times]
    columns = (sde.alpha(times), sde.sigma(times), sde.log_snr(times))
    return [Node(t, *values) for t, *values in zip(times, *(c.tolist() for c in columns), strict=True)]


class Counted:
    """A model with its conditions, counting every call: `denoise` for D, `drift` for the reverse drift.

    `calls` counts evaluations of the whole batch, `each` (B,) those that an adaptive method made sample by sample;
    `evidence` (B,) is what a method found for log p(y).
    """

    def __init__(self, model: ReverseModel, cond: dict[str, Any]) -> None:
        self.model, self.cond, self.calls = model, cond, 0
        self.each: Tensor | None = None
        self.evidence: Tensor | None = None

    def denoise(self, x: Tensor, node: Node) -> Tensor:
        """D(x, t) at a node."""
        return self.denoise_at(x, node.t)

    def denoise_at(self, x: Tensor, t: Tensor) -> Tensor:
        """D(x, t), t () or (B,)."""
        self.calls += 1
        return self.model.denoise(x, t, **self.cond)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """∇log p_t(x)."""
        self.calls += 1
        return self.model.score(x, t, **self.cond)

    def count_each(self, evaluations: Tensor, calls: int) -> None:
        """Count evaluations sample by sample, and take back the calls of the batch since there were `calls`."""
        self.calls, self.each = calls, evaluations if self.each is None else self.each + evaluations

    def drift(self, x: Tensor, t: Tensor, eta: float = 0.0) -> Tensor:
        """The drift of the reverse SDE with noise η g."""
        self.calls += 1
        return self.model.reverse_drift(x, t, eta, **self.cond)


Noise = Callable[[int, int, Tensor, Tensor], Tensor]
"""Standard normals like x of (index of the step, stage, from t, to t); times are () or (B,)."""
STAGES = 16
"""The stages that one step may have; a combinator gives those of a repeated step other addresses."""


@dataclass(frozen=True, slots=True)
class State:
    """A batch on its way: x (B, *event) at `node` after `index` steps; `memory` is the method's own."""

    x: Tensor
    node: Node
    index: int
    model: Counted
    noise: Noise
    memory: Any = None

    def normal(self, s: Node, stage: int = 0, start: Node | None = None) -> Tensor:
        """Standard normals like x of one stage of this step: the noise between `start` (default here) and s."""
        return self.noise(self.index, stage, (start or self.node).t, s.t)

    def again(self, x: Tensor, node: Node, times: int) -> State:
        """The same step at another place, with noise of its own for every number of `times` below 1024."""
        here = self.noise

        def other(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
            return here(index, STAGES + 1024 * stage + times, t, s)

        return replace(self, x=x, node=node, noise=other)

    def moved(self, x: Tensor, node: Node, memory: Any = None) -> State:
        """The state one step on."""
        return replace(self, x=x, node=node, index=self.index + 1, memory=memory)


Step = Callable[[State, Node], State]
