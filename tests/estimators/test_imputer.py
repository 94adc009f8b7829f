"""Imputer: the closed form of a Gaussian, curves, words, DataFrames that come back, and scikit-learn's checks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.utils.estimator_checks import check_estimator

from undiffuse.estimators import Imputer
from undiffuse.random import Purpose, normal, uniform

Array = NDArray[np.float64]
COV = np.array([[2.0, 1.2, -0.4], [1.2, 1.5, 0.3], [-0.4, 0.3, 1.0]])


def gaussian(n: int, draw: int) -> Array:
    z = normal(2, Purpose.DATA, draw, 0, n, (3,)).double().numpy()
    return np.asarray(z @ np.linalg.cholesky(COV).T + [1.0, -2.0, 0.5])


def hidden(shape: tuple[int, int], rate: float) -> NDArray[np.bool_]:
    return np.asarray(uniform(3, Purpose.DATA, 50, 0, shape[0], shape[1:]).numpy() < rate)


@pytest.mark.slow
def test_it_passes_scikit_learns_checks() -> None:
    failed = [check for check in check_estimator(Imputer(chains=1, samples=2), on_fail=None)
              if check["status"] == "failed"]
    assert failed == []


def test_draws_are_the_conditional_law_of_a_gaussian() -> None:
    """Mean and variance of one column given the others, from 2,000 rows: within 5 % of its standard deviation."""
    train, row = gaussian(2000, 0), np.array([[2.0, np.nan, 0.0]])
    imputer = Imputer().fit(train)
    draws = np.array(imputer.draw(row, 2000))[:, 0]
    gain = COV[1, [0, 2]] @ np.linalg.inv(COV[np.ix_([0, 2], [0, 2])])
    mean, std = -2 + gain @ (row[0, [0, 2]] - [1.0, 0.5]), np.sqrt(COV[1, 1] - gain @ COV[[0, 2], 1])
    assert abs(draws[:, 1].mean() - mean) < 0.05 * std + 5 * std / np.sqrt(2000)
    assert abs(draws[:, 1].std() / std - 1) < 0.1
    assert (draws[:, [0, 2]] == row[0, [0, 2]]).all()


def test_intervals_hold_nine_in_ten_of_the_hidden_values() -> None:
    """Within four standard errors and 2 %, on a Gaussian and on a curve, a fifth of the cells missing."""
    for make in (gaussian, curve):
        rows = make(600, 1)
        gone = hidden(rows.shape, 0.2)  # type: ignore[arg-type]
        draws = np.array(Imputer().fit(np.where(gone, np.nan, rows)).draw(np.where(gone, np.nan, rows), 19))
        inside = ((draws.min(0) < rows) & (rows < draws.max(0)))[gone]
        assert abs(inside.mean() - 0.9) < 4 * np.sqrt(0.09 / gone.sum()) + 0.02


def curve(n: int, draw: int) -> Array:
    x = normal(2, Purpose.DATA, 10 + draw, 0, n, (2,)).double().numpy()
    return np.stack([x[:, 0], np.abs(x[:, 0]) + 0.1 * x[:, 1]], 1)


def test_a_curve_is_followed_where_a_regression_says_nothing() -> None:
    """y = |x| without correlation: x given y has two values."""
    rows = curve(800, 0)
    imputer = Imputer().fit(rows)
    assert imputer.sigma_ <= 0.3
    draws = np.array(imputer.draw(np.array([[np.nan, 1.5]]), 400))[:, 0, 0]
    assert np.mean(np.abs(np.abs(draws) - 1.5) < 0.5) > 0.95 and 0.25 < np.mean(draws > 0) < 0.75


def mixed(n: int) -> pd.DataFrame:
    z = normal(2, Purpose.DATA, 20, 0, n, (3,)).double().numpy()
    return pd.DataFrame({"size": z[:, 0], "group": pd.Categorical(np.where(z[:, 0] > 0, "large", "small")),
                         "flag": z[:, 0] + 0.01 * z[:, 1] > 0, "count": np.abs(5 * z[:, 2]).astype(int)},
                        index=np.arange(n) + 100)


def test_a_dataframe_comes_back_with_its_words_index_and_other_cells() -> None:
    whole = mixed(300)
    table = whole.astype({"flag": object, "group": object}).mask(hidden((300, 4), 0.2))
    imputer = Imputer().fit(table)
    for completed in (imputer.transform(table), *imputer.draw(table, 2)):
        assert not completed.isna().any().any() and (completed.index == whole.index).all()
        assert (completed == table)[table.notna()].sum().sum() == table.notna().sum().sum()
        assert set(completed["group"]) == {"large", "small"} and set(completed["flag"]) == {True, False}
        assert (completed["count"] >= 0).all()
        gone = table["group"].isna() & table["size"].notna()
        assert (completed["group"] == whole["group"].astype(object))[gone].mean() > 0.9
    assert all((completed["count"] % 1 == 0).all() for completed in imputer.draw(table, 2))


def test_the_same_seed_gives_the_same_draws_and_a_training_row_is_not_its_own_donor() -> None:
    rows = curve(200, 2)
    table = np.where(hidden((200, 2), 0.2), np.nan, rows)
    first, again, other = (np.array(Imputer(random_state=s).fit(table).draw(table, 3)) for s in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    imputer = Imputer(random_state=0).fit(table)
    stored = imputer.imputer_.laws[0].rows.numpy()
    gone = np.isnan(table[:, 0])
    drawn = imputer.imputer_.table.forward(torch.from_numpy(first[0][gone])).numpy()
    assert np.abs(drawn[:, None, 0] - stored[None, :, 0]).min(1).max() > 0


def test_what_cannot_be_used_is_refused() -> None:
    for wrong in ({"chains": 0}, {"rounds": -1}, {"samples": 0}):
        with pytest.raises(ValueError, match="expected at least 1"):
            Imputer(**wrong).fit(gaussian(20, 0))
    constant = np.array([[1.0, 2.0], [1.0, 2.0], [np.nan, np.nan]])
    assert (Imputer().fit(constant).transform(constant) == [1.0, 2.0]).all()
