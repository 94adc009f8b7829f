"""Imputation of a table from its own rows, without training a network.

The law of `inverse.diffused_rows`: a regression whose residuals come from rows that are alike. Its noise level, and
which numbers are mapped to a normal distribution first, are those with the smallest CRPS on observed values that are
hidden for this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.inverse.diffused_rows import DiffusedRows, complete
from undiffuse.metrics import crps
from undiffuse.moments import GaussianParams, fit_em, pairwise_covariance
from undiffuse.random import Purpose, permutation, uniform
from undiffuse.transforms.base import Table
from undiffuse.transforms.column_fitting import bounds_of, fit_column
from undiffuse.transforms.columns import Column, Power

LEVELS = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2, 0.1)
_PRIOR = 0.1  # pseudo-rows of independent columns by which the covariance is shrunk
_LARGE = 128  # entries above which the covariance is pairwise
_MOMENT_ROWS, _DONORS, _TESTED = 2000, 1000, 400  # rows for moments, of a law, and for the choice of the noise level
_TEST_DRAWS, _TEST_SHARE = 20, 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowImputer:
    """Several completions of training rows, from each of which missing values are sampled.

    Args:
        table: maps of the columns; None if all are constant.
        laws: the law of every completion.
        donors: the rows of the laws with their missing entries (N, d).
        constants: a value of every column (D,), for columns without entries.
        sigma: noise level.
        mapped: "all", "steps" or "none": which columns of numbers are mapped to a normal distribution.
        seed: seed of the random numbers.
    """

    table: Table | None
    laws: Sequence[DiffusedRows]
    donors: Tensor
    constants: Array
    sigma: float
    mapped: str
    seed: int

    @classmethod
    def fit(cls, x: Array, counts: Sequence[int], seed: int = 0, chains: int = 5, rounds: int = 2) -> RowImputer:
        """Measures the moments, chooses the noise level, and completes the rows.

        Args:
            x: rows (N, D), categories as numbers, NaN where missing.
            counts: number of categories of every column, 0 for numbers.
            seed: seed of the random numbers.
            chains: number of completions.
            rounds: number of times that the rows are completed from one another.
        """
        constants = np.array([v[~np.isnan(v)][0] if (~np.isnan(v)).any() else 0.0 for v in x.T])
        choices = [(*choice, *option) for choice in _tables(x, counts) for option in _validated(x, choice[1], seed)]
        if not choices:
            return cls(None, (), torch.zeros(0, 0), constants, 1.0, "all", seed)
        mapped, table, _, sigma, params = min(choices, key=lambda choice: choice[2])
        z = table.forward(torch.tensor(x))
        donors = permutation(seed, Purpose.ORDER, 0, len(z))[:_DONORS]
        full = [complete(z, params, sigma, rounds, seed, k, donors) for k in range(chains)]
        laws = [DiffusedRows(rows[donors], params, sigma) for rows in full]
        return cls(table, laws, z[donors], constants, sigma, mapped, seed)

    def sample(self, x: Array, n: int) -> Array:
        """Completions (n, N, D) of rows x (N, D); a training row is completed as it would be without itself."""
        out = np.repeat(np.where(np.isnan(x), self.constants, x)[None], n, 0)
        incomplete = np.flatnonzero(np.isnan(x).any(1))
        if self.table is None or not len(incomplete):
            return out
        z, chains = self.table.forward(torch.tensor(x[incomplete])), len(self.laws)
        excluded = _equal(z, self.donors)
        for k, law in enumerate(self.laws[:n]):
            draws = law.draw(z, len(range(k, n, chains)), self.seed, (1 << 32) + k, excluded)
            values = _in_data_units(self.table, draws)
            out[k::chains, incomplete] = np.where(np.isnan(x[incomplete]), values, x[incomplete])
        return out


def _tables(x: Array, counts: Sequence[int]) -> Iterator[tuple[str, Table]]:
    """The maps of the columns: numbers mapped to a normal distribution, only steps, or none, which are standardised."""
    mapped = [fit_column(x[:, j], n) for j, n in enumerate(counts)]
    if not any(column.width for column in mapped):
        return
    kinds, smooth = {column.kind for column in mapped}, {"power", "quantiles"}
    yield "all", Table(tuple(mapped))
    for name, plain, last in (("steps", smooth, smooth), ("none", {*smooth, "steps"}, {"steps"})):
        if kinds & last:
            yield name, Table(tuple(_standardised(x[:, j]) if column.kind in plain else column
                                    for j, column in enumerate(mapped)))


def _standardised(x: Array) -> Column:
    """The map of a column of numbers that only standardises it."""
    column = fit_column(x, simple=True)
    return dataclasses.replace(column, bounds=bounds_of(x[~np.isnan(x)])) if isinstance(column, Power) else column


def _moments(z: Tensor) -> GaussianParams:
    """Mean and covariance of rows with missing entries."""
    rows = z[torch.linspace(0, len(z) - 1, min(len(z), _MOMENT_ROWS)).round().long()]
    if z.shape[1] <= _LARGE:
        return fit_em(rows, _PRIOR)
    mean, cov = pairwise_covariance(rows)
    values, basis = torch.linalg.eigh(cov)
    return GaussianParams(mean, (basis * values.clamp_min(float(values.mean()) / 100)) @ basis.mT)


def _in_data_units(table: Table, draws: Tensor) -> Array:
    """Rows (n, B, d) in model units as rows (n, B, D) in data units."""
    return np.asarray(table.inverse(draws.flatten(0, 1)).reshape(*draws.shape[:2], -1))


def _validated(x: Array, table: Table, seed: int) -> Iterator[tuple[float, float, GaussianParams]]:
    """The mean CRPS of hidden observed values, the noise level, and the moments, for every noise level."""
    z = table.forward(torch.tensor(x))
    params = _moments(z)
    order = permutation(seed, Purpose.ORDER, 1, len(z))
    tested, donors = order[: min(_TESTED, len(z) // 2)], order[min(_TESTED, len(z) // 2):][:_DONORS]
    full = complete(z[donors], params, 1.0, 0, seed, 0)
    truth = x[tested.numpy()]
    u = uniform(seed, Purpose.PROBE, 2, 0, len(tested), truth.shape[1:], torch.float64).numpy()
    hidden = (u < _TEST_SHARE) & ~np.isnan(truth)
    observed = table.forward(torch.from_numpy(np.where(hidden, np.nan, truth)))
    if not hidden.any() or not len(tested):
        yield 0.0, 1.0, params
        return
    spread = np.nanstd(x, 0)
    for sigma in LEVELS:
        draws = DiffusedRows(full, params, sigma).draw(observed, _TEST_DRAWS, seed, 3)
        yield _score(table, _in_data_units(table, draws), truth, hidden, spread), sigma, params


def _score(table: Table, values: Array, truth: Array, hidden: NDArray[np.bool_], spread: Array) -> float:
    """The mean CRPS of hidden values, numbers in standard deviations, of categories that of their indicators."""
    scores = []
    for j, column in enumerate(table.columns):
        v, t = values[:, hidden[:, j], j], truth[hidden[:, j], j]
        if column.kind == "categories":
            scores.append(sum(crps((v == k).astype(float), (t == k).astype(float)) for k in range(column.width)) / 2)
        elif spread[j] > 0:
            scores.append(crps(v, t) / spread[j])
    return float(np.concatenate(scores).mean())


def _equal(z: Tensor, rows: Tensor) -> Tensor:
    """Whether rows (B, d) and (N, d) have the same entries, NaN included, (B, N)."""
    numbers: dict[bytes, int] = {}
    of = [torch.tensor([numbers.setdefault(row.tobytes(), len(numbers)) for row in part.nan_to_num(torch.inf).numpy()])
          for part in (z, rows)]
    return of[0][:, None] == of[1]
