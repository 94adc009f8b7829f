"""The way of samples from noise to data, and of data to noise, as moments to be shown."""

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

_STRETCH = 1.5


class Snapshot(NamedTuple):
    """A batch at time t: `x` as it is, and `shown`, brought to the spread of the data; model units."""

    t: float
    log_snr: float
    x: Tensor
    shown: Tensor


def backward(
    model: Model, start: Tensor, steps: int, method: str = "auto", seed: int = 0, **cond: Any
) -> list[Snapshot]:
    """The way of the states `start` (n, *event), drawn at T, to data; its last moment is t = 0.

    Its moments are those of `times`, and the end.
    """
    kept: dict[float, list[Tensor]] = {}
    out = sample(model, x_T=start, method=method, steps=steps, grid=times(model, steps), seed=seed,
                 callback=lambda step, t, x: kept.setdefault(t, []).append(x.cpu()), **cond)
    states = [(t, torch.cat(pieces)[:len(start)]) for t, pieces in kept.items()]
    ends = [(float(out.t[0]), start), (0.0, model.transform.forward(out.x))]
    return [moment(model, x, t) for t, x in (ends[0], *states, ends[1])]


def forward(model: Model, z: Tensor, times: Sequence[float], seed: int = 0) -> list[Snapshot]:
    """Data z (n, *event) at those times, x_t = α z + σ ε with one ε for all of them."""
    eps = normal(seed, Purpose.NOISE, 0, 0, len(z), tuple(z.shape[1:]), z.dtype)
    return [moment(model, z if t == 0 else model.sde.perturb(z, t, eps), t) for t in times]


def expected_data(model: Model, moments: Sequence[Snapshot], **cond: Any) -> list[Tensor]:
    """E[x_0 | x_t] at each moment."""
    with torch.no_grad():
        return [m.x if m.t == 0 else model.denoise(m.x.to(model.device), m.t, **cond).cpu() for m in moments]


def moment(model: Model, x: Tensor, t: float) -> Snapshot:
    """x at time t; it is shown as x σ_d/√(α² σ_d² + σ²), so that noise and data are equally large."""
    if t == 0:
        return Snapshot(t, math.inf, x, x)
    alpha, variance = model.sde.alpha(as_time(t)), model.sde.variance(as_time(t))
    scale = model.sigma_data / (alpha**2 * model.sigma_data**2 + variance).sqrt()
    return Snapshot(t, float(model.sde.log_snr(t)), x, bcast(scale, x) * x)


def spaced(moments: Sequence[Snapshot], count: int) -> list[Snapshot]:
    """`count` of the moments at equal distances, the first and the last among them."""
    return [moments[round(k * (len(moments) - 1) / (count - 1))] for k in range(count)]


def times(model: Model, steps: int) -> Tensor:
    """The steps + 1 times of a film, from T to the model's end: σ/α is (u/(1 − u))^1.5 deviations of the data, u even.

    Neither the long stretch of noise nor that of fine detail takes all the frames.
    """
    ends = torch.tensor([model.sde.T, model.t_end()], dtype=torch.float64)
    first, last = torch.sigmoid(-(model.sde.log_snr(ends) + math.log(model.sigma_data)) / _STRETCH).tolist()
    u = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    grid = model.sde.time_of(-_STRETCH * torch.logit(u) - math.log(model.sigma_data))
    grid[0], grid[-1] = ends
    return grid


def stamp(m: Snapshot) -> tuple[str, str]:
    """The time and the log-SNR of a moment, in words."""
    if m.t == 0:
        return "t = 0", "data"
    number = "−∞" if math.isinf(m.log_snr) else f"{m.log_snr:+.1f}".replace("-", "−")
    return f"t = {m.t:.3g}", f"log-SNR {number}"
