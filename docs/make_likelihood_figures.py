"""Draws the pictures of docs/likelihood.md: `PYTHONPATH=. python docs/make_likelihood_figures.py` (two minutes)."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import undiffuse as ud
from benchmarks.measure.laws import modes

HERE = Path(__file__).parent / "figures"
TRUE, CLAIMED, BARE = "#d9480f", "#1f6f8b", "#8a939b"


def budget() -> Figure:
    """The four parts of the budget, each where it is the only one that matters: what is claimed and what is true."""
    figure = Figure(figsize=(11, 7.2), layout="constrained")
    solver, probes, truncation, prior = figure.subplots(2, 2).flat
    _solver(solver)
    _probes(probes)
    _truncation(truncation)
    _prior(prior)
    for ax in (solver, probes, truncation, prior):
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False)
    return figure


def _solver(ax: Axes) -> None:
    law = modes()
    x = law.sample(100, seed=5)
    tolerances = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    found = [ud.log_likelihood(law.denoiser(ud.VP()), x, rtol=tol, atol=tol) for tol in tolerances]
    nfe = [float(ll.nfe.median()) for ll in found]
    true = [float((ll.log_prob - law.log_prob(x)).abs().median()) for ll in found]
    ax.plot(nfe, true, "o-", color=TRUE, label="true")
    ax.plot(nfe, [float(ll.solver.median()) for ll in found], "s--", color=CLAIMED, label="claimed")
    for count, tol, ll in zip(nfe, tolerances, found, strict=True):
        ax.annotate(f"{tol:g}", (count, float(ll.solver.median())), xytext=(-4, -13), textcoords="offset points",
                    fontsize=8, color=CLAIMED)
    ax.set(yscale="log", xlabel="evaluations (median point; tolerance at the mark)", ylabel="nats",
           title="solver: 16 modes in the plane")


def _probes(ax: Axes) -> None:
    law = _cloud(16)
    x = law.sample(400, seed=4)
    model, truth = law.denoiser(ud.VP()), law.log_prob(x)
    counts = [2, 4, 8, 16, 32]
    found = [ud.log_likelihood(model, x, "hutchinson", k, 1e-3, 1e-3) for k in counts]
    ax.plot(counts, [_rms(ll.log_prob - truth) for ll in found], "o-", color=TRUE, label="true")
    ax.plot(counts, [_rms(ll.stderr) for ll in found], "s--", color=CLAIMED, label="claimed (stderr)")
    ax.set(xscale="log", yscale="log", xlabel="probes", ylabel="root mean square, nats",
           title="probes: 4 components in 16 dimensions")
    ax.set_xticks(counts, [str(k) for k in counts])
    ax.minorticks_off()


def _truncation(ax: Axes) -> None:
    law = ud.Mixture([1, 2, 1], [[-1.0, 0.3], [0.2, -0.6], [0.9, 0.8]], 0.02**2)
    x, model = law.sample(200, seed=6), law.denoiser(ud.VP())
    levels = [0.002, 0.005, 0.01, 0.02, 0.04]
    ends = [float(ud.VP().time_of(-math.log(level))) for level in levels]
    truth, unit = law.log_prob(x), 2 * math.log(2)
    for corrected, color, name in ((False, BARE, "left out"), (True, TRUE, "corrected")):
        wrong = [(ud.log_likelihood(model, x, t_end=t, truncation=corrected).log_prob - truth).abs() for t in ends]
        ax.plot(levels, [float(e.mean()) / unit for e in wrong], "o-", color=color, label=f"{name}, mean")
        ax.plot(levels, [float(e.max()) / unit for e in wrong], "^:", color=color, label=f"{name}, worst point")
    ax.axvline(0.0105, color="black", lw=0.8, ls=(0, (4, 3)))
    ax.annotate("VP at t = 0.001", (0.0105, 2e-3), xytext=(4, 0), textcoords="offset points", fontsize=9)
    ax.set(xscale="log", yscale="log", xlabel="smallest noise level σ̂₀ (the modes have deviation 0.02)",
           ylabel="error, bits per dimension", title="truncation: three narrow modes", ylim=(2e-5, 30))
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.minorticks_off()


def _prior(ax: Axes) -> None:
    law = _cloud(2)
    x = law.sample(200, seed=7)
    levels = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    for moments, marker in ((True, "o"), (False, "^")):
        true, claimed = [], []
        for level in levels:
            model = law.denoiser(ud.VE(sigma_min=0.004, sigma_max=level, from_data=True))
            model.moments = model.moments if moments else None
            ll = ud.log_likelihood(model, x)
            true.append(float((ll.log_prob - law.log_prob(x)).abs().mean()))
            claimed.append(float(ll.prior.mean()))
        name = "data's moments" if moments else "N(0, σ²)"
        ax.plot(levels, true, f"{marker}-", color=TRUE, label=f"true, prior {name}")
        ax.plot(levels, claimed, f"{marker}--", color=CLAIMED, mfc="none", label=f"claimed, prior {name}")
    ax.set(xscale="log", yscale="log", xlabel=f"σ(T); the data have deviation {model.sigma_data:.2g}", ylabel="nats",
           title="prior: VE that ends too early")
    ax.set_xticks(levels, [f"{level:g}" for level in levels])
    ax.minorticks_off()


def bounds() -> Figure:
    """What each estimate from below says of the same points, against its number of evaluations."""
    law = _cloud(16)
    x, model = law.sample(64, seed=8), law.denoiser(ud.VP())
    truth = float(law.log_prob(x).mean())
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.add_subplot()
    counts = [16, 32, 64, 128, 256]
    for control, style in ((True, "o-"), (False, "o:")):
        found = [ud.elbo(model, x, n, control=control) for n in counts]
        name = f"ELBO, continuous time, {'with' if control else 'without'} Wiener control (± a point's error)"
        ax.errorbar(counts, [float(f.value.mean()) - truth for f in found], [_rms(f.stderr) for f in found], fmt=style,
                    color=CLAIMED, capsize=3, label=name)
    ratio = [ud.path_log_likelihood(model, x, n, 1).value for n in counts]
    ax.plot(counts, [float(v.mean()) - truth for v in ratio], "s-", color=BARE, label="ratio of one path")
    chain = [ud.elbo(model, x, 64, steps=n).value for n in counts]
    ax.plot(counts, [float(v.mean()) - truth for v in chain], "^-", color=TRUE, label="ELBO of a chain of N steps")
    ax.axhline(0, color="black", lw=0.8)
    ax.set(xscale="log", xlabel="evaluations or steps", ylabel="estimate − log p, nats (mean of 64 points)",
           title="4 components in 16 dimensions, exact model")
    ax.set_yscale("symlog", linthresh=1)
    ax.set_xticks(counts, [str(n) for n in counts])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center")
    return figure


def _cloud(d: int) -> ud.Mixture:
    """Four correlated components of different sizes in d dimensions."""
    i = torch.arange(d, dtype=torch.float64)
    means = torch.stack([torch.cos(2.3 * i + 1.7 * k) for k in range(4)]) * (2.0 if d == 2 else 1.0)
    wave = torch.stack([torch.sin(0.9 * (k + 1) * i[:, None] * i + k) for k in range(4)])
    covariances = wave @ wave.mT / d * 0.3 + 0.05 * torch.eye(d, dtype=torch.float64)
    return ud.Mixture([1, 2, 3, 4], means, covariances)


def _rms(values: torch.Tensor) -> float:
    return float(np.sqrt((values.numpy() ** 2).mean()))


def main() -> None:
    """Writes all figures."""
    matplotlib.rcParams.update({"font.size": 10.5, "axes.titlesize": 11.5})
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    budget().savefig(HERE / "likelihood_budget.png", dpi=110)
    bounds().savefig(HERE / "likelihood_bounds.png", dpi=110)


if __name__ == "__main__":
    main()
