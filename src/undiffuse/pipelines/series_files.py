"""Files of series: forecasts with quantiles, draws and a figure; scores of windows and steps; samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse import training
from undiffuse.atomic_files import atomic, atomic_folder, atomic_set, check_places
from undiffuse.model import Model
from undiffuse.pipelines.impute import check_folder
from undiffuse.pipelines.series import Forecast, forecast, open_series, score_series, write_text
from undiffuse.progress import say
from undiffuse.report.series_plots import forecast_figure, scores_picture
from undiffuse.transforms.series_schema import SeriesSchema

_SHOWN = 4  # horizons of history in the figure


def forecast_file(run: Path, table: Path, out: Path, horizon: int, draws: int = 100, seed: int = 0,
                  interval: float = 0.9, method: str = "auto", known: Path | None = None,
                  device: str = "auto") -> list[Path]:
    """Write forecast.csv, draws.csv and forecast.png into a folder; returns their paths.

    Args:
        run: folder of the run.
        table: the series up to now.
        out: folder to write, new or empty.
        horizon: number of steps.
        draws: number of draws.
        seed: seed of the random numbers.
        interval: fraction of the draws inside the interval.
        method: see `series.METHODS`.
        known: a table with what is known of the steps to come; None: nothing.
        device: device of the model.

    Raises:
        InputError: if the series does not match the run, or the folder is not empty.
    """
    check_folder(out, draws, interval)
    model = training.load(run, device=device)
    history = open_series(model, table)
    for note in (*history.cells.notes, *history.notes):
        say(note)
    future = forecast(model, history, horizon, draws, seed=seed, method=method, future=known)
    separator = history.schema.table.separator
    past = [piece for piece in history.pieces if piece.group == 0][-1].values[-_SHOWN * horizon:]
    files = {"forecast.csv": write_text(*future.texts(interval), separator), "draws.csv": _draws(future, separator),
             "forecast.png": forecast_figure(past, future.x[:, :horizon].numpy(), future.columns, interval,
                                             history.groups[0])}
    with atomic_folder(out) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return [out / name for name in files]


def score_file(model: Model, source: str, out: Path, rank: bool) -> str:
    """Write the scores of windows into `out` (.csv), those of steps beside it (-steps.csv), and a figure (.png).

    Args:
        model: model of windows of a series.
        source: the series.
        out: the table to write.
        rank: sort windows and steps by their surprise, the largest first.

    Returns:
        A summary: the mean log-density per window, and the most unusual windows and steps.
    """
    steps_out, picture = out.with_name(f"{out.stem}-steps.csv"), out.with_suffix(".png")
    check_places([out, steps_out, picture], [source])
    scores = score_series(model, source)
    schema, groups = scores.table.schema, scores.table.groups
    windows, steps = (x[(-x[:, -1]).argsort(kind="stable")] if rank else x for x in (scores.windows, scores.steps))
    name = schema.time.name if schema.time else "step"
    keys = [name] if schema.group is None else [name, schema.group]

    def rows(x: NDArray[np.float64], first: int) -> list[list[str]]:
        place = (-x[:, -1]).argsort(kind="stable").argsort() + 1
        return [[schema.time_text(int(row[1])), *[groups[int(row[0])]] * (len(keys) - 1),
                 *(format(v, ".9g") for v in row[first:]), str(k)] for row, k in zip(x, place, strict=True)]

    columns = ["observed", "log_prob", "surprise", "rank"]
    steps = steps.copy()
    steps[:, 2] += 1
    with atomic_set([out, steps_out, picture]) as (first, second, figure):
        first.write(write_text([*keys, *columns], rows(windows, 2), schema.table.separator))
        second.write(write_text([*keys, "row", *columns], rows(steps, 2), schema.table.separator))
        figure.write(scores_picture(scores.table.pieces[0].values, scores.steps, schema.table.columns,
                                    scores.table.pieces[0].start))
    unusual = [", ".join(schema.time_text(int(row[1])) for row in x[(-x[:, -1]).argsort(kind="stable")][:5])
               for x in (windows, steps)]
    return (f"{len(windows)} windows of {schema.window} steps: mean log-density {windows[:, 3].mean():.4f} nats\n"
            f"most unusual windows begin at {unusual[0]}\nmost unusual steps: {unusual[1]}\n"
            f"{out}, {steps_out} and {picture}")


def save_windows(path: Path, x: Tensor, schema: SeriesSchema) -> Path:
    """Write samples (n, T, C) as a table: number of the window, step, and the columns as they are written.

    Args:
        path: the file, .csv.
        x: samples in data units.
        schema: columns of the series.
    """
    header, rows = ["window", "step"], list[list[str]]()
    for k, window in enumerate(x):
        names, cells = schema.table.cells(window)
        rows += [[str(k + 1), str(t + 1), *row] for t, row in enumerate(cells)]
    with atomic(path) as file:
        file.write(write_text([*header, *names], rows, schema.table.separator))
    return path


def _draws(future: Forecast, separator: str) -> bytes:
    """All draws, one below the other, with their number in the first column."""
    header, rows = future.draw(0)[0], list[list[str]]()
    for k in range(len(future.x)):
        rows += [[str(k + 1), *row] for row in future.draw(k)[1]]
    return write_text(["draw", *header], rows, separator)
