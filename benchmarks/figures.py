"""The figures of docs/choosing_a_sampler.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.measure.laws import Problem, modes
from benchmarks.measure.solvers import BUDGETS, PUBLISHED, problems, solvers
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
LINES = {"auto": ("#c0392b", 2.4), "ddim": ("#8a8a8a", 1.2), "heun_sigma": ("#b8860b", 1.2),
         "dpmpp_2m": ("#2b6cb0", 1.2), "unipc": ("#2f855a", 1.2), "deis_3": ("#6b46c1", 1.2),
         "unipc_4_noise": ("#d6589f", 1.2)}


def table() -> Iterator[str]:
    """Both figures."""
    for name, make in (("solvers", errors), ("paths", paths)):
        figure = make()
        figure.savefig(FOLDER / f"{name}.png", dpi=140, bbox_inches="tight")
        plt.close(figure)
        yield str(Path("docs") / "figures" / f"{name}.png")


def errors() -> Figure:
    """Error against evaluations on two laws, and the best of the public entries."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    titles = {"plane": "16 modes in the plane", "digits": "10 components in 64 dimensions"}
    for ax, (law, problem) in zip(axes, problems(n=64).items(), strict=True):
        for name, (colour, width) in LINES.items():
            cells = list(solvers([name], (5, 6, 8, 10, 12, 15, 20, 27, 35, 50, 70, 100), {law: problem}))
            ax.loglog([c.evaluations for c in cells], [c.error for c in cells], color=colour, lw=width, label=name,
                      marker="o", ms=3, zorder=3 if name == "auto" else 2)
        ax.loglog(BUDGETS, PUBLISHED[law], "k_", ms=12, mew=2, label="best of 57 public")
        ax.set(title=titles[law], xlabel="evaluations", xticks=BUDGETS, xticklabels=BUDGETS, ylim=(2e-7, 1))
        ax.minorticks_off()
        ax.grid(alpha=0.25)
    axes[0].set_ylabel("median error per coordinate")
    axes[1].legend(loc="lower left", fontsize=8, framealpha=1)
    return figure


def paths() -> Figure:
    """The same ten starts with 5, 10 and 20 evaluations, over the exact paths."""
    problem = Problem(modes(), 10)
    cloud = problem.law.sample(3000)
    exact = _path(problem, "rk4_log_snr", 200)
    figure, axes = plt.subplots(2, 3, figsize=(10, 6.6), sharex=True, sharey=True, layout="constrained")
    for row, method in zip(axes, ("ddim", "auto"), strict=True):
        for ax, steps in zip(row, (5, 10, 20), strict=True):
            ax.scatter(*cloud.T, s=1, color="#d0d0d0", linewidths=0)
            ax.plot(*exact, color="black", lw=0.8)
            found = _path(problem, method, steps)
            ax.plot(*found, color="#c0392b", lw=1, marker=".", ms=4)
            ax.plot(found[0][-1], found[1][-1], "o", color="#c0392b", ms=5, mec="white")
            ax.set(title=f"{method}, {steps} evaluations", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
    return figure


def _path(problem: Problem, method: str, steps: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """The two coordinates of x_t, (nodes, samples)."""
    out = sample(problem.model, method=as_method(method), steps=steps, x_T=problem.start, t_end=1e-3,
                 denoise_last=False, trajectory=True, block=problem.n)
    states = [x.numpy() for _, x in out.trajectory]
    return [x[:, 0] for x in states], [x[:, 1] for x in states]
