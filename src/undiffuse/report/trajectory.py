"""Trajectories between noise and data: snapshots of the reverse and the forward process, for figures and animations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.sde import as_time, bcast

_EXPONENT = 1.5


class Snapshot(NamedTuple):
    """A batch x (n, *event) at time t in model units, and `scaled`, x scaled to the standard deviation of the data."""

    t: float
    log_snr: float
    x: Tensor
    scaled: Tensor


def backward(
    model: Model, start: Tensor, steps: int, method: str = "auto", seed: int = 0, **cond: Any
) -> list[Snapshot]:
    """Snapshots of the reverse process at T, at `animation_times` and at t = 0.

    Args:
        model: the model to sample.
        start: states (n, *event) at T in model units.
        steps: number of steps.
        method: name of the sampler.
        seed: random seed.
        cond: conditions of the model.
    """
    states: dict[float, list[Tensor]] = {}
    out = sample(model, x_T=start, method=method, steps=steps, grid=animation_times(model, steps), seed=seed,
                 callback=lambda step, t, x: states.setdefault(t, []).append(x.cpu()), **cond)
    inner = [(t, torch.cat(pieces)[:len(start)]) for t, pieces in states.items()]
    trajectory = [(float(out.t[0]), start), *inner, (0.0, model.transform.forward(out.x))]
    return [snapshot(model, x, t) for t, x in trajectory]


def forward(model: Model, z: Tensor, times: Sequence[float], seed: int = 0) -> list[Snapshot]:
    """Snapshots of the forward process: x_t = α z + σ ε with one ε for all times.

    Args:
        model: the model whose process is used.
        z: data (n, *event) in model units.
        times: times of the snapshots.
        seed: random seed of ε.
    """
    eps = normal(seed, Purpose.NOISE, 0, 0, len(z), tuple(z.shape[1:]), z.dtype)
    return [snapshot(model, z if t == 0 else model.sde.perturb(z, t, eps), t) for t in times]


def expected_data(model: Model, snapshots: Sequence[Snapshot], **cond: Any) -> list[Tensor]:
    """E[x_0 | x_t] (n, *event) of each snapshot, given the conditions `cond`."""
    with torch.no_grad():
        return [s.x if s.t == 0 else model.denoise(s.x.to(model.device), s.t, **cond).cpu() for s in snapshots]


def snapshot(model: Model, x: Tensor, t: float) -> Snapshot:
    """The snapshot of x at time t, scaled by σ_d/√(α² σ_d² + σ²).

    Args:
        model: model whose noise schedule holds.
        x: state (B, *event) in model units.
        t: time; 0: x is not scaled.
    """
    if t == 0:
        return Snapshot(t, math.inf, x, x)
    alpha, variance = model.sde.alpha(as_time(t)), model.sde.variance(as_time(t))
    scale = model.sigma_data / (alpha**2 * model.sigma_data**2 + variance).sqrt()
    return Snapshot(t, float(model.sde.log_snr(t)), x, bcast(scale, x) * x)


def evenly_spaced(snapshots: list[Snapshot], count: int) -> list[Snapshot]:
    """`count` evenly spaced snapshots, including the first and the last."""
    return [snapshots[round(k * (len(snapshots) - 1) / (count - 1))] for k in range(count)]


def animation_times(model: Model, steps: int) -> Tensor:
    """Times (steps + 1,) from T to the end of the model, at which σ/α is (u/(1 − u))^1.5 σ_d with u evenly spaced.

    The frames are not spent mostly on pure noise or on the finest detail.
    """
    endpoints = torch.tensor([model.sde.T, model.t_end()], dtype=torch.float64)
    first, last = torch.sigmoid(-(model.sde.log_snr(endpoints) + math.log(model.sigma_data)) / _EXPONENT).tolist()
    u = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    grid = model.sde.time_of(-_EXPONENT * torch.logit(u) - math.log(model.sigma_data))
    grid[0], grid[-1] = endpoints
    return grid


def time_labels(snapshot: Snapshot) -> tuple[str, str]:
    """The time and the log-SNR of a snapshot as text."""
    if snapshot.t == 0:
        return "t = 0", "data"
    number = "−∞" if math.isinf(snapshot.log_snr) else f"{snapshot.log_snr:+.1f}".replace("-", "−")
    return f"t = {snapshot.t:.3g}", f"log-SNR {number}"
