"""Forecasts of series as files: quantiles, draws and a figure."""

from __future__ import annotations

from pathlib import Path

import torch

from undiffuse import training
from undiffuse.atomic_files import atomic_folder
from undiffuse.pipelines.impute import check_folder
from undiffuse.pipelines.series import Forecast, forecast, open_series, write_text
from undiffuse.progress import say
from undiffuse.report.series_plots import forecast_figure

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
    future = forecast(model, table, horizon, draws, seed=seed, method=method, future=known)
    separator = history.schema.table.separator
    past = [piece for piece in history.pieces if piece.group == 0][-1].values[-_SHOWN * horizon:]
    files = {"forecast.csv": write_text(*future.texts(interval), separator), "draws.csv": _draws(future, separator),
             "forecast.png": forecast_figure(past, future.x[:, :horizon].numpy(), future.columns, interval,
                                             history.groups[0])}
    with atomic_folder(out) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return [out / name for name in files]


def _draws(future: Forecast, separator: str) -> bytes:
    """All draws, one below the other, with their number in the first column."""
    header, rows = future.draw(0)[0], list[list[str]]()
    for k in range(len(torch.as_tensor(future.x))):
        rows += [[str(k + 1), *row] for row in future.draw(k)[1]]
    return write_text(["draw", *header], rows, separator)
