"""Runge-Kutta methods for the probability-flow ODE in a variable u, on a grid or with adaptive steps.

    in t            y = x                      dy/dt = v(x, t)                       any process
    in λ = log α/σ  y = z/Ψ, Ψ² = s² + σ̂²      dy/dλ = (D − (s²/Ψ²) z)/Ψ             z = x/α, s the data's std
    in σ̂            y = z                      dy/dσ̂ = (z − D)/σ̂                     Karras et al. (2022), eq. 4

In λ the state has unit variance throughout, and dy/dλ is the residual of the Wiener filter of N(0, s²): 0 for Gaussian
data of standard deviation s. From α = 0, where λ is infinite, the first step is exponential, x_s = α_s D + (σ_s/σ_t) x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.ode import Field, Tableau, rk_step, solve
from undiffuse.samplers.method import CountingModel, Node, SamplerContext, State, Step, StepFactory
from undiffuse.sde import GaussianSDE, bcast


class Flow(ABC):
    """The ODE dy/du = derivative(y, u) and its relation to x and t."""

    @abstractmethod
    def variable(self, node: Node) -> Tensor:
        """u of a node, () float64."""

    @abstractmethod
    def to_coordinates(self, x: Tensor, node: Node) -> Tensor:
        """y of a state."""

    @abstractmethod
    def from_coordinates(self, y: Tensor, node: Node) -> Tensor:
        """The state of y."""

    @abstractmethod
    def derivative(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """dy/du.

        Args:
            model: the model, which counts its evaluations.
            y: the coordinates, (B, *event).
            u: the variable of the ODE, () or (B,).
        """


@dataclass
class InTime(Flow):
    """The ODE in t; `rates` holds a and b of v = a x + b D at the stages of the grid."""

    rates: dict[float, tuple[float, float]] = field(default_factory=dict)

    def variable(self, node: Node) -> Tensor:
        """t."""
        return node.t

    def to_coordinates(self, x: Tensor, node: Node) -> Tensor:
        """x."""
        return x

    def from_coordinates(self, y: Tensor, node: Node) -> Tensor:
        """x."""
        return y

    def derivative(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """v(x, t).

        Args:
            model: the model, which counts its evaluations.
            y: the coordinates, (B, *event), here x itself.
            u: the time t, () or (B,).
        """
        rate = self.rates.get(float(u)) if u.ndim == 0 else None
        return model.drift(y, u) if rate is None else (y * rate[0]).add_(model.denoise_at(y, u), alpha=rate[1])


@dataclass
class InLogSNR(Flow):
    """The ODE in λ for y = z/√(s² + σ̂²)."""

    sde: GaussianSDE
    s: float

    def variable(self, node: Node) -> Tensor:
        """λ."""
        return torch.tensor(node.log_snr, dtype=torch.float64)

    def to_coordinates(self, x: Tensor, node: Node) -> Tensor:
        """x/√(α² s² + σ²)."""
        return x / math.hypot(node.alpha * self.s, node.sigma)

    def from_coordinates(self, y: Tensor, node: Node) -> Tensor:
        """√(α² s² + σ²) y."""
        return y * math.hypot(node.alpha * self.s, node.sigma)

    def derivative(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """D/Ψ − (s²/Ψ²) y.

        Args:
            model: the model, which counts its evaluations.
            y: the coordinates, (B, *event).
            u: the log-SNR λ, () or (B,).
        """
        t, total2 = self.sde.time_of(u), self.s**2 + torch.exp(-2 * u)
        D = model.denoise_at(bcast(self.sde.alpha(t) * total2.sqrt(), y) * y, t)
        return bcast(total2.rsqrt(), y) * D - bcast(self.s**2 / total2, y) * y


@dataclass
class InSigma(Flow):
    """The ODE in σ̂ for z."""

    sde: GaussianSDE

    def variable(self, node: Node) -> Tensor:
        """σ̂."""
        return torch.tensor(node.sigma / node.alpha, dtype=torch.float64)

    def to_coordinates(self, x: Tensor, node: Node) -> Tensor:
        """x/α."""
        return x / node.alpha

    def from_coordinates(self, y: Tensor, node: Node) -> Tensor:
        """α z."""
        return y * node.alpha

    def derivative(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """(z − D)/σ̂.

        Args:
            model: the model, which counts its evaluations.
            y: the coordinates, (B, *event), here z = x/α.
            u: the noise level σ̂, () or (B,).
        """
        t = self.sde.time_of(-torch.log(u))
        return (y - model.denoise_at(bcast(self.sde.alpha(t), y) * y, t)) / bcast(u, y)


def step_from_pure_noise(state: State, s: Node, eps: Tensor) -> Tensor:
    """The exponential first-order step from α = 0: x_s = α_s D + σ_s ε.

    Args:
        state: the state at a node with α = 0.
        s: the node to go to.
        eps: standard normals like x.
    """
    return s.alpha * state.model.denoise(state.x, state.node) + s.sigma * eps


def flow_step(flow: Flow, integrate: Callable[[State, Field, Tensor, Node], Tensor]) -> Step:
    """A step of a flow; integrate(state, dy/du, y, s) gives y at s."""

    def step(state: State, s: Node) -> State:
        node = state.node
        if node.alpha == 0 and not isinstance(flow, InTime):
            return state.advance(step_from_pure_noise(state, s, state.x / node.sigma), s)

        def field(y: Tensor, u: Tensor) -> Tensor:
            return flow.derivative(state.model, y, u)

        y = integrate(state, field, flow.to_coordinates(state.x, node), s)
        return state.advance(flow.from_coordinates(y, s), s)

    return step


def fixed(flow: Flow, tableau: Tableau) -> Step:
    """One step of a Runge-Kutta method from node to node."""

    def integrate(state: State, field: Field, y: Tensor, s: Node) -> Tensor:
        return rk_step(tableau, field, y, flow.variable(state.node), flow.variable(s))

    return flow_step(flow, integrate)


def runge_kutta(tableau: Tableau) -> StepFactory:
    """A Runge-Kutta method in t."""
    return lambda context: fixed(InTime(_rates(context, tableau)), tableau)


def _rates(context: SamplerContext, tableau: Tableau) -> dict[float, tuple[float, float]]:
    """a = σ'/σ and b = α' − α σ'/σ at the times of all stages, by one differentiation of the schedule."""
    if not isinstance(context.model, Model):
        return {}
    ends = torch.stack([node.t for node in context.nodes])
    start, h = ends[:-1, None], ends.diff()[:, None]
    times = torch.cat([start + c * h if c != 1 else ends[1:, None] for c in tableau.c], 1).flatten()
    dalpha, dsigma = context.sde.rates(times)
    a = dsigma / context.sde.sigma(times)
    return dict(zip(times.tolist(), zip(a.tolist(), (dalpha - context.sde.alpha(times) * a).tolist(), strict=True),
                    strict=True))


def runge_kutta_log_snr(tableau: Tableau) -> StepFactory:
    """A Runge-Kutta method in λ."""
    return lambda context: fixed(InLogSNR(context.sde, context.data_std), tableau)


def runge_kutta_sigma(tableau: Tableau) -> StepFactory:
    """A Runge-Kutta method in σ̂; Heun's is EDM's sampler.

    Reference: Karras et al. (2022), algorithm 1. arXiv:2206.00364
    """
    return lambda context: fixed(InSigma(context.sde), tableau)


def ode(tableau: Tableau) -> StepFactory:
    """An embedded Runge-Kutta method in λ (in t for a process that is not Gaussian), with separate steps per sample.

    Options: rtol, atol, the tolerances of the local error of y, which has unit variance.
    """

    def make(context: SamplerContext, *, rtol: float = 1.5e-5, atol: float = 1.5e-5) -> Step:
        model = context.model
        flow = InLogSNR(context.sde, context.data_std) if isinstance(model, Model) else InTime()

        def integrate(state: State, field: Field, y: Tensor, s: Node) -> Tensor:
            before = state.model.nfe
            end = solve(tableau, field, y, flow.variable(state.node), flow.variable(s), rtol, atol)
            state.model.count_per_sample(end.evaluations, before)
            return end.x

        return flow_step(flow, integrate)

    return make
