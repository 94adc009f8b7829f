"""Draws the pictures of the page on fields and volumes: `python docs/make_field_figures.py` (minutes on one core)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import undiffuse as ud
from undiffuse.random import Purpose, normal
from undiffuse.report.array_sections import power_spectrum

REAL, MADE = "#4c6ef5", "#e8590c"
SEED = 11


def gaussian(n: int, *space: int, seed: int = SEED) -> Tensor:
    """Periodic Gaussian fields of unit variance with power ∝ (1 + |k|²)^{−1.7}."""
    waves = torch.meshgrid(*[torch.fft.fftfreq(size, 1 / size).double() for size in space], indexing="ij")
    gain = (1 + sum(k**2 for k in waves)) ** -0.85
    axes = tuple(range(1, len(space) + 1))
    noise = torch.fft.fftn(normal(seed, Purpose.DATA, 40, 0, n, space, torch.float64), dim=axes)
    return torch.fft.ifftn(noise * gain, dim=axes).real / gain.square().mean().sqrt()


def weather(n: int, seed: int = SEED) -> Tensor:
    """Invented maps (n, 24, 24, 2): rain in millimetres, whose logarithm is Gaussian, and a temperature in kelvin that
    falls where it rains."""
    wet, warm = gaussian(n, 24, 24, seed=seed), gaussian(n, 24, 24, seed=seed + 1)
    return torch.stack([3 * torch.exp(1.2 * wet), 285 + 4 * torch.tanh(warm) - 3 * wet], -1).float()


def show(ax: Axes, picture: Tensor, low: float, high: float, title: str = "") -> None:
    """One map without axes."""
    ax.imshow(np.ma.masked_invalid(picture.numpy()), vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
    ax.set_facecolor("#dddddd")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)


def maps() -> Figure:
    """Real and generated maps of rain, the spectra, and a hidden square filled in."""
    model = ud.train(weather(1200), layout="NHWC", steps=400, progress=False)
    new, made = weather(300, seed=SEED + 7), ud.sample(model, 300, seed=0).x
    gaps = new[:1].clone()
    gaps[:, 6:18, 6:18] = math.nan
    draws = ud.impute(model, gaps, 40, seed=1, steps=40)[:, 0]
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    grid = figure.add_gridspec(3, 7)
    for k in range(5):
        show(figure.add_subplot(grid[0, k]), new[k + 1, ..., 0].log(), -2, 4, "real" if k == 0 else "")
        show(figure.add_subplot(grid[1, k]), made[k, ..., 0].log(), -2, 4, "generated" if k == 0 else "")
    for k, (picture, title) in enumerate((
            (new[0, ..., 0].log(), "what was hidden"), (gaps[0, ..., 0].log(), "observed"),
            (draws[0, ..., 0].log(), "one draw"), (draws[1, ..., 0].log(), "another"),
            (draws[..., 0].log().mean(0), "mean of 40 draws"))):
        show(figure.add_subplot(grid[2, k]), picture, -2, 4, title)
    spread = draws[..., 0].log().std(0)
    show(figure.add_subplot(grid[2, 5]), spread, 0, 1.2, "standard deviation")
    for row, (name, j) in enumerate((("power of log rain", 0), ("power of temperature", 1))):
        ax = figure.add_subplot(grid[row, 5:])
        for x, colour, label in ((new, REAL, "real"), (made, MADE, "generated")):
            field = x[..., j].log() if j == 0 else x[..., j]
            wavenumber, power = power_spectrum(field[:, None])
            ax.loglog(wavenumber, power[0], color=colour, label=label, lw=3 if x is new else 1.5)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("cycles per map", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
    return figure


def slices() -> Figure:
    """Volumes of 12 x 12 x 12 with a hidden block: what was hidden, draws, their mean and standard deviation."""
    volumes = (4 * torch.tanh(1.5 * gaussian(400, 12, 12, 12))).float()
    model = ud.train(volumes[:390], layout="NDHW", steps=60, progress=False)
    hidden = volumes[395:396].clone()
    hidden[:, 3:9, 3:9, 3:9] = math.nan
    draws = ud.impute(model, hidden, 20, seed=1, steps=30)[:, 0]
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    rows = ((4, "slice 4"), (6, "slice 6"), (8, "slice 8"))
    axes = figure.subplots(len(rows), 6)
    for (at, name), line in zip(rows, axes, strict=True):
        pictures = ((volumes[395, at], "what was hidden"), (hidden[0, at], "observed"), (draws[0, at], "one draw"),
                    (draws[1, at], "another"), (draws[:, at].mean(0), "mean of 20 draws"))
        for ax, (picture, title) in zip(line, pictures, strict=False):
            show(ax, picture, -4, 4, title if at == rows[0][0] else "")
        show(line[5], draws[:, at].std(0), 0, 3, "standard deviation" if at == rows[0][0] else "")
        line[0].set_ylabel(name, fontsize=9)
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, draw in (("fields", maps), ("volumes", slices)):
        draw().savefig(Path(__file__).parent / "figures" / f"{name}.png", dpi=100)
