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
    """A model with its conditions, counting every call: `denoise` for D, `drift` for the reverse drift."""

    def __init__(self, model: ReverseModel, cond: dict[str, Any]) -> None:
        self.model, self.cond, self.calls = model, cond, 0

    def denoise(self, x: Tensor, node: Node) -> Tensor:
        """D(x, t)."""
        self.calls += 1
        return self.model.denoise(x, node.t, **self.cond)

    def drift(self, x: Tensor, t: Tensor, eta: float = 0.0) -> Tensor:
        """The drift of the reverse SDE with noise η g."""
        self.calls += 1
        return self.model.reverse_drift(x, t, eta, **self.cond)


@dataclass(frozen=True, slots=True)
class State:
    """A batch on its way: x (B, *event) at `node` after `index` steps.

    `normal(stage)` gives the standard normals of this step, shaped like x; `memory` is the method's own.
    """

    x: Tensor
    node: Node
    index: int
    model: Counted
    noise: Callable[[int, int], Tensor]
    memory: Any = None

    def normal(self, stage: int = 0) -> Tensor:
        """Standard normals like x for a stage of this step."""
        return self.noise(self.index, stage)

    def moved(self, x: Tensor, node: Node, memory: Any = None) -> State:
        """The state one step on."""
        return replace(self, x=x, node=node, index=self.index + 1, memory=memory)


Step = Callable[[State, Node], State]
