"""Figures of the course: densities over time, point clouds, curves, vector fields, histograms, image grids.

Every function returns a `PlotImage`, which displays in a notebook; scripts save it to the folder UNDIFFUSE_FIGURES.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from undiffuse.mixture import Mixture
from undiffuse.model import ReverseModel
from undiffuse.samplers.samples import Samples
from undiffuse.sde import GaussianSDE

COLOURS = ("#1c4e80", "#e8590c", "#2b8a3e", "#862e9c", "#868e96", "#c2255c")
"""Blue, orange, green, violet, grey, red: distinguishable, in this order, with all common kinds of colour vision."""

_STYLE: Any = {
    "font.size": 10, "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6, "axes.titlepad": 7,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
}
_numbers = itertools.count(1)


class PlotImage:
    """A figure as PNG bytes with an alternative text.

    If the environment variable UNDIFFUSE_FIGURES names a folder, every figure is also saved there, numbered.
    """

    suffix, kind = ".png", "image/png"

    def __init__(self, data: bytes, alt: str = "") -> None:
        self.data, self.alt = data, alt
        if folder := os.environ.get("UNDIFFUSE_FIGURES"):
            self.save(Path(folder) / f"{next(_numbers):02d}{self.suffix}")

    def save(self, path: Path | str) -> None:
        """Write the image to a file."""
        Path(path).write_bytes(self.data)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        coded = base64.b64encode(self.data).decode()
        return {self.kind: coded, "text/plain": self.alt}


class Animation(PlotImage):
    """A looping GIF."""

    suffix, kind = ".gif", "image/gif"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        coded = base64.b64encode(self.data).decode()
        return {"text/html": f'<img alt="{self.alt}" src="data:image/gif;base64,{coded}">', "text/plain": self.alt}


def panels(n: int, height: float = 3.0, width: float = 9.6, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with n axes side by side, in the style of the course.

    Args:
        n: number of axes.
        height: height of the figure in inches.
        width: width of the figure in inches.
        options: options of `Figure.subplots`.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
        return figure, list(figure.subplots(1, n, squeeze=False, **options)[0])


def plot_image(figure: Figure, alt: str) -> PlotImage:
    """The figure as a `PlotImage` with the alternative text `alt`."""
    return PlotImage(_png(figure), alt)


def animation(figures: Iterable[Figure], alt: str, milliseconds: int = 90) -> Animation:
    """The figures as a GIF.

    Args:
        figures: the frames.
        alt: text that describes the animation.
        milliseconds: duration of every frame but the last, which is shown for two seconds.
    """
    frames = [Image.open(io.BytesIO(_png(f))).convert("RGB").quantize(48) for f in figures]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=[milliseconds] * (len(frames) - 1) + [2000])
    return Animation(stream.getvalue(), alt)


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


Trajectories = tuple[Tensor, Tensor]
"""Times (N,) and states (N, n) of n one-dimensional trajectories."""
_LIGHT = ("white", "#ff922b")


def river(mixture: Mixture, processes: Mapping[str, GaussianSDE], paths: Mapping[str, Trajectories] | None = None,
          lines: int = 16, colours: Mapping[str, Any] | None = None, alt: str = "") -> PlotImage:
    """The density of x_t over t for every process, side by side, with trajectories over it.

    Args:
        mixture: one-dimensional data distribution.
        processes: processes by panel title.
        paths: trajectories by panel title.
        lines: largest number of trajectories per panel.
        colours: group (n,) of every trajectory, 0 or 1, by panel title.
        alt: alternative text.
    """
    figure, axes = panels(len(processes), 3.4)
    for ax, (name, sde) in zip(axes, processes.items(), strict=True):
        reach = _reach(mixture, sde)
        _density(ax, mixture, sde, reach)
        if paths and name in paths:
            t, x = paths[name]
            groups = (colours or {}).get(name)
            for i in range(min(lines, x.shape[1])):
                ax.plot(t, x[:, i], lw=0.8, alpha=0.9, color=_LIGHT[0 if groups is None else int(groups[i])])
        ax.set(title=name, xlabel="t  (0: data, T: noise)", xlim=(0, sde.T), ylim=(-reach, reach))
    axes[0].set_ylabel("x")
    return plot_image(figure, alt or f"The distribution of x_t for {', '.join(processes)}")


def _reach(mixture: Mixture, sde: GaussianSDE) -> float:
    """Half the height of the plotted range."""
    data = float(mixture.means.abs().max()) + 3 * math.sqrt(float(mixture.covariances.amax()))
    return 1.15 * max(data, 3.2 * math.sqrt(float(mixture.diffused(sde, sde.T).covariance[0, 0])))


def _density(ax: Axes, mixture: Mixture, sde: GaussianSDE, reach: float) -> None:
    x = torch.linspace(-reach, reach, 300, dtype=torch.float64)[:, None]
    times = torch.linspace(2e-3 * sde.T, sde.T, 240, dtype=torch.float64)
    columns = torch.stack([mixture.diffused(sde, t).log_prob(x) for t in times], 1)
    image = (columns - columns.amax(0)).exp() ** 0.6
    ax.imshow(image, origin="lower", aspect="auto", extent=(0, sde.T, -reach, reach), cmap="viridis")


def _map(ax: Axes, title: str, far: float) -> None:
    """Square axes with a thin frame and no ticks."""
    ax.set(title=title, xlim=(-far, far), ylim=(-far, far), aspect="equal", xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set(visible=True, color="#ced4da")


def clouds(points: Mapping[str, Tensor], behind: Tensor | None = None, reach: float | None = None,
           alt: str = "") -> PlotImage:
    """Sets of points (n, 2) side by side on one scale, over the points `behind` in grey.

    Args:
        points: the sets (n, 2) by title.
        behind: points (m, 2) drawn in grey under every set; None: none.
        reach: half the width of the axes; None: from the points.
        alt: text that describes the figure.
    """
    figure, axes = panels(len(points), 9.6 / len(points) + 0.35)
    every = torch.cat(list(points.values()))
    far = reach or 1.1 * float(torch.quantile(every.abs().double().flatten()[:100_000], 0.999))
    for ax, (name, x) in zip(axes, points.items(), strict=True):
        if behind is not None:
            ax.scatter(behind[:, 0], behind[:, 1], s=2, color="#ced4da", linewidths=0)
        ax.scatter(x[:, 0], x[:, 1], s=3, color=COLOURS[0], linewidths=0, alpha=0.7)
        _map(ax, name, far)
    return plot_image(figure, alt or "Points: " + ", ".join(points))


def curves(lines: Mapping[str, Sequence[Any]], x: str = "", y: str = "", log: str = "", level: float | None = None,
           title: str = "", alt: str = "") -> PlotImage:
    """Curves in one panel.

    Args:
        lines: (x, y) or (x, y, standard error) by label.
        x: label of the x axis.
        y: label of the y axis.
        log: logarithmic axes: "", "x", "y" or "xy".
        level: height of a dashed horizontal line.
        title: title of the panel.
        alt: alternative text.
    """
    figure, (ax,) = panels(1, 3.3, 8.4 if len(lines) > 1 else 6.6)
    for k, (name, line) in enumerate(lines.items()):
        a, b, *error = (torch.as_tensor(v, dtype=torch.float64) for v in line)
        below = k == 0 and len(lines) == 2  # wide, so that both are visible
        ax.plot(a, b, label=name, marker="o" if len(a) < 20 else None, ms=3.5,
                lw=4.5 if below else 1.6, alpha=0.5 if below else 1)
        if error:
            ax.fill_between(a, b - 2 * error[0], b + 2 * error[0], alpha=0.2, linewidth=0)
    if level is not None:
        ax.axhline(level, color="black", lw=1, ls="--")
    ax.set(xlabel=x, ylabel=y, title=title, **{f"{axis}scale": "log" for axis in log})
    if "x" in log and len(a) < 20:
        ax.set_xticks(a.tolist(), [f"{v:g}" for v in a])
        ax.set_xticks([], minor=True)
    if len(lines) > 1:
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return plot_image(figure, alt or title or ", ".join(lines))


def arrows(models: Mapping[str, ReverseModel], t: float | Sequence[float], reach: float = 3.0,
           behind: Tensor | None = None, alt: str = "") -> PlotImage:
    """Score fields in the plane at the time `t`, or one time per model; arrow lengths are relative within a panel.

    Args:
        models: the models by title.
        t: time of all models, or one per model.
        reach: half the width of the axes.
        behind: points (m, 2) drawn in grey under the arrows; None: none.
        alt: text that describes the figure.
    """
    figure, axes = panels(len(models), 9.6 / max(2, len(models)) + 0.45, 9.6 if len(models) > 1 else 5.0)
    times = [t] * len(models) if isinstance(t, int | float) else list(t)
    side = torch.linspace(-reach, reach, 19, dtype=torch.float64)
    at = torch.cartesian_prod(side, side)
    for ax, (name, model), time in zip(axes, models.items(), times, strict=True):
        if behind is not None:
            ax.scatter(behind[:, 0], behind[:, 1], s=2, color="#ced4da", linewidths=0)
        s = model.score(at, time).detach()
        ax.quiver(*at.T, *s.T, s.norm(dim=1), cmap="viridis_r", angles="xy", width=0.004)
        _map(ax, name, reach)
    return plot_image(figure, alt or "Score fields: " + ", ".join(models))


def histograms(samples: Mapping[str, Tensor], mixture: Mixture | None = None, reach: float = 4.0,
               alt: str = "") -> PlotImage:
    """Histograms of numbers, side by side, with the density of a one-dimensional mixture.

    Args:
        samples: the numbers of each histogram by title, in any shape.
        mixture: one-dimensional mixture whose density is drawn; None: no density.
        reach: half the width of the axes.
        alt: text that describes the figure.
    """
    figure, axes = panels(len(samples), 2.6, sharey=True)
    x = torch.linspace(-reach, reach, 400, dtype=torch.float64)
    for ax, (name, values) in zip(axes, samples.items(), strict=True):
        ax.hist(values.detach().flatten().numpy(), bins=80, range=(-reach, reach), density=True, color=COLOURS[1],
                alpha=0.6)
        if mixture is not None:
            ax.plot(x, mixture.log_prob(x[:, None]).exp(), color="black", lw=1)
        ax.set(title=name, yticks=[], xlim=(-reach, reach))
    return plot_image(figure, alt or "Histograms: " + ", ".join(samples))


def images(rows: Mapping[str, Tensor], alt: str = "") -> PlotImage:
    """Grey images (n, 1, H, W), one row per name, from white at its 20th percentile to black at its 98th."""
    most = max(len(x) for x in rows.values())
    figure, _ = panels(1, 0.55 + len(rows) * 9.0 / max(most, 8) * 0.95)
    figure.clear()
    grid = figure.subplots(len(rows), most, squeeze=False)
    for line, (name, x) in zip(grid, rows.items(), strict=True):
        low, high = x.double().flatten().quantile(torch.tensor([0.2, 0.98], dtype=torch.float64)).tolist()
        for i, ax in enumerate(line):
            ax.axis("off")
            if i < len(x):
                ax.imshow(x[i, 0].detach(), cmap="gray_r", vmin=low, vmax=high)
        line[0].set_title(name, loc="left", fontsize=9)
    return plot_image(figure, alt or "Images: " + ", ".join(rows))


def trajectories(out: Samples) -> Trajectories:
    """Times and states of the trajectory of one-dimensional samples."""
    times, states = zip(*out.trajectory, strict=True)
    return torch.tensor(times), torch.stack(states)[:, :, 0]


def animate_samples(out: Samples, frames: int = 24, alt: str = "") -> Animation:
    """The trajectory of two-dimensional samples as a GIF, from noise to data.

    Args:
        out: samples (n, 2) with their trajectory.
        frames: number of frames.
        alt: text that describes the animation.
    """
    far = 1.1 * float(torch.cat([out.trajectory[0][1], out.x]).abs().quantile(0.998))
    states = [out.trajectory[round(i * (len(out.trajectory) - 1) / (frames - 1))] for i in range(frames)]
    figures = []
    for t, x in states:
        figure, (ax,) = panels(1, 4.0, 4.0)
        ax.scatter(x[:, 0], x[:, 1], s=3, color=COLOURS[0], linewidths=0)
        _map(ax, f"t = {t:.3f}", far)
        figures.append(figure)
    return animation(figures, alt or "Noise becomes data")
