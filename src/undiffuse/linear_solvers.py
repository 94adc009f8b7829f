"""Linear systems of matrices that are functions of rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]
"""A symmetric matrix as a function of rows (B, d)."""


def conjugate_gradients(matrix: Apply, b: Tensor, iterations: int) -> Tensor:
    """An approximate solution x (B, m) of matrix(x) = b, started at 0.

    The number of iterations is fixed, so that the result of a row does not depend on the others; a converged row is
    not changed.

    Args:
        matrix: a symmetric positive definite matrix as a function of rows (B, m).
        b: right-hand sides (B, m).
        iterations: number of iterations.

    Reference: Hestenes and Stiefel (1952), section 3.
    """
    x, r = torch.zeros_like(b), b
    p, rho = r, (r * r).sum(1, keepdim=True)
    for _ in range(iterations):
        q = matrix(p)
        curvature = (p * q).sum(1, keepdim=True)
        step = torch.where(curvature > 0, rho / curvature.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
        x, r = x + step * p, r - step * q
        new = (r * r).sum(1, keepdim=True)
        p = r + torch.where(rho > 0, new / rho.clamp_min(torch.finfo(b.dtype).tiny), 0.0) * p
        rho = new
    return x
