"""Scores of synthetic tables, each with its value for real rows: what a perfect model would reach with as many rows.

    c2st_forest, c2st_logistic   area under ROC of a classifier of generated against held-out rows, cross-validated; ½
                                 if they cannot be told apart
    shapes                       mean over columns of 1 − Kolmogorov-Smirnov distance (numbers), total variation (words)
    trends                       mean over pairs of columns of 1 − |Δρ|/2 (two numbers) or 1 − total variation of the
                                 contingency table (with words; numbers in ten bins)
    utility                      accuracy (words) or R² (numbers) on held-out rows of forests trained on generated rows
    nearest_share                fraction of generated rows nearer to training than to held-out rows, of equal number
    impossible                   fraction of generated rows with a pair of words that no real row has

Reference: Patki et al. (2016), "The synthetic data vault"; Lopez-Paz and Oquab (2017), arXiv:1610.06545.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse import metrics

Array = NDArray[np.float64]

_ROWS, _FOLDS, _REPEATS, _TREES = 600, 4, 2, 40
_FEWEST = 30  # rows of each kind from which a classifier is trained
_BINS, _COLUMNS, _TARGETS, _LISTED = 10, 40, 6, 10
_MAX_WORDS = 50  # words of a column up to which its pairs are compared


@dataclass(frozen=True)
class MixedColumns:
    """Names and kinds of the columns of a table.

    Args:
        names: names of the columns.
        words: for every column its words 0, 1, ...; () for numbers.
    """

    names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]

    def features(self, x: Array, real: Array) -> Array:
        """Numbers in standard deviations of the real rows, words as indicators (N, F)."""
        parts = []
        for j, words in enumerate(self.words):
            column = x[:, j : j + 1]
            parts.append((column == np.arange(len(words))).astype(float) if words else
                         (column - real[:, j].mean()) / (real[:, j].std() or 1.0))
        return np.concatenate(parts, 1)


def table_scores(columns: MixedColumns, train: Array, held_out: Array, generated: Array) -> dict[str, Any]:
    """The scores and, with _floor behind their names, those of training rows in place of generated ones.

    Args:
        columns: names and kinds of the columns.
        train: training rows (N, D), words as numbers.
        held_out: rows held out of the training (M, D).
        generated: generated rows (K, D).
    """
    n = min(len(generated), len(held_out), len(train), _ROWS)
    part, real, fresh = (_spread(x, n) for x in (train, held_out, generated))
    scores = {**_classifiers(columns, part, real, fresh), **_marginals(columns, train, held_out, generated),
              **_nearest(columns, part, real, fresh), **_impossible(columns, train, held_out, generated)}
    return {**scores, "utility": _utility(columns, train, held_out, generated)} if n >= _FEWEST else scores


def associations(columns: MixedColumns, x: Array) -> Array:
    """The association of every pair of columns (D, D): the correlation of numbers, the correlation ratio η of numbers
    and words, and Cramér's V of words.
    """
    size = len(columns.names)
    values = np.eye(size)
    for i, j in combinations(range(size), 2):
        values[i, j] = values[j, i] = _association(x[:, i], x[:, j], len(columns.words[i]), len(columns.words[j]))
    return values


def _association(a: Array, b: Array, words_a: int, words_b: int) -> float:
    if not words_a and not words_b:
        return _correlation(a, b)
    if words_a and words_b:
        joint = _counts(a * words_b + b, words_a * words_b).reshape(words_a, words_b)
        expected = np.outer(joint.sum(1), joint.sum(0))
        possible = min((joint.sum(1) > 0).sum(), (joint.sum(0) > 0).sum()) - 1
        chi = np.divide((joint - expected) ** 2, expected, out=np.zeros_like(joint), where=expected > 0).sum()
        return float(np.sqrt(chi / possible)) if possible > 0 else 0.0
    word, number, count = (a, b, words_a) if words_a else (b, a, words_b)
    sizes = _counts(word, count)
    means = np.bincount(word.astype(np.int64), number - number.mean(), count) / len(word)
    variance = float(number.var())
    between = np.divide(means**2, sizes, out=np.zeros_like(means), where=sizes > 0).sum()
    return float(np.sqrt(between / variance)) if variance > 0 else 0.0


def _classifiers(columns: MixedColumns, train: Array, held_out: Array, generated: Array) -> dict[str, Any]:
    """The area under ROC of a forest and of a logistic regression, and the floor over re-divisions of real rows."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    keys = [f"c2st_{name}{end}" for name in ("forest", "logistic") for end in ("", "_floor", "_floor_std")]
    if len(generated) < _FEWEST:
        return dict.fromkeys(keys)
    a, b, c = (torch.from_numpy(columns.features(x, train)) for x in (train, held_out, generated))
    results: list[float] = []
    for model in (RandomForestClassifier(_TREES, random_state=0), LogisticRegression(max_iter=500)):
        floor = metrics.noise_floor(_area(model), a, b, _REPEATS)
        results += [_area(model)(c, b), floor.value, floor.stderr]
    return dict(zip(keys, results, strict=True))


def _area(model: Any) -> Callable[[Tensor, Tensor], float]:
    """The cross-validated area under ROC of a classifier of two sets of rows."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    split = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)

    def area(x: Tensor, y: Tensor) -> float:
        rows, target = torch.cat([x, y]).numpy(), np.repeat([0, 1], [len(x), len(y)])
        chances = cross_val_predict(model, rows, target, cv=split, method="predict_proba")[:, 1]
        return float(roc_auc_score(target, chances))

    return area


def _marginals(columns: MixedColumns, train: Array, held_out: Array, generated: Array) -> dict[str, Any]:
    """Shapes and trends against held-out rows, and their floors; the column and the pair that fit worst."""
    same = _spread(train, len(generated))
    shape, floor = ([_shape(x[:, j], held_out[:, j], len(words)) for j, words in enumerate(columns.words)]
                    for x in (generated, same))
    results: dict[str, Any] = {
        "shapes": float(np.mean(shape)), "shapes_floor": float(np.mean(floor)),
        "shapes_worst": {"column": columns.names[int(np.argmin(shape))], "value": float(min(shape))}}
    pairs = [(i, j) for i, j in combinations(range(min(len(columns.names), _COLUMNS)), 2)
             if max(len(columns.words[i]), len(columns.words[j])) <= _MAX_WORDS]
    if not pairs:
        return results
    trend, floor = ([_trend(x, held_out, i, j, columns.words) for i, j in pairs] for x in (generated, same))
    worst = pairs[int(np.argmin(trend))]
    return {**results, "trends": float(np.mean(trend)), "trends_floor": float(np.mean(floor)),
            "trends_worst": {"columns": [columns.names[k] for k in worst], "value": float(min(trend))}}


def _shape(x: Array, y: Array, words: int) -> float:
    """1 − the distance of two samples of a column."""
    from scipy import stats

    return 1 - (_variation(_counts(x, words), _counts(y, words)) if words else float(stats.ks_2samp(x, y).statistic))


def _trend(x: Array, real: Array, i: int, j: int, words: Sequence[Sequence[str]]) -> float:
    """1 − the difference of two tables in the relation of two columns."""
    if not words[i] and not words[j]:
        return 1 - abs(_correlation(x[:, i], x[:, j]) - _correlation(real[:, i], real[:, j])) / 2
    tables = []
    for rows in (x, real):
        first, second = (_binned(rows[:, k], real[:, k], len(words[k])) for k in (i, j))
        width = len(words[j]) or _BINS
        tables.append(_counts(first * width + second, (len(words[i]) or _BINS) * width))
    return 1 - _variation(*tables)


def _correlation(x: Array, y: Array) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 0 and np.ptp(y) > 0 else 0.0


def _binned(x: Array, real: Array, words: int) -> Array:
    """Words as they are, numbers as tenths of the real ones."""
    edges = np.quantile(real, np.linspace(0, 1, _BINS + 1)[1:-1])
    return x if words else np.searchsorted(edges, x, side="right").astype(float)


def _counts(x: Array, size: int) -> Array:
    return np.bincount(x.astype(np.int64), minlength=size) / len(x)


def _variation(p: Array, q: Array) -> float:
    return float(np.abs(p - q).sum()) / 2


def _utility(columns: MixedColumns, train: Array, held_out: Array, generated: Array) -> dict[str, dict[str, float]]:
    """By column the score on held-out rows of forests that were trained on generated and on training rows.

    The columns are words first, at most six.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    order = sorted(range(len(columns.names)), key=lambda j: not columns.words[j])
    varying = [j for j in order if len(np.unique(train[:, j])) > 1 and len(np.unique(generated[:, j])) > 1][:_TARGETS]
    scores: dict[str, dict[str, float]] = {}
    for j in varying if len(columns.names) > 1 else []:
        others = [k for k in range(len(columns.names)) if k != j]
        rest = MixedColumns(tuple(columns.names[k] for k in others), tuple(columns.words[k] for k in others))
        test = rest.features(held_out[:, others], train[:, others])
        for name, rows in (("synthetic", generated), ("real", _spread(train, len(generated)))):
            model = (RandomForestClassifier if columns.words[j] else RandomForestRegressor)(_TREES, random_state=0)
            model.fit(rest.features(rows[:, others], train[:, others]), rows[:, j])
            scores.setdefault(columns.names[j], {})[name] = float(model.score(test, held_out[:, j]))
    return scores


def _nearest(columns: MixedColumns, train: Array, held_out: Array, generated: Array) -> dict[str, Any]:
    """The fraction of generated rows that are nearer to a training row than to a held-out row; ½ without copies."""
    a, b, c = (torch.from_numpy(columns.features(x, train)) for x in (train, held_out, generated))
    to_train, to_real = metrics.nearest_distance(c, a), metrics.nearest_distance(c, b)
    share = (to_train < to_real).double() + (to_train == to_real).double() / 2
    return {"nearest_share": float(share.mean()), "nearest_share_floor": 0.5,
            "nearest_share_floor_std": 0.5 / len(c) ** 0.5}


def _impossible(columns: MixedColumns, train: Array, held_out: Array, generated: Array) -> dict[str, Any]:
    """Pairs of words that no real row has: the most frequent, and the fraction of rows with one.

    The floor is the fraction of held-out rows with a pair that no training row has.
    """
    words = [j for j, w in enumerate(columns.words) if 1 < len(w) <= _MAX_WORDS]
    counts: Counter[tuple[int, int, int, int]] = Counter()
    new, unseen = np.zeros(len(generated), np.bool_), np.zeros(len(held_out), np.bool_)
    for i, j in combinations(words, 2):
        width = len(columns.words[j])
        in_train, in_held_out, in_generated = ((x[:, i] * width + x[:, j]).astype(np.int64)
                                               for x in (train, held_out, generated))
        unseen |= ~np.isin(in_held_out, in_train)
        odd = ~np.isin(in_generated, np.concatenate([in_train, in_held_out]))
        new |= odd
        counts.update((i, j, *divmod(code, width)) for code in in_generated[odd].tolist())
    if len(words) < 2:
        return {}
    listed = [{"columns": [columns.names[i], columns.names[j]], "words": [columns.words[i][a], columns.words[j][b]],
               "rows": n} for (i, j, a, b), n in counts.most_common(_LISTED)]
    return {"impossible": float(new.mean()), "impossible_floor": float(unseen.mean()), "impossible_pairs": listed}


def _spread(x: Array, count: int) -> Array:
    """At most `count` of the rows, evenly spaced."""
    return x[np.unique(np.linspace(0, len(x) - 1, min(len(x), count)).round().astype(np.int64))]
