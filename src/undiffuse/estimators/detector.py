"""Detector: anomalies by the residual of a local denoiser, averaged over noise levels."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, check_random_state
from torch import Tensor

from undiffuse.estimators.table_encoder import AllowsNaN, category_counts, encode
from undiffuse.likelihood.local_denoiser import LocalDenoiser
from undiffuse.moments import GaussianParams, conditional_mean, fit_em, pairwise_covariance, regression_gain
from undiffuse.transforms.base import Table
from undiffuse.transforms.column_fitting import fit_column

_MAX_ENTRY = 1000.0  # limit of an entry, so that distances are finite
_MAX_REGRESSION = 128  # entries up to which missing values are predicted from the others
_ROWS = 4096  # rows of a block of regressions
_TINY = 1e-300

Array = NDArray[np.float64]


class Detector(AllowsNaN, OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Anomaly detector: the residual of the Wiener filter of the nearest rows, averaged over noise levels.

    The score of a row is that of `likelihood.local_denoiser`, the mean over two coordinate systems: the standardised
    columns next to the columns mapped to a normal distribution as for training; and the signed logarithm of the
    standardised columns. Nothing is trained. DataFrames may hold categories; NaN is a missing value, filled with its
    conditional mean.

    Args:
        neighbors: Number of nearest rows.
        contamination: Fraction of the training rows beyond the threshold of `predict`, in (0, 0.5].
        max_rows: Largest number of training rows; of more, a random subset is used.
        random_state: Seed of that subset.

    Attributes:
        offset_: Threshold of `score_samples`.
        decision_scores_: Anomaly scores of the training rows, each without itself; larger for unusual rows, as in PyOD.
        threshold_: Threshold of these, -offset_.
        labels_: 1 for training rows beyond it, else 0.
    """

    def __init__(self, neighbors: int = 10, contamination: float = 0.1, max_rows: int = 20_000,
                 random_state: Any = 0) -> None:
        self.neighbors = neighbors
        self.contamination = contamination
        self.max_rows = max_rows
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Stores the training rows.

        Args:
            X: training rows (N, D), array or DataFrame; mostly normal ones.
            y: ignored.

        Raises:
            InputError: for a table that cannot be read.
            ValueError: for invalid arguments and arrays.
        """
        if not 0 < self.contamination <= 0.5 or self.neighbors < 1 or self.max_rows < 2:
            raise ValueError(f"got contamination={self.contamination}, neighbors={self.neighbors}, max_rows="
                             f"{self.max_rows}; expected a fraction up to 0.5, at least 1, at least 2")
        x = encode(self, X, fit=True)
        if len(x) > self.max_rows:
            x = x[np.sort(check_random_state(self.random_state).permutation(len(x))[: self.max_rows])]
        self.tables_ = _tables(x, category_counts(self))
        self.log_scale_ = torch.ones((), dtype=torch.float64)
        self.log_scale_ = _deviation(self._entries(x)[1])
        entries = self._entries(x)
        self.params_ = [_moments(z) for z in entries]
        self.denoisers_ = [LocalDenoiser(_filled(z, params), self.neighbors)
                           for z, params in zip(entries, self.params_, strict=True)]
        self.decision_scores_: Array = np.mean([d.training_scores.numpy() for d in self.denoisers_], 0)
        self.threshold_ = float(np.quantile(self.decision_scores_, 1 - self.contamination))
        self.offset_ = -self.threshold_
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(np.int64)
        return self

    def score_samples(self, X: Any) -> Array:
        """The negative anomaly scores (N,): lower for unusual rows."""
        residuals = self._residuals(X)[1]
        sizes = [denoiser.log_size(r).numpy() for denoiser, r in zip(self.denoisers_, residuals, strict=True)]
        return np.asarray(-np.mean(sizes, 0))

    def decision_function(self, X: Any) -> Array:
        """`score_samples` minus `offset_`, (N,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for outliers, 1 for all other rows, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def contributions(self, X: Any) -> Array:
        """The share of every column in the score, (N, D): the squared residual in units of its mean over the training
        rows; a row adds up to 1, and a missing value has 0."""
        x, residuals = self._residuals(X)
        shares = torch.cat([d.shares(r) for d, r in zip(self.denoisers_, residuals, strict=True)], 1)
        widths = [(j, w) for table, columns in self.tables_ for j, w in zip(columns, table.widths, strict=True)]
        owners = [j for j, w in widths for _ in range(w)]
        owner = torch.tensor(owners + owners[: sum(self.tables_[0][0].widths)])
        total = torch.zeros(x.shape, dtype=torch.float64).index_add(1, owner, shares)
        total = torch.where(torch.from_numpy(np.isnan(x)), 0.0, total)
        return np.asarray(total / total.sum(1, keepdim=True).clamp_min(_TINY))

    def _residuals(self, X: Any) -> tuple[Array, list[Tensor]]:
        """The encoded rows and their residuals in both coordinate systems."""
        check_is_fitted(self)
        x = encode(self, X, fit=False)
        return x, [denoiser.residuals(_filled(z, params)) for z, params, denoiser in
                   zip(self._entries(x), self.params_, self.denoisers_, strict=True)]

    def _entries(self, x: Array) -> list[Tensor]:
        """Both sets of coordinates (N, d) of encoded rows, NaN where missing."""
        rows = torch.tensor(x)
        parts = [table.forward(rows[:, columns]) for table, columns in self.tables_]
        logarithm = parts[0].sign() * parts[0].abs().log1p()
        return [torch.cat(parts, 1).clamp(-_MAX_ENTRY, _MAX_ENTRY), logarithm / self.log_scale_]


def _tables(x: Array, counts: list[int]) -> list[tuple[Table, list[int]]]:
    """The maps of the columns that vary, each with their numbers: standardised, and numbers mapped to a normal one."""
    standardised = [fit_column(x[:, j], n, simple=True) for j, n in enumerate(counts)]
    varying = [j for j, column in enumerate(standardised) if column.width]
    if not varying:
        raise ValueError("got training rows that are all equal; expected rows that differ")
    numbers = [j for j in varying if not counts[j]]
    parts = [(Table(tuple(standardised[j] for j in varying)), varying)]
    return parts + ([(Table(tuple(fit_column(x[:, j]) for j in numbers)), numbers)] if numbers else [])


def _filled(z: Tensor, params: GaussianParams) -> Tensor:
    """z with missing entries at their conditional mean, or at the mean for many entries."""
    missing = z.isnan()
    if not bool(missing.any()):
        return z
    mean = params.mean
    if 1 < z.shape[1] <= _MAX_REGRESSION:
        parts = zip(z.split(_ROWS), missing.split(_ROWS), strict=True)
        mean = torch.cat([conditional_mean(rows, params, regression_gain(params.cov, m)) for rows, m in parts])
    return torch.where(missing, mean, z)


def _moments(z: Tensor) -> GaussianParams:
    """Mean and covariance of rows with missing entries."""
    regress = 1 < z.shape[1] <= _MAX_REGRESSION and bool(z.isnan().any())
    return fit_em(z) if regress else pairwise_covariance(z)


def _deviation(z: Tensor) -> Tensor:
    """The standard deviation of every entry, 1 where it is 0."""
    deviation = pairwise_covariance(z).cov.diagonal().sqrt()
    return torch.where(deviation > 0, deviation, 1.0)
