"""Draws the picture of the page on simulators: `python docs/make_simulator_figures.py` (no arguments, a minute)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import undiffuse as ud

Array = NDArray[np.float64]

LOW, HIGH, TRUE = [0.1, 0.05], [1.0, 0.5], (0.5, 0.15)
REAL, MADE = "#4c6ef5", "#e8590c"


def epidemic(rng: np.random.Generator, theta: Array) -> Array:
    """Infected persons of 1,000 on ten days, from rates of contact and recovery (N, 2)."""
    healthy, ill, days = np.full(len(theta), 990), np.full(len(theta), 10), []
    for _ in range(60):
        new = rng.binomial(healthy, 1 - np.exp(-theta[:, 0] * ill / 1000))
        well = rng.binomial(ill, 1 - np.exp(-theta[:, 1]))
        healthy, ill = healthy - new, ill + new - well
        days.append(ill)
    return np.stack(days[5::6], 1).astype(np.float64)


def picture() -> Figure:
    """Draws given one epidemic, and the coverage of 200 held-out ones."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(LOW, HIGH, (2000, 2))
    posterior = ud.infer(theta, epidemic(rng, theta), (LOW, HIGH), held_out=300, progress=False)
    draws = posterior.sample(2000, x=epidemic(rng, np.array([TRUE]))[0])
    checked = posterior.check(200)
    print(checked.verdict)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(draws[:, 0], draws[:, 1], s=5, color=MADE, alpha=0.4, label="draws given one epidemic")
    left.scatter(*TRUE, s=60, marker="x", color="black", label="its true rates", zorder=3)
    left.set(xlabel="rate of contact", ylabel="rate of recovery")
    left.legend(frameon=False)
    grid = np.linspace(0, 1, 201)
    error = 2 * np.sqrt(grid * (1 - grid) / checked.simulations)
    right.fill_between(grid, grid - error, grid + error, color="#adb5bd", alpha=0.4, lw=0, label="two standard errors")
    right.plot(grid, grid, color="#868e96", lw=1, ls="dashed")
    right.plot(grid, (checked.nearer[:, None] < grid).mean(0), color=REAL, label="regions around random points")
    for j, name in enumerate(("contact", "recovery")):
        ranks = np.abs((checked.ranks[:, j] + 0.5) / (checked.draws + 1) - 0.5) * 2
        right.plot(grid, (ranks[:, None] < grid).mean(0), lw=1, label=f"intervals of the rate of {name}")
    right.set(xlabel="level", ylabel="true rates inside", xlim=(0, 1), ylim=(0, 1))
    right.legend(frameon=False)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    picture().savefig(Path(__file__).parent / "figures" / "simulators.png", dpi=110)
