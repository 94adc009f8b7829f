"""What a sampler is made for and what it says of itself.

What a step sees and returns: the state of a sampler between two nodes of its grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import ReverseModel
from undiffuse.moments import Moments
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


class CountingModel:
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


NoiseSource = Callable[[int, int, Tensor, Tensor], Tensor]
"""Standard normals like x of (index of the step, stage, from t, to t); times are () or (B,)."""
STAGES = 16
"""The stages that one step may have; a combinator gives those of a repeated step other addresses."""


@dataclass(frozen=True, slots=True)
class State:
    """A batch on its way: x (B, *event) at `node` after `index` steps; `memory` is the method's own."""

    x: Tensor
    node: Node
    index: int
    model: CountingModel
    noise: NoiseSource
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


@dataclass(frozen=True)
class SamplerContext:
    """What a step is made for: the model, the nodes of the grid, and a tensor of the states' dtype and device."""

    model: ReverseModel
    nodes: list[Node]
    like: Tensor

    @property
    def sde(self) -> GaussianSDE:
        """The process, which has to be Gaussian."""
        sde = self.model.process()
        if not isinstance(sde, GaussianSDE):
            raise InputError(f"got a {type(sde).__name__} for a method that needs a Gaussian process")
        return sde

    @property
    def deviation(self) -> float:
        """The data's deviation; 1 where the model does not know it."""
        return float(getattr(self.model, "sigma_data", 1.0))

    @property
    def frame(self) -> Moments | None:
        """The data's moments, where the model has them."""
        return getattr(self.model, "moments", None)


@dataclass(frozen=True)
class Method:
    """A sampler: `make(plan, **options)` gives its step, `order` is the claimed one (weak, where `stochastic`).

    grid: the one it likes; first: the multiple of the data's deviation at which that begins, after one step; free:
    which costs nothing. gaussian: it needs a Gaussian process. adaptive: one step goes all the way and chooses its own
    times sample by sample. path: its noise is keyed by time. group: so many samples, from a multiple of it on, are
    drawn together. steps: how many it takes if nothing is said.
    """

    make: Callable[..., Step]
    order: int
    stochastic: bool = False
    grid: str | Tensor = "log_snr"
    first: float | None = None
    free: bool = False
    gaussian: bool = True
    adaptive: bool = False
    path: bool = False
    group: int = 1
    steps: int = 20

    @property
    def options(self) -> dict[str, Any]:
        """The options that `make` takes, with their defaults."""
        return {name: p.default for name, p in signature(self.make).parameters.items() if p.kind == p.KEYWORD_ONLY}

    def step(self, plan: SamplerContext, options: dict[str, Any]) -> Step:
        """The step for a plan; raises InputError for an option that this method does not have."""
        if unknown := [name for name in options if name not in self.options]:
            raise InputError(f"got the option {', '.join(unknown)}; this method has "
                             f"{', '.join(f'{k}={v}' for k, v in self.options.items()) or 'none'}")
        return self.make(plan, **options)
