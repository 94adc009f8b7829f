"""Exponential and power averages of the weights.

The exponential one is sampled by default. A power average after t updates weighs the weights after update τ by
p(τ) = (γ+1) τ^γ / t^{γ+1}; its relative width is σ_rel = √((γ+1)/((γ+2)² (γ+3))). Two of them, stored at every
checkpoint, make power averages of almost any σ_rel after the training: the stored ones are combined so that their
profiles fit the requested profile in least squares.

Reference: Karras et al. (2024), section 3 and appendix C. arXiv:2312.02696
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError

SIGMA_RELS = (0.05, 0.10)
"""σ_rel of the power averages that a training stores."""
MAX_SIGMA_REL = 0.28  # just below the flat average's 1/√12


def decay(limit: float, update: int) -> float:
    """The decay of the exponential average at update k = 0, 1, ...: min(limit, (1 + k)/(10 + k)).

    The ramp averages about the last tenth of a short training, so that the first weights are forgotten.
    """
    return min(limit, (1 + update) / (10 + update))


def average_(average: Tensor, weights: Tensor, rate: float | Tensor) -> None:
    """Updates an average in place: a ← a + rate (w − a), with rate = 1 − decay.

    Args:
        average: Average a, of the shape of `weights` or with a leading dimension for several averages.
        weights: Weights w.
        rate: Number, or a tensor that broadcasts to the averages; 0 leaves them unchanged.
    """
    average.lerp_(weights, rate)


def exponent(sigma_rel: float) -> float:
    """The γ of a σ_rel: the only positive root of (γ+2)² (γ+3) σ² = γ + 1."""
    if not 0 < sigma_rel <= MAX_SIGMA_REL:
        raise InputError(f"got an average of σ_rel = {sigma_rel}; expected a number above 0 and up to {MAX_SIGMA_REL}")
    s = sigma_rel**2
    roots = np.roots([s, 7 * s, 16 * s - 1, 12 * s - 1])
    return float(max(roots.real))


EXPONENTS = tuple(exponent(sigma_rel) for sigma_rel in SIGMA_RELS)


def power_rates(update: int, like: Tensor) -> Tensor:
    """The rate of each power average at update 0, 1, ...: 1 − (1 − 1/t)^{γ+1} with t = update + 1, (2, 1)."""
    t = update + 1
    rates = torch.tensor([[1 - (1 - 1 / t) ** (gamma + 1)] for gamma in EXPONENTS], dtype=like.dtype)
    return rates.to(like.device, non_blocking=True)


def combination(stored: Sequence[tuple[int, float]], target: tuple[int, float]) -> NDArray[np.float64]:
    """The factors of stored averages (t, γ) whose combination fits the profile of `target` in least squares over τ."""
    gram = np.array([[_overlap(a, b) for b in stored] for a in stored])
    right = np.array([_overlap(a, target) for a in stored])
    return np.asarray(np.linalg.lstsq(gram, right, rcond=1e-12)[0])


def _overlap(a: tuple[int, float], b: tuple[int, float]) -> float:
    """∫ p_a p_b dτ of the profiles of two averages (t, γ)."""
    (ta, ga), (tb, gb) = a, b
    t = min(ta, tb)
    return float((ga + 1) * (gb + 1) / (ga + gb + 1) * (t / ta) ** ga * (t / tb) ** gb / max(ta, tb))


def combined(profiles: Sequence[tuple[int, Tensor]], sigma_rel: float) -> Tensor:
    """The power average of a σ_rel at the last stored step, (P,), from pairs (step, averages (2, P))."""
    stored = [(step, gamma) for step, _ in profiles for gamma in EXPONENTS]
    factors = combination(stored, (profiles[-1][0], exponent(sigma_rel)))
    rows = torch.cat([pair for _, pair in profiles]).double()
    return torch.from_numpy(factors) @ rows
