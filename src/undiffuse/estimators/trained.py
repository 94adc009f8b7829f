"""Density and Synthesizer: estimators that train a model of a table by the recipe."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils.validation import check_is_fitted

from undiffuse import recipes
from undiffuse.data.validation import make_table
from undiffuse.estimators.table_encoder import AllowsNaN, encode, frame_of, seed_of
from undiffuse.likelihood.log_likelihood import log_likelihood
from undiffuse.samplers.driver import sample
from undiffuse.transforms.table_cells import default_columns

_TOLERANCE = 1e-4

Array = NDArray[np.float64]


class _Trained(AllowsNaN, BaseEstimator):  # type: ignore[misc]
    """A model of a table, trained by `recipes.train`."""

    def __init__(self, steps: int | None = None, minutes: float | None = None, random_state: Any = 0) -> None:
        self.steps = steps
        self.minutes = minutes
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Trains the model; of ten rows or more a fifth is held out, which decides when the training ends.

        Args:
            X: rows (N, D), array or DataFrame; NaN is a missing value.
            y: ignored.

        Raises:
            InputError: for a table that cannot be read, and rows that are all equal.
            ValueError: for invalid arrays.
        """
        values = encode(self, X, fit=True)
        self.seed_ = seed_of(self.random_state)
        names = [str(name) for name in getattr(self, "feature_names_in_", default_columns(values.shape[1]))]
        data = make_table(values, name="table", columns=names, schema=self.schema_, missing=True)
        data = dataclasses.replace(data, kind="table", x=torch.tensor(values))
        fields: dict[str, Any] = {} if self.steps is None else {"steps": self.steps}
        with tempfile.TemporaryDirectory() as folder:
            model = recipes.train(data, Path(folder) / "run", progress=False, minutes=self.minutes, seed=self.seed_,
                                  device="cpu", **fields)
        model.folder = None
        self.model_ = model.eval().requires_grad_(False)
        self.frame_ = X.iloc[:0] if hasattr(X, "iloc") else None
        return self

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Rows that are drawn from the model, of the type of the training data; a DataFrame has their words and dtypes.

        Args:
            n_samples: number of rows.
            random_state: seed; None: that of the estimator.
        """
        check_is_fitted(self)
        seed = self.seed_ if random_state is None else seed_of(random_state)
        values = sample(self.model_, n_samples, seed=seed).x.double().numpy()
        return values if self.frame_ is None else frame_of(self, values, self.frame_)


class Density(DensityMixin, _Trained):  # type: ignore[misc]
    """The density of a table: log p(x) of its rows by the probability-flow ODE, and samples.

    Args:
        steps: Number of updates of the training; None: until the held-out loss no longer falls.
        minutes: Longest duration of the training; None: no limit.
        random_state: Seed.

    Attributes:
        model_: The `Denoiser`.
    """

    def score_samples(self, X: Any) -> Array:
        """log p(x) of rows (N,), in nats and data units.

        For categories, columns of few different numbers and missing values it is a lower bound of the logarithm of the
        probability of what is observed; the density of other numbers is with respect to their units. A value of such a
        column that none of the rows had that were trained on has probability 0, −∞.
        """
        check_is_fitted(self)
        rows = torch.tensor(encode(self, X, fit=False))
        return log_likelihood(self.model_, rows, rtol=_TOLERANCE, atol=_TOLERANCE, seed=self.seed_).log_prob.numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of `score_samples`."""
        return float(self.score_samples(X).mean())


class Synthesizer(_Trained):
    """Synthetic tables: rows that are drawn from a model of a table, with its columns, words and dtypes.

    Columns that cannot be learned, such as identifiers and free text, are left out of the samples.

    Args:
        steps: Number of updates of the training; None: until the held-out loss no longer falls.
        minutes: Longest duration of the training; None: no limit.
        random_state: Seed.

    Attributes:
        model_: The `Denoiser`.
    """
