"""`undiffuse forecast RUN SERIES`."""

from __future__ import annotations

from pathlib import Path


def forecast(run: Path, series: Path, /, *, horizon: int, draws: int = 100, out: Path | None = None,
             known: Path | None = None, seed: int = 0, interval: float = 0.9, method: str = "auto",
             device: str = "auto") -> None:
    """Draw the steps of SERIES that follow its last one.

    Writes forecast.csv with median and interval of every column, draws.csv with all draws one below the other, and
    forecast.png with the last steps and the bands.

    Args:
        run: Folder of a run that was trained on a series, with --window.
        series: A table with the columns of the training table, up to now; it may have gaps.
        horizon: Number of steps.
        draws: Number of draws.
        out: Folder to write, new or empty; SERIES-forecast by default.
        known: A table with what is known of the steps to come, such as planned values; empty cells are unknown.
        seed: Seed of all random numbers.
        interval: Fraction of the draws inside an interval.
        method: linear (the Gaussian law of windows), corrected (by a network), or auto: whichever was better on
            held-out windows.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse.pipelines.series_files import forecast_file

    folder = out or series.with_name(f"{series.stem}-forecast")
    for path in forecast_file(run, series, folder, horizon, draws, seed, interval, method, known, device):
        print(path)
