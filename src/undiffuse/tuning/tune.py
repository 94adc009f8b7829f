"""Fitting samplers to a model: reference trajectories, nodes and coefficients, validation on held-out noise.

`tune` fits one sampler per number of evaluations; `tune_classes` adds coefficients and moments per class on the same
nodes; `tune_guided` and `tune_family` fit at several guidance scales, with linear interpolation between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.guidance import classifier_free
from undiffuse.model import Model, ReverseModel
from undiffuse.moments import Moments, measure_moments
from undiffuse.samplers.method import require_denoiser
from undiffuse.samplers.tuned import ClassCoefficients, Tuned, TunedSampler, Tuning
from undiffuse.transforms.base import Transform
from undiffuse.tuning.budget import plan, seconds_of
from undiffuse.tuning.fit import Fit
from undiffuse.tuning.grid_search import gated, joint_refinement, loss, refit, search
from undiffuse.tuning.reference import ModelUnits, PathEnds, Reference, RowCounter, trajectories
from undiffuse.tuning.tuning_file import compatible_tuning, valid_tuning

EVALUATIONS = (4, 5, 6, 8, 10, 15, 20)
UNTUNED = (("auto", None), ("deis_3", "time_quadratic"), ("unipc", "time_quadratic"), ("unipc_4_noise", "log_snr"),
           ("dpmpp_2m", "karras"))
"""The untuned samplers and grids, of which a tuned sampler has to beat the best."""
CONDITIONS = ("", "label")
"""The conditions: none, and all labels in turn for a model with classes."""
VALIDATION, SELECTION, _MOMENTS = 1 << 20, 3 << 20, 1 << 21
"""The first indices of the starts that validate, that choose between fits, and that give moments."""
MORE = 4
"""The number of starts that choose, and that validate, per start that is fitted to."""
_GATED, _LEADING = 2, 3


def tune(model: ReverseModel, evaluations: Sequence[int] = EVALUATIONS, *, t_end: float | None = None,
         trajectories: int | None = None, rounds: int | None = None, nodes_of: Tuning | None = None,
         conditions: Sequence[str] = CONDITIONS, prompts: Sequence[str] = (),
         budget: float | str | None = None, say: Callable[[str], None] = lambda line: None) -> Tuned:
    """Fit samplers to a model; `ud.sample(tuned, steps=n)` uses them for n in `evaluations`.

    The probability flow is followed from `trajectories` starts by 256 small steps. For every n, grids even in local
    error are tried, coefficients follow in closed form, and the Gauss-Newton method moves the nodes. Other starts
    select among the fits, and others validate: a sampler that does not beat the best of `UNTUNED` is rejected. A
    model with classes is tuned with and without labels. Samplers for guidance are kept as long as the model is the
    same. Nothing is differentiated. `tuned.tuning.rows` holds results and costs.

    Args:
        model: a denoiser; if it has no moments, they are measured on 512 of its samples.
        evaluations: numbers of model evaluations, from 2 to 100.
        t_end: end time of the trajectories; None: `model.t_end()`.
        trajectories: number of starts to fit to, at least 4; four times as many select, and as many validate. None: 32,
            or 8 for large states, or what the budget allows.
        rounds: Gauss-Newton rounds over the nodes; 0 fits coefficients only. None: 4, or what the budget allows.
        nodes_of: a tuning whose nodes are used, so that only the coefficients are fitted; without its missing entries.
        conditions: the names of `CONDITIONS` to tune for.
        prompts: texts in turn for a text-to-image model, whose samples have prompts.
        budget: seconds of the network's time, or a text such as "10min"; the estimate is a line of `say`.
        say: receives a line per stage.

    Raises:
        InputError: for invalid arguments, and for a model without a denoiser.

    Reference: Wang and Vastola (2024), arXiv:2412.09726 (the exact Gaussian part); Golub and Pereyra (1973).
    """
    _check(model, evaluations, 4 if trajectories is None else trajectories, rounds or 0)
    assert isinstance(model, Model)
    names = _names(model, conditions, prompts)
    cost = plan(model, evaluations, list(_conditions(model, 8, names, prompts).values()), trajectories, rounds, budget)
    say(f"tuning with {cost}")
    trajectories, rounds = cost.trajectories, cost.rounds
    moments, end = moments_for(model, say, nodes_of, prompts), model.t_end() if t_end is None else t_end
    table: dict[str, dict[int, TunedSampler]] = {}
    rows: list[dict[str, Any]] = []
    for name, cond in _conditions(model, MORE * trajectories, names, prompts).items():
        existing = None if nodes_of is None else nodes_of.table.get(name, {})
        budgets = [n for n in sorted(set(evaluations)) if existing is None or n in existing]
        counter = RowCounter(model, cond)
        fits = list(_fit_budgets(counter, moments, budgets, end, trajectories, rounds, existing, say))
        table[name] = {c.evaluations: c for c, row in fits if row["kept"]}
        rows += [row for _, row in fits]
    return Tuned(model, replace(compatible_tuning(model, moments, end), table=table, rows=tuple(rows)))


def moments_for(model: Model, say: Callable[[str], None], tuning: Tuning | None = None, prompts: Sequence[str] = ()
                ) -> Moments:
    """The moments of the data, else of a current tuning, else of samples of the model.

    Args:
        model: model to tune.
        say: receives a message if samples are drawn.
        tuning: current tuning; None: that of the model, if valid.
        prompts: texts of the samples.
    """
    current = tuning or valid_tuning(model)
    if model.moments is not None:
        return model.moments
    if current is not None:
        return current.moments
    counter = RowCounter(model, {})
    counter.cond = _conditions(model, counter.measured, ["prompt"], prompts).get("prompt", {})
    say(f"drawing {counter.measured} samples for the moments")
    return sample_moments(counter)


def _fit_budgets(counter: RowCounter, moments: Moments, evaluations: list[int], t_end: float, n: int, rounds: int,
                 existing: Mapping[int, TunedSampler] | None, say: Callable[[str], None]
                 ) -> Iterator[tuple[TunedSampler, dict[str, Any]]]:
    """The sampler for each number of evaluations, and its row of results."""
    if not evaluations:
        return
    name, clock = ",".join(counter.cond), time.monotonic()
    say(f"following {(1 + 2 * MORE) * n} trajectories" + f" given {name}" * bool(name))
    reference = Reference.follow(counter, moments, n, 0, t_end)
    fits: list[Fit] = []
    selection, validation = (PathEnds.follow(counter, moments, MORE * n, first, t_end)
                             for first in (SELECTION, VALIDATION))
    for steps in evaluations:
        say(f"fitting {steps} evaluations" + f" given {name}" * bool(name))
        fits = search(reference, steps, rounds, fits) if existing is None else [refit(reference, existing[steps])]
        best = fits[0].sampler if existing else best_sampler(reference, selection, fits, rounds)
        after, _ = validation.error(best.method(moments), steps)
        untuned = [validation.error(method, steps, grid) for method, grid in UNTUNED]
        before, method = min(untuned, key=lambda pair: loss(pair[0]))
        row = {"given": name, "evaluations": steps, "untuned": method,
               "kept": all(better(after, other) for other, _ in untuned),
               "before": figures(before, moments), "after": figures(after, moments), "calls": counter.rows,
               "seconds": round(time.monotonic() - clock, 2)}
        counter.rows, clock = 0, time.monotonic()
        yield best, row


def best_sampler(reference: Reference, selection: PathEnds, fits: list[Fit], rounds: int, move_nodes: bool = True
                 ) -> TunedSampler:
    """The fit with the smallest error on the starts for selection, after gates and joint refinement of the best ones.

    The criterion is the loss times the root mean square, which separates fits of similar loss by their outliers.

    Args:
        reference: trajectories to fit.
        selection: endpoints of other starts.
        fits: fits to choose from.
        rounds: largest number of Gauss-Newton rounds of an improvement.
        move_nodes: nodes may be improved for gates.
    """

    def ranked(fits: Iterable[Fit]) -> list[tuple[float, Fit]]:
        errors = ((selection.error(f.sampler.method(selection.moments), f.steps)[0], f) for f in fits)
        return [(loss(error) * float(error.square().mean().sqrt()), f) for error, f in errors]

    def best(pairs: list[tuple[float, Fit]], n: int) -> list[Fit]:
        return [f for _, f in sorted(pairs, key=lambda pair: pair[0])[:n]]

    pairs = ranked(fits)
    pairs += ranked(gated(reference, f, rounds if move_nodes else 0) for f in best(pairs, _GATED))
    pairs += ranked(f for start in best(pairs, _LEADING) for f in joint_refinement(reference, start, rounds))
    return best(pairs, 1)[0].sampler


def better(after: Tensor, before: Tensor) -> bool:
    """Whether errors (n, k) are less than others from equal starts.

    The loss is less, and the mean square is at most two standard errors greater; one outlier trajectory makes one.
    """
    rise = after.square().sum(1) - before.square().sum(1)
    return loss(after) < loss(before) and float(rise.mean()) <= 2 * float(rise.std()) / len(rise) ** 0.5


def figures(error: Tensor, moments: Moments) -> dict[str, float]:
    """The root mean square and the median error over trajectories, in standard deviations of the data."""
    norms = error.norm(dim=1) / moments.total_std
    return {"rmse": float(norms.square().mean().sqrt()), "median": float(norms.median())}


def _names(model: Model, names: Sequence[str], prompts: Sequence[str]) -> Sequence[str]:
    """The names of the conditions to tune for; raises InputError for prompts that are missing or not taken."""
    takes = "prompt" in [c.name for c in model.conditions]
    if takes != bool(prompts) and (prompts or names is CONDITIONS):
        raise InputError("got a text-to-image model without prompts; expected prompts=, texts like those that it will "
                         "be used with" if takes else "got prompts for a model that takes no text; leave them out")
    return ["prompt"] if prompts else names


def _conditions(model: Model, n: int, names: Sequence[str], prompts: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The conditions for n samples, by name."""
    every: dict[str, dict[str, Any]] = {"": {}}
    if model.classes:
        every["label"] = {"label": torch.arange(n) % model.classes}
    if prompts:
        every["prompt"] = model.encode_conditions({"prompt": [prompts[k % len(prompts)] for k in range(n)]}, n)
    return {name: cond for name, cond in every.items() if name in names}


def sample_moments(counter: RowCounter) -> Moments:
    """The moments of a model's samples, in all directions only if there are at least 4 samples per direction."""
    n, model = counter.measured, counter.model
    x = counter.sample(n, _MOMENTS, method=counter.default(20).build(), steps=20).x
    d = x[0].numel()
    if 4 * d <= n:
        return Moments.measure(x, "pca")
    return Moments.measure(x, "dct") if len(model.shape) == 3 else Moments.measure(x, "pca", n // 8)


def _check(model: ReverseModel, evaluations: Sequence[int], trajectories: int, rounds: int) -> None:
    if not isinstance(model, Model):
        raise InputError(f"got a {type(model).__name__}, which has no denoiser; expected a model of a Gaussian process")
    require_denoiser(model, "tuning")
    if not evaluations or not all(isinstance(n, int) and 2 <= n <= 100 for n in evaluations):
        raise InputError(f"got evaluations={list(evaluations)}; expected numbers from 2 to 100, such as 5,8,20")
    if trajectories < 4 or rounds < 0:
        raise InputError(f"got trajectories={trajectories} and rounds={rounds}; expected at least 4 and 0")


def tune_classes(model: Model, *, data: Tensor | None = None, labels: Tensor | None = None, trajectories: int = 32,
                 rounds: int = 4, say: Callable[[str], None] = lambda line: None) -> Tuned:
    """Add coefficients, and moments where they help, per class to the samplers for labels of a tuned model.

    The nodes do not change. For every class, coefficients are fitted with the moments of all data and with the moments
    of the class; other starts select, and others test whether the result beats the sampler for all classes.

    Args:
        model: the tuned model, with classes.
        data: rows (n, *shape) in data units for the moments of the classes; None: 512 samples of the model per class.
        labels: (n,), their classes.
        trajectories: number of starts to fit to.
        rounds: Gauss-Newton rounds over the coefficients.
        say: receives a line per stage.

    Raises:
        InputError: for a model without classes, and for one that is not tuned or has changed since.
    """
    check_per_class(model)
    tuning = valid_tuning(model)
    if tuning is None or "label" not in tuning.table:
        raise InputError("got a model that is not tuned for samples with labels; tune it first")
    samplers: Mapping[int, TunedSampler] = tuning.table["label"]
    per_class: dict[int, dict[int, ClassCoefficients]] = {n: {} for n in samplers}
    rows: list[dict[str, Any]] = []
    for c in range(model.classes if samplers else 0):
        say(f"fitting class {c}")
        counter = RowCounter(model, {"label": c})
        moments = _class_moments(counter, c, data, labels, model.transform)
        for n, coefficients, row in _fit_class(counter, tuning, moments, samplers, trajectories, rounds):
            rows.append({**row, "given": f"label={c}"})
            per_class[n] |= {c: coefficients} if row["kept"] else {}
    table = {**tuning.table, "label": {n: replace(common, per_class=per_class[n]) for n, common in samplers.items()}}
    before = [row for row in tuning.rows if "=" not in row["given"]]
    return Tuned(model, replace(tuning, table=table, rows=(*before, *rows)))


def check_per_class(model: Model) -> None:
    """Raise InputError for a model without classes."""
    if not model.classes:
        raise InputError("got a model that was trained without labels; it has no classes to tune to")


def _fit_class(counter: RowCounter, tuning: Tuning, moments: Moments, samplers: Mapping[int, TunedSampler], n: int,
               rounds: int) -> Iterator[tuple[int, ClassCoefficients, dict[str, Any]]]:
    """For each number of evaluations the coefficients of a class, and the row of results."""
    clock, pooled, end = time.monotonic(), tuning.moments, tuning.t_end
    states = list(trajectories(counter, n, 0, end))
    references = {m: Reference.in_coordinates(counter, m, states) for m in (pooled, moments)}
    selection, validation = (PathEnds.follow(counter, pooled, MORE * n, first, end)
                             for first in (SELECTION, VALIDATION))
    for steps, common in samplers.items():
        common = replace(common, per_class={})
        options = []
        for m, reference in references.items():
            best = best_sampler(reference, selection.in_coordinates(m), [refit(reference, common)], rounds, False)
            options.append(ClassCoefficients(best.theta, None if m is pooled else m))
        methods = [replace(common, theta=option.theta).method(option.moments or pooled) for option in options]
        k = min(range(2), key=lambda k: loss(selection.error(methods[k], steps)[0]))
        before, after = (validation.error(method, steps)[0] for method in (common.method(pooled), methods[k]))
        yield steps, options[k], {
            "evaluations": steps, "untuned": "one sampler for all classes", "kept": better(after, before),
            "before": figures(before, pooled), "after": figures(after, pooled), "calls": counter.rows,
            "seconds": round(time.monotonic() - clock, 2)}
        counter.rows, clock = 0, time.monotonic()


def _class_moments(counter: RowCounter, c: int, data: Tensor | None, labels: Tensor | None, transform: Transform
                   ) -> Moments:
    """The moments of the rows of a class in model units, or of samples if there are no rows."""
    if data is None or labels is None or int((labels == c).sum()) < 2:
        return sample_moments(counter)
    rows = (labels == c).nonzero()[:, 0]
    return measure_moments(data, rows, transform, missing=len(counter.model.shape) == 1)


@dataclass(frozen=True)
class Family:
    """Models by guidance scale, and a tuning whose `family` has samplers at some scales, all on the same nodes."""

    model: Callable[[float], Model]
    tuning: Tuning

    def at(self, strength: float) -> Tuned:
        """The tuned model at a scale, its coefficients interpolated linearly; raises InputError outside the range."""
        low, high = self.tuning.family[0][0], self.tuning.family[-1][0]
        tuning = self.tuning.strength(strength)
        if tuning is None or not low <= strength <= high:
            raise InputError(f"got the strength {strength:g}; expected one from {low:g} to {high:g}")
        return Tuned(self.model(strength), tuning)


def tune_family(model: Callable[[float], Model], strengths: Sequence[float], evaluations: Sequence[int] = EVALUATIONS,
                *, trajectories: int | None = None, rounds: int | None = None,
                conditions: Sequence[str] = CONDITIONS, prompts: Sequence[str] = (),
                budget: float | str | None = None, say: Callable[[str], None] = lambda line: None) -> Family:
    """Tune a family of models such as `lambda w: ud.classifier_free(model, w)` at several strengths.

    The nodes are those of the middle strength; at the others only the coefficients are fitted. A sampler that is not
    kept at one of two neighbouring strengths is not used between them.

    Args:
        model: strength -> model.
        strengths: at least two.
        evaluations: numbers of model evaluations.
        trajectories: as in `tune`.
        rounds: as in `tune`.
        conditions: as in `tune`.
        prompts: as in `tune`.
        budget: as in `tune`, for all strengths.
        say: receives a line per stage.

    Raises:
        InputError: for fewer than two strengths.
    """
    increasing = tuple(sorted(set(map(float, strengths))))
    if len(increasing) < 2:
        raise InputError(f"got strengths={list(strengths)}; expected at least two, such as 1, 2, 4")
    middle, tunings = increasing[len(increasing) // 2], dict[float, Tuning]()
    for w in (middle, *(w for w in increasing if w != middle)):
        say(f"tuning at scale {w:g}")
        tunings[w] = tune(model(w), evaluations, trajectories=trajectories, rounds=rounds,
                          nodes_of=tunings.get(middle), conditions=conditions, prompts=prompts,
                          budget=None if budget is None else seconds_of(budget) / len(increasing), say=say).tuning
    first = tunings[middle]
    return Family(model, Tuning(first.moments, first.t_end, {}, family=tuple((w, tunings[w]) for w in increasing)))


def tune_guided(model: Model, scales: Sequence[float], evaluations: Sequence[int] = EVALUATIONS, *,
                trajectories: int | None = None, rounds: int | None = None, prompts: Sequence[str] = (),
                budget: float | str | None = None, say: Callable[[str], None] = lambda line: None) -> Tuned:
    """Tune the classifier-free guidance of a model at several scales; its other samplers are kept.

    `ud.sample(ud.classifier_free(tuned, w), steps=n, label=...)` uses the sampler for n in `evaluations` and any w in
    the range of the scales.

    Args:
        model: a model with classes.
        scales: guidance scales, at least two.
        evaluations: numbers of model evaluations.
        trajectories: as in `tune`.
        rounds: as in `tune`.
        prompts: as in `tune`.
        budget: as in `tune`, for all scales.
        say: receives a line per stage.

    Raises:
        InputError: for a model without classes or prompts, and as `tune_family`.
    """
    if not model.classes and not prompts:
        raise InputError("got guidance scales for a model that was trained without labels; leave them out")
    moments = moments_for(model, say, prompts=prompts)
    base = ModelUnits(model, moments)
    family = tune_family(lambda w: classifier_free(base, w), scales, evaluations, trajectories=trajectories,
                         rounds=rounds, conditions=["label"], prompts=prompts, budget=budget, say=say).tuning
    return Tuned(model, replace(compatible_tuning(model, moments, family.t_end), family=family.family))


def lines(tuning: Tuning) -> Iterator[str]:
    """A table with a row for each number of evaluations, and the cost."""
    yield "error on held-out noise, in standard deviations of the data: distance to the end of the exact trajectory"
    yield f"{'given':8}{'evaluations':>12}{'median before':>15}{'after':>9}{'RMSE before':>13}{'after':>9}  before is"
    for row in tuning.rows:
        before, after = row["before"], row["after"]
        verdict = "" if row["kept"] else "; tuned sampler rejected"
        yield (f"{row['given'] or '-':8}{row['evaluations']:12}{before['median']:15.5f}{after['median']:9.5f}"
               f"{before['rmse']:13.5f}{after['rmse']:9.5f}  {row['untuned']}{verdict}")
    calls, seconds = (sum(row[key] for row in tuning.rows) for key in ("calls", "seconds"))
    yield f"cost: {calls:,} model evaluations, {seconds:.0f} seconds"


def guided_lines(tuning: Tuning) -> Iterator[str]:
    """The tables of all guidance scales."""
    for scale, member in tuning.family:
        yield from (f"at guidance scale {scale:g}", *lines(member))
