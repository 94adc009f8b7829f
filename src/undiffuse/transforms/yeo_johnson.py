"""The power transform ψ_λ of Yeo and Johnson and its inverse.

    ψ_λ(u) = ((1+u)^λ − 1)/λ for u ≥ 0 and −ψ_{2−λ}(−u) below, log(1+u) for λ = 0; λ = 1 is the identity.

Reference: Yeo and Johnson (2000), eq. 2.1, Biometrika 87, 954-959.
"""

from __future__ import annotations

import torch
from torch import Tensor


def yeo_johnson(u: Tensor, power: float) -> Tensor:
    """ψ_λ(u); NaN stays NaN."""
    return torch.where(u >= 0, _box_cox(u.clamp_min(0), power), -_box_cox((-u).clamp_min(0), 2 - power)) + 0 * u


def yeo_johnson_inverse(w: Tensor, power: float) -> Tensor:
    """The u with ψ_λ(u) = w."""
    return torch.where(w >= 0, _box_cox_inverse(w.clamp_min(0), power),
                       -_box_cox_inverse((-w).clamp_min(0), 2 - power)) + 0 * w


def _box_cox(u: Tensor, power: float) -> Tensor:
    """((1+u)^λ − 1)/λ for u ≥ 0, without cancellation near 0."""
    log = torch.log1p(u)
    return log if power == 0 else u if power == 1 else torch.expm1(power * log) / power


def _box_cox_inverse(w: Tensor, power: float) -> Tensor:
    if power == 1:
        return w
    return torch.expm1(w if power == 0 else torch.log1p(power * w) / power)
