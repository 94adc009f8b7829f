"""The law of the rows of a table after diffusion with noise of their own covariance, and its conditional samples.

Complete rows y_1 ... y_N with mean μ and covariance C that are diffused by dx = −½ (x − μ) dt + C^½ dw have the law

    p(x) = 1/N Σ_i N(x; μ + α (y_i − μ), σ² C),   α² + σ² = 1,

which has their mean and covariance at every σ. At σ = 1 it is the Gaussian of the table, at σ → 0 the rows themselves.
Given the observed entries x_o of a row, the others are those of

    v + G (x_o − v_o),   v ~ N(μ + α (y_i − μ), σ² C),   with probability ∝ exp(−‖x_o − (μ + α (y_i − μ))_o‖²/2σ²)

for row i, with the norm of C_oo⁻¹ and the regression G = C_mo C_oo⁻¹: a regression whose residuals come from rows that
are alike, so that relations need be neither linear nor normal. It needs no training.

Reference: Hoffman and Ribak (1991), eq. 3, for v + G (x_o − v_o); Silverman (1986), section 6.4.1, for the law.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from undiffuse.moments import GaussianParams, regression_gain
from undiffuse.random import Purpose, normal, uniform

_CELLS = 1 << 24  # numbers of a block
_JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class DiffusedRows:
    """The law of complete rows after diffusion.

    Args:
        rows: complete rows y (N, d), float64.
        params: mean μ and covariance C.
        sigma: σ, above 0 and up to 1.
    """

    rows: Tensor
    params: GaussianParams
    sigma: float

    def draw(self, z: Tensor, n: int, seed: int, step: int = 0, excluded: Tensor | None = None) -> Tensor:
        """Samples (n, B, d) of rows z given their observed entries, which are unchanged.

        Args:
            z: rows (B, d), float64, NaN where missing.
            n: number of samples per row.
            seed: seed of the random numbers; those of a row depend on its number only.
            step: number of the draw.
            excluded: for each row which of the N rows are not used, (B, N).
        """
        out = z.expand(n, *z.shape).clone()
        for block in self._blocks(z):
            weights = self._weights(z[block], None if excluded is None else excluded[block])
            first, rows = block.start, len(weights)
            u = uniform(seed, Purpose.PROBE, step, first, rows, (n,), torch.float64)
            chosen = torch.searchsorted(weights.cumsum(1), u).clamp_max(len(self.rows) - 1)
            eps = normal(seed, Purpose.NOISE, step, first, rows, (n, z.shape[1]), torch.float64)
            v = self._centres[chosen] + self.sigma * eps @ self._root.mT
            missing = z[block].isnan()
            gain = regression_gain(self.params.cov, missing)
            residual = torch.where(missing[:, None], 0.0, z[block][:, None] - self.params.mean - v)
            filled = self.params.mean + v + residual @ gain.mT
            out[:, block] = torch.where(missing, filled.transpose(0, 1), z[block])
        return out

    @cached_property
    def _root(self) -> Tensor:
        """The Cholesky factor of C."""
        jitter = _JITTER * self.params.cov.diagonal().mean().clamp_min(_JITTER)
        eye = torch.eye(len(self.params.cov), dtype=self.params.cov.dtype)
        root: Tensor = torch.linalg.cholesky(self.params.cov + jitter * eye)
        return root

    @cached_property
    def _centres(self) -> Tensor:
        """α (y − μ), (N, d)."""
        return math.sqrt(1 - self.sigma**2) * (self.rows - self.params.mean)

    @cached_property
    def _whitened(self) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(self._root, self._centres.mT, upper=False)
        return solved.mT

    def _blocks(self, z: Tensor) -> Iterator[slice]:
        """Slices of the rows."""
        size = max(1, _CELLS // (z.shape[1] * max(len(self.rows), z.shape[1])))
        return (slice(k, min(k + size, len(z))) for k in range(0, len(z), size))

    def _weights(self, z: Tensor, excluded: Tensor | None) -> Tensor:
        """The probability of each of the N rows, (B, N)."""
        missing, d = z.isnan(), z.shape[1]
        x = torch.where(missing, 0.0, z - self.params.mean)
        inverse = torch.linalg.solve_triangular(self._root, torch.eye(d).to(x), upper=False)
        # The least distance over the missing entries: without the part in their directions, of which this is a basis.
        most = int(missing.sum(1).max())
        order = missing.long().argsort(dim=1, descending=True, stable=True)[:, :most]
        directions = (inverse * missing[:, None]).gather(2, order[:, None].expand(-1, d, -1))
        basis = torch.linalg.qr(directions)[0] * missing.gather(1, order)[:, None]
        u = x @ inverse.mT
        within = torch.einsum("jd,bdm->bjm", self._whitened, basis) - torch.einsum("bd,bdm->bm", u, basis)[:, None]
        distance = torch.cdist(u, self._whitened).square() - within.square().sum(2)
        if excluded is not None:
            distance = distance.masked_fill(excluded & ~excluded.all(1, keepdim=True), math.inf)
        return torch.softmax(-distance / (2 * self.sigma**2), 1)


def complete(z: Tensor, params: GaussianParams, sigma: float, rounds: int, seed: int, chain: int,
             donors: Tensor | None = None) -> Tensor:
    """Rows z (N, d) with NaN for missing entries, completed by samples (N, d).

    At first by the Gaussian, then in each round from the law of the other rows as completed so far.

    Args:
        z: rows, float64.
        params: mean and covariance.
        sigma: σ of `DiffusedRows`.
        rounds: number of rounds.
        seed: seed of the random numbers.
        chain: number of the completion.
        donors: numbers of the rows from which values are drawn; all by default.
    """
    missing = z.isnan().any(1).nonzero()[:, 0]
    donors = torch.arange(len(z)) if donors is None else donors
    full, excluded = z.clone(), missing[:, None] == donors
    for k in range(rounds + 1 if len(missing) else 0):
        law = DiffusedRows(full[donors], params, sigma) if k else DiffusedRows(params.mean[None], params, 1.0)
        full[missing] = law.draw(z[missing], 1, seed, chain * 1024 + k, excluded if k else None)[0]
    return full
