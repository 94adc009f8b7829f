"""Samplers with noise, tuned and not, and the tuned sampler without noise, on laws that are known exactly.

    python -m benchmarks tuned_noise [plane,clusters,digits] [seed] [evaluations,...]

The Kolmogorov-Smirnov distance of the radii inside the modes, and sliced W2 to fresh draws, of one set of draws each,
beside what real draws have (`undiffuse.bench.stochastic`); then docs/figures/tuned_noise.png is drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from undiffuse.bench.laws import T_END
from undiffuse.bench.stochastic import Draws
from undiffuse.bench.tuned import LAWS
from undiffuse.sampling import sample
from undiffuse.tuning import tune

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "tuned_noise.png"
DRAWN = {"plane": 10_000, "clusters": 4_000, "digits": 2_000}
LOOKS = {"tuned, no noise": ("#c0392b", "-"), "tuned, noise": ("#1f5fa8", "-"), "sde": ("#1f5fa8", "--"),
         "dpmpp_2m_sde": ("#8a8a8a", "--"), "matched": ("#c9a227", "--")}
Curves = dict[str, dict[str, list[tuple[int, float, float]]]]


def table(names: str = "plane,clusters,digits", seed: str = "200", evaluations: str = "4,6,10,20") -> Iterator[str]:
    """A row for each law, budget and sampler; then the figure."""
    yield f"{'law':10}{'evals':>6}  {'sampler':18}{'radii':>8}{'sliced W2':>10}{'floor':>8}{'floor':>8}"
    curves: Curves = {}
    for name in names.split(","):
        draws, curves[name] = Draws(LAWS[name](int(seed)), DRAWN[name]), defaultdict(list)
        for n, label, radii, distance in measured(draws, [int(k) for k in evaluations.split(",")]):
            curves[name][label].append((n, radii, distance))
            yield (f"{name:10}{n:6}  {label:18}{radii:8.4f}{distance:10.4f}{draws.floor.radii:8.4f}"
                   f"{draws.floor.distance:8.4f}")
        curves[name]["real draws"] = [(0, draws.floor.radii, draws.floor.distance)]
    draw(curves)
    yield str(FIGURE.relative_to(FIGURE.parents[2]))


def measured(draws: Draws, budgets: list[int]) -> Iterator[tuple[int, str, float, float]]:
    """Both figures of every sampler at every budget."""
    flow = tune(draws.model, budgets, t_end=T_END)
    noise = tune(draws.model, budgets, t_end=T_END, noise=True)
    for n in budgets:
        for label, model, method in (("tuned, no noise", flow, "auto"), ("tuned, noise", noise, "sde"),
                                     ("sde", draws.model, "sde"), ("dpmpp_2m_sde", draws.model, "dpmpp_2m_sde"),
                                     ("matched", draws.model, "matched")):
            out = sample(model, draws.n, method, n, t_end=T_END, denoise_last=False, block=draws.n, seed=5)
            found = draws.judged(out.x)
            eta = out.method.rpartition("noise ")[2] if "with noise" in out.method else ""
            yield n, label + f" {eta}" * bool(eta), found.radii, found.distance


def draw(curves: Curves) -> None:
    """A column for each law, a row for each figure."""
    figure, axes = plt.subplots(2, len(curves), figsize=(4.2 * len(curves), 6), sharex=True, squeeze=False,
                                layout="constrained")
    for column, (law, found) in zip(axes.T, curves.items(), strict=True):
        floor = found.pop("real draws")[0]
        for k, ax in enumerate(column, 1):
            for label, (colour, line) in LOOKS.items():
                rows = sorted(row for name, part in found.items() if name.startswith(label) for row in part)
                ax.loglog([row[0] for row in rows], [row[k] for row in rows], line, color=colour, marker="o", ms=4,
                          label=label)
            ax.axhline(floor[k], color="k", lw=0.8, ls=":", label="real draws")
            ticks = [row[0] for row in rows]
            ax.set_xticks(ticks, [str(n) for n in ticks])
            ax.minorticks_off()
            ax.grid(alpha=0.25)
        column[0].set_title(law)
        column[1].set_xlabel("evaluations")
    axes[0][0].set_ylabel("radii inside the modes (KS)")
    axes[1][0].set_ylabel("sliced W2")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(FIGURE, dpi=130)
    plt.close(figure)
