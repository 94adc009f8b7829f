"""Imputer: several samples of the missing values of a table, without training a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from undiffuse.estimators.table_encoder import category_counts, decode, encode, seed_of
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


class Imputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Samples of missing values given the observed values of a row, for numbers and categories.

    The law of `inverse.diffused_rows`: a regression whose residuals come from rows that are alike. Its noise level, and
    which numbers are mapped to a normal distribution first, are those with the smallest CRPS on observed values that
    are hidden for this.

    Args:
        chains: Number of completions of the training rows; each sample is drawn from one of them.
        rounds: Number of times that the training rows are completed from one another.
        samples: Number of samples per missing value of which `transform` takes the mean or the most frequent category.
        random_state: Seed.

    Attributes:
        sigma_: Noise level.
        mapped_: Which numbers are mapped to a normal distribution: "all", "steps" (columns of few different numbers),
            or "none"; the others are standardised.
    """

    def __init__(self, chains: int = 5, rounds: int = 2, samples: int = 20, random_state: Any = 0) -> None:
        self.chains = chains
        self.rounds = rounds
        self.samples = samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Measures the moments, chooses the noise level, and completes the training rows.

        Args:
            X: training rows (N, D), array or DataFrame, with missing values.
            y: ignored.

        Raises:
            InputError: for a table that cannot be read.
            ValueError: for invalid arguments and arrays.
        """
        if self.chains < 1 or self.rounds < 0 or self.samples < 1:
            raise ValueError(f"got chains={self.chains}, rounds={self.rounds}, samples={self.samples}; expected at "
                             "least 1, at least 0, at least 1")
        x = encode(self, X, fit=True)
        self.seed_ = seed_of(self.random_state)
        self.law_ = []
        if choices := [(*choice, *option) for choice in _tables(x, category_counts(self))
                       for option in _validated(x, choice[1], self.seed_)]:
            self.mapped_, self.table_, _, self.sigma_, params = min(choices, key=lambda choice: choice[2])
            z = self.table_.forward(torch.tensor(x))
            donors = permutation(self.seed_, Purpose.ORDER, 0, len(z))[:_DONORS]
            full = [complete(z, params, self.sigma_, self.rounds, self.seed_, k, donors) for k in range(self.chains)]
            self.law_ = [DiffusedRows(rows[donors], params, self.sigma_) for rows in full]
            self.donors_ = z[donors]
        self.constants_ = np.array([column[~np.isnan(column)][0] if (~np.isnan(column)).any() else 0.0
                                    for column in x.T])
        return self

    def transform(self, X: Any) -> Any:
        """X with the mean of samples for missing numbers, and the most frequent category."""
        x, samples = self._samples(X, self.samples)
        filled = samples.mean(0)
        for j, count in enumerate(category_counts(self)):
            if count:
                filled[:, j] = [np.bincount(column.astype(np.int64)).argmax() for column in samples[:, :, j].T]
        return decode(self, X, np.where(np.isnan(x), filled, x))

    def draw(self, X: Any, n: int = 20) -> list[Any]:
        """n completions of X, of its type: samples of all missing values of a row from their joint distribution.

        A training row is completed as it would be without itself.
        """
        _, samples = self._samples(X, n)
        return [decode(self, X, sample) for sample in samples]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _samples(self, X: Any, n: int) -> tuple[Array, Array]:
        """Encoded rows (N, D) and their completions (n, N, D)."""
        check_is_fitted(self)
        x = encode(self, X, fit=False)
        out = np.repeat(np.where(np.isnan(x), self.constants_, x)[None], n, 0)
        incomplete = np.flatnonzero(np.isnan(x).any(1))
        if not self.law_ or not len(incomplete):
            return x, out
        z = self.table_.forward(torch.tensor(x[incomplete]))
        excluded = _equal(z, self.donors_)
        shares = [len(range(k, n, self.chains)) for k in range(self.chains)]
        for k, law in enumerate(self.law_):
            if shares[k]:
                draws = law.draw(z, shares[k], self.seed_, (1 << 32) + k, excluded)
                values = _in_data_units(self.table_, draws)
                out[k::self.chains, incomplete] = np.where(np.isnan(x[incomplete]), values, x[incomplete])
        return x, out


def _tables(x: Array, counts: list[int]) -> Iterator[tuple[str, Table]]:
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
