"""An observation y = A(x) + n, n ~ N(0, R), linearized at the denoiser's estimate D of x_0.

    r = y − A(D)        A u and Aᵀ w by automatic differentiation of A at D        R, with 1 where y is missing

and the one linear system of all guides, (A W Aᵀ + R) w = r, solved exactly or by conjugate gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.linear_solvers import Apply, conjugate_gradients
from undiffuse.random import Purpose, normal
from undiffuse.tensors import as_tensor, leaf_of

_NOISELESS = 1e-6  # noise variance as a fraction of the residual variance, used where noise_std is 0


@dataclass(frozen=True, eq=False)
class LinearizedObservation:
    """An observation linearized at D, in flat rows: residual r (B, m), `push` u ↦ A u, `pull` w ↦ Aᵀ w, R (B, m).

    Missing entries have r = 0, zero rows of A, and R = 1; `observed` (B, m) is False there.
    """

    residual: Tensor
    observed: Tensor
    variance: Tensor
    push: Apply
    pull: Apply
    dense: Callable[[], Tensor]

    @cached_property
    def matrix(self) -> Tensor:
        """A as (B, m, d), float64."""
        return self.dense()

    def system(self, W: Tensor) -> Tensor:
        """A W Aᵀ + R for W (B, d, d), (B, m, m) in float64."""
        A = self.matrix
        return A @ W @ A.mT + torch.diag_embed(self.variance.double())

    def solve(self, W: Tensor | Apply, iterations: int) -> Tensor:
        """w (B, m) with (A W Aᵀ + R) w = r: exactly for a matrix W (B, d, d), else by conjugate gradients."""
        if isinstance(W, Tensor):
            factor = torch.linalg.cholesky(self.system(W))
            return torch.cholesky_solve(self.residual.double()[..., None], factor)[..., 0].to(self.residual)
        return conjugate_gradients(lambda w: self.push(W(self.pull(w))) + self.variance * w, self.residual, iterations)


@dataclass(frozen=True, eq=False)
class Observation:
    """y = A(x) + n for x in model units.

    Args:
        function: A, from (B, *event) to (B, *out).
        y: (*out), NaN where missing; None if every sample has a separate y.
        noise_std: standard deviation of the noise, () or broadcastable to (*out).
        shape: shape of an event in model units.
        hide: function that sets further entries of y to NaN.
    """

    function: Callable[[Tensor], Tensor]
    y: Tensor | None
    noise_std: Tensor
    shape: tuple[int, ...]
    hide: Apply = lambda y: y

    @cached_property
    def zero(self) -> Tensor:
        """A(0), (1, *out), float64; raises InputError for an operator that does not accept such events."""
        try:
            value = self.function(torch.zeros(1, *self.shape, dtype=torch.float64))
        except InputError:
            raise
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"got an operator that does not accept events of shape {self.shape} ({reason}); expected "
                             "a function of batches of them") from None
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != 1:
            raise InputError("got an operator that does not return one row per event; expected a function from (B, "
                             "*event) to (B, *out)")
        return value

    @cached_property
    def linear(self) -> bool:
        """Whether A is affine, tested at random points."""
        a, b = normal(0, Purpose.PROBE, 0, 0, 2, self.shape, torch.float64).split(1)
        values = self.function(torch.cat([a + b, a, b]))
        error = (values[0] - values[1] - values[2] + self.zero[0]).abs().max()
        return bool(error <= 1e-6 * (1 + values.abs().max()))

    @cached_property
    def table(self) -> Tensor:
        """The matrix of an affine A, (m, d), float64."""
        d = math.prod(self.shape)
        rows = self.function(torch.eye(d, dtype=torch.float64).reshape(d, *self.shape)) - self.zero
        return rows.reshape(d, -1).mT.contiguous()

    @cached_property
    def scale2(self) -> float:
        """The mean square of A's rows, ‖Aᵀ w‖²/‖w‖² for one random w."""
        local = self.linearize(torch.zeros(1, *self.shape, dtype=torch.float64), 1.0, self.zero, noiseless=1.0)
        w = normal(0, Purpose.PROBE, 1, 0, 1, tuple(local.residual.shape[1:]), torch.float64)
        return float(local.pull(w).square().sum() / w.square().sum())

    def linearize(self, D: Tensor, residual_variance: Tensor | float, y: Tensor | None = None,
                  noiseless: float | None = None) -> LinearizedObservation:
        """The observation linearized at D.

        Args:
            D: denoiser's estimates of x_0 (B, *event).
            residual_variance: variance of x_0 given x_t, () or (B,): scale of the noise where noise_std is 0.
            y: observed values (B, *out) or (*out); None: `self.y`.
            noiseless: noise variance where noise_std is 0, relative to residual_variance; None: 1e-6 `scale2`.
        """
        value, jvp, vjp = _derivative(self.function, D)
        y = self._target(y, value)
        observed, target = ~y.isnan(), y.nan_to_num(0.0)
        floor = _NOISELESS * self.scale2 if noiseless is None else noiseless
        std = self.noise_std.to(value).expand(value.shape[1:])
        scale = torch.as_tensor(residual_variance).to(value).reshape(-1, *[1] * std.ndim)
        variance = torch.where(std > 0, std**2, floor * scale)
        mask = observed.flatten(1)

        def push(u: Tensor) -> Tensor:
            return torch.where(mask, jvp(u.reshape(D.shape).to(D)).flatten(1), 0.0)

        def pull(w: Tensor) -> Tensor:
            return vjp(torch.where(mask, w, 0.0).reshape(value.shape).to(value)).flatten(1)

        def dense() -> Tensor:
            A = self.table.expand(len(D), -1, -1) if self.linear else _columns(jvp, D)
            return torch.where(mask[..., None], A, 0.0)

        r = torch.where(observed, target - value, 0.0).flatten(1)
        R = torch.where(mask, variance.expand(value.shape).flatten(1), 1.0)
        return LinearizedObservation(r, mask, R, push, pull, dense)

    def _target(self, y: Tensor | None, value: Tensor) -> Tensor:
        """y in the shape of A(D)."""
        y = self.y if y is None else y
        if y is None:
            raise InputError("got an observation without y; give y to observe, or y= with one row per sample to sample")
        y = as_tensor(y, "y")
        if y.shape not in (value.shape, value.shape[1:], (1, *value.shape[1:])):
            raise InputError(f"got y of shape {tuple(y.shape)} for an operator that gives "
                             f"{tuple(value.shape[1:])}; expected that shape, or one row per sample")
        return self.hide(y.to(value)).expand(value.shape)


def _derivative(function: Apply, D: Tensor) -> tuple[Tensor, Apply, Apply]:
    """A(D), u ↦ A' u and w ↦ A'ᵀ w with the derivative A' at D; A' u is the derivative of w ↦ A'ᵀ w."""
    x = leaf_of(D)
    higher = x is D
    with torch.enable_grad():
        value = function(x)
        if not value.requires_grad:
            raise InputError("got an operator that torch cannot differentiate; expected differentiable torch functions")
        w = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, x, w, create_graph=True)
    return value if higher else value.detach(), _product(pulled, w, higher), _product(value, x, higher)


def _product(value: Tensor, x: Tensor, higher: bool) -> Apply:
    """v ↦ (∂value/∂x)ᵀ v."""

    def product(v: Tensor) -> Tensor:
        (out,) = torch.autograd.grad(value, x, v, retain_graph=True, create_graph=higher)
        return out

    return product


def _columns(jvp: Apply, D: Tensor) -> Tensor:
    """A at every D, (B, m, d), column by column, float64."""
    basis = torch.eye(math.prod(D.shape[1:])).to(D)
    return torch.stack([jvp(e.reshape(1, *D.shape[1:]).expand_as(D)).flatten(1) for e in basis], 2).double()
