"""Moving averages of the weights: the running one that is sampled, and power averages that make others later.

A power average after t updates weighs the weights after update τ by p(τ) = (γ+1) τ^γ / t^{γ+1}; its relative deviation
is σ_rel = √((γ+1)/((γ+2)² (γ+3))). Two of them, stored now and then, span averages of almost any length: the stored
ones are combined so that their profiles fit the profile asked for best, in least squares.

Reference: Karras et al. (2024), section 3 and appendix C. arXiv:2312.02696
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.errors import InputError

LENGTHS = (0.05, 0.10)
"""σ_rel of the power averages that a training keeps."""
LONGEST = 0.28  # just below the flat average's 1/√12


def decay(limit: float, update: int) -> float:
    """The share of the running average that survives update number 0, 1, ...: min(limit, (1 + k)/(10 + k)).

    The ramp keeps about the last tenth of a young training, so that the average does not remember the start.
    """
    return min(limit, (1 + update) / (10 + update))


def average_(average: Tensor, weights: Tensor, share: float | Tensor) -> None:
    """Moves the average towards the weights, in place: a ← a + (1 − decay) (w − a), with share = 1 − decay."""
    average.lerp_(weights, share)


def exponent(length: float) -> float:
    """The γ of a σ_rel: the one positive root of (γ+2)² (γ+3) σ² = γ + 1."""
    if not 0 < length <= LONGEST:
        raise InputError(f"got an average of relative length {length}; expected a number above 0 and up to {LONGEST}")
    s = length**2
    roots = np.roots([s, 7 * s, 16 * s - 1, 12 * s - 1])
    return float(max(roots.real))


EXPONENTS = tuple(exponent(length) for length in LENGTHS)


def shares(update: int, like: Tensor) -> Tensor:
    """How far each power average moves at update number 0, 1, ...: 1 − (1 − 1/t)^{γ+1} with t = update + 1, (2, 1)."""
    t = update + 1
    made = torch.tensor([[1 - (1 - 1 / t) ** (gamma + 1)] for gamma in EXPONENTS], dtype=like.dtype)
    return made.to(like.device, non_blocking=True)


def combination(stored: Sequence[tuple[int, float]], wanted: tuple[int, float]) -> NDArray[np.float64]:
    """The factors of stored averages (t, γ) that come nearest, in least squares over τ, to the profile of `wanted`."""
    gram = np.array([[_overlap(a, b) for b in stored] for a in stored])
    right = np.array([_overlap(a, wanted) for a in stored])
    return np.asarray(np.linalg.lstsq(gram, right, rcond=1e-12)[0])


def _overlap(a: tuple[int, float], b: tuple[int, float]) -> float:
    """∫ p_a p_b dτ of the profiles of two averages (t, γ)."""
    (ta, ga), (tb, gb) = a, b
    t = min(ta, tb)
    return float((ga + 1) * (gb + 1) / (ga + gb + 1) * (t / ta) ** ga * (t / tb) ** gb / max(ta, tb))


def combined(traces: Sequence[tuple[int, Tensor]], length: float) -> Tensor:
    """The power average of that σ_rel at the last of the stored steps, from pairs (step, averages (2, P))."""
    stored = [(step, gamma) for step, _ in traces for gamma in EXPONENTS]
    factors = combination(stored, (traces[-1][0], exponent(length)))
    rows = torch.cat([both for _, both in traces]).double()
    return torch.from_numpy(factors) @ rows
