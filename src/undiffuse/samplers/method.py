"""Samplers: a `Method`, whose step maps (state, next node) to the next state.

    step = method.step(SamplerContext(model, nodes, template), options)
    state = step(state, node)          for every further node of the grid

A step sees the model through `CountingModel` and its random numbers through `State.normal`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model, ReverseModel, Wrapper
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
    """The nodes of a grid of times, all coefficients computed in one call; NaN for a process that has none."""
    if not isinstance(sde, GaussianSDE):
        return [Node(t, math.nan, math.nan, math.nan) for t in times]
    columns = (sde.alpha(times), sde.sigma(times), sde.log_snr(times))
    return [Node(t, *values) for t, *values in zip(times, *(c.tolist() for c in columns), strict=True)]


class CountingModel:
    """A model with its conditions that counts its evaluations.

    `nfe` counts evaluations of the complete batch, `nfe_per_sample` (B,) evaluations per sample of adaptive methods;
    `log_evidence` (B,) is a method's estimate of log p(y).
    """

    def __init__(self, model: ReverseModel, cond: dict[str, Any]) -> None:
        self.model, self.cond, self.nfe = model, cond, 0
        self.nfe_per_sample: Tensor | None = None
        self.log_evidence: Tensor | None = None

    def denoise(self, x: Tensor, node: Node) -> Tensor:
        """D(x, t) at a node."""
        return self.denoise_at(x, node.t)

    def denoise_at(self, x: Tensor, t: Tensor) -> Tensor:
        """D(x, t), t () or (B,)."""
        self.nfe += 1
        D = self.model.denoise(x, t, **self.cond)
        return D if self.model.clip is None else self.model.clip(D)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """∇log p_t(x)."""
        if isinstance(self.model, Model) and self.model.clip is not None:
            return self.model.score_of(x, t, self.denoise_at(x, t))
        self.nfe += 1
        return self.model.score(x, t, **self.cond)

    def drift(self, x: Tensor, t: Tensor, eta: float = 0.0) -> Tensor:
        """The drift of the reverse SDE with noise η g."""
        if isinstance(self.model, Model) and self.model.clip is not None:
            return self.model.drift_of(x, t, eta, self.denoise_at(x, t))
        self.nfe += 1
        return self.model.reverse_drift(x, t, eta, **self.cond)

    def count_per_sample(self, nfe: Tensor, before: int) -> None:
        """Reset `nfe` to `before` and count nfe (B,) evaluations per sample instead."""
        self.nfe, self.nfe_per_sample = before, nfe if self.nfe_per_sample is None else self.nfe_per_sample + nfe


class FirstKnown(CountingModel):
    """A model whose first evaluation is known.

    Args:
        counter: the model.
        D: the value of the first evaluation.
    """

    def __init__(self, counter: CountingModel, D: Tensor) -> None:
        super().__init__(counter.model, counter.cond)
        self.counter, self.D = counter, [D]

    def denoise_at(self, x: Tensor, t: Tensor) -> Tensor:
        """The known value, then D(x, t)."""
        return self.D.pop() if self.D else self.counter.denoise_at(x, t)


NoiseSource = Callable[[int, int, Tensor, Tensor], Tensor]
"""Standard normals like x for (index of the step, stage, from t, to t); times are () or (B,)."""
STAGES = 16
"""The number of noise stages of one step; `State.substep` uses addresses above it."""


@dataclass(frozen=True, slots=True)
class State:
    """A batch between two steps: x (B, *event) at `node` after `index` steps; `memory` belongs to the method."""

    x: Tensor
    node: Node
    index: int
    model: CountingModel
    noise: NoiseSource
    memory: Any = None

    def normal(self, s: Node, stage: int = 0, start: Node | None = None) -> Tensor:
        """Standard normals like x for one stage of this step: the noise between `start` and s.

        Args:
            s: the end of the interval.
            stage: number of the stage in this step.
            start: the start of the interval; None: this state's node.
        """
        return self.noise(self.index, stage, (start or self.node).t, s.t)

    def substep(self, x: Tensor, node: Node, number: int) -> State:
        """The state of a step inside this step, with its own noise.

        Args:
            x: the state, (B, *event).
            node: the node of x.
            number: index of the inner step, below 1024; each has separate noise.
        """
        outer = self.noise

        def noise(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
            return outer(index, STAGES + 1024 * stage + number, t, s)

        return replace(self, x=x, node=node, noise=noise)

    def advance(self, x: Tensor, node: Node, memory: Any = None) -> State:
        """The state after this step.

        Args:
            x: the new state, (B, *event).
            node: the node of x.
            memory: what the method keeps for its next step.
        """
        return replace(self, x=x, node=node, index=self.index + 1, memory=memory)


Step = Callable[[State, Node], State]
"""(state, next node) -> state at that node."""
StepFactory = Callable[..., Step]
"""(context, **options) -> step."""


@dataclass(frozen=True)
class SamplerContext:
    """Context of a step: the model, the nodes of the grid, and a tensor of the states' dtype and device."""

    model: ReverseModel
    nodes: list[Node]
    template: Tensor

    @property
    def sde(self) -> GaussianSDE:
        """The process; raises InputError if it is not Gaussian."""
        sde = self.model.process()
        if not isinstance(sde, GaussianSDE):
            raise InputError(f"got a {type(sde).__name__} for a method that needs a Gaussian process")
        return sde

    @property
    def data_std(self) -> float:
        """The data's standard deviation; 1 for a model that is not a denoiser."""
        return float(self.model.sigma_data) if isinstance(self.model, Model) else 1.0

    @property
    def moments(self) -> Moments | None:
        """The data's moments, if the model has them."""
        return self.model.moments if isinstance(self.model, Model) else None


@dataclass(frozen=True)
class Method:
    """A sampler.

    Args:
        make: (context, **options) -> step.
        order: claimed order of convergence, the weak one if `stochastic`.
        stochastic: whether a step adds noise.
        grid: default time grid.
        start_level: noise level σ̂, as a multiple of the data's standard deviation, to which the first step leads and
            where the grid begins; None: no such step.
        first_step_free: the first step needs no model evaluation.
        gaussian: it needs a Gaussian process.
        adaptive: one step goes from T to the end and chooses separate times for each sample.
        ends_early: where the denoised state follows, the last node is the one before the end of its grid.
        path_noise: its noise is addressed by time instead of by step.
        samples_per_run: this many samples, from a multiple of it on, are sampled jointly.
        steps: default number of steps.
    """

    make: StepFactory
    order: int
    stochastic: bool = False
    grid: str | Tensor = "log_snr"
    start_level: float | None = None
    first_step_free: bool = False
    gaussian: bool = True
    adaptive: bool = False
    path_noise: bool = False
    ends_early: bool = False
    samples_per_run: int = 1
    steps: int = 20

    @property
    def options(self) -> dict[str, Any]:
        """The options of `make` with their defaults."""
        return {name: p.default for name, p in signature(self.make).parameters.items() if p.kind == p.KEYWORD_ONLY}

    def step(self, context: SamplerContext, options: dict[str, Any]) -> Step:
        """The step for a context; raises InputError for an option that this method does not have."""
        if unknown := [name for name in options if name not in self.options]:
            raise InputError(f"got the option {', '.join(unknown)}; this method has "
                             f"{', '.join(f'{k}={v}' for k, v in self.options.items()) or 'none'}")
        return self.make(context, **options)


class RequiresSampler(Wrapper):
    """A model that can be sampled by one method only."""

    def __init__(self, inner: Model, sampler: Method) -> None:
        super().__init__(inner)
        self.sampler = sampler


def require_denoiser(model: ReverseModel, what: str) -> None:
    """Raise InputError for a distilled network, whose D is the end of a trajectory and not E[x_0 | x_t].

    Args:
        model: the model.
        what: what needs a denoiser.
    """
    if isinstance(model, Model) and model.kind != "denoiser":
        raise InputError(f"got a {model.kind} model for {what}, whose D is not E[x_0 | x_t]; expected the model that "
                         "it was distilled from")


def required_sampler(model: ReverseModel) -> Method | None:
    """The only method that can sample a model; None: any can."""
    while isinstance(model, Wrapper):
        if isinstance(model, RequiresSampler):
            return model.sampler
        model = model.inner
    return None


def innermost(model: ReverseModel) -> ReverseModel:
    """The model inside of all wrappers."""
    while isinstance(model, Wrapper):
        model = model.inner
    return model
