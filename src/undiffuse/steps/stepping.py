"""Steps that need only a drift and a diffusion: Runge-Kutta on the flow, Euler-Maruyama on the reverse SDE."""

from __future__ import annotations

from undiffuse.ode import Tableau, rk_step
from undiffuse.sde import bcast
from undiffuse.steps.state import Node, State, Step


def runge_kutta(tableau: Tableau) -> Step:
    """The probability-flow ODE dx/dt = v(x, t) by an explicit Runge-Kutta method in t."""

    def step(state: State, s: Node) -> State:
        return state.moved(rk_step(tableau, state.model.drift, state.x, state.node.t, s.t), s)

    return step


def euler_maruyama(eta: float = 1.0) -> Step:
    """The reverse SDE with noise η g by Euler and Maruyama: x + drift (s − t) + η g √|s − t| ξ.

    Reference: Song et al. (2021), eq. 6. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node.t
        x = state.x + state.model.drift(state.x, t, eta) * (s.t - t)
        g = state.model.model.process().diffusion(state.x, t)
        return state.moved(x + bcast(eta * g, x) * (t - s.t).sqrt() * state.normal() if eta else x, s)

    return step
