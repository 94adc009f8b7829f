"""A stochastic estimate: the likelihood ratio of one path, run backwards by the model and forwards by the noise.

Noise leads a datum through the levels a_0 < ... < a_N, a = σ̂²; the model leads back by DDPM's steps. The ratio of the
two laws of that path,

    w = π(z_N) Π_i p(z_{i−1} | z_i)/q(z_i | z_{i−1}),  p = N(ρ z_i + (1 − ρ) D(z_i), a_{i−1} (1 − ρ)), ρ = a_{i−1}/a_i,

has the mean p_chain(z_0), whence E log w ≤ log p_chain, and log (1/K) Σ w_k lies between. With many steps log w is
Girsanov's log π(z_T) + ∫ ∇log p · dz − ½ ∫ ‖∇log p‖² da along the path (Itô, from the noisy end): no divergence.

Reference: Song et al. (2021), appendix A, arXiv:2101.09258; Karczewski et al. (2024), theorem 1, arXiv:2411.01293.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood.discrete import mean_weight
from undiffuse.likelihood.frame import Frame, gaussian_model, rows_of
from undiffuse.likelihood.rows import pack_size, packed, pick
from undiffuse.model import ReverseModel
from undiffuse.noise import Purpose, normal


class PathEstimate(NamedTuple):
    """A stochastic lower bound of log p_σ̂₀(x), (B,), its standard error, and the log-weight of every path (K, B)."""

    value: Tensor
    stderr: Tensor
    log_weights: Tensor


def path_log_likelihood(model: ReverseModel, x: Tensor, steps: int = 128, paths: int = 8, seed: int = 0, *,
                        first_index: int = 0, t_end: float | None = None, **cond: Any) -> PathEstimate:
    """A stochastic estimate of log p(x) of every row of x (B, *event) in data units under the reverse SDE, from below.

    steps: of the chain, even in log-SNR from T to t_end, where x is taken to be. paths: independent ones, K; the value
    is the logarithm of their mean weight. Use it to rank or to check the ODE's number; its bias falls like 1/steps, and
    like the variance of the weights with K.
    """
    chosen, z = gaussian_model(model), rows_of(gaussian_model(model), x)
    if steps < 1 or paths < 1:
        raise InputError(f"got steps={steps}, paths={paths}; expected at least 1 of both")
    frame = Frame(chosen, t_end)
    grid = torch.linspace(float(frame.start), float(frame.end), steps + 1, dtype=torch.float64)

    def walk(rows: Tensor) -> tuple[Tensor, ...]:
        given, first = pick(cond, rows), int(rows[0])
        at = (first_index + first, int(rows[-1]) - first + 1, (rows - first).cpu())
        return (torch.stack([_weight(frame, z[rows], grid, seed, k, at, given) for k in range(paths)], 1),)

    with torch.no_grad():
        (weights,) = packed(walk, torch.arange(len(z)), pack_size(frame.dim))
    value, stderr = mean_weight(weights.T)
    return PathEstimate(value + chosen.transform.log_det(x).double().cpu(), stderr, weights.T)


def _weight(frame: Frame, z: Tensor, grid: Tensor, seed: int, path: int, at: tuple[int, int, Tensor],
            cond: dict[str, Any]) -> Tensor:
    """log w of one path of every row: `at` says which noise is theirs."""
    z = z.to(frame.model.device, frame.real)
    first, n, rows = at
    total = z.new_zeros(len(z))
    for i, (low, high) in enumerate(pairwise(grid)):
        eps = normal(seed, Purpose.STEP, path * len(grid) + i, first, n, tuple(z.shape[1:]), torch.float64)[rows].to(z)
        a, b = math.exp(-2 * low), math.exp(-2 * high)
        after = z + math.sqrt(b - a) * eps
        D = frame.denoise(after, high.to(z).expand(len(z)), cond).to(z)
        keep = a / b
        total = total + _log_normal(z - keep * after - (1 - keep) * D, a * (1 - keep)) - _log_normal(after - z, b - a)
        z = after
    end = frame.end.to(z)
    return (total + frame.log_prior(frame.enter(z, end)) - frame.log_volume(end)).cpu()


def _log_normal(x: Tensor, variance: float) -> Tensor:
    flat = x.flatten(1)
    return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))
