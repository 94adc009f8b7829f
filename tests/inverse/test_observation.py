"""The linearized observation: products by differentiation are those of the operator and its adjoint."""

from __future__ import annotations

import pytest
import torch

from undiffuse.inverse import (
    Columns,
    Downsample,
    Fourier,
    Grey,
    Linear,
    Operator,
    box,
    gaussian_blur,
    motion_blur,
    random_mask,
)
from undiffuse.inverse.observe import observation
from undiffuse.mixture import Mixture
from undiffuse.processes import VP
from undiffuse.random import normal

SHAPE = (1, 6, 6)
HALF = torch.ones(6, 4, dtype=torch.bool)
OPERATORS: list[tuple[Operator, tuple[int, ...]]] = [
    (box(SHAPE, 1, 2, 3, 3), SHAPE), (random_mask(SHAPE, 0.5), SHAPE), (gaussian_blur(0.7), SHAPE),
    (motion_blur(5, 30.0), SHAPE), (Downsample(2), SHAPE), (Fourier(HALF), SHAPE), (Grey(), (3, 4, 4)),
    (Linear(normal(1, 0, 0, 0, 4, (36,), torch.float64)), SHAPE), (Columns([2, 0]), (5,)),
]


@pytest.mark.parametrize("operator, shape", OPERATORS, ids=lambda v: type(v).__name__)
def test_the_adjoint_is_the_transpose(operator: Operator, shape: tuple[int, ...]) -> None:
    """⟨A u, w⟩ = ⟨u, Aᵀ w⟩ for the products by differentiation, and both agree with the operator itself."""
    law = Mixture([1.0], torch.zeros(1, *shape), 1.0)
    near = observation(law.denoiser(VP()), operator, None, 0.1)
    u, D = normal(2, 0, 0, 0, 2, shape, torch.float64).split(1)
    local = near.linearize(D, 1.0, operator.mask_unobserved(operator(D)[0]))
    w = normal(2, 0, 1, 0, 1, tuple(local.residual.shape[1:]), torch.float64)
    pushed = local.push(u.flatten(1))
    assert torch.allclose((pushed * w).sum(), (u.flatten(1) * local.pull(w)).sum(), atol=1e-12)
    assert torch.allclose(pushed, torch.where(local.observed, operator(u).flatten(1), 0.0), atol=1e-12)
    assert torch.allclose(pushed, (local.matrix @ u.flatten()[:, None])[..., 0], atol=1e-12)
