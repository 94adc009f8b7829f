"""The figure of docs/tuned_sampling.md, from files that hold what `python -m benchmarks tuning` printed.

    python -m benchmarks tuned_figure FILE...
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "tuned.png"
Curves = dict[str, dict[str, list[tuple[int, float, float, float, float]]]]


def table(*files: str) -> Iterator[str]:
    """A panel for each law: the median over paths, the best published entry and tuned, a line for each seed."""
    curves = read("\n".join(Path(file).read_text() for file in files))
    figure, axes = plt.subplots(1, len(curves), figsize=(4.6 * len(curves), 3.8), sharey=True, layout="constrained",
                                squeeze=False)
    for ax, (law, seeds) in zip(axes[0], curves.items(), strict=True):
        for rows in seeds.values():
            n, published, _, tuned, _ = zip(*rows, strict=True)
            ax.loglog(n, published, color="#8a8a8a", marker="o", ms=4)
            ax.loglog(n, tuned, color="#c0392b", marker="o", ms=4)
        ax.set(title=law, xlabel="evaluations", xticks=n, xticklabels=n)
        ax.minorticks_off()
        ax.grid(alpha=0.25)
    axes[0][0].set_ylabel("median distance to the exact end")
    for line, name in zip(axes[0][0].lines[:2], ("best published on any grid", "tuned"), strict=True):
        line.set_label(name)
    axes[0][0].legend(frameon=False, fontsize=9, loc="lower left")
    figure.savefig(FIGURE, dpi=140, bbox_inches="tight")
    yield str(FIGURE.relative_to(FIGURE.parents[2]))


def read(text: str) -> Curves:
    """Law -> seed -> rows (evaluations, published median and RMSE, tuned median and RMSE)."""
    found: Curves = defaultdict(lambda: defaultdict(list))
    for words in map(str.split, text.splitlines()):
        if len(words) >= 7 and words[1].isdigit() and words[2].isdigit():
            n, *numbers = words[2:7]
            found[words[0]][words[1]].append((int(n), *map(float, numbers)))  # type: ignore[arg-type]
    return found
