"""The law of a sampler's result on Gaussian data, exactly and without chance.

There a step is affine in the state and in its normals. So a batch whose rows each have one input at 1 and the others at
0 holds the whole answer: row 0 the mean, the other rows the responses whose outer products add up to the covariance.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from undiffuse.mixture import ExactDenoiser, Gaussian
from undiffuse.samplers import ALL, Method, SamplerContext, State
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import CountingModel, nodes_of
from undiffuse.sde import GaussianSDE

LAW = Gaussian([0.3, -0.2], [[0.25, 0.1], [0.1, 0.16]])


def lambda_grid(sde: GaussianSDE, steps: int, high: float = 2.0, low: float = 0.4) -> Tensor:
    """Times even in log-SNR from σ̂ = high to σ̂ = low."""
    ends = torch.tensor([high, low], dtype=torch.float64).log()
    return sde.time_of(-torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64))


def errors_at(name: str, sde: GaussianSDE, steps: int) -> float:
    """The larger of the two errors of a sampler with its default grid."""
    model, method = LAW.denoiser(sde), ALL[name]
    times = time_grid(sde, steps, method.grid, None, model.t_end(), model.sigma_data, method.start_level)
    return max(errors(method, sde, times, extra=600))


def few_steps_are_worse(name: str, sde: GaussianSDE) -> bool:
    """Whether 40 steps are exact, or have less than half the error of 1, 2 and 3 steps (Langevin steps: of 2 and 3)."""
    few = [errors_at(name, sde, steps) for steps in ((2, 3) if name == "annealed_langevin" else (1, 2, 3))]
    return errors_at(name, sde, 40) < max(1e-9, 0.5 * min(few))


def errors(method: str | Method, sde: GaussianSDE, times: Tensor, model: ExactDenoiser | None = None, extra: int = 0,
           **options: Any) -> tuple[float, float]:
    """The error of the mean (in z) and of the covariance (relative) at the end, from the exact law at the start."""
    model, nodes = model or LAW.denoiser(sde), nodes_of(sde, times)
    law, d = model.mixture, model.mixture.dim
    x = torch.zeros(1 + d * (2 + 4 * len(nodes) + extra), d, dtype=torch.float64)
    start, end = law.diffused(sde, times[0]), law.diffused(sde, times[-1])
    x[1:1 + d] = torch.linalg.cholesky(start.covariance).T
    x += start.mean
    rows: dict[tuple[int, int], int] = {}

    def normals(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
        row, out = rows.setdefault((index, stage), 1 + d * (1 + len(rows))), torch.zeros_like(x)
        out[row:row + d] = torch.eye(d, dtype=torch.float64)
        return out

    step = (ALL[method] if isinstance(method, str) else method).step(SamplerContext(model, nodes, x), options)
    state = State(x, nodes[0], 0, CountingModel(model, {}), normals)
    for node in nodes[1:]:
        state = step(state, node)
    spread = state.x[1:] - state.x[0]
    apart = spread.T @ spread - end.covariance
    return float((state.x[0] - end.mean).norm() / nodes[-1].alpha), float(apart.norm() / end.covariance.norm())
