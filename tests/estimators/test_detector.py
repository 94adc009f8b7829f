"""The detector in scikit-learn's interface: its sign, its threshold, tables with words and missing values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from undiffuse.errors import InputError
from undiffuse.estimators import Detector
from undiffuse.random import Purpose, normal

Array = NDArray[np.float64]


def correlated(n: int, draw: int) -> Array:
    """Rows of four columns: the third is the sum of the first two, the fourth the square of the first, with noise."""
    z = normal(1, Purpose.DATA, draw, 0, n, (4,)).double().numpy()
    return np.stack([z[:, 0], z[:, 1], z[:, 0] + z[:, 1] + 0.1 * z[:, 2], z[:, 0] ** 2 + 0.1 * z[:, 3]], 1)


def test_it_passes_scikit_learns_checks() -> None:
    failed = [check for check in check_estimator(Detector(), on_fail=None) if check["status"] == "failed"]
    assert failed == []


@pytest.mark.parametrize("column", range(4))
def test_a_changed_cell_is_found_and_its_column_named(column: int) -> None:
    """A row whose cell does not fit the others is an outlier; the cells that contradict each other have the shares."""
    rows = correlated(5, 1)
    rows[:, column] += 3
    detector = Detector(contamination=0.01).fit(correlated(500, 0))
    assert (detector.predict(rows) == -1).all() and (detector.decision_function(rows) < 0).all()
    shares = detector.contributions(rows).mean(0)
    related = {0: {0, 2, 3}, 1: {0, 1, 2}, 2: {0, 1, 2}, 3: {0, 3}}[column]
    assert abs(float(shares.sum()) - 1) < 1e-9 and int(shares.argmax()) in related


def test_scores_are_lower_for_unusual_rows_and_the_threshold_is_the_contamination() -> None:
    train = correlated(200, 2)
    detector = Detector(contamination=0.1).fit(train)
    assert (detector.predict(train) == -1).sum() == 20 == detector.labels_.sum()
    np.testing.assert_allclose(detector.score_samples(train), -detector.decision_scores_)
    np.testing.assert_allclose(detector.decision_function(train), detector.score_samples(train) - detector.offset_)
    far = np.array([[9.0, 9.0, -9.0, 0.0]])
    assert detector.score_samples(far)[0] < detector.score_samples(train).min()


def test_an_impossible_pair_of_words_is_the_most_unusual_row() -> None:
    x = correlated(300, 3)[:, 0]
    frame = pd.DataFrame({"x": x, "word": np.where(x > 0, "up", "down"), "other": np.where(x > 0, "a", "b")})
    rows = pd.concat([frame.head(20), pd.DataFrame({"x": [1.0], "word": ["up"], "other": ["b"]})])
    detector = Detector().fit(frame)
    assert int(detector.score_samples(rows).argmin()) == 20
    assert detector.contributions(rows)[20, 1:].sum() > 0.9
    with pytest.raises(InputError, match="expected a DataFrame"):
        detector.predict(rows.to_numpy())


def test_rows_with_missing_values_are_scored_by_what_they_hold() -> None:
    """A missing cell has no share, and hiding the wrong cell makes a row normal again."""
    train = correlated(500, 4)
    train[::7, 1] = np.nan
    wrong = correlated(20, 5)
    wrong[:, 3] += 4
    hidden = wrong.copy()
    hidden[:, 3] = np.nan
    detector = Detector().fit(train)
    assert np.median(detector.score_samples(hidden)) > np.max(detector.score_samples(wrong))
    assert (detector.contributions(hidden)[:, 3] == 0).all() and np.isfinite(detector.decision_scores_).all()


def test_many_rows_are_a_random_subset_of_a_seed() -> None:
    train = correlated(400, 6)
    first, again, other = (Detector(max_rows=100, random_state=s).fit(train).decision_scores_ for s in (0, 0, 1))
    assert len(first) == 100 and (first == again).all() and (first != other).any()


def test_it_stands_in_a_pipeline_and_refuses_wrong_arguments() -> None:
    train = correlated(100, 7)
    pipeline = make_pipeline(StandardScaler(), Detector()).fit(train)
    assert (pipeline.predict(train) == -1).sum() == 10
    for wrong in ({"contamination": 0.7}, {"neighbors": 0}, {"max_rows": 1}):
        with pytest.raises(ValueError, match="expected a fraction"):
            Detector(**wrong).fit(train)
    with pytest.raises(ValueError, match="all equal"):
        Detector().fit(np.ones((9, 2)))
