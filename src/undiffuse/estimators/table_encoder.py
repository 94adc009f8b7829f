"""Rows of a table as numbers, for estimators that take arrays and DataFrames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from undiffuse.errors import InputError
from undiffuse.transforms.table_cells import frame_cells
from undiffuse.transforms.table_schema import TableSchema, infer_schema

Array = NDArray[np.float64]


class AllowsNaN:
    """An estimator whose missing values are NaN, as scikit-learn asks for it."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.allow_nan = True
        return tags


def encode(estimator: Any, X: Any, fit: bool) -> Array:
    """X (N, D) in float64, categories as numbers, NaN where missing.

    A DataFrame with columns that are not numbers is read as a table; its schema is the attribute `schema_`, None for
    numbers. `n_features_in_` and `feature_names_in_` are set and checked as scikit-learn does.

    Args:
        estimator: the estimator.
        X: array or DataFrame.
        fit: whether X is training data.

    Raises:
        InputError: for rows that do not match the training data, and for a table that cannot be read.
        ValueError: what scikit-learn raises for an invalid array.
    """
    if fit:
        estimator.schema_ = infer_schema(frame_cells(X))[0] if _has_words(X) else None
    schema: TableSchema | None = estimator.schema_
    if schema is None:
        return np.asarray(validate_data(estimator, X, reset=fit, dtype=np.float64, ensure_all_finite="allow-nan",
                                        ensure_min_samples=2 if fit else 1))
    if not hasattr(X, "columns"):
        raise InputError("got an array for an estimator fitted to a table with categories; expected a DataFrame")
    values = schema.encode(X).values
    if fit:
        estimator.n_features_in_, estimator.feature_names_in_ = values.shape[1], np.array(schema.columns, object)
        estimator.words_ = {name: {str(value): value for value in X[name].unique()} for name in schema.columns
                            if _is_word(X[name].dtype)}
    return values


def frame_of(estimator: Any, values: Array, like: Any) -> Any:
    """Rows (N, D) as a DataFrame with the columns and dtypes of the training data, categories as their objects.

    Args:
        estimator: the fitted estimator.
        values: the rows.
        like: rows of the training data, or none of them, for names and dtypes.
    """
    schema: TableSchema | None = estimator.schema_
    columns = {}
    for j, name in enumerate(estimator.feature_names_in_):
        column: list[Any] = values[:, j].tolist()
        if schema is not None and _is_word(like[name].dtype):
            column = _objects(estimator, j, column)
        columns[name] = column
    names = [name for name in like.columns if name in columns]
    frame = type(like)({name: columns[name] for name in names})
    return frame.astype({name: like[name].dtype for name in names})


def decode(estimator: Any, X: Any, values: Array) -> Any:
    """Values (N, D) without missing ones in the form of X: an array, or a copy of the DataFrame with its missing cells
    filled, of categories with the objects of the training data."""
    if not hasattr(X, "columns"):
        return values
    out = X.copy()
    names, schema = getattr(estimator, "feature_names_in_", X.columns), estimator.schema_
    for j, name in enumerate(names):
        missing = X[name].isna().to_numpy()
        if missing.any():
            column = values[missing, j].tolist()
            if schema is not None and _is_word(X[name].dtype):
                column = _objects(estimator, j, column)
            out.loc[missing, name] = column
    return out


def seed_of(random_state: Any) -> int:
    """A seed from scikit-learn's argument: a whole number, a RandomState, or None."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def category_counts(estimator: Any) -> list[int]:
    """The number of categories of every column of a fitted estimator, 0 for numbers."""
    schema: TableSchema | None = estimator.schema_
    if schema is None:
        return [0] * int(estimator.n_features_in_)
    return [len(schema.categories_of(j)) for j in range(len(schema.columns))]


def _objects(estimator: Any, j: int, column: list[float]) -> list[Any]:
    """The values of column j, which is read as text, as the objects of the training data."""
    words = estimator.words_[estimator.schema_.columns[j]]
    return [words.get(text, text) for text in map(estimator.schema_.formats[j].text, column)]


def _has_words(X: Any) -> bool:
    """Whether X is a DataFrame with a column that is not numeric."""
    return hasattr(X, "columns") and hasattr(X, "dtypes") and any(map(_is_word, X.dtypes))


def _is_word(dtype: Any) -> bool:
    """Whether a column of this type is read as text."""
    return getattr(dtype, "kind", "O") not in "fiub"
