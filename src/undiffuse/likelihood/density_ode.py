"""The ODE for log p along the trajectories of a block: its solution, and two ways to integrate the trace.

    log p(z) = log p(u_T) − Σ log Ψ + b,   b = ∫ tr J_R dλ,

where u does not depend on b. `JointTraceOde` solves (u, b) as one system: Dormand and Prince's method needs the trace
at five points per step, all of which it evaluates anyway, so it has the fewest model evaluations. `QuadratureTrace`
solves u alone and integrates the trace by Lobatto's rule, at three additional points per accepted step: it has the
least work where a trace takes many Jacobian products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.likelihood.batching import map_packs, pack_size, select_conditions
from undiffuse.likelihood.coordinates import WhitenedCoordinates
from undiffuse.likelihood.divergence import (
    VectorJacobianProduct,
    basis_vectors,
    denoise_with_vjp,
    local_gaussian_exact,
    local_gaussian_probed,
    rademacher_probes,
    trace_estimates,
)
from undiffuse.ode import DORMAND_PRINCE, OnStep, Solution, Step, solve

JOINT_MAX_PRODUCTS = 4  # Jacobian products per trace up to which the joint system has the least work

_NODES = (0.0, 0.5 - 0.5 / math.sqrt(5), 0.5 + 0.5 / math.sqrt(5), 1.0)
_WEIGHTS = (1 / 12, 5 / 12, 5 / 12, 1 / 12)
_CUBIC = (-1 / 4, math.sqrt(5) / 4, -math.sqrt(5) / 4, 1 / 4)  # of Legendre's P₃ in the cubic through the nodes
_RULE_ERROR = 0.44  # the rule applied to Legendre's P₆, the first that it does not integrate: 1/6 + 5/6 P₆(1/√5)

Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]
"""dy/dλ of the rows with indices (m,) at y (m, ·) and λ (m,)."""


class BatchedOde:
    """dy/dλ = derivative(rows, y, λ) of a block of samples, each with its own steps, the derivative evaluated in packs.

    Args:
        derivative: the right-hand side for some rows.
        valid: (B,) bool, False for rows that only pad the block.
        pack: rows per evaluation of the derivative.
    """

    def __init__(self, derivative: Derivative, valid: Tensor, pack: int) -> None:
        self.derivative, self.valid, self.active, self.pack = derivative, valid, valid, pack

    def set_active(self, active: Tensor) -> None:
        """Evaluate only these samples, (B,), from now on."""
        self.active = active.cpu() & self.valid

    def field(self, y: Tensor, lam: Tensor) -> Tensor:
        """dy/dλ (B, ·) at λ (B,), 0 for samples that are finished."""
        rows = self.active.nonzero()[:, 0].to(y.device)
        (derivatives,) = map_packs(lambda part: (self.derivative(part, y[part], lam[part]),), rows, self.pack)
        return torch.zeros_like(y).index_copy(0, rows, derivatives)

    def solve(self, y: Tensor, start: Tensor, end: Tensor, rtol: float, atol: float, on_step: OnStep | None = None
              ) -> Solution:
        """y at λ = `end` from y at λ = `start`.

        Args:
            y: state at `start`, one row per sample.
            start: λ at the start.
            end: λ at the end.
            rtol: relative error tolerance of a step.
            atol: absolute error tolerance of a step.
            on_step: function called after every step; None: none.
        """
        return solve(DORMAND_PRINCE, self.field, y, start, end, rtol, atol, on_step=on_step, set_active=self.set_active)


def flow_ode(coordinates: WhitenedCoordinates, rows: int, keep: int | None = None, cond: dict[str, Any] | None = None
             ) -> BatchedOde:
    """The probability-flow ODE du/dλ of a set of samples.

    Args:
        coordinates: the whitened coordinates of the model.
        rows: number of samples.
        keep: number of samples, from the first, that are evaluated; None: all.
        cond: conditions by name, one row per sample.
    """

    def derivative(rows: Tensor, u: Tensor, lam: Tensor) -> Tensor:
        D = coordinates.denoise(coordinates.unwhiten(u, lam), lam, select_conditions(cond or {}, rows))
        return coordinates.dudlam(u, D.to(u), lam)

    return BatchedOde(derivative, torch.arange(rows) < (rows if keep is None else keep), pack_size(coordinates.dim))


class TraceEstimator:
    """n estimates of the trace of the denoiser's Jacobian for data z (B, *event) in model units.

    Args:
        coordinates: the model and its whitened coordinates.
        z: the data; those after the first `keep` only pad the block.
        exact: the whole trace, n = 1; otherwise n = `probes` random probes, fixed along the trajectory of a row.
        probes, seed, first_index: number and random address of the probes.
        keep: the number of rows that are evaluated, by default all.
        cond: conditions, tensors with one entry per row.
        density: whether an entry has a density (B, *event), as others of rows of tables do not; None: all.

    `products` is the number of Jacobian products per trace, 0 where the model has it in closed form.
    """

    def __init__(self, coordinates: WhitenedCoordinates, z: Tensor, exact: bool, probes: int, seed: int,
                 first_index: int = 0, keep: int | None = None, cond: dict[str, Any] | None = None,
                 density: Tensor | None = None) -> None:
        self.density = None if density is None else density.to(coordinates.model.device, coordinates.state_dtype)
        self.coordinates, self.cond, self.keep = coordinates, cond or {}, len(z) if keep is None else keep
        self.valid, self.n = torch.arange(len(z)) < self.keep, 1 if exact else probes
        self.z = z.to(coordinates.model.device, coordinates.state_dtype)
        self.probes = None if exact else rademacher_probes(self.z, probes, seed, first_index)
        first_row = self._conditions(torch.zeros(1).long())
        closed = exact and coordinates.divergence(self.z[:1], coordinates.log_snr_data, first_row) is not None
        self.products = 0 if closed else coordinates.dim if exact else probes
        self.pack = pack_size(coordinates.dim * max(1, self.products))

    def residual(self, rows: Tensor, u: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """D and the estimates of tr J minus the trace of the Wiener filter, (m, n), of one pack.

        Args:
            rows: indices (m,) of the samples of the pack.
            u: whitened states (m, d).
            lam: half log-SNR λ, (m,).
        """
        D, trace = self._trace(rows, self.coordinates.unwhiten(u, lam), lam)
        return D, trace - self.coordinates.wiener_trace(lam)[:, None]

    def stderr(self, estimates: Tensor) -> Tensor:
        """The standard error of the mean over the probes; NaN for a single one, 0 for the whole trace."""
        if self.probes is None:
            return torch.zeros_like(estimates[:, 0])
        return estimates.std(1) / math.sqrt(self.n) if self.n > 1 else torch.full_like(estimates[:, 0], math.nan)

    def truncation(self) -> tuple[Tensor, Tensor]:
        """log p_0 − log p_σ̂₀ (B, n or 1) and its error (B,)."""
        zero, rows = self.z.new_zeros(len(self.z)), torch.arange(self.keep, device=self.z.device)
        value, error = map_packs(self._truncation, rows, self.pack)
        return torch.zeros(len(zero), value.shape[1]).to(value).index_copy(0, rows, value), \
            zero.index_copy(0, rows, error)

    def _conditions(self, rows: Tensor) -> dict[str, Any]:
        """The conditions of some rows."""
        return select_conditions(self.cond, rows)

    def _denoise_with_vjp(self, rows: Tensor, z: Tensor, lam: Tensor) -> tuple[Tensor, VectorJacobianProduct]:
        """D and v ↦ Jᵀ v of some rows."""
        return denoise_with_vjp(lambda point: self.coordinates.denoise(point, lam, self._conditions(rows)), z)

    def _trace(self, rows: Tensor, z: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """D and the estimates of tr J, (m, n)."""
        if not self.products:
            cond = self._conditions(rows)
            divergence = self.coordinates.divergence(z, lam, cond)
            if divergence is not None:
                return self.coordinates.denoise(z, lam, cond).to(z), divergence[:, None]
        return self._projected_trace(rows, z, lam, None)

    def _projected_trace(self, rows: Tensor, z: Tensor, lam: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor]:
        """D and the estimates of tr m J m, (m, n), for weights m (m, *event) of the entries; None: 1."""
        D, product = self._denoise_with_vjp(rows, z, lam)
        v = basis_vectors(z) if self.probes is None else self.probes[rows]
        estimates = trace_estimates(product, v if m is None else v * m[:, None])
        return D, estimates.sum(1, keepdim=True) if self.probes is None else estimates

    def _truncation(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Correction of one pack by the local Gaussian, and half the error of its derivative at 2 σ̂₀², times σ̂₀²."""
        lam, z = self.coordinates.log_snr_data.expand(len(rows)), self.z[rows]
        variance = float(torch.exp(-2 * self.coordinates.log_snr_data))
        D, product = self._denoise_with_vjp(rows, z, lam)
        residual, product = self._with_density(rows, z - D, product)
        local = local_gaussian_exact(product, z, residual, variance) if self.probes is None else \
            local_gaussian_probed(product, self.probes[rows], residual, variance)
        mismatch = local.log_prob_derivative(2 * variance) - self._log_prob_derivative(rows, 2 * variance)
        return local.truncation(), 0.5 * variance * mismatch.mean(1).abs()

    def _with_density(self, rows: Tensor, residual: Tensor, product: VectorJacobianProduct
                      ) -> tuple[Tensor, VectorJacobianProduct]:
        """The residual and the Jacobian in the entries that have a density, with J = 1 in all others."""
        if self.density is None:
            return residual, product
        m = self.density[rows]
        return residual * m, lambda v: m[:, None] * product(m[:, None] * v) + (1 - m[:, None]) * v

    def _log_prob_derivative(self, rows: Tensor, variance: float) -> Tensor:
        """d log p/dσ̂² = ½ (Δ log p + ‖∇ log p‖²) at a variance in the entries that have a density, (m, n)."""
        z = self.z[rows]
        lam = z.new_full((len(z),), -0.5 * math.log(variance))
        if self.density is None:
            D, trace = self._trace(rows, z, lam)
            square, dim = (z - D).flatten(1).square().sum(1), z.new_tensor(self.coordinates.dim)
        else:
            m = self.density[rows]
            D, trace = self._projected_trace(rows, z, lam, m)
            square, dim = ((z - D) * m).flatten(1).square().sum(1), m.flatten(1).sum(1, keepdim=True)
        return 0.5 * (trace - dim + square[:, None] / variance) / variance


class OdeResult(NamedTuple):
    """u and du/dλ at T (B, k), b and db/dλ (B, n), model evaluations and the solver's error of log p (B,)."""

    u: Tensor
    dudlam: Tensor
    b: Tensor
    dbdlam: Tensor
    nfe: Tensor
    error: Tensor


class JointTraceOde:
    """One system for (u, b), with b scaled so that a tolerance for u is √k times as large for log p."""

    def __init__(self, estimator: TraceEstimator) -> None:
        self.estimator, self.coordinates, self.n = estimator, estimator.coordinates, estimator.n
        k = len(self.coordinates.spectrum)
        self.unit = math.sqrt(self.n * k / (k + self.n))
        self.ode = BatchedOde(self.derivative, estimator.valid, estimator.pack)

    def solve(self, rtol: float, atol: float) -> OdeResult:
        """From the data to T."""
        coordinates, end = self.coordinates, self.coordinates.log_snr_noise
        u = coordinates.whiten(self.estimator.z, coordinates.log_snr_data)
        y = torch.cat([u, u.new_zeros(len(u), self.n)], 1)
        solution = self.ode.solve(y, coordinates.log_snr_data, end, rtol, atol, self.on_step)
        self.ode.set_active(self.estimator.valid)
        derivatives = self.ode.field(solution.x, end.expand(len(u)))
        (u, b), (dudlam, dbdlam) = self._split(solution.x), self._split(derivatives)
        return OdeResult(u, dudlam, b, dbdlam, solution.evaluations + 1, solution.error)

    def derivative(self, rows: Tensor, y: Tensor, lam: Tensor) -> Tensor:
        """d(u, b)/dλ of one pack.

        Args:
            rows: indices (m,) of the samples of the pack.
            y: whitened states and the integrals b, joined along the last axis.
            lam: half log-SNR λ, (m,).
        """
        u, _ = self._split(y)
        D, dbdlam = self.estimator.residual(rows, u, lam)
        return torch.cat([self.coordinates.dudlam(u, D, lam), dbdlam / self.unit], 1)

    def on_step(self, step: Step, accepted: Tensor) -> Tensor:
        """The change of log p by the step's errors of b and of u, (B,)."""
        (u, _), (dudlam, _), (u_error, b_error) = map(self._split, (step.new, step.stages[-1], step.error))
        return (b_error.mean(1) + log_prob_error(self.coordinates, u, dudlam, step.s, u_error)).abs()

    def _split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """u and b of a joint state."""
        return y[:, : -self.n], self.unit * y[:, -self.n :]


class QuadratureTrace:
    """The ODE for u, and Lobatto's rule for b on the interpolant of every accepted step."""

    def __init__(self, estimator: TraceEstimator) -> None:
        self.estimator, self.coordinates = estimator, estimator.coordinates
        self.ode = flow_ode(self.coordinates, len(estimator.z), estimator.keep, estimator.cond)
        start = self.coordinates.log_snr_data
        self.u = self.coordinates.whiten(estimator.z, start)
        self.dudlam, self.b = torch.zeros_like(self.u), self.u.new_zeros(len(self.u), estimator.n)
        rows = estimator.valid.nonzero()[:, 0].to(self.u.device)
        rates = self._rates(rows, self.u, start.expand(len(self.u)))
        self.dbdlam, self.nfe = torch.zeros_like(self.b).index_copy(0, rows, rates), self.u.new_ones(len(self.u))

    def solve(self, rtol: float, atol: float) -> OdeResult:
        """From the data to T."""
        start, end = self.coordinates.log_snr_data, self.coordinates.log_snr_noise
        solution = self.ode.solve(self.u, start, end, rtol, atol, self.on_step)
        return OdeResult(solution.x, self.dudlam, self.b, self.dbdlam, solution.evaluations + self.nfe, solution.error)

    def on_step(self, step: Step, accepted: Tensor) -> Tensor:
        """Add the step's part of b; the change of log p by its errors of b and of u, (B,)."""
        rows = (accepted.cpu() & self.estimator.valid).nonzero()[:, 0].to(accepted.device)
        error = log_prob_error(self.coordinates, step.new, step.stages[-1], step.s, step.error).abs()
        if not len(rows):
            return error
        h, count = (step.s - step.t)[rows].to(self.b)[:, None], len(accepted)
        u = torch.cat([step.at(c) for c in _NODES[1:]])
        lam = torch.cat([step.t + c * (step.s - step.t) for c in _NODES[1:]])
        new = self._rates(torch.cat([rows + i * count for i in range(3)]), u, lam)
        rates = (self.dbdlam[rows], *new.split(len(rows)))
        self.b[rows] += h * _weighted(_WEIGHTS, rates)
        self.dbdlam[rows], self.dudlam[rows] = rates[-1], step.stages[-1][rows]
        self.nfe[rows] += 3
        rule_error = _quadrature_error(tuple(rate.mean(1) for rate in rates))
        return error.index_add(0, rows, (h[:, 0] * rule_error).abs().to(error))

    def _rates(self, points: Tensor, u: Tensor, lam: Tensor) -> Tensor:
        """db/dλ at some points (m,) of u and λ, of which point i belongs to row i modulo the number of rows: (m, n)."""
        rows = len(self.estimator.z)
        (rates,) = map_packs(lambda part: self.estimator.residual(part % rows, u[part], lam[part])[1:], points,
                             self.estimator.pack)
        return rates


def solve_density_ode(estimator: TraceEstimator, rtol: float, atol: float) -> OdeResult:
    """u and b at T by the cheaper method.

    Args:
        estimator: estimator of the trace of the Jacobian.
        rtol: relative error tolerance of a step.
        atol: absolute error tolerance of a step.
    """
    method = QuadratureTrace if estimator.products > JOINT_MAX_PRODUCTS else JointTraceOde
    return method(estimator).solve(rtol, atol)


def log_prob_error(coordinates: WhitenedCoordinates, u: Tensor, dudlam: Tensor, lam: Tensor, u_error: Tensor) -> Tensor:
    """The change of log p by an error of u at λ, (B,): its component along the gradient of log p_λ.

    Args:
        coordinates: the whitened coordinates of the model.
        u: whitened states (B, d).
        dudlam: du/dλ at u, (B, d).
        lam: half log-SNR λ.
        u_error: error of u, (B, d).
    """
    gradient = coordinates.psi(lam) ** 2 * torch.exp(2 * lam).to(u)[:, None] * dudlam - u
    return (gradient * u_error).sum(1)


def _weighted(weights: tuple[float, ...], values: tuple[Tensor, ...]) -> Tensor:
    """Σ w_i v_i."""
    return sum((w * value for w, value in zip(weights, values, strict=True)), torch.zeros_like(values[0]))


def _quadrature_error(rates: tuple[Tensor, ...]) -> Tensor:
    """The error of the rule if the coefficients of Legendre's polynomials fall geometrically: c₆ = c₃²/c₀."""
    size = torch.stack(rates).abs().amax(0).clamp_min(1e-30)
    return _RULE_ERROR * _weighted(_CUBIC, rates) ** 2 / size
