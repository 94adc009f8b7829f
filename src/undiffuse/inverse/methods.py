"""Posterior samplers that are steps of their own: what p(x | y) has no denoiser for.

    replacement   after every step, what is seen is put back at the step's noise level
    repaint       the same, every step taken several times
    dps           an ancestral step, then down the gradient of ‖y − A D(x_t)‖
    diffpir       D moved to where the observation and N(D, σ̂²/λ) agree best, then noised again
    daps          the ODE to x_0, a draw of its Gaussian posterior around there, noised again
    gibbs         p(x_0 | z) by the reverse SDE and p(z | x_0, y) in turns, while z's noise falls: exact in the limit

Each is a function (observation, plan, options) -> step, and its options are those of `observe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.grid import time_grid
from undiffuse.inverse.belief import DENSE, Belief, belief
from undiffuse.inverse.observation import Apply, Local, Observation
from undiffuse.model import Model, Wrapper
from undiffuse.sde import Time
from undiffuse.steps.combinators import hold, repeat
from undiffuse.steps.matched import bridge, matched
from undiffuse.steps.method import Plan
from undiffuse.steps.start import first_order
from undiffuse.steps.state import Node, State, Step, nodes_of
from undiffuse.steps.stochastic import multistep_sde

_ITERATIONS = 20
_INNER = 64  # the first stage of noise inside a step


class Posterior(Wrapper):
    """p(x | y) that is sampled in a way of its own; its denoiser is that of `last`, or of p(x)."""

    takes = ("y",)

    def __init__(self, inner: Model, observation: Observation, own: Any, last: Model | None = None) -> None:
        super().__init__(inner)
        self.observation, self.own, self.last = observation, own, last

    def denoise(self, x: Tensor, t: Time, *, y: Tensor | None = None, **cond: Any) -> Tensor:
        """D, or that of `last` with y."""
        if self.last is None:
            return self.inner.denoise(x, t, **cond)
        return self.last.denoise(x, t, y=y, **cond)


def believed(state: State) -> Belief:
    """The belief of p(x)'s denoiser at a state, counted as one evaluation."""
    model, cond = state.model.model, dict(state.model.cond)
    while isinstance(model, Wrapper):
        inner = getattr(model, "cond", {})
        cond, found = {**inner, **cond}, isinstance(model, Posterior)
        model = model.inner
        if found:
            break
    cond.pop("y", None)
    state.model.calls += 1
    if not isinstance(model, Model):
        raise InputError("got a model without a denoiser; an observation needs one")
    return belief(model, state.x, state.node.t, cond)


def near(observation: Observation, state: State, x0: Tensor) -> Local:
    """The observation near x0, with the y of the request."""
    level2 = math.exp(-2 * state.node.log_snr) if state.node.alpha else math.inf
    return observation.local(x0, _left(state, level2), state.model.cond.get("y"))


def replacement(observation: Observation, plan: Plan, *, times: int = 1, eta: float = 1.0) -> Step:
    """x ← x + A⁺ (α y + σ A ε − A x) after every ancestral step, each taken `times` times.

    Reference: Song et al. (2021), appendix I.2, arXiv:2011.13456; Lugmayr et al. (2022), arXiv:2201.09865.
    """

    def put(state: State, eps: Tensor) -> Tensor:
        node = state.node
        local = near(observation, state, state.x / node.alpha)
        short = node.alpha * local.residual + node.sigma * local.push(eps.flatten(1))
        bare = replace(local, residual=short, variance=torch.where(local.seen, 1e-8 * observation.scale2, 1.0))
        return state.x + local.pull(bare.solve(*_isotropic(state.x, 1.0))).reshape(state.x.shape)

    step = hold(multistep_sde(1)(plan, eta=eta), put)
    return repeat(step, times) if times > 1 else step


def repaint(observation: Observation, plan: Plan, *, times: int = 10, eta: float = 1.0) -> Step:
    """Replacement, every step taken ten times.

    Reference: Lugmayr et al. (2022), "RePaint", section 4.2. arXiv:2201.09865
    """
    return replacement(observation, plan, times=times, eta=eta)


def dps(observation: Observation, plan: Plan, *, zeta: float = 1.0) -> Step:
    """z_s ← z_s − ζ ∇_z ‖y − A D‖ after an ancestral step; the norm is each sample's own.

    The size of ζ that is right depends on the problem and on the number of steps.

    Reference: Chung et al. (2023), algorithm 1. arXiv:2209.14687
    """

    def step(state: State, s: Node) -> State:
        keep, share, noise = bridge(state.node, s)
        seen = believed(state)
        local = near(observation, state, seen.mean)
        norm = local.residual.norm(dim=1, keepdim=True).clamp_min(1e-12)
        down = s.alpha * state.node.alpha * seen.transposed(local.pull(local.residual / norm)).reshape(state.x.shape)
        return state.moved(keep * state.x + share * seen.mean + noise**0.5 * state.normal(s) + zeta * down, s)

    return step


def diffpir(observation: Observation, plan: Plan, *, strength: float = 7.0, zeta: float = 0.3) -> Step:
    """x̂ = argmin ‖y − A x‖²/R + λ ‖x − D‖²/σ̂², then α_s x̂ + σ_s (√(1 − ζ) ε̂ + √ζ ξ); λ is `strength`.

    Reference: Zhu et al. (2023), algorithm 1. arXiv:2305.08995
    """

    def step(state: State, s: Node) -> State:
        t, D = state.node, state.model.denoise(state.x, state.node)
        local = near(observation, state, D)
        x0 = drawn(local, D, _capped(state) / strength)
        eps = (state.x - t.alpha * x0) / t.sigma
        renewed = (1 - zeta) ** 0.5 * eps + zeta**0.5 * state.normal(s)
        return state.moved(s.alpha * x0 + s.sigma * renewed, s)

    return step


def daps(observation: Observation, plan: Plan, *, inner: int = 5) -> Step:
    """x̂_0 by `inner` steps of the ODE, a draw of N(x̂_0, r²) p(y | x_0) with r² = s² σ̂²/(s² + σ̂²), noised again.

    Reference: Zhang et al. (2024), algorithm 1. arXiv:2407.01521
    """

    def step(state: State, s: Node) -> State:
        x0 = _descend(plan, state, inner, first_order)
        local = near(observation, state, x0)
        draw = drawn(local, x0, _left(state, math.exp(-2 * state.node.log_snr)), state, s)
        return state.moved(s.alpha * draw + s.sigma * state.normal(s), s)

    return step


def gibbs(observation: Observation, plan: Plan, *, inner: int = 4, repeats: int = 4) -> Step:
    """x_0 ~ p(x_0 | z) by `inner` covariance-matched steps of the reverse SDE, then z ~ N(x_0, σ̂_s²) p(y | z).

    Both are done `repeats` times at every node.

    At one σ̂ it tends to the law p(x_0) N(z; x_0, σ̂²) p(y | z), which is the posterior's as σ̂ → 0.

    Reference: Wu et al. (2024), PnP-DM, algorithm 1, arXiv:2405.18782; Vono et al. (2019), split Gibbs.
    """

    down = matched(plan, eta=1.0)

    def turn(state: State, s: Node, k: int) -> State:
        x0 = _descend(plan, state, inner, down, k)
        here = replace(state, node=s)
        z = drawn(near(observation, here, x0), x0, math.exp(-2 * s.log_snr), state, s, k)
        return replace(state, x=s.alpha * z, node=s)

    def step(state: State, s: Node) -> State:
        out = state
        for k in range(repeats):
            out = turn(out, s, k)
        return state.moved(out.x, s)

    return step


def drawn(local: Local, x0: Tensor, r2: float, state: State | None = None, s: Node | None = None, turn: int = 0
          ) -> Tensor:
    """A draw of N(x; x0, r² I) p(y | x), or its mean without a state: x̃ + r² Aᵀ (r² A Aᵀ + R)⁻¹ (y + R^½ ξ − A x̃).

    Reference: Papandreou and Yuille (2010), perturb and solve; Matheron's rule.
    """
    at, short = x0, local
    if state is not None and s is not None:
        first = r2**0.5 * state.normal(s, _INNER - 2 + 4096 * turn)
        other = _normals_like(local.residual, state, s, _INNER + 2048 + 4096 * turn)
        spread = torch.where(local.seen, local.variance.sqrt() * other, 0.0)
        at = x0 + first
        short = replace(local, residual=local.residual + spread - local.push(first.flatten(1)))
    return at + r2 * local.pull(short.solve(*_isotropic(x0, r2))).reshape(x0.shape)


def _isotropic(x: Tensor, r2: float) -> tuple[Tensor | Apply, int]:
    """r² I for rows like x, as a matrix where that is small, and the iterations of a solver."""
    d = math.prod(x.shape[1:])
    if d > DENSE:
        return lambda u: r2 * u, _ITERATIONS
    return r2 * torch.eye(d, dtype=torch.float64).expand(len(x), d, d), 0


def _normals_like(rows: Tensor, state: State, s: Node, stage: int) -> Tensor:
    """Standard normals (B, m) from as many draws of an event as it takes."""
    d = math.prod(state.x.shape[1:])
    pieces = [state.normal(s, stage + k).flatten(1) for k in range(-(-rows.shape[1] // d))]
    return torch.cat(pieces, 1)[:, : rows.shape[1]]


def _descend(plan: Plan, state: State, inner: int, step: Step, turn: int = 0) -> Tensor:
    """x_0 from a state: `inner` steps to the end of the grid, then D."""
    last, here = plan.nodes[-1], state
    if state.node.log_snr < last.log_snr:
        times = time_grid(plan.sde, inner, "karras", float(state.node.t), float(last.t))[1:]
        for k, s in enumerate(nodes_of(plan.sde, times)):
            here = step(state.again(here.x, here.node, (turn * inner + k) % 1024), s)
    return here.model.denoise(here.x, here.node)


def _left(state: State, level2: float) -> float:
    """s² σ̂²/(s² + σ̂²)."""
    s2 = float(getattr(state.model.model, "sigma_data", 1.0)) ** 2
    return s2 if math.isinf(level2) else s2 * level2 / (s2 + level2)


def _capped(state: State) -> float:
    """σ̂², at most 10⁴ s²."""
    most = 1e4 * float(getattr(state.model.model, "sigma_data", 1.0)) ** 2
    return min(most, math.exp(-2 * state.node.log_snr)) if state.node.alpha else most


STEPS: dict[str, Callable[..., Step]] = {
    "replacement": replacement, "repaint": repaint, "dps": dps, "diffpir": diffpir, "daps": daps, "gibbs": gibbs,
}
