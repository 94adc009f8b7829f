"""Scores of tables: perfect samples reach the floor, and every kind of error is found by its score."""

from __future__ import annotations

import numpy as np
import pytest

from undiffuse.report import table_metrics
from undiffuse.report.table_metrics import MixedColumns, table_scores

COLUMNS = MixedColumns(("x", "y", "kind", "place"), ((), (), ("a", "b", "c"), ("north", "south")))


def rows(n: int, seed: int) -> np.ndarray:
    """y follows x; a is never in the south, and kind c has larger x."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n, p=[0.4, 0.4, 0.2])
    place = np.where(kind == 0, 0, rng.integers(0, 2, n))
    x = rng.normal(size=n) + 2 * (kind == 2)
    return np.stack([x, x + 0.3 * rng.normal(size=n), kind, place], 1).astype(float)


TRAIN, REAL, PERFECT = rows(800, 0), rows(400, 1), rows(400, 2)


def shuffled(x: np.ndarray, *columns: int) -> np.ndarray:
    out = x.copy()
    for j in columns:
        out[:, j] = out[np.random.default_rng(7 + j).permutation(len(out)), j]
    return out


@pytest.mark.slow
def test_samples_of_the_law_are_at_the_floor() -> None:
    s = table_scores(COLUMNS, TRAIN, REAL, PERFECT)
    for name in ("c2st_forest", "c2st_logistic"):
        assert abs(s[name] - 0.5) < 0.07 and abs(s[f"{name}_floor"] - 0.5) < 0.07  # standard error about .02
    assert abs(s["shapes"] - s["shapes_floor"]) < 0.03 and abs(s["trends"] - s["trends_floor"]) < 0.05
    assert abs(s["nearest_share"] - 0.5) < 4 * s["nearest_share_floor_std"]
    assert s["impossible"] == s["impossible_floor"] == 0 and s["impossible_pairs"] == []
    assert all(abs(v["synthetic"] - v["real"]) < 0.1 for v in s["utility"].values()) and len(s["utility"]) == 4


@pytest.mark.parametrize(("column", "pair"), [(1, ["x", "y"]), (2, ["kind", "place"])])
def test_independent_columns_have_the_right_shapes_and_the_wrong_trends(column: int, pair: list[str]) -> None:
    wrong = shuffled(PERFECT, column)
    s = table_metrics._marginals(COLUMNS, TRAIN, REAL, wrong)
    assert abs(s["shapes"] - s["shapes_floor"]) < 0.03 and s["trends"] < s["trends_floor"] - 0.05
    assert s["trends_worst"]["columns"] == pair or column == 2


@pytest.mark.slow
def test_rows_that_can_be_told_apart_and_are_of_no_use() -> None:
    wrong = shuffled(PERFECT, 1)
    assert table_metrics._classifiers(COLUMNS, TRAIN[:400], REAL, wrong)["c2st_forest"] > 0.75
    scores = table_metrics._utility(COLUMNS, TRAIN, REAL, wrong)["y"]
    assert scores["synthetic"] < 0.1 < 0.8 < scores["real"]


def test_impossible_pairs_are_named_and_counted() -> None:
    wrong = PERFECT.copy()
    odd = np.flatnonzero(wrong[:, 2] == 0)[:20]
    wrong[odd, 3] = 1
    s = table_metrics._impossible(COLUMNS, TRAIN, REAL, wrong)
    assert s["impossible"] == 20 / 400
    assert s["impossible_pairs"] == [{"columns": ["kind", "place"], "words": ["a", "south"], "rows": 20}]


def test_a_shifted_column_and_missing_words_lower_the_shapes() -> None:
    wrong = PERFECT.copy()
    wrong[:, 0] += 1
    s = table_metrics._marginals(COLUMNS, TRAIN, REAL, wrong)
    assert s["shapes_worst"]["column"] == "x" and s["shapes"] < s["shapes_floor"] - 0.05
    wrong = PERFECT[PERFECT[:, 2] != 1]
    s = table_metrics._marginals(COLUMNS, TRAIN, REAL, wrong)
    assert s["shapes_worst"] == {"column": "kind", "value": pytest.approx(1 - np.mean(REAL[:, 2] == 1), abs=0.06)}


def test_copies_of_training_rows_are_nearer_to_them() -> None:
    assert table_metrics._nearest(COLUMNS, TRAIN[:400], REAL, TRAIN[:400])["nearest_share"] > 0.98
    assert 0.4 < table_metrics._nearest(COLUMNS, TRAIN[:400], REAL, PERFECT)["nearest_share"] < 0.6


def test_few_rows_have_no_classifier() -> None:
    s = table_scores(COLUMNS, TRAIN, REAL[:20], PERFECT[:20])
    assert s["c2st_forest"] is None and "utility" not in s and 0 < s["shapes"] <= 1
