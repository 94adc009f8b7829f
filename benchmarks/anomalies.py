"""Anomalies of tables: our detector beside nearest neighbours, LOF, an isolation forest and a one-class SVM."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from undiffuse.errors import InputError
from undiffuse.estimators import Detector

Array = NDArray[np.float64]
TRAIN, TEST = 5_000, 10_000  # most rows to train on and to test on; all methods get the same ones
SVM_ROWS = 3_000


def table(*words: str) -> Iterator[str]:
    """Lines of a Markdown table: area under the ROC curve in percent of every table, and the means.

    words: a folder of .npz files with X (N, D) and y (N,), 1 for anomalies; then the number of seeds (default 3). Half
    of the normal rows are trained on, the others and all anomalies are tested, the same rows by all methods.
    """
    if not words or not (files := sorted(Path(words[0]).glob("*.npz"))):
        raise InputError(f"got {' '.join(words)!r}; expected a folder of .npz files with X and y")
    seeds = int(words[1]) if len(words) > 1 else 3
    yield f"| table | {' | '.join(METHODS)} |"
    yield "|---" * (1 + len(METHODS)) + "|"
    means, seconds = [], np.zeros(len(METHODS))
    for file in files:
        scores = np.array([_areas(file, seed, seconds) for seed in range(seeds)])
        means.append(scores.mean(0))
        yield f"| {file.stem} | {' | '.join(f'{v:.1f}' for v in means[-1])} |"
    rows = np.array(means)
    for name, part in (("mean", rows), ("mean of the 1st, 3rd, ...", rows[::2]), ("mean of the others", rows[1::2])):
        yield f"| {name} ({len(part)}) | {' | '.join(f'{v:.2f}' for v in part.mean(0))} |"
    yield f"| CPU seconds | {' | '.join(f'{s:.0f}' for s in seconds)} |"


def _areas(file: Path, seed: int, seconds: Array) -> list[float]:
    """The area of every method on one split; adds its CPU seconds."""
    train, test, anomalous = split(file, seed)
    areas = []
    for k, method in enumerate(METHODS.values()):
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            areas.append(100 * float(roc_auc_score(anomalous, method(train, test, seed))))
        seconds[k] += time.process_time() - start
    return areas


def split(file: Path, seed: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Training rows, test rows, and which of these are anomalies."""
    with np.load(file) as data:
        x, y = data["X"].astype(np.float64), data["y"].astype(bool)
    rng = np.random.default_rng(seed)
    normal, anomalies = rng.permutation(np.flatnonzero(~y)), rng.permutation(np.flatnonzero(y))
    half = len(normal) // 2
    rest = normal[half:]
    share = min(1.0, TEST / (len(rest) + len(anomalies)))
    rest, anomalies = rest[: max(50, int(share * len(rest)))], anomalies[: max(50, int(share * len(anomalies)))]
    test = np.concatenate([rest, anomalies])
    return x[normal[:half][:TRAIN]], x[test], y[test]


def ours(train: Array, test: Array, seed: int) -> Array:
    """`Detector`."""
    return -Detector(random_state=seed).fit(train).score_samples(test)


def neighbours(train: Array, test: Array, standardise: bool, mean: bool) -> Array:
    """The distance to the fifth nearest training row, or the mean distance to five."""
    scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(train)
    k = min(5, len(train))
    distances = NearestNeighbors(n_neighbors=k).fit(scaler.transform(train)).kneighbors(scaler.transform(test))[0]
    return np.asarray(distances.mean(1) if mean else distances[:, -1])


def lof(train: Array, test: Array, seed: int) -> Array:
    """The local outlier factor, 20 neighbours, standardised columns."""
    scaler = StandardScaler().fit(train)
    model = LocalOutlierFactor(min(20, len(train) - 1), novelty=True).fit(scaler.transform(train))
    return -np.asarray(model.decision_function(scaler.transform(test)))


def forest(train: Array, test: Array, seed: int) -> Array:
    """An isolation forest."""
    return -np.asarray(IsolationForest(random_state=seed).fit(train).decision_function(test))


def svm(train: Array, test: Array, seed: int) -> Array:
    """A one-class support vector machine, standardised columns."""
    scaler = StandardScaler().fit(train)
    model = OneClassSVM(gamma="scale").fit(scaler.transform(train[:SVM_ROWS]))
    return -np.asarray(model.decision_function(scaler.transform(test)))


METHODS: dict[str, Callable[[Array, Array, int], Array]] = {
    "undiffuse": ours,
    "5-NN, mean distance": lambda a, b, seed: neighbours(a, b, True, True),
    "5-NN, 5th distance": lambda a, b, seed: neighbours(a, b, True, False),
    "5-NN, unscaled": lambda a, b, seed: neighbours(a, b, False, True),
    "LOF": lof, "isolation forest": forest, "one-class SVM": svm,
}
