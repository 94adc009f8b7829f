"""Noise where it corrects errors, the flow where it would only blur."""

from __future__ import annotations

import math
from dataclasses import replace

from undiffuse.steps.exponential import Multistep
from undiffuse.steps.kernel import Data, Noise
from undiffuse.steps.method import Plan
from undiffuse.steps.rows import midpoint
from undiffuse.steps.state import Node, State, Step


def sde_then_ode(plan: Plan, *, eta: float = 0.7, low: float = 0.1, order: int = 3) -> Step:
    """The reverse SDE with noise η down to σ̂ = low data deviations, from there the probability-flow ODE.

    Both are exponential multistep rows: data prediction of order 2 while there is noise, along which D is smooth and
    ε̂ is not; then noise prediction, which is nearer on the flow's last stretch. The first step of the flow still goes
    through D, so that it uses the value before it; those after it interpolate ε̂ at the nodes of the flow.
    """
    level = low * plan.deviation
    edge = next((i for i, node in enumerate(plan.nodes) if math.exp(-node.log_snr) <= level), len(plan.nodes))
    noisy = Multistep(Data(lambda at: eta if at > level else 0.0), 2, plan.nodes, plan.like, rule=midpoint)
    flow = Multistep(Noise(), order, plan.nodes[edge:], plan.like)

    def step(state: State, s: Node) -> State:
        if state.index > edge:
            return replace(flow(replace(state, index=state.index - edge), s), index=state.index + 1)
        moved = noisy(state, s)
        if state.index < edge:
            return moved
        (D, *_), _ = moved.memory
        return replace(moved, memory=((flow.kernel.value(state.x, D, state.node),), None))

    return step
