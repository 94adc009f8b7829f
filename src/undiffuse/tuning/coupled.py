"""Coefficients of a sampler with noise, in closed form: a chain of exact flows and the sampler see the same noise.

The chain X follows the probability flow by many small steps where the sampler takes one, and both add the same normals.
So a path to aim at exists in spite of the noise, and step by step ridge least squares brings the sampler's own states
to the chain's, errors of earlier steps included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.gaussian import Moments
from undiffuse.noise import Purpose, normal
from undiffuse.steps.calibrated import VALUES
from undiffuse.steps.kernel import Data
from undiffuse.steps.renoised import Noisy, corrected, held_rows, lowered
from undiffuse.steps.rows import Row
from undiffuse.steps.state import Node
from undiffuse.tuning.fit import robust
from undiffuse.tuning.reference import SEED, Meter

FLOW = 96
"""Small steps of the chain from the first node to the last."""


class Coupled(NamedTuple):
    """A fitted sampler, its states (M, *shape) at the end, and those of the chain."""

    noisy: Noisy
    x: Tensor
    chain: Tensor

    @property
    def error(self) -> Tensor:
        """How far they are apart, (M, d)."""
        return (self.x - self.chain).flatten(1) / math.sqrt(self.x[0].numel())


def couple(meter: Meter, frame: Moments, nodes: Sequence[Node], leap: bool, eta: float, n: int,
           known: Noisy | None = None, first: int = 0) -> Coupled:
    """The sampler with noise η on these nodes, fitted to n chains from T, number `first` and on; or the `known` one
    beside such chains."""
    sde, kernel = meter.model.sde, Data(frame=frame)
    x = meter.model.prior_sample(n, SEED, first).double()
    x, inner = (_leapt(kernel, nodes, x), nodes[1:]) if leap else (x, nodes)
    lows, chain, theta = lowered(sde, inner, eta), x, []
    values: tuple[Tensor, ...] = ()
    for i, (held, low) in enumerate(zip(held_rows(kernel, inner, lows, x), lows, strict=True)):
        node, s = inner[i], inner[i + 1]
        chain, y = _flow(meter, chain, node, low, max(4, FLOW // len(lows))), kernel.enter(x, node)
        values = (kernel.value(y, meter.denoise(x, node), node), *values)[:VALUES]
        theta.append(_fitted(held, y, values, kernel.enter(chain, low)) if known is None else known.theta[i])
        x = kernel.leave(corrected(held, theta[-1].tolist())(y, values, None), low)
        if low.log_snr > s.log_snr:
            xi = normal(SEED, Purpose.STEP, i << 34, first, n, meter.model.shape, torch.float64)
            x, chain = (sde.renoise(state, low.t, s.t, xi) for state in (x, chain))
    noisy = known or Noisy(torch.stack([node.t for node in nodes]), torch.stack(theta), eta, True, leap)
    return Coupled(noisy, x, chain)


def _fitted(held: Row, y: Tensor, values: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """The corrections, (1 + VALUES,), of the row that leads to the target."""
    basis = torch.stack([y * held.carry, *(v * held.weights[0] for v in values)])
    found = robust(basis, target - held(y, values, None))
    return torch.nn.functional.pad(found, (0, 1 + VALUES - len(found)))


def _leapt(kernel: Data, nodes: Sequence[Node], x: Tensor) -> Tensor:
    """The states after the step that evaluates nothing."""
    held = held_rows(kernel, nodes[:2], nodes[1:2], x)[0]
    return kernel.leave(kernel.enter(x, nodes[0]) * held.carry, nodes[1])


def _flow(meter: Meter, x: Tensor, node: Node, s: Node, steps: int) -> Tensor:
    """Where the probability flow leads from x (M, *shape)."""
    out = meter.run(len(x), 0, method="unipc_4_noise", grid="log_snr", steps=steps, x_T=x.to(meter.model.dtype),
                    t_start=float(node.t), t_end=float(s.t))
    moved: Tensor = out.x.double()
    return moved
