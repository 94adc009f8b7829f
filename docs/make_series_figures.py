"""Draws the pictures of the page on series: `python docs/make_series_figures.py` (no arguments, a minute)."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

import undiffuse as ud
from undiffuse.report.series_plots import forecast_figure

FIGURES = Path(__file__).parent / "figures"
STEPS, COLUMNS, SEED = 2400, ["load", "heat"], 11
DRAWS, COLOUR, DARK = 200, "#d9480f", "#41525c"


def town() -> pd.DataFrame:
    """Hourly heat, and a load that falls with the heat, with a daily curve and slow weather."""
    rng, t = np.random.default_rng(SEED), np.arange(STEPS)
    weather = np.zeros((STEPS, 2))
    for k in range(1, STEPS):
        weather[k] = [0.97, 0.9] * weather[k - 1] + [0.35, 0.25] * rng.normal(size=2)
    heat = 12 + 5 * np.sin(2 * np.pi * (t - 9) / 24) + 2 * weather[:, 0]
    load = 30 - 0.9 * heat + 4 * np.cos(2 * np.pi * (t - 19) / 24) ** 2 * (1 + 0.3 * weather[:, 1]) + weather[:, 1]
    when = pd.date_range("2024-03-01", periods=STEPS, freq="h")
    return pd.DataFrame({"when": when, "load": load.round(2), "heat": heat.round(1)})


def gap(model: ud.Model, frame: pd.DataFrame) -> bytes:
    """Two days with a gap of ten hours in the load: draws, band and linear interpolation."""
    part = frame.iloc[-96:-48].copy()
    hidden = part["load"].copy()
    part.loc[part.index[18:28], "load"] = np.nan
    draws = ud.impute(model, part, DRAWS, seed=1).numpy()[:, :, 0]
    at = np.arange(48)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    ax = figure.subplots()
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    inside = (at > 16) & (at < 29)
    ax.fill_between(at, low, high, where=inside, color=COLOUR, alpha=0.2, lw=0, label="90 % of the draws")
    for draw in draws[:4]:
        ax.plot(at[17:29], draw[17:29], color=COLOUR, lw=0.7)
    ax.plot(at, part["load"], color=DARK, lw=1.5, label="observed")
    ax.plot(at[17:29], hidden.to_numpy()[17:29], "k:", lw=1.2, label="hidden")
    ax.plot(at[17:29], part["load"].interpolate().to_numpy()[17:29], color="#1971c2", lw=1, ls="--", label="linear")
    ax.set(xlabel="hours", ylabel="load")
    ax.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.16))
    ax.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


if __name__ == "__main__":
    torch.set_num_threads(1)
    frame = town()
    with tempfile.TemporaryDirectory() as folder:
        model = ud.train(frame.iloc[:-96], Path(folder) / "run", time="when", window=48, steps=100)
        past, truth = frame.iloc[:-72], frame.iloc[-72:-48]
        future = ud.forecast(model, past, 24, draws=DRAWS, seed=1)
        (FIGURES / "series_forecast.png").write_bytes(forecast_figure(
            past[COLUMNS].to_numpy()[-120:], future.x.numpy(), COLUMNS, truth=truth[COLUMNS].to_numpy()))
        (FIGURES / "series_gap.png").write_bytes(gap(model, frame))
