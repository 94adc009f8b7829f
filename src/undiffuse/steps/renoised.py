"""Steps with noise fitted to one model: along the flow to below the next node, and back up to it by noise.

With z = x/α and Φ the probability flow, for any level σ̂_* ≤ σ̂_s

    z_s = Φ(z_t, σ̂_*) + √(σ̂_s² − σ̂_*²) ξ,        σ̂_* = σ̂_s (σ̂_s/σ̂_t)^{η²},

has the law p_s if z_t has p_t: the noise has the covariance that the flow went too far by, whatever the data, and no
posterior covariance has to be guessed. The flow's step is a row of first order with at most five corrections, for the
coordinates y and the latest values of the remainder R of a `Data` kernel, in the frame of the moments or without:

    y_* = (1 + θ_0) c y + I_0 (R_i + Σ_j θ_{j+1} R_{i−j}).

Without a frame, and with θ = (0, r, −r, 0, 0), r = (λ_s − λ_t)/(2 (λ_t − λ_before)), it is DPM-Solver++(2M) for the
SDE (Lu et al., 2022, arXiv:2211.01095, appendix B); with θ = 0 and η = 1 DDPM's ancestral step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from undiffuse.gaussian import Moments
from undiffuse.sde import GaussianSDE
from undiffuse.steps.calibrated import VALUES
from undiffuse.steps.kernel import Data, Kernel
from undiffuse.steps.method import Method, Plan
from undiffuse.steps.rows import Row, row
from undiffuse.steps.start import after, jump
from undiffuse.steps.state import Node, State, Step, nodes_of


@dataclass(frozen=True)
class Noisy:
    """A sampler with noise η fitted to one model for one number of evaluations.

    times (m + 1,): falling; theta (n, 1 + VALUES): the corrections; framed: in the coordinates of the moments; leap:
    the first step evaluates nothing (m = n + 1), it follows the flow of a Gaussian with the data's moments.
    """

    times: Tensor
    theta: Tensor
    eta: float
    framed: bool
    leap: bool

    @property
    def evaluations(self) -> int:
        """How many evaluations it makes."""
        return len(self.theta)

    def method(self, frame: Moments) -> Method:
        """The sampler, on its own grid."""

        def make(plan: Plan) -> Step:
            nodes, kernel = plan.nodes[self.leap:], Data(frame=frame if self.framed else None)
            lows = lowered(plan.sde, nodes, self.eta)
            rows = [corrected(held, theta) for held, theta in
                    zip(held_rows(kernel, nodes, lows, plan.like), self.theta.tolist(), strict=True)]
            step = _step(kernel, plan.sde, lows, rows)
            return after(jump(frame), step) if self.leap else step

        return Method(make, 1, stochastic=True, grid=self.times)


def lowered(sde: GaussianSDE, nodes: Sequence[Node], eta: float) -> list[Node]:
    """For every step the node that its flow leads to: σ̂_*, and the end itself in the last step and from α = 0."""
    found = [_below(sde, a, b, eta) for a, b in pairwise(nodes)]
    return [*found[:-1], nodes[-1]]


def _below(sde: GaussianSDE, node: Node, s: Node, eta: float) -> Node:
    h = node.step_to(s)
    if eta == 0 or math.isinf(h):
        return s
    return nodes_of(sde, sde.time_of(torch.tensor([s.log_snr + eta**2 * h], dtype=torch.float64)))[0]


def held_rows(kernel: Kernel, nodes: Sequence[Node], lows: Sequence[Node], like: Tensor) -> list[Row]:
    """The rows of first order from every node but the last to the node that its flow leads to."""
    return [row(kernel, node, low, [0.0], like=like) for node, low in zip(nodes[:-1], lows, strict=True)]


def corrected(held: Row, theta: Sequence[float]) -> Row:
    """The row with its corrections."""
    weight = held.weights[0]
    return Row(held.carry * (1 + theta[0]), [weight * ((j == 0) + c) for j, c in enumerate(theta[1:])], 0.0)


def _step(kernel: Kernel, sde: GaussianSDE, lows: list[Node], rows: list[Row]) -> Step:
    def step(state: State, s: Node) -> State:
        i, node = state.index, state.node
        y = kernel.enter(state.x, node)
        values = (kernel.value(y, state.model.denoise(state.x, node), node), *(state.memory or ()))[:VALUES]
        x = kernel.leave(rows[i](y, values, None), lows[i])
        x = sde.renoise(x, lows[i].t, s.t, state.normal(s)) if lows[i].log_snr > s.log_snr else x
        return state.moved(x, s, values)

    return step
