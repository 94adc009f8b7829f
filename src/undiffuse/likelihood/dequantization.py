"""Dequantization: lower bounds of the log-probability of a grey level from a density of real numbers.

With a distribution q(z | x) on the bin of the level x, log P(x) ≥ E_q [log p(z) − log q(z | x)]; for K samples the
logarithm of the mean weight, log (1/K) Σ_k p(z_k)/q(z_k | x), is a bound too, and it is tighter for larger K.

uniform: z is uniform on the bin. normal: z = x + σ̂₀ ε with ε truncated to the bin, the distribution on which a model
was trained at its smallest noise level, whose density p_σ̂₀ needs no correction.

Reference: Theis et al. (2016), arXiv:1511.01844; Zheng et al. (2023), eq. 13, arXiv:2305.03935; Burda et al. (2016),
arXiv:1509.00519 for K samples.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.random import Purpose, uniform
from undiffuse.transforms.base import GreyLevels, Table

KINDS = ("none", "uniform", "normal")
_TABLE_NOISE, _MIN_NOISE, _MAX_NOISE = 1 / 3, 0.02, 0.1  # σ̂₀ of a table in half intervals; its limits in model units


class DequantizedSample(NamedTuple):
    """z (B, *event) in model units and log q(z | x) (B,)."""

    z: Tensor
    log_q: Tensor


def resolve_kind(model: Model, kind: str, x: Tensor) -> str:
    """The kind for this model and data: "auto" is normal for grey levels, "table" for tables with discrete columns or
    missing values (`table_rows`), and none for all other data.

    Args:
        model: the model, whose transform says whether the data are grey levels.
        kind: "auto" or one of `KINDS`.
        x: the data, in data units.
    """
    has_levels = isinstance(model.transform, GreyLevels)
    table = isinstance(model.transform, Table) and (model.transform.narrowest_level is not None
                                                    or bool(x.isnan().any()))
    resolved = ("table" if table else "normal" if has_levels else "none") if kind == "auto" else kind
    if resolved == "table" or (resolved == "normal" and table):
        return "table"
    if resolved not in KINDS:
        raise InputError(f"got dequantise={kind!r}; expected auto, {', '.join(KINDS)}")
    if resolved != "none" and not has_levels:
        raise InputError(f"got dequantise={kind!r} for a model whose data are not grey levels; expected none")
    if resolved != "none" and not bool((x == x.round()).all()):
        raise InputError(f"got dequantise={kind!r} and levels that are not integers; expected integers, or "
                         "dequantise='none' for real numbers")
    return resolved


def half_bin_width(model: Model) -> float:
    """Half of a level's width in model units."""
    assert isinstance(model.transform, GreyLevels)
    return 1 / (model.transform.levels - 1)


def end_time(model: Model, kind: str) -> float | None:
    """The time at which σ̂₀ is a quarter of a bin, for "normal", and at which levels do not overlap, for "table"; None,
    the model's own, for other kinds and for a table without discrete columns."""
    if isinstance(model.transform, Table) and kind == "table" and model.transform.narrowest_level is not None:
        sigma = min(max(_TABLE_NOISE * model.transform.narrowest_level, _MIN_NOISE), _MAX_NOISE)
        return max(model.t_end(), float(model.sde.time_of(-math.log(sigma))))
    return float(model.sde.time_of(-math.log(half_bin_width(model) / 2))) if kind == "normal" else None


def dequantize(kind: str, z: Tensor, half: float, sigma: float, seed: int, step: int, first_index: int
               ) -> DequantizedSample:
    """A sample of q(z | x) around x = `z` in model units, for bins of half-width `half` and the noise level σ̂₀.

    Args:
        kind: "uniform" or "normal".
        z: grey levels x in model units, (B, *event).
        half: half-width of a bin in model units.
        sigma: noise level σ̂₀ in model units.
        seed: seed of the random numbers.
        step: index of the draw.
        first_index: sample index of the first row.
    """
    u = uniform(seed, Purpose.DATA, step, first_index, len(z), tuple(z.shape[1:]))
    d = math.prod(z.shape[1:])
    if kind == "uniform":
        return DequantizedSample(z + half * (2 * u - 1).to(z), z.new_full((len(z),), -d * math.log(2 * half)))
    edge = torch.tensor(half / sigma, dtype=torch.float64)
    noise = sigma * truncated_normal(u, edge)
    return DequantizedSample(z + noise.to(z), log_truncated_normal(noise, sigma, edge).flatten(1).sum(1).to(z))


def truncated_normal(u: Tensor, edge: Tensor) -> Tensor:
    """ε ~ N(0, 1) restricted to (−edge, edge), from uniform numbers u of the same shape."""
    mass = torch.special.erf(edge / math.sqrt(2))
    eps: Tensor = torch.special.ndtri(0.5 + mass * (u - 0.5)).clamp(-edge, edge)
    return eps


def log_truncated_normal(noise: Tensor, sigma: float, edge: Tensor) -> Tensor:
    """The log-density of σ ε, for ε of `truncated_normal`."""
    mass = torch.special.erf(edge / math.sqrt(2))
    log_p: Tensor = -0.5 * (noise / sigma).square() - (math.log(sigma) + 0.5 * math.log(2 * math.pi) + mass.log())
    return log_p


def log_mean_weight(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """log (1/K) Σ w of log-weights (K, B) and its standard error by the delta method; NaN for K = 1."""
    k = len(log_weights)
    normalized = log_weights.softmax(0)
    stderr = ((normalized - 1 / k).square().sum(0) * k / (k - 1)).sqrt() if k > 1 else \
        torch.full_like(normalized[0], math.nan)
    return log_weights.logsumexp(0) - math.log(k), stderr
