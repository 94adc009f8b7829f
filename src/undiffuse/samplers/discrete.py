"""Steps of published samplers for chains that are neither quadratures of the flow nor exact solutions of the SDE.

    ddpm          the chain's reverse step with any variance between β̃ and β, or with a learned variance
    plms          the pseudo linear multistep method, whose first step is computed twice
    consistency   denoise, and noise again: for distilled networks (LCM, TCD)
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from undiffuse.chains import LevelTable
from undiffuse.errors import InputError
from undiffuse.model import Denoiser, ReverseModel
from undiffuse.samplers.coefficients import NoisePrediction, adams
from undiffuse.samplers.exponential import Multistep, after, ddim_update, first_order
from undiffuse.samplers.method import Node, SamplerContext, State, Step, nodes_of
from undiffuse.sde import GaussianSDE

LEARNED = "learned"
"""The value of `spread` for the variance that the network predicts beside the mean."""


def ddpm(context: SamplerContext, *, spread: float | str = 1.0) -> Step:
    """The reverse step of a chain with the variance β̃^{1−v} β^v: v = 0 is the posterior variance, v = 1 is β.

    With a = α_t/α_s: β = 1 − a² (in general σ_t² − a² σ_s²), β̃ = β σ_s²/σ_t², and the mean is the posterior's.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        spread: v, or "learned": (v_θ + 1)/2 of the network's second half of channels.

    Reference: Ho et al. (2020), section 3.2, arXiv:2006.11239; Nichol and Dhariwal (2021), eq. 15, arXiv:2102.09672.
    """
    if spread != LEARNED and not (isinstance(spread, int | float) and 0 <= spread <= 1):
        raise InputError(f"got spread={spread!r}; expected a number from 0 to 1, or {LEARNED!r}")

    def step(state: State, s: Node) -> State:
        t, D = state.node, state.model.denoise(state.x, state.node)
        a = t.alpha / s.alpha
        beta = t.sigma**2 - a**2 * s.sigma**2
        keep = a * s.sigma**2 / t.sigma**2
        v = _learned_spread(context.model) if isinstance(spread, str) else torch.tensor(float(spread)).to(state.x)
        std = beta**0.5 * (s.sigma / t.sigma) ** (1 - v)
        return state.advance(keep * state.x + s.alpha * beta / t.sigma**2 * D + std * state.normal(s), s)

    return step


def _learned_spread(model: ReverseModel) -> Tensor:
    """(v_θ + 1)/2 of the last evaluation, (B, *event)."""
    value = getattr(model.net, "spread", None) if isinstance(model, Denoiser) else None
    if value is None:
        raise InputError("got spread='learned' for a network without a learned variance; expected one with twice the "
                         "channels, without guidance; or spread from 0 to 1")
    return torch.add(value, 1) / 2


def plms(context: SamplerContext) -> Step:
    """ε̂ extrapolated by Adams and Bashforth's weights of equal steps; the first step uses the mean of both ends.

    The first step evaluates twice, so that n steps cost n + 1 evaluations.

    Reference: Liu et al. (2022), PNDM, eqs. 12 and 13, arXiv:2202.09778.
    """
    if context.nodes[0].alpha == 0:  # where ε̂ does not determine x_0
        return after(first_order, plms(replace(context, nodes=context.nodes[1:])))
    kernel = NoisePrediction()
    rest = Multistep(kernel, 4, context.nodes, context.template, rule=adams)

    def step(state: State, s: Node) -> State:
        if state.index:
            return rest(state, s)
        node, x, D = state.node, state.x, state.model.denoise(state.x, state.node)
        end = ddim_update(x, D, node, s)
        first, last = kernel.residual(x, D, node), kernel.residual(end, state.model.denoise(end, s), s)
        x = rest.predictions[0](x, [(first + last) / 2], None)
        return state.advance(x, s, ((first,), None))

    return step


def consistency(context: SamplerContext, *, gamma: float = 1.0) -> Step:
    """The state at (1 − γ) s by D, noised again to s; γ = 1: x_s = α_s D + σ_s ξ.

    For networks that are distilled to D = x_0 of the trajectory. On a chain, (1 − γ) s is rounded down to its levels.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        gamma: γ, from 0 (no noise) to 1.

    Reference: Luo et al. (2023), LCM, algorithm 3, arXiv:2310.04378; Zheng et al. (2024), TCD, arXiv:2402.19159.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"got gamma={gamma}; expected a number from 0 to 1")
    assert isinstance(context.sde, GaussianSDE)
    inner = {float(node.t): _before(context.sde, node, gamma) for node in context.nodes[1:]} if gamma < 1 else {}

    def step(state: State, s: Node) -> State:
        D = state.model.denoise(state.x, state.node)
        if gamma == 1:
            return state.advance(s.alpha * D + s.sigma * state.normal(s), s)
        m = inner[float(s.t)]
        a = s.alpha / m.alpha
        std = math.sqrt(max(0.0, s.sigma**2 - a**2 * m.sigma**2))
        return state.advance(a * ddim_update(state.x, D, state.node, m) + std * state.normal(s), s)

    return step


def _before(sde: GaussianSDE, node: Node, gamma: float) -> Node:
    """The node at (1 − γ) s."""
    t = (1 - gamma) * node.t
    if isinstance(sde, LevelTable):
        n = len(sde.levels)
        t = (torch.floor((1 - gamma) * (node.t * n - 1) + 1e-6) + 1) / n
    return nodes_of(sde, t.reshape(1))[0]
