"""Complete model entries for rows of a table with levels and missing values, and their density.

An observed row x_o fixes a set of model entries: a point for a value with a density, an interval for a level (a number
of a column of few numbers, a category, a frequent value), and everything for a missing value. For z_k ~ q(z | x_o) on
that set,

    log p(x_o) ≥ E log (1/K) Σ_k p_σ̂₀(z_k)/q(z_k | x_o).

q: a level is N(its entry, σ̂₀² I) cut off at its interval, the distribution on which the model was trained at the noise
level σ̂₀. A missing discrete column is a level with its probability under the data's moments given the row. The other
missing values are normal with the moments given all of these.

Reference: Burda et al. (2016), eq. 8. arXiv:1509.00519; Mattei and Frellsen (2019), eq. 3, arXiv:1812.02633.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood.dequantization import DequantizedSample, log_truncated_normal, truncated_normal
from undiffuse.model import Model
from undiffuse.moments import GaussianParams, conditional_mean, covariance, regression_gain
from undiffuse.random import Purpose, uniform
from undiffuse.transforms.base import Table
from undiffuse.transforms.columns import Column

_BROADER = 1.2  # variance of the missing values in q, in units of that of the moments
_UNCERTAIN = 0.1  # fraction of q for a missing level that is uniform


@dataclass(frozen=True)
class RowProposal:
    """q(z | x_o) for the rows of a model's table.

    Args:
        model: the model of the table.
        sigma: the noise level σ̂₀.
    """

    model: Model
    sigma: float

    def has_density(self, x: Tensor) -> Tensor:
        """Whether each model entry is of an observed value with a density, (B, d)."""
        return (self._table.half_width(x) == 0) & ~self._table.forward(x).isnan()

    def sample(self, x: Tensor, seed: int, draw: int, first_index: int) -> DequantizedSample:
        """z and log q(z | x_o).

        Args:
            x: rows (B, D) in data units, NaN where missing.
            seed: seed of the random numbers.
            draw: index of the draw.
            first_index: sample index of the first row.
        """
        x, d = x.double(), sum(self._table.widths)
        u = uniform(seed, Purpose.DATA, draw, first_index, len(x), (x.shape[1] + 2 * d,))
        pick, level, normal = u.split([x.shape[1], d, d], 1)
        full, log_q = self._sample_levels(x, pick)
        z, half = self._table.forward(full), self._table.half_width(full)
        edge = half / self.sigma
        noise = self.sigma * truncated_normal(level, edge)
        log_q += torch.where(half > 0, log_truncated_normal(noise, self.sigma, edge), 0.0).nan_to_num(0.0).sum(1)
        z = torch.where(half > 0, z + noise, z)
        if bool(z.isnan().any()):
            z, log_values = self._sample_values(z, torch.special.ndtri(normal))
            log_q += log_values
        return DequantizedSample(z, log_q)

    @property
    def _table(self) -> Table:
        assert isinstance(self.model.transform, Table)
        return self.model.transform

    @cached_property
    def _moments(self) -> GaussianParams:
        """Mean and covariance of the data at the noise level σ̂₀, in float64 on the CPU."""
        if self.model.moments is None or self.model.moments.basis is None:
            raise InputError("got rows with missing values for a model without the data's moments; impute the values "
                             "first (undiffuse impute)")
        cov = covariance(self.model.moments).double().cpu()
        cov += self.sigma**2 * torch.eye(len(cov), dtype=cov.dtype)
        return GaussianParams(self.model.moments.mean.double().cpu(), cov)

    def _discrete(self) -> Iterator[tuple[int, Column, int]]:
        """Number, map and first model entry of every column that is discrete throughout."""
        first = 0
        for j, column in enumerate(self._table.columns):
            if len(column.level_half_widths) and column.kind != "quantiles":
                yield j, column, first
            first += column.width

    def _sample_levels(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """x with a level for every missing value of a discrete column, and the log-probability of these."""
        log_q, missing = x.new_zeros(len(x)), x.isnan()
        if not any(bool(missing[:, j].any()) for j, _, _ in self._discrete()):
            return x, log_q
        z, cov = self._table.forward(x), self._moments.cov
        gain = regression_gain(cov, z.isnan())
        centre = conditional_mean(z, self._moments, gain)
        variance = (cov - gain @ cov).diagonal(dim1=1, dim2=2).clamp_min(self.sigma**2)
        x = x.clone()
        for j, column, first in self._discrete():
            entries = slice(first, first + column.width)
            weights = column.level_weights(centre[:, entries], variance[:, entries])
            assert weights is not None
            weights = weights / weights.sum(1, keepdim=True)
            weights = (1 - _UNCERTAIN) * weights + _UNCERTAIN / weights.shape[1]
            level = (weights.cumsum(1) < u[:, j, None]).sum(1).clamp_max(weights.shape[1] - 1)
            values = torch.tensor(getattr(column, "levels", range(weights.shape[1])), dtype=x.dtype)
            x[:, j] = torch.where(missing[:, j], values[level], x[:, j])
            log_q += torch.where(missing[:, j], weights.gather(1, level[:, None])[:, 0].log(), 0.0)
        return x, log_q

    def _sample_values(self, z: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """z with normal samples for its missing entries given the others, and their log-density."""
        missing, cov = z.isnan(), self._moments.cov
        gain = regression_gain(cov, missing)
        centre = conditional_mean(z, self._moments, gain)
        both = (missing[:, :, None] & missing[:, None, :]).to(cov)
        conditional = _BROADER * both * (cov - gain @ cov)
        factor = torch.linalg.cholesky((conditional + conditional.mT) / 2 + torch.diag_embed((~missing).to(cov)))
        values = centre + (factor @ torch.where(missing, eps, 0.0)[..., None])[..., 0]
        log_scale = torch.where(missing, factor.diagonal(dim1=1, dim2=2).log(), 0.0)
        log_q = torch.where(missing, -0.5 * eps**2 - 0.5 * math.log(2 * math.pi), 0.0) - log_scale
        return torch.where(missing, values, z), log_q.sum(1)
