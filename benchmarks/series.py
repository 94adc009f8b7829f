"""Series: missing values and forecasts beside linear interpolation, the Gaussian law and autoregression.

The protocol of a public benchmark of imputation (TSI-Bench) on ETT_h1: months 1-14 train, 15-19 choose, 20-24 test, in
windows of 48 steps that do not overlap; values are missing in all parts; errors in standard deviations of training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from undiffuse.data.dataset import Dataset, fit_transform
from undiffuse.data.sources import series_cells
from undiffuse.data.windows import SeriesOptions, read_series
from undiffuse.errors import InputError
from undiffuse.inverse.series_imputer import SeriesImputer
from undiffuse.inverse.window_law import interpolate
from undiffuse.metrics import crps
from undiffuse.transforms.series_schema import SeriesSchema

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
WINDOW, HISTORY, HORIZON = 48, 72, 24
DRAWS, INSIDE = 100, 0.9
MONTHS = (14, 19, 24)  # the last month of training, choice and test
PATTERNS = {"points, 10 %": ("points", 0.1), "points, 50 %": ("points", 0.5),
            "subsequences, 50 %": ("subsequences", 0.5), "blocks, 50 %": ("blocks", 0.5)}
PUBLISHED = {"points, 10 %": "SAITS .144, CSDI .151", "points, 50 %": "SAITS .223, CSDI .318"}
RIDGES = (1.0, 10.0, 100.0, 1000.0)


def table(*words: str) -> Iterator[str]:
    """Lines of Markdown tables: mean absolute error, CRPS and share inside the 90 % interval of 100 draws.

    words: a table with a column of times and two years of rows, and optionally the name of that column, and a seed.
    """
    if not words or not Path(words[0]).is_file():
        raise InputError("got no table; expected `python -m benchmarks series ETTh1.csv [TIME] [SEED]`")
    seed = next((int(w) for w in words[1:] if w.isdigit()), 0)
    start = time.process_time()
    series = Series(words[0], next((w for w in words[1:] if not w.isdigit()), None))
    yield f"{Path(words[0]).name}: {len(series.x):,} steps of {len(series.schema.table.columns)} channels"
    yield from imputation(series, seed)
    yield from forecasts(series, seed)
    yield f"{time.process_time() - start:.0f} CPU seconds in all"


class Series:
    """A table of one series.

    Args:
        path: the table.
        name: name of the column of times; None: the first column.
    """

    def __init__(self, path: str, name: str | None) -> None:
        self.cells = series_cells(path)
        data = read_series(self.cells, SeriesOptions(name or self.cells.columns[0], WINDOW), Path(path).name)
        assert data.array is not None and data.array.windows is not None and data.starts is not None
        self.data, self.schema = data, SeriesSchema.from_config(data.array.windows)
        if int(data.starts[-1, 1] - data.starts[0, 1]) != len(data) - 1:
            raise InputError(f"got {path}, which has holes; expected one row per step")
        self.x = np.concatenate([data.x[:, 0].double().numpy(), data.x[-1, 1:].double().numpy()])
        self.first = int(data.starts[0, 1])
        self.month = np.array([self._month(k) for k in range(len(self.x))])

    def _month(self, k: int) -> int:
        assert self.schema.time is not None and self.schema.time.date is not None
        moment = self.schema.time.date.moment(self.schema.offset + (self.first + k) * self.schema.step)
        beginning = getattr(self, "beginning", None) or (moment.year, moment.month)
        self.beginning = beginning
        return 12 * (moment.year - beginning[0]) + moment.month - beginning[1]

    def part(self, k: int) -> slice:
        """The rows of training, choice or test: k = 0, 1, 2."""
        low = 0 if k == 0 else MONTHS[k - 1]
        rows = np.flatnonzero((self.month >= low) & (self.month < MONTHS[k]))
        return slice(int(rows[0]), int(rows[-1]) + 1)

    def windows(self, x: Array, part: slice, window: int, stride: int) -> Dataset:
        """Windows of rows of x."""
        at = np.arange(part.start, part.stop - window + 1, stride)
        rows = torch.from_numpy(np.stack([x[k:k + window] for k in at])).to(self.data.x.dtype)
        starts = torch.from_numpy(np.stack([np.zeros(len(at), np.int64), self.first + at], 1))
        return Dataset(rows, None, "array", self.data.name, columns=self.data.columns, array=self.data.array,
                       starts=starts)


class Fitted:
    """An imputer with its transform, fitted to training windows."""

    def __init__(self, series: Series, x: Array, window: int, stride: int = 1, choice_stride: int = 1) -> None:
        train, test = (series.windows(x, series.part(k), window, s) for k, s in ((0, stride), (1, choice_stride)))
        self.transform = fit_transform(train)
        assert train.starts is not None
        self.imputer = SeriesImputer.fit(self.transform.forward(train.x), train.starts, self.transform.forward(test.x),
                                         test.starts, series.schema.period)

    def draws(self, data: Dataset, seed: int, corrected: bool) -> Array:
        """Draws (draws, N, T, C) of windows, each by itself, in data units."""
        assert data.starts is not None
        z = self.imputer.windows(self.transform.forward(data.x), data.starts[:, 1], DRAWS, seed, corrected)
        return np.stack([self.transform.inverse(draw).double().numpy() for draw in z])


def imputation(series: Series, seed: int) -> Iterator[str]:
    """The lines of the table of missing values."""
    yield "| missing | method | MAE | CRPS | inside 90 % | CPU s |"
    yield "|---|---|---|---|---|---|"
    for label, (how, rate) in PATTERNS.items():
        hidden = hide(series.x.shape, how, rate, seed)
        x = np.where(hidden, np.nan, series.x)
        for stride in (1, WINDOW) if how == "points" else (1,):
            start = time.process_time()
            fitted = Fitted(series, x, WINDOW, stride)
            seconds = time.process_time() - start
            test, truth = (series.windows(v, series.part(2), WINDOW, WINDOW) for v in (x, series.x))
            scale = np.nanstd(x[series.part(0)], 0)
            gone = (test.x.isnan() & ~truth.x.isnan()).numpy()
            of = " (windows of training do not overlap)" * (stride > 1)
            for name, corrected in (("undiffuse", True), ("Gaussian alone", False)):
                draws = fitted.draws(test, seed + 1, corrected)
                scores = evaluate(draws / scale, truth.x.double().numpy() / scale, gone)
                yield row(label, name + of, scores, seconds)
            if stride == 1:
                linear = np.stack([interpolate(v.T).T.numpy() for v in test.x.double()]) / scale
                error = np.abs(linear - truth.x.double().numpy() / scale)[gone].mean()
                yield f"| {label} | linear interpolation | {error:.4f} | | | |"
                if label in PUBLISHED:
                    yield f"| {label} | published, on ETT_h1: {PUBLISHED[label]} | | | | |"


def forecasts(series: Series, seed: int) -> Iterator[str]:
    """The lines of the table of forecasts of 24 steps from 72, at origins 24 steps apart."""
    yield "| forecast of 24 steps | MAE | CRPS | inside 90 % | inside 50 % |"
    yield "|---|---|---|---|---|"
    total = HISTORY + HORIZON
    fitted = Fitted(series, series.x, total, 1, HORIZON // 4)
    test = series.windows(series.x, series.part(2), total, HORIZON)
    truth, scale = test.x.double().numpy(), series.x[series.part(0)].std(0)
    past = replace(test, x=test.x.clone())
    past.x[:, HISTORY:] = torch.nan
    ways: dict[str, Callable[[], Array]] = {"undiffuse": lambda: fitted.draws(past, seed, True),
            "Gaussian alone": lambda: fitted.draws(past, seed, False),
            "linear autoregression": lambda: autoregression(series, truth, seed),
            "seasonal naive": lambda: naive(series, truth, seed)}
    gone = np.zeros(truth.shape, np.bool_)
    gone[:, HISTORY:] = True
    for name, draws in ways.items():
        mae, score, inside, half = evaluate(draws() / scale, truth / scale, gone)
        yield f"| {name} | {mae:.4f} | {score:.4f} | {100 * inside:.1f} | {100 * half:.1f} |"


def hide(shape: tuple[int, ...], how: str, rate: float, seed: int) -> Mask:
    """Which values are missing: single ones, runs of 18 steps of a channel, or blocks of 6 steps of 3 channels."""
    rng = np.random.default_rng(seed)
    hidden = rng.random(shape) < rate
    if how == "points":
        return hidden
    hidden[:] = False
    steps, channels = (18, 1) if how == "subsequences" else (6, min(3, shape[1]))
    while hidden.mean() < rate:
        for _ in range(max(1, int((rate - hidden.mean()) * hidden.size / (steps * channels)))):
            t, c = rng.integers(0, shape[0]), rng.integers(0, shape[1] - channels + 1)
            hidden[t:t + steps, c:c + channels] = True
    return hidden


def evaluate(draws: Array, truth: Array, gone: Mask) -> tuple[float, float, float, float]:
    """Mean absolute error of the median, CRPS, and shares inside the intervals of 90 and 50 %."""
    some, y = draws[:, gone], truth[gone]
    low, first, middle, third, high = np.quantile(some, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0, method="weibull")
    return (float(np.abs(middle - y).mean()), float(crps(some, y).mean()), float(((low < y) & (y < high)).mean()),
            float(((first < y) & (y < third)).mean()))


def row(label: str, name: str, scores: tuple[float, float, float, float], seconds: float) -> str:
    """A line of the table of missing values."""
    return f"| {label} | {name} | {scores[0]:.4f} | {scores[1]:.4f} | {100 * scores[2]:.1f} | {seconds:.0f} |"


def naive(series: Series, truth: Array, seed: int) -> Array:
    """The values of the last period, and errors of the same kind drawn from training."""
    period = series.schema.period or HORIZON
    rng, train = np.random.default_rng(seed), series.x[series.part(0)]
    errors = train[period:] - train[:-period]
    at = rng.integers(0, len(errors) - HORIZON, (DRAWS, len(truth)))
    steps = at[..., None] + np.arange(HORIZON)
    draws = np.broadcast_to(truth, (DRAWS, *truth.shape)).copy()
    last = truth[:, HISTORY - period:HISTORY]
    draws[:, :, HISTORY:] = last[:, np.arange(HORIZON) % period] + errors[steps]
    return draws


def autoregression(series: Series, truth: Array, seed: int) -> Array:
    """Every channel from the last 72 steps of all channels, step by step, with normal errors; the ridge and the order
    are chosen by the error of one step on the months of choice."""
    scale = series.x[series.part(0)].std(0)
    train, choice = (series.x[series.part(k)] / scale for k in (0, 1))
    best: tuple[float, Any, int] = (np.inf, None, 0)
    for order in (3, 24, 48, HISTORY):
        (a, b), (u, v) = (_lags(part, order) for part in (train, choice))
        gram, right = a.T @ a, a.T @ b
        for ridge in RIDGES:
            weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), right)
            if (error := float(((u @ weights - v) ** 2).mean())) < best[0]:
                best = error, weights, order
    _, weights, order = best
    a, b = _lags(train, order)
    root = np.linalg.cholesky(np.cov((b - a @ weights).T))
    rng = np.random.default_rng(seed)
    draws = np.broadcast_to(truth / scale, (DRAWS, *truth.shape)).copy()
    for step in range(HISTORY, HISTORY + HORIZON):
        lags = draws[:, :, step - order:step].reshape(DRAWS, len(truth), -1)
        inputs = np.concatenate([np.ones((*lags.shape[:2], 1)), lags], 2)
        draws[:, :, step] = inputs @ weights + rng.normal(size=(DRAWS, len(truth), len(scale))) @ root.T
    return np.asarray(draws * scale)


def _lags(x: Array, order: int) -> tuple[Array, Array]:
    """1 and the last `order` steps of all channels, and the next step."""
    views = np.lib.stride_tricks.sliding_window_view(x, order, 0)[:-1].transpose(0, 2, 1).reshape(len(x) - order, -1)
    return np.concatenate([np.ones((len(views), 1)), views], 1), x[order:]
