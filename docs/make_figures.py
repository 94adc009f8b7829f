"""Draws the pictures of the README and the docs: `python docs/make_figures.py` (no arguments, about ten seconds)."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import undiffuse as ud

HERE = Path(__file__).parent / "figures"
LAW = ud.Mixture([0.25, 0.45, 0.3], [[-1.3], [0.25], [1.35]], [0.025, 0.04, 0.015])


def river() -> Figure:
    """The law of x_t for all t, with paths of the reverse SDE and of the probability-flow ODE from the same noise."""
    sde = ud.VP()
    model = LAW.denoiser(sde)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    sides = figure.subplots(1, 2, sharey=True)
    titles = ("Reverse SDE: same marginals, new noise at every step", "Probability-flow ODE: same marginals, no noise")
    for ax, method, title in zip(sides, ("euler_maruyama", "heun"), titles, strict=True):
        _density(ax, sde)
        out = ud.sample(model, 4000, method, 400, grid="time", seed=3, t_end=1e-3, denoise_last=False,
                        trajectory=True, block=4000)
        times = np.array([t for t, _ in out.trajectory])
        paths = torch.stack([x[:, 0] for _, x in out.trajectory]).numpy()
        ax.plot(times, paths[:, : 40 if method == "heun" else 12], color="white", lw=0.8, alpha=0.8)
        ax.set(title=title, xlabel="t  (1: noise, 0: data)", xlim=(1, -0.15), ylim=(-2.6, 2.6))
        bins = np.linspace(-2.6, 2.6, 80)
        height, _ = np.histogram(paths[-1], bins, density=True)
        ax.barh((bins[1:] + bins[:-1]) / 2, -0.1 * height, np.diff(bins), left=-0.004, color="#e8590c")
        x = torch.linspace(-2.6, 2.6, 400, dtype=torch.float64)
        ax.plot(-0.004 - 0.1 * LAW.log_prob(x[:, None]).exp(), x, color="black", lw=1)
        ax.spines[["top", "right"]].set_visible(False)
    sides[0].set_ylabel("x")
    return figure


def _density(ax: Axes, sde: ud.GaussianSDE) -> None:
    """The exact density of x_t as a picture, each column scaled to its own maximum."""
    times, grid = np.linspace(0, 1, 300), torch.linspace(-2.6, 2.6, 400, dtype=torch.float64)[:, None]
    columns = [LAW.diffused(sde, float(t)).log_prob(grid).exp().numpy() for t in np.maximum(times, 1e-4)]
    image = np.stack([c / c.max() for c in columns], 1) ** 0.6
    ax.imshow(image, origin="lower", aspect="auto", extent=(0, 1, -2.6, 2.6), cmap="viridis")


def main() -> None:
    """Writes all figures."""
    matplotlib.rcParams.update({"font.size": 11, "axes.titlesize": 11.5, "figure.dpi": 130})
    HERE.mkdir(exist_ok=True)
    river().savefig(HERE / "river.png", dpi=130)


if __name__ == "__main__":
    main()
