"""The measured order of every sampler on every process, beside the claimed one.

Deterministic samplers: the error at the end of σ̂ ∈ [0.4, 2] on a mixture, for steps halved; slope of log error over
log step. A multistep method that starts with first-order steps is of second order on any finite interval, so the grid
begins with steps that grow geometrically from hᵖ.

Stochastic samplers: the error of the variance on Gaussian data, without Monte Carlo. A step is linear in the state and
in its normals there, so the state at the end is a sum of unit responses, one row of the batch for each normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from undiffuse.mixture import Gaussian, Mixture
from undiffuse.processes import EDM, VE, VP, Cosine, PowerVE, RectifiedFlow, SubVP
from undiffuse.random import normal
from undiffuse.samplers import ALL, SamplerContext, State
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import CountingModel, nodes_of
from undiffuse.sde import GaussianSDE

PROCESSES: dict[str, GaussianSDE] = {
    sde.name: sde for sde in (VP(), SubVP(), VE(), PowerVE(), EDM(), Cosine(), RectifiedFlow())
}
WITHOUT = ("predictor_corrector", "annealed_langevin")
"""Samplers of first order up to a bias that no grid takes away: that of Langevin steps of a fixed size."""
OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "edm_churn": lambda steps: {"churn_total": 2.0}, "restart": lambda steps: {"low": 1.0, "high": 3.0, "steps": steps},
}
"""What refines with the number of steps, for samplers that repeat or raise some."""
HIGH, LOW = 2.0, 0.4
"""The ends of the interval in σ̂."""


@dataclass(frozen=True)
class Order:
    """The order of a sampler on a process, with the errors at successive halvings of the step."""

    method: str
    process: str
    claimed: int
    errors: list[float]

    @property
    def measured(self) -> float:
        """The slope between the two finest resolutions; infinite where nothing is left but rounding."""
        if max(self.errors) < 1e-12:
            return math.inf
        return math.log2(self.errors[-2] / self.errors[-1])


def orders(methods: list[str] | None = None, processes: list[str] | None = None) -> Iterator[Order]:
    """The orders of those samplers on those processes; by default all on all, except for samplers
    that choose their own steps."""
    for name in methods or measurable():
        for process in processes or PROCESSES:
            errors = weak_errors if ALL[name].stochastic else strong_errors
            yield Order(name, process, ALL[name].order, errors(name, PROCESSES[process]))


def measurable() -> list[str]:
    """The samplers that have an order in the step."""
    return [name for name, method in ALL.items() if not method.adaptive and name not in WITHOUT]


def growing_grid(sde: GaussianSDE, steps: int, order: int) -> Tensor:
    """Even steps h in λ after steps that double from about hᵖ to h."""
    first, last = -math.log(HIGH), -math.log(LOW)
    h = (last - first) / (steps + 1)
    doublings = math.ceil((order - 1) * math.log2(1 / h)) if order > 1 else 0
    lengths = [h * 2.0 ** -k for k in range(doublings, 0, -1)]
    rest = last - first - sum(lengths)
    lam = torch.tensor([0.0, *lengths, *[rest / steps] * steps], dtype=torch.float64).cumsum(0) + first
    return sde.time_of(lam)


def strong_errors(name: str, sde: GaussianSDE, resolutions: tuple[int, ...] = (48, 96)) -> list[float]:
    """The root mean square error in z at the end of the interval, for each number of steps."""
    return [end_error(name, sde, growing_grid(sde, steps, ALL[name].order)) for steps in resolutions]


def end_error(name: str, sde: GaussianSDE, grid: Tensor) -> float:
    """The root mean square error in z at the end of a grid over the interval."""
    start, truth, law = _paths()
    ends = sde.alpha(grid[[0, -1]])
    x = sample(law.denoiser(sde), method=ALL[name], grid=grid, x_T=ends[0] * start, denoise_last=False,
               block=len(start)).x
    return float((x / ends[1] - truth).square().mean().sqrt())


@cache
def _paths() -> tuple[Tensor, Tensor, Mixture]:
    """Starts z, their ends by 250 classical Runge-Kutta steps, and the law."""
    law = Mixture([1, 2, 1.5], [[-1.0, 0.4], [0.8, 0.9], [0.3, -1.0]], [0.2, 0.1, 0.3])
    sde, shape = EDM(), (32, 2)
    start = law.sample(shape[0]) + HIGH * normal(3, 0, 0, 0, *shape[:1], shape[1:], torch.float64)
    grid = growing_grid(sde, 250, 1)
    x = sample(law.denoiser(sde), method="rk4_log_snr", grid=grid, x_T=start, denoise_last=False, block=shape[0]).x
    return start, x, law


def weak_errors(name: str, sde: GaussianSDE, resolutions: tuple[int, ...] = (32, 64)) -> list[float]:
    """The error of the variance of z at the end, relative to the true one, for each number of steps."""
    truth = 0.5**2 + LOW**2
    return [abs(_variance(name, sde, steps) / truth - 1) for steps in resolutions]


def _variance(name: str, sde: GaussianSDE, steps: int) -> float:
    """The variance of z at the end for x_0 ~ N(0, ¼): the response to the start, and to every normal."""
    model = Gaussian([0.0], 0.25).denoiser(sde)
    nodes = nodes_of(sde, growing_grid(sde, steps, 1))
    x = torch.zeros(1 + 4 * steps, 1, dtype=torch.float64)
    x[0] = nodes[0].alpha * math.sqrt(0.25 + HIGH**2)
    step = ALL[name].step(SamplerContext(model, nodes, x), OPTIONS[name](steps) if name in OPTIONS else {})
    state = State(x, nodes[0], 0, CountingModel(model, {}), _unit_normals(x))
    for node in nodes[1:]:
        state = step(state, node)
    return float(state.x.square().sum()) / nodes[-1].alpha ** 2


def _unit_normals(like: Tensor) -> Callable[[int, int, Tensor, Tensor], Tensor]:
    """Normals of which each is 1 in a row of its own and 0 elsewhere."""
    rows: dict[tuple[int, int], int] = {}

    def draw(index: int, stage: int, start: Tensor, end: Tensor) -> Tensor:
        out = torch.zeros_like(like)
        out[rows.setdefault((index, stage), len(rows) + 1)] = 1
        return out

    return draw
