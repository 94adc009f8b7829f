"""The probability-flow ODE in a variable u of one's choice, by Runge-Kutta methods with given or with own steps.

    in t            y = x                      dy/dt = v(x, t)                       any process
    in λ = log α/σ  y = z/Ψ, Ψ² = s² + σ̂²      dy/dλ = (D − (s²/Ψ²) z)/Ψ             z = x/α, s the data's deviation
    in σ̂            y = z                      dy/dσ̂ = (z − D)/σ̂                     Karras et al. (2022), eq. 4

In λ the state has unit variance throughout and the slope is what the Wiener filter of N(0, s²) leaves: 0 for Gaussian
data of deviation s. From α = 0 the first step is exponential, x_s = α_s D + (σ_s/σ_t) x, because λ is infinite there.
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
from undiffuse.samplers.method import CountingModel, Node, SamplerContext, State, Step
from undiffuse.sde import GaussianSDE, bcast

Make = Callable[..., Step]


class Flow(ABC):
    """The ODE dy/du = slope(y, u) and its relation to x and t."""

    @abstractmethod
    def place(self, node: Node) -> Tensor:
        """u of a node, () float64."""

    @abstractmethod
    def enter(self, x: Tensor, node: Node) -> Tensor:
        """y of a state."""

    @abstractmethod
    def leave(self, y: Tensor, node: Node) -> Tensor:
        """The state of y."""

    @abstractmethod
    def slope(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """dy/du, u () or (B,)."""


@dataclass
class InTime(Flow):
    """The ODE in t; `rates` holds a and b of v = a x + b D at the times that are known beforehand."""

    rates: dict[float, tuple[float, float]] = field(default_factory=dict)

    def place(self, node: Node) -> Tensor:
        """t."""
        return node.t

    def enter(self, x: Tensor, node: Node) -> Tensor:
        """x."""
        return x

    def leave(self, y: Tensor, node: Node) -> Tensor:
        """x."""
        return y

    def slope(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """v(x, t)."""
        known = self.rates.get(float(u)) if u.ndim == 0 else None
        return model.drift(y, u) if known is None else (y * known[0]).add_(model.denoise_at(y, u), alpha=known[1])


@dataclass
class InLogSNR(Flow):
    """The ODE in λ for y = z/√(s² + σ̂²)."""

    sde: GaussianSDE
    s: float

    def place(self, node: Node) -> Tensor:
        """λ."""
        return torch.tensor(node.log_snr, dtype=torch.float64)

    def enter(self, x: Tensor, node: Node) -> Tensor:
        """x/√(α² s² + σ²)."""
        return x / math.hypot(node.alpha * self.s, node.sigma)

    def leave(self, y: Tensor, node: Node) -> Tensor:
        """√(α² s² + σ²) y."""
        return y * math.hypot(node.alpha * self.s, node.sigma)

    def slope(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """D/Ψ − (s²/Ψ²) y."""
        t, total2 = self.sde.time_of(u), self.s**2 + torch.exp(-2 * u)
        D = model.denoise_at(bcast(self.sde.alpha(t) * total2.sqrt(), y) * y, t)
        return bcast(total2.rsqrt(), y) * D - bcast(self.s**2 / total2, y) * y


@dataclass
class InSigma(Flow):
    """The ODE in σ̂ for z."""

    sde: GaussianSDE

    def place(self, node: Node) -> Tensor:
        """σ̂."""
        return torch.tensor(node.sigma / node.alpha, dtype=torch.float64)

    def enter(self, x: Tensor, node: Node) -> Tensor:
        """x/α."""
        return x / node.alpha

    def leave(self, y: Tensor, node: Node) -> Tensor:
        """α z."""
        return y * node.alpha

    def slope(self, model: CountingModel, y: Tensor, u: Tensor) -> Tensor:
        """(z − D)/σ̂."""
        t = self.sde.time_of(-torch.log(u))
        return (y - model.denoise_at(bcast(self.sde.alpha(t), y) * y, t)) / bcast(u, y)


def step_from_pure_noise(state: State, s: Node, eps: Tensor) -> Tensor:
    """The exponential first-order step from α = 0: x_s = α_s D + σ_s ε."""
    return s.alpha * state.model.denoise(state.x, state.node) + s.sigma * eps


def flow_step(flow: Flow, advance: Callable[[State, Field, Tensor, Node], Tensor]) -> Step:
    """A step through a flow: advance(state, dy/du, y, s) gives y at s."""

    def step(state: State, s: Node) -> State:
        node = state.node
        if node.alpha == 0 and not isinstance(flow, InTime):
            return state.moved(step_from_pure_noise(state, s, state.x / node.sigma), s)

        def field(y: Tensor, u: Tensor) -> Tensor:
            return flow.slope(state.model, y, u)

        return state.moved(flow.leave(advance(state, field, flow.enter(state.x, node), s), s), s)

    return step


def fixed(flow: Flow, tableau: Tableau) -> Step:
    """One step of a Runge-Kutta method from node to node."""

    def advance(state: State, field: Field, y: Tensor, s: Node) -> Tensor:
        return rk_step(tableau, field, y, flow.place(state.node), flow.place(s))

    return flow_step(flow, advance)


def runge_kutta(tableau: Tableau) -> Make:
    """A Runge-Kutta method in t."""
    return lambda plan: fixed(InTime(_rates(plan, tableau)), tableau)


def _rates(plan: SamplerContext, tableau: Tableau) -> dict[float, tuple[float, float]]:
    """a = σ'/σ and b = α' − α σ'/σ at the times of all stages, the schedule being differentiated once for them all."""
    if not isinstance(plan.model, Model):
        return {}
    ends = torch.stack([node.t for node in plan.nodes])
    start, h = ends[:-1, None], ends.diff()[:, None]
    times = torch.cat([start + c * h if c != 1 else ends[1:, None] for c in tableau.c], 1).flatten()
    dalpha, dsigma = plan.sde.rates(times)
    a = dsigma / plan.sde.sigma(times)
    return dict(zip(times.tolist(), zip(a.tolist(), (dalpha - plan.sde.alpha(times) * a).tolist(), strict=True),
                    strict=True))


def runge_kutta_log_snr(tableau: Tableau) -> Make:
    """A Runge-Kutta method in λ."""
    return lambda plan: fixed(InLogSNR(plan.sde, plan.deviation), tableau)


def runge_kutta_sigma(tableau: Tableau) -> Make:
    """A Runge-Kutta method in σ̂: with Heun's, EDM's sampler.

    Reference: Karras et al. (2022), algorithm 1. arXiv:2206.00364
    """
    return lambda plan: fixed(InSigma(plan.sde), tableau)


def ode(tableau: Tableau) -> Make:
    """An embedded Runge-Kutta method in λ (in t for a process that is not Gaussian), each sample with its own steps.

    rtol, atol: the tolerance of the local error of y, which has unit variance.
    """

    def make(plan: SamplerContext, *, rtol: float = 1.5e-5, atol: float = 1.5e-5) -> Step:
        model = plan.model
        flow = InLogSNR(plan.sde, plan.deviation) if isinstance(model, Model) else InTime()

        def advance(state: State, field: Field, y: Tensor, s: Node) -> Tensor:
            calls = state.model.calls
            found = solve(tableau, field, y, flow.place(state.node), flow.place(s), rtol, atol)
            state.model.count_each(found.evaluations, calls)
            return found.x

        return flow_step(flow, advance)

    return make
