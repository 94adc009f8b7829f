"""Where a sampler of somebody else's ends, and how far that is from the truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.measure.stochastic import Draws, Score
from undiffuse.mixture import Mixture
from undiffuse.processes import EDM
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample

CLOCK = EDM(sigma_max=1000.0)
"""z = x/α and σ̂ = σ/α, in which all of them are compared."""


class End(NamedTuple):
    """z (n, *shape) where a sampler ends, that noise level, where it began and that level, and its model calls."""

    z: Tensor
    level: float
    start: Tensor
    first: float
    calls: int


def starts(law: Mixture, n: int) -> Tensor:
    """The standard normals (n, *shape) that every sampler starts from."""
    return normal(7, Purpose.INIT, 0, 0, n, law.shape, torch.float64)


def steps_for(calls: int, doubled: bool) -> int:
    """The steps that so many calls pay for; doubled: each takes two but the last."""
    return max(1, (calls + 1) // 2 if doubled else calls)


def flow_error(law: Mixture, end: End) -> float:
    """The median distance to the end of the same start's exact path; a level of 0 means the mean at σ̂ = .01."""
    model, low = law.denoiser(CLOCK), end.level or 0.01
    x = sample(model, method="rk4_log_snr", steps=300, x_T=end.start, t_start=end.first, t_end=low, denoise_last=False,
               block=len(end.start)).x
    return float((end.z - (x if end.level else model.denoise(x, low))).abs().median())


def judged(law: Mixture, end: End) -> Score:
    """The figures of `benchmarks.measure.stochastic` for samples that end at that level."""
    return Draws(law, len(end.z), CLOCK, end.level).judged(end.z, end.calls)
