"""Imputer: several samples of the missing values of a table, without training a network."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from undiffuse.estimators.table_encoder import AllowsNaN, category_counts, decode, encode, seed_of
from undiffuse.inverse.row_imputer import RowImputer

Array = NDArray[np.float64]


class Imputer(AllowsNaN, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Samples of missing values given the observed values of a row, for numbers and categories.

    See `inverse.row_imputer`: a regression whose residuals come from rows that are alike, with the noise level that has
    the smallest CRPS on observed values that are hidden for this.

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
        self.imputer_ = RowImputer.fit(x, category_counts(self), seed_of(self.random_state), self.chains, self.rounds)
        self.sigma_, self.mapped_ = self.imputer_.sigma, self.imputer_.mapped
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

    def _samples(self, X: Any, n: int) -> tuple[Array, Array]:
        """Encoded rows (N, D) and their completions (n, N, D)."""
        check_is_fitted(self)
        x = encode(self, X, fit=False)
        return x, self.imputer_.sample(x, n)
