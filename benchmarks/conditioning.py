"""The figures of docs/conditioning.md, and the coverage of credible intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measure.posteriors import LIGHT, coverage, four, images, observed
from undiffuse.data import Dataset, conditioned, open_data
from undiffuse.experiment import Experiment
from undiffuse.guidance import classifier_free
from undiffuse.inverse import Operator, box, observe, random_mask
from undiffuse.inverse.guides import DenoiserPosterior
from undiffuse.inverse.observe import observation
from undiffuse.metrics import agreement, classifier, nearest_distance
from undiffuse.mixture import Mixture
from undiffuse.pipelines.restore import restore
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.training import load, train

FOLDER = Path(__file__).parent.parent / "docs" / "figures"
SHOWN = {"exact": "exact posterior", "replacement": "replacement", "dps": "DPS", "pigdm": "ΠGDM",
         "mmps": "MMPS (default)", "twisted": "exact=True"}
COVERED = ("exact", "mmps", "twisted")
TRIED = (("mmps", 2, 20, True), ("pigdm", None, 20, True), ("pigdm", None, 40, True),
         ("mmps", 2, 20, False), ("mmps", 2, 40, False), ("mmps", 5, 20, False), ("mmps", 15, 20, False),
         ("pigdm", None, 20, False), ("pigdm", None, 40, False))


def table(what: str = "figures", *words: str) -> Iterator[str]:
    """`figures [RUN DATA]`, with a run on MNIST and its data also completions; `coverage`; `classes RUN`; `numbers`;
    `completions RUN DATA`; `solved RUN DATA`.
    """
    parts: dict[str, Callable[..., Iterator[str]]] = {
        "figures": figures, "coverage": covered, "classes": classes, "numbers": numbers, "completions": completed,
        "solved": solved}
    return parts[what](*words)


def figures(run: str | None = None, data: str | None = None) -> Iterator[str]:
    """Both figures of mixtures, and the completions if there is a run."""
    yield _saved(posteriors(), "posteriors")
    yield _saved(guidance(), "guidance")
    if run is not None and data is not None:
        yield _saved(completions(run, data), "completions")


def covered(truths: str = "64", *methods: str) -> Iterator[str]:
    """How often central intervals hold the truth, by how many standard errors that is off, over so many observations.

    Of the four modes and of the digits with half of the pixels missing; of the exact posterior itself, the default and
    particles, unless methods are named.
    """
    half = observed("digits, half hidden", images()[0].law, random_mask((1, 8, 8), 0.5), 0.1, runs=LIGHT)
    for case in (four(), half):
        for method in methods or COVERED:
            found = coverage(case, method, int(truths))
            cells = "".join(f"  {k:.0%}: {v.value:6.1%} ± {v.stderr:.1%}" for k, v in found.items())
            yield f"{case.name:22}{method:10}{cells}"


def classes(run: str, n: str = "1000") -> Iterator[str]:
    """How many samples of a run on the digits a classifier of real ones reads as the class asked for, by scale."""
    data, model = open_data("digits"), load(run)
    assert data.y is not None
    read, asked = classifier(data.x, data.y), torch.arange(int(n)) % 10
    for scale in (0.0, 1.0, 2.0, 4.0):
        x = sample(classifier_free(model, scale), int(n), label=asked).x
        found = agreement(read(x.round().clamp(0, 16)), asked)
        near = nearest_distance(x / 16, data.x.double() / 16).median()
        yield f"scale {scale:g}: {found.value:.1%} ± {found.stderr:.1%}, median distance to the nearest real {near:.2f}"


def numbers(steps: str = "1500") -> Iterator[str]:
    """A model of x given two numbers, of a Gaussian law of both: what it makes of each of them, beside the truth."""
    z = normal(3, Purpose.DATA, 50, 0, 8192, (4,), torch.float64)
    B, half = torch.tensor([[0.4, 0.3], [-0.3, 0.0]]).double(), torch.tensor([[0.3, 0.0], [0.1, 0.2]]).double()
    x, u = z[:, :2] @ B.mT + z[:, 2:] @ half.mT, z[:, :2]
    data = conditioned(Dataset(x.float(), None, "points", "joint"), age=(3 + 2 * u[:, 0]).numpy(), dose=u[:, 1].numpy())
    asked = Experiment("memory", net_args={"width": 64, "depth": 2, "condition": 32}, steps=int(steps), lr=3e-3,
                       ema_decay=0.99, optimizer="adamw", betas=(0.9, 0.99), save_every=int(steps), label_dropout=0.3,
                       prediction_type="wiener", sde="edm", sde_args={"sigma_max": 20.0}, device="cpu")
    with TemporaryDirectory() as folder:
        model = train(asked, Path(folder) / "run", progress=False, data=data)
    for at in ((None, None), (-1.5, None), (1.5, None), (None, 1.0), (-1.5, 1.0), (0.0, -1.0), (1.5, -1.0), (1.5, 1.0)):
        cond: dict[str, Any] = {"age": None if at[0] is None else 3 + 2 * at[0], "dose": at[1]}
        given = torch.tensor([v is not None for v in at])
        mean = B @ torch.tensor([v or 0.0 for v in at]).double()
        factor = torch.linalg.cholesky(half @ half.mT + B[:, ~given] @ B[:, ~given].mT)
        away = sample(model, 4000, steps=30, **cond).x.double() - mean
        y = torch.linalg.solve_triangular(factor, away.mT, upper=False)
        off, spread = y.mean(1).norm(), torch.linalg.eigvalsh(torch.cov(y)).sqrt().tolist()
        yield (f"age {cond['age']!s:5} dose {cond['dose']!s:5} mean off by {off:.3f}, deviations {spread[0]:.3f} to "
               f"{spread[1]:.3f}")


def posteriors() -> Figure:
    """Draws of each method over the contours of the exact posterior."""
    case = four()
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(14, 3.1), sharex=True, sharey=True, layout="constrained")
    grid = torch.cartesian_prod(*[torch.linspace(-1.6, 1.6, 161).double()] * 2)
    density = case.truth.log_prob(grid).reshape(161, 161).T
    axis = torch.linspace(-1.6, 1.6, 161)
    for ax, (method, title) in zip(axes, SHOWN.items(), strict=True):
        x = case.truth.sample(1024, 1) if method == "exact" else case.draw(method).x
        share = float((x[:, 1] > 0).double().mean())
        width = float(x[:, 0].std())
        ax.scatter(*x.T, s=2, color="#c0392b", alpha=0.5, linewidths=0)
        ax.contour(axis, axis, density, levels=[float(density.max()) - k for k in (4.5, 2.0, 0.5)], colors="black",
                   linewidths=0.7)
        ax.axvline(float(case.y), color="#2b6cb0", lw=0.8, ls="--")
        ax.set(title=f"{title}\nabove {share:.0%}, width {width:.3f}", xlim=(-1.6, 1.6), ylim=(-1.9, 1.9))
        ax.title.set_fontsize(9)
    return figure


def guidance(scale: float = 3.0) -> Figure:
    """Guided samples of a mixture on a line beside p(x | c)^w p(x)^{1 − w}."""
    law = Mixture([1, 1, 1], [[-1.5], [0.0], [1.8]], [0.16, 0.25, 0.36], labels=[0, 1, 0])
    grid = torch.linspace(-3.5, 4.5, 800).double()[:, None]
    on, off = law.given(0).log_prob(grid), law.log_prob(grid)
    tilted = torch.softmax(scale * on + (1 - scale) * off, 0) / (grid[1, 0] - grid[0, 0])
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharey=True, layout="constrained")
    for ax, method in zip(axes, ("dpmpp_2m", "dpmpp_2m_sde"), strict=True):
        x = sample(classifier_free(law.denoiser(VP()), scale), 8000, method, 200, label=0).x[:, 0]
        ax.hist(x.numpy(), bins=160, range=(-3.5, 4.5), density=True, color="#e6b0aa", label=f"guided, w = {scale:g}")
        ax.plot(grid, on.exp(), color="#8a8a8a", lw=1.2, label="p(x | c)")
        ax.plot(grid, tilted, color="black", lw=1.4, label=f"p(x | c)^{scale:g} p(x)^{1 - scale:g}, normalised")
        left, share = float((x < 0).double().mean()), float(tilted[grid[:, 0] < 0].sum() / tilted.sum())
        kind = "ODE" if method == "dpmpp_2m" else "SDE"
        ax.set(title=f"{kind}: left mode {left:.0%} (tilted law {share:.0%}), width {float(x[x < 0].std()):.2f}",
               xlabel="x")
    axes[0].legend(fontsize=8)
    return figure


def completed(run: str, data: str, each: str = "2", draws: str = "4") -> Iterator[str]:
    """Completions of test digits by method, and told the class or not: how many a classifier of real digits reads as
    that class, how far they are from real ones, and how far from what was seen, in grey levels; samples beside.
    """
    learned, test, model, k = open_data(data), open_data(data, part="test"), load(run), int(draws)
    assert learned.y is not None and test.y is not None
    read, real = classifier(learned.x[:10000], learned.y[:10000]), learned.x[10000:20000].double() / 255

    def row(name: str, x: Tensor, y: Tensor, *rest: str) -> str:
        fraction, stderr = agreement(read(x.float().round().clamp(0, 255)), y)
        near = nearest_distance(x.double() / 255, real)
        return f"| {name} | {fraction:.0%} ± {stderr:.0%} | {float(near.median()):.2f} | {' | '.join(rest)} |"

    x, y, hidden = _halves(test, range(3, 3 + int(each)))
    observed_x, label = hidden.mask_unobserved(x).repeat_interleave(k, 0), y.repeat_interleave(k)
    yield "| what | class | read as it | nearest real | off what was seen | seconds |"
    yield "|---|---|---|---|---|---|"
    yield row("real digits | ", test.x[:1000], test.y[:1000], "", "")
    with_class: dict[str, Any] = {"label": label}
    for cond in (with_class, {}):
        yield row(f"samples | {_said(cond)}", sample(model, len(label), **cond).x, label, "", "")
    for method, iterations, steps, tell in TRIED:
        options: dict[str, Any] = {"iterations": iterations} if iterations else {}
        cond, began = with_class if tell else {}, process_time()
        drawn = sample(observe(model, hidden, None, 5.0, method, **options), len(label), steps=steps, y=observed_x,
                       **cond).x
        seconds, name = process_time() - began, method + (f", {iterations} iterations" if iterations else "")
        yield row(f"{name}, {steps} steps | {_said(cond)}", drawn, label, _off(drawn, observed_x), f"{seconds:.0f}")
    for (method, steps), rounds in product((("mmps", 20), ("pigdm", 40)), (1, 2)):
        began = process_time()
        drawn = restore(model, hidden, observed_x, 5.0, 1, method=method, steps=steps, rounds=rounds).draws[:, 0]
        yield row(f"{method}, {steps} steps | drawn in {rounds}", drawn, label, _off(drawn, observed_x),
                  f"{process_time() - began:.0f}")


def _off(drawn: Tensor, observed_x: Tensor) -> str:
    """The root mean square difference between samples and the observed entries."""
    return f"{float((drawn - observed_x)[~observed_x.isnan()].square().mean().sqrt()):.1f}"


def solved(run: str, data: str) -> Iterator[str]:
    """What conjugate gradients through the network's Jacobian leave of (A V Aᵀ + R) w = r, as a share of r, after some
    iterations: medians over twenty halves of test digits at a noise level.
    """
    model, tried = load(run), (1, 2, 3, 5, 8)
    x, _, hidden = _halves(open_data(data, part="test"), range(3, 5))
    halves, z = observation(model, hidden, None, 5.0), model.transform.forward(x)
    yield "| noise level | " + " | ".join(f"{k}" for k in tried) + " |"
    yield "|---|" + "---|" * len(tried)
    for level in (10.0, 3.0, 1.0, 0.5, 0.2, 0.1):
        t = model.sde.time_of(torch.tensor(-math.log(level), dtype=torch.float64))
        x_t = z + level * normal(0, Purpose.PROBE, 0, 0, len(z), model.shape, z.dtype)
        moments = DenoiserPosterior(model, x_t, t, {})
        local = halves.linearize(moments.mean, moments.residual_variance, hidden.mask_unobserved(x))
        left = [local.residual - local.push(moments.apply(local.pull(w))) - local.variance * w
                for w in (local.solve(moments.apply, k) for k in tried)]
        shares = [float((e.norm(dim=1) / local.residual.norm(dim=1)).median()) for e in left]
        yield f"| {level:g} | " + " | ".join(f"{v:.2f}" for v in shares) + " |"


def _said(cond: dict[str, Any]) -> str:
    return "told" if cond else "–"


def completions(run: str, data: str, draws: int = 8) -> Figure:
    """Ten digits whose lower half is hidden, and what it may have been: told the class, without it, with it drawn."""
    x, y, hidden = _halves(open_data(data, part="test"), range(3, 4))
    ways: dict[str, dict[str, Any]] = {"told the class": {"label": y}, "not told, a class drawn": {"rounds": 1},
                                       "without a class": {"rounds": 0}}
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.4), layout="constrained")
    for ax, (title, way) in zip(axes, ways.items(), strict=True):
        found = restore(load(run), hidden, x, 5.0, draws, steps=20, **way)
        rows = torch.cat([x[:, None], found.y.nan_to_num(90.0)[:, None], found.draws], 1).clamp(0, 255)
        ax.imshow(_tiled(rows), cmap="gray")
        ax.set(title=title)
        ax.set_axis_off()
    return figure


def _halves(test: Dataset, ranks: range) -> tuple[Tensor, Tensor, Operator]:
    """Of every class the test images of those ranks, their classes, and the operator that hides lower halves."""
    assert test.y is not None
    chosen = [int((test.y == k).nonzero()[r]) for k in range(10) for r in ranks]
    x = test.x[chosen].float()
    side = x.shape[-1]
    return x, test.y[chosen], box(tuple(x.shape[1:]), side // 2, 0, side, side)


def _tiled(rows: Tensor) -> Tensor:
    """(N, k, 1, H, W) as one picture."""
    n, k, _, h, w = rows.shape
    return rows[:, :, 0].permute(0, 2, 1, 3).reshape(n * h, k * w)


def _saved(figure: Figure, name: str) -> str:
    figure.savefig(FOLDER / f"{name}.png", dpi=130, bbox_inches="tight")
    plt.close(figure)
    return str(Path("docs") / "figures" / f"{name}.png")
