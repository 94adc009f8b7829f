"""Draws the picture of the page on anomalies: `python docs/make_anomaly_figures.py` (no arguments, seconds)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

from undiffuse.estimators import Detector
from undiffuse.random import Purpose, normal

ROWS, UNUSUAL, LEVELS, SIDE = "#212529", "#d9480f", 16, 160


def scores(ax: Axes) -> None:
    """The scores around 300 correlated points, and the contour of the threshold of one row in a hundred."""
    z = normal(0, Purpose.DATA, 0, 0, 300, (2,)).double().numpy()
    x = np.stack([z[:, 0], z[:, 0] ** 2 / 2 + 0.15 * z[:, 1]], 1)
    sides = np.linspace(-3.2, 3.2, SIDE), np.linspace(-1.5, 5, SIDE)
    grid = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)
    detector = Detector(contamination=0.01).fit(x)
    values = -detector.decision_function(grid).reshape(SIDE, SIDE)
    ax.contourf(*sides, values, levels=LEVELS, cmap="YlOrRd")
    ax.contour(*sides, values, levels=[0], colors=ROWS, linewidths=1)
    ax.scatter(*x.T, s=4, color=ROWS)
    ax.set(title="anomaly score; the line is the threshold", xticks=[], yticks=[])


def contributions(ax: Axes) -> None:
    """The share of every column in the score of a tumour with the radius of another one."""
    data = load_breast_cancer()
    row, names = data.data[100:101, :10].copy(), data.feature_names[:10]
    row[0, 0] *= 1.6
    shares = Detector().fit(np.delete(data.data[:, :10], 100, 0)).contributions(row)[0]
    ax.barh(names, shares, color=[UNUSUAL, *["#ced4da"] * 9])
    ax.set(title="the radius was changed", xlabel="share of the score")
    ax.invert_yaxis()


if __name__ == "__main__":
    torch.set_num_threads(1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for ax, draw in zip(figure.subplots(1, 2), (scores, contributions), strict=True):
        draw(ax)
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "figures" / "anomalies.png", dpi=100)
