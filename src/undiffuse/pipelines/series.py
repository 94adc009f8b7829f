"""Series: missing values of a long table, and forecasts, from the model of its windows.

A series is filled window by window, each conditioned on what the windows before it have drawn, so that one draw is one
series. A forecast is the imputation of steps after the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data.sources import series_cells
from undiffuse.data.windows import Piece, SeriesTable, series_table
from undiffuse.errors import InputError, quote
from undiffuse.inverse.series_imputer import NAME, SeriesImputer
from undiffuse.model import Model
from undiffuse.transforms.series_schema import SeriesSchema
from undiffuse.transforms.table_cells import Cells

METHODS = ("auto", "corrected", "linear")
"""How a series is filled: by the Gaussian law of windows ("linear"), or, "auto" and "corrected", with its learned
correction where that was better on held-out windows."""
_STREAMS = 1 << 24  # of random numbers, per stretch of a series

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forecast:
    """Draws of the future of one or several series.

    Args:
        x: draws (draws, rows, C) in data units; the rows are the steps after the last one, series by series.
        times: text of the time of every row.
        groups: series of every row; "" for one series.
        schema: columns and times.
    """

    x: Tensor
    times: tuple[str, ...]
    groups: tuple[str, ...]
    schema: SeriesSchema

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return self.schema.table.columns

    @property
    def mean(self) -> Tensor:
        """Mean over the draws (rows, C)."""
        return self.x.mean(0)

    def quantile(self, q: float) -> Tensor:
        """Quantile over the draws (rows, C), 0 < q < 1."""
        return torch.from_numpy(np.quantile(self.x.numpy(), q, axis=0, method="weibull"))

    def texts(self, interval: float = 0.9) -> tuple[list[str], list[list[str]]]:
        """Header and rows of a table: time, series, and of every column median, low and high end of an interval.

        Args:
            interval: fraction of the draws inside the interval.
        """
        middle, low, high = (self.quantile(q) for q in (0.5, (1 - interval) / 2, (1 + interval) / 2))
        header, keys = self._keys()
        header += [name + end for name in self.columns for end in ("", "_low", "_high")]
        values = torch.stack([middle, low, high], 2).flatten(1).tolist()
        return header, [[*key, *(format(v, ".9g") for v in row)] for key, row in zip(keys, values, strict=True)]

    def draw(self, k: int) -> tuple[list[str], list[list[str]]]:
        """Header and rows of draw k, in the notation of the training table."""
        names, cells = self.schema.table.cells(self.x[k])
        header, keys = self._keys()
        return [*header, *names], [[*key, *row] for key, row in zip(keys, cells, strict=True)]

    def frame(self, interval: float = 0.9) -> Any:
        """The table of `texts` as a pandas DataFrame; times are parsed where they are dates."""
        pandas = import_module("pandas")

        header, rows = self.texts(interval)
        frame = pandas.DataFrame(rows, columns=header)
        keys = self._keys()[0]
        frame[header[len(keys):]] = frame[header[len(keys):]].astype(float)
        date = self.schema.time.date if self.schema.time else None
        if date is not None and "%q" not in date.pattern:
            frame[keys[0]] = pandas.to_datetime(frame[keys[0]], format=date.pattern)
        return frame

    def _keys(self) -> tuple[list[str], list[list[str]]]:
        names = [self.schema.time.name if self.schema.time else "step"]
        if self.schema.group is None:
            return names, [[time] for time in self.times]
        return [*names, self.schema.group], [list(pair) for pair in zip(self.times, self.groups, strict=True)]


def is_series(model: Model) -> bool:
    """Whether a model is one of windows of a series."""
    return model.array is not None and model.array.windows is not None


def open_series(model: Model, source: Any) -> SeriesTable:
    """The rows of a series on the grid of a model; InputError if it has no column of the model.

    Args:
        model: model of windows of a series.
        source: a table in a file, a DataFrame with the columns of the training table, an array (steps, C), or rows
            that are open.
    """
    return source if isinstance(source, SeriesTable) else series_table(_cells(model, source), schema_of(model))


def schema_of(model: Model) -> SeriesSchema:
    """The columns and the grid of a model of windows; InputError for another model."""
    if model.array is None or model.array.windows is None:
        raise InputError("got a model that was not trained on a series; train it with time and window, such as "
                         "undiffuse train series.csv --time date --window 48")
    return SeriesSchema.from_config(model.array.windows)


def imputer_of(model: Model) -> SeriesImputer:
    """The imputer of a run of a series; InputError for a run without one."""
    folder: Any = getattr(model, "folder", None)
    path = None if folder is None else Path(folder) / NAME
    if path is None or not path.is_file():
        raise InputError("got a model of windows without its imputer: the training was interrupted, or the windows are "
                         "too large; resume the run, or train with fewer columns or a shorter window")
    return SeriesImputer.load(path)


def fill_rows(model: Model, table: SeriesTable, draws: int, seed: int = 0, method: str = "auto") -> Array:
    """Draws (draws, N, C) of the rows of a table, in data units; observed values are unchanged.

    Args:
        model: model of windows.
        table: the rows.
        draws: number of draws; draw i does not depend on it.
        seed: seed of the random numbers.
        method: one of `METHODS`.
    """
    corrected, imputer = _corrected(method, draws), imputer_of(model)
    out = np.broadcast_to(table.rows.values, (draws, *table.rows.values.shape)).copy()
    for k, piece in enumerate(table.pieces):
        if np.isnan(piece.values).any():
            x = _draw(model, imputer, piece, draws, seed, 0, corrected, k * _STREAMS)
            place = piece.rows >= 0
            out[:, piece.rows[place]] = x[:, place]
    return np.where(np.isnan(table.rows.values), out, table.rows.values)


def forecast(model: Model, history: Any, horizon: int, draws: int = 100, *, seed: int = 0, method: str = "auto",
             future: Any = None) -> Forecast:
    """The future of a series: draws of the `horizon` steps after its last one.

    Args:
        model: a model of windows of a series, from `train` with time and window.
        history: the series up to now, with gaps or without: a table in a file, a DataFrame, or an array (steps, C) for
            a model of a series without times.
        horizon: number of steps; beyond half a window they are drawn half a window at a time, each part given the one
            before.
        draws: number of draws; draw i of a seed does not depend on it.
        seed: seed of the random numbers.
        method: one of `METHODS`.
        future: what is known of the steps after the last one, such as a calendar or planned values: rows with the
            columns of the series, empty where unknown.

    Returns:
        The draws, with the times of their rows.

    Raises:
        InputError: if the series does not match the model, and for a horizon or a number of draws below 1.
    """
    if horizon < 1:
        raise InputError(f"got horizon={horizon}; expected at least 1 step")
    corrected, imputer, table = _corrected(method, draws), imputer_of(model), open_series(model, history)
    plans = None if future is None else open_series(model, future)
    parts, times, groups = list[Array](), list[str](), list[str]()
    for k, group in enumerate(table.groups):
        past = [piece for piece in table.pieces if piece.group == k][-1]
        end = past.start + len(past.values)
        ahead = _future(plans, group, end, horizon, past.values.shape[1])
        piece = Piece(k, past.start, np.concatenate([past.values, ahead]), past.rows)
        x = _draw(model, imputer, piece, draws, seed, horizon, corrected, k * _STREAMS)[:, -horizon:]
        parts.append(np.where(np.isnan(ahead), x, ahead))
        times += [table.schema.time_text(end + step) for step in range(horizon)]
        groups += [group] * horizon
    return Forecast(torch.from_numpy(np.concatenate(parts, 1)), tuple(times), tuple(groups), table.schema)


def impute_frames(model: Model, frame: Any, draws: int = 10, *, seed: int = 0, method: str = "auto") -> list[Any]:
    """Copies of a DataFrame with the missing values of its series filled in, one copy per draw.

    Args:
        model: a model of windows of a series.
        frame: a DataFrame with the columns of the training table.
        draws: number of copies.
        seed: seed of the random numbers.
        method: one of `METHODS`.
    """
    table = open_series(model, frame)
    x, copies = fill_rows(model, table, draws, seed, method), []
    for values in x:
        copy = frame.copy()
        for j, name in enumerate(table.schema.table.columns):
            if name in copy.columns:
                copy[name] = copy[name].where(~table.rows.missing[:, j], values[:, j])
        copies.append(copy)
    return copies


class SeriesScores(NamedTuple):
    """How likely the windows and the steps of a series are under the Gaussian law of the run's windows.

    Args:
        windows: group, first step, observed values, log-density, and surprise of every window (n, 5).
        steps: group, step, row of the table (−1: none), observed values, log-density given the steps before it in a
            window, and surprise of every step (N, 6). A surprise is the log-density that is expected less that which
            is, in units of its standard deviation.
        table: the series.
    """

    windows: Array
    steps: Array
    table: SeriesTable


def score_series(model: Model, source: Any) -> SeriesScores:
    """The scores of windows that overlap by half, and of every step with at least half a window before it, but for the
    first window of a stretch, whose steps have less.

    Args:
        model: model of windows of a series.
        source: see `open_series`.
    """
    table, law = open_series(model, source), imputer_of(model).law
    windows, steps = list[list[float]](), list[list[float]]()
    T = table.schema.window
    for piece in table.pieces:
        x = torch.from_numpy(piece.values)
        z = model.transform.forward(x[None])[0].double()
        slopes = model.transform.log_det(x[:, None])
        done = 0
        for start in [*range(0, len(x) - T, T // 2), len(x) - T] if len(x) >= T else ():
            log_prob, surprise, count = law.step_scores(z[:, start:start + T], piece.start + start)
            log_prob = log_prob + slopes[start:start + T]
            windows.append([piece.group, piece.start + start, float(count.sum()), float(log_prob.sum()),
                            _standardised(float(surprise.sum()), float(count.sum()))])
            steps += [[piece.group, piece.start + t, float(piece.rows[t]), float(count[t - start]),
                       float(log_prob[t - start]), _standardised(float(surprise[t - start]), float(count[t - start]))]
                      for t in range(done, start + T)]
            done = start + T
    if not windows:
        raise InputError(f"got a series without a stretch of {T} steps, a window of the run; give a longer one")
    return SeriesScores(np.array(windows), np.array(steps), table)


def _standardised(surprise: float, count: float) -> float:
    """Σ ½(u² − 1) of a number of normals in standard deviations, which is √(count/2)."""
    return float(surprise / max(count / 2, 0.5) ** 0.5)


def _cells(model: Model, source: Any) -> Cells:
    schema = schema_of(model)
    cells = series_cells(source, schema.table.options, names=schema.table.order)
    for name in (schema.time.name if schema.time else None, schema.group):
        if name is not None and name not in cells.columns:
            raise InputError(f"{quote(cells.path)} has no column {quote(name)}, which the run reads a series by; it "
                             f"has {', '.join(map(quote, cells.columns[:8]))}")
    return cells


def _draw(model: Model, imputer: SeriesImputer, piece: Piece, draws: int, seed: int, future: int, corrected: bool,
          stream: int) -> Array:
    """Draws (draws, steps, C) of a stretch in data units."""
    z = model.transform.forward(torch.from_numpy(piece.values)[None])[0]
    drawn = imputer.series(z, piece.start, draws, seed, future, corrected, stream)
    return np.asarray(model.transform.inverse(drawn).double().numpy())


def _future(plans: SeriesTable | None, group: str, start: int, horizon: int, columns: int) -> Array:
    """What is known of the steps after the last one (horizon, C), NaN elsewhere."""
    ahead = np.full((horizon, columns), np.nan)
    if plans is None or group not in plans.groups:
        return ahead
    for piece in plans.pieces:
        if plans.groups[piece.group] == group:
            at = piece.start - start + np.arange(len(piece.values))
            inside = (at >= 0) & (at < horizon)
            ahead[at[inside]] = piece.values[inside]
    return ahead


def _corrected(method: str, draws: int) -> bool:
    if method not in METHODS or draws < 1:
        raise InputError(f"got method={method!r} and draws={draws}; expected one of {', '.join(METHODS)} for a series, "
                         f"and at least 1 draw")
    return method != "linear"


def write_text(header: Sequence[str], rows: Sequence[Sequence[str]], separator: str) -> bytes:
    """A table as the text of a file."""
    from undiffuse.pipelines.csv_text import cell

    return "".join(separator.join(cell(text, separator) for text in row) + "\n" for row in (header, *rows)).encode()
