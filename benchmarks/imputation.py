"""Imputation of three bundled tables: the default recipe beside scikit-learn's IterativeImputer and the mean."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets

from undiffuse import recipes, training
from undiffuse.pipelines import impute
from undiffuse.random import Purpose, uniform

Array = NDArray[np.float64]
DRAWS = 19  # the lowest and the highest of 19 draws are the ends of an interval that holds 90 %
MISSING = 0.3
TABLES: dict[str, Callable[[], Any]] = {
    "wine": datasets.load_wine, "breast-cancer": datasets.load_breast_cancer,
    "diabetes": lambda: datasets.load_diabetes(scaled=False)}


def table(*words: str) -> Iterator[str]:
    """Lines of a Markdown table: CRPS and coverage of 90 % intervals, mean over seeds and its standard error.

    words: names of tables (default: all), and the number of seeds (default 5).
    """
    seeds = next((int(w) for w in words if w.isdigit()), 5)
    yield "| table | method | CRPS | coverage of 90 % intervals |"
    yield "|---|---|---|---|"
    for name in [w for w in words if not w.isdigit()] or list(TABLES):
        whole = np.asarray(TABLES[name]().data, np.float64)
        for method, fill in (("undiffuse", ours), ("IterativeImputer", iterative), ("mean", mean)):
            found = np.array([_scores(whole, seed, fill) for seed in range(seeds)])
            crps, cover = ((f"{v.mean():.4f} ± {v.std() / np.sqrt(len(v)):.4f}") for v in found.T)
            yield f"| {name} | {method} | {crps} | {cover if method != 'mean' else '–'} |"


def _scores(whole: Array, seed: int, fill: Callable[[Array, int], Array]) -> tuple[float, float]:
    """CRPS in standard deviations of the column, and the share of hidden cells inside of their interval."""
    hidden = uniform(seed, Purpose.DATA, 30, 0, len(whole), (whole.shape[1],)).numpy() < MISSING
    draws = fill(np.where(hidden, np.nan, whole), seed)
    units = np.broadcast_to(whole.std(0), whole.shape)[hidden]
    truth, some = whole[hidden] / units, draws[:, hidden] / units
    inside = (some.min(0) <= truth) & (truth <= some.max(0))
    return float(crps(some, truth).mean()), float(inside.mean())


def crps(draws: Array, truth: Array) -> Array:
    """E|X − y| − ½ E|X − X'| from draws (k, n), without bias for any k; |X − y| for one draw.

    Reference: Gneiting and Raftery (2007), eq. 21; Zamo and Naveau (2018), eq. 3 (PWM).
    """
    k = len(draws)
    error = np.abs(draws - truth).mean(0)
    if k == 1:
        return np.asarray(error)
    weights = (2 * np.arange(1, k + 1) - k - 1)[:, None] / (k * (k - 1))
    return np.asarray(error - (weights * np.sort(draws, 0)).sum(0))


def ours(gaps: Array, seed: int) -> Array:
    """`undiffuse train table.csv`, then the draws of `undiffuse impute`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        lines = [",".join("" if np.isnan(v) else repr(float(v)) for v in row) for row in gaps]
        path.write_text("\n".join([",".join(f"c{j}" for j in range(gaps.shape[1])), *lines]))
        experiment = recipes.for_data(path, seed=seed, device="cpu")
        model = training.train(experiment, Path(folder) / "run", progress=False).eval().requires_grad_(False)
        return impute.impute(model, torch.from_numpy(gaps), DRAWS, seed=seed).numpy()


def iterative(gaps: Array, seed: int) -> Array:
    """Chained Bayesian ridge regressions fitted once, and as many passes of draws from their posteriors."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer = IterativeImputer(sample_posterior=True, random_state=seed).fit(gaps)
        return np.stack([imputer.transform(gaps) for _ in range(DRAWS)])


def mean(gaps: Array, seed: int) -> Array:
    """The mean of what is there."""
    return np.where(np.isnan(gaps), np.nanmean(gaps, 0), gaps)[None]
