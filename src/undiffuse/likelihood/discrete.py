"""Discrete data have no density: what a model of real numbers says of a grey level, as a lower bound.

With a law q(z | x) of real numbers in the bin of the level x, log P(x) ≥ E_q [log p(z) − log q(z | x)]; of K draws the
logarithm of the mean weight, log (1/K) Σ_k p(z_k)/q(z_k | x), is a bound too, and tighter the larger K.

uniform: z is even over the bin. normal: z = x + σ̂₀ ε with ε cut off at the bin's edges, the law that a model has been
trained on at its smallest noise level, whose density p_σ̂₀ needs no correction.

Reference: Theis et al. (2016), arXiv:1511.01844; Zheng et al. (2023), eq. 13, arXiv:2305.03935; Burda et al. (2016),
arXiv:1509.00519 for K draws.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.data.transforms import Levels
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.noise import Purpose, uniform

KINDS = ("none", "uniform", "normal")


class Draw(NamedTuple):
    """z (B, *event) in model units and log q(z | x) (B,)."""

    z: Tensor
    log_q: Tensor


def kind_of(model: Model, asked: str, x: Tensor) -> str:
    """The dequantisation asked for; auto is normal for grey levels and none for everything else."""
    levels = isinstance(model.transform, Levels)
    kind = ("normal" if levels else "none") if asked == "auto" else asked
    if kind not in KINDS:
        raise InputError(f"got dequantise={asked!r}; expected auto, {', '.join(KINDS)}")
    if kind != "none" and not levels:
        raise InputError(f"got dequantise={asked!r} for a model whose data are no grey levels; expected none")
    if kind != "none" and not bool((x == x.round()).all()):
        raise InputError(f"got dequantise={asked!r} and levels that are no whole numbers; expected whole numbers, or "
                         "dequantise='none' for real ones")
    return kind


def half_bin(model: Model) -> float:
    """Half of a level's width in model units."""
    assert isinstance(model.transform, Levels)
    return 1 / (model.transform.levels - 1)


def smallest(model: Model, kind: str) -> float | None:
    """The time at which σ̂₀ is a quarter of a bin, for "normal"; None, the model's own, for other kinds."""
    if kind != "normal":
        return None
    return float(model.sde.time_of(-math.log(half_bin(model) / 2)))


def draw(kind: str, z: Tensor, half: float, sigma: float, seed: int, step: int, first_index: int) -> Draw:
    """A draw of q(z | x) around x = `z` in model units, for bins of half-width `half` and the noise level σ̂₀."""
    u = uniform(seed, Purpose.DATA, step, first_index, len(z), tuple(z.shape[1:]))
    d = math.prod(z.shape[1:])
    if kind == "uniform":
        return Draw(z + half * (2 * u - 1).to(z), z.new_full((len(z),), -d * math.log(2 * half)))
    edge = torch.tensor(half / sigma, dtype=torch.float64)
    share = torch.special.erf(edge / math.sqrt(2))
    eps = torch.special.ndtri(0.5 + share * (u - 0.5)).clamp(-edge, edge)
    log_q = -0.5 * eps.square().flatten(1).sum(1) - d * (math.log(sigma) + 0.5 * math.log(2 * math.pi) + share.log())
    return Draw(z + sigma * eps.to(z), log_q.to(z))


def mean_weight(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """log (1/K) Σ w of log-weights (K, B) and its standard error by the delta method; NaN for K = 1."""
    k = len(log_weights)
    share = log_weights.softmax(0)
    spread = ((share - 1 / k).square().sum(0) * k / (k - 1)).sqrt() if k > 1 else torch.full_like(share[0], math.nan)
    return log_weights.logsumexp(0) - math.log(k), spread
