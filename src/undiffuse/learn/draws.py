"""Random numbers for a chapter, without a state."""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.noise import Purpose, normal


def normals(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Standard normals (n, *shape) in float64: the same for the same seed, and others than the samplers draw."""
    return normal(seed, Purpose.PROBE, 1, 0, n, shape, torch.float64)
