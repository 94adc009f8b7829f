"""First steps: where a method cannot begin at T itself, or need not."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from undiffuse.gaussian import Moments
from undiffuse.steps.kernel import Data
from undiffuse.steps.rows import row
from undiffuse.steps.state import Node, State, Step


def held(x: Tensor, D: Tensor, node: Node, s: Node) -> Tensor:
    """The flow with D held, x_s = (σ_s/σ_t) x + (α_s − α_t σ_s/σ_t) D; finite where α_t = 0."""
    ratio = s.sigma / node.sigma
    return ratio * x + (s.alpha - node.alpha * ratio) * D


def first_order(state: State, s: Node) -> State:
    """DDIM's step."""
    return state.moved(held(state.x, state.model.denoise(state.x, state.node), state.node, s), s)


def jump(frame: Moments) -> Step:
    """The flow of a Gaussian with the data's moments, y_s = (α_s Ψ_s/(α_t Ψ_t)) y_t in their frame: no evaluation.

    At noise levels far above the data's deviation the law of x_t is that Gaussian, and so is its flow, up to the third
    cumulant over σ̂³.

    Reference: Wang and Vastola (2024), "analytical teleportation". arXiv:2412.09726
    """
    kernel = Data(frame=frame)

    def step(state: State, s: Node) -> State:
        y = kernel.enter(state.x, state.node)
        only = row(kernel, state.node, s, [0.0], like=y)
        return state.moved(kernel.leave(y * only.carry, s), s)

    return step


def after(first: Step, method: Step) -> Step:
    """The step `first` once, then a method made for the other nodes, which counts its steps from 0."""

    def step(state: State, s: Node) -> State:
        if state.index == 0:
            return first(state, s)
        return replace(method(replace(state, index=state.index - 1), s), index=state.index + 1)

    return step
