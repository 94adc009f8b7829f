"""Two mixtures to measure samplers on: a hard one in the plane, and one in 64 dimensions that looks like data."""

from __future__ import annotations

import math

import numpy as np
import torch

from undiffuse.exact import Mixture
from undiffuse.noise import uniform


def lattice_of_modes() -> Mixture:
    """16 anisotropic, unequal modes on a 4 × 4 lattice, of unit variance."""
    i = torch.arange(16)
    u = uniform(0, 0, 0, 0, 16, (6,))
    means = 2 * torch.stack([i % 4, i // 4], 1) - 3 + 0.4 * u[:, :2] - 0.2
    angle, wide, thin = math.pi * u[:, 2], 0.2 + 0.2 * u[:, 3], 0.05 + 0.07 * u[:, 4]
    axes = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).reshape(16, 2, 2)
    cov = axes * torch.stack([wide**2, thin**2], 1)[:, None] @ axes.mT
    raw = Mixture(0.3 + 1.4 * u[:, 5], means, cov)
    scale = float(raw.covariance.diagonal().mean()) ** 0.5
    return Mixture(raw.weights, raw.means / scale, cov / scale**2)


def digits() -> Mixture:
    """Ten components fitted to the digits that scikit-learn brings, of unit variance."""
    from sklearn.datasets import load_digits

    x = torch.from_numpy(np.asarray(load_digits().data)) / 8 - 1
    return Mixture.fit(x / x.var(0).mean().sqrt(), 10)
