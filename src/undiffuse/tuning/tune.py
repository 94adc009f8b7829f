"""Fitting a sampler to a model: reference paths, nodes and coefficients, and an honest look at held-out noises."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.gaussian import Moments
from undiffuse.model import Model, ReverseModel
from undiffuse.steps.calibrated import Calibration, Tuning
from undiffuse.tuning.fit import Fit
from undiffuse.tuning.identity import current, kept
from undiffuse.tuning.nodes import gated, loss, refit, search
from undiffuse.tuning.reference import Ends, Meter, Reference
from undiffuse.tuning.together import together

EVALUATIONS = (4, 5, 6, 8, 10, 15, 20)
UNTUNED = (("auto", None), ("deis_3", "time_quadratic"), ("unipc", "time_quadratic"), ("unipc_4_noise", "log_snr"),
           ("dpmpp_2m", "karras"))
"""The untuned samplers and grids of which the best is what a tuning has to beat."""
CONDITIONS = ("", "label")
"""What samplers are fitted under: nothing, and all labels in turn where the model has classes."""
HELD, CHOSEN, _DRAWN = 1 << 20, 3 << 20, 1 << 21
MORE = 4
"""How many other starts choose, and how many validate, for each that is fitted to."""
_GATED, _LEADING = 2, 3
_MEASURED = 512

M = TypeVar("M", bound=ReverseModel)


def tune(model: M, evaluations: Sequence[int] = EVALUATIONS, *, t_end: float | None = None, trajectories: int = 32,
         rounds: int = 4, like: Tuning | None = None, given: Sequence[str] = CONDITIONS,
         say: Callable[[str], None] = lambda line: None) -> M:
    """The same model with samplers fitted to it, which `ud.sample(tuned, steps=n)` takes for n in `evaluations`.

    Its probability flow is followed from `trajectories` starts by 256 small steps. For every n, grids even in local
    error are tried, coefficients follow in closed form, and `rounds` rounds of Gauss and Newton's method move the
    nodes. Four times as many other starts choose among the fits, and as many again decide: where the best of `UNTUNED`
    is not beaten, nothing is kept. A model with classes is tuned for samples with labels and without. What else the
    model is tuned to (under guidance) stays beside it, as long as the model is the same. Nothing is
    differentiated; `tuned.tuning.rows` says what came out, and what it cost. A model without moments gets those of 512
    samples of its own.

    t_end: where paths end, the model's own end by default. like: a tuning whose nodes are kept, so that only the
    coefficients are fitted; what it does not have is left out. given: for which conditions only, of `CONDITIONS`.
    say: hears of every stage. Raises InputError for fewer than 2 evaluations, fewer than 4 trajectories, and for a
    model that has no denoiser.

    Reference: Wang and Vastola (2024), arXiv:2412.09726 (the exact Gaussian part); Golub and Pereyra (1973).
    """
    _check(model, evaluations, trajectories, rounds)
    assert isinstance(model, Model)
    frame, end = frame_of(model, say, like), model.t_end() if t_end is None else t_end
    table: dict[str, dict[int, Calibration]] = {}
    rows: list[dict[str, Any]] = []
    for name, cond in _conditions(model, MORE * trajectories, given).items():
        known = None if like is None else like.table.get(name, {})
        wanted = [n for n in sorted(set(evaluations)) if known is None or n in known]
        meter = Meter(model, cond)
        found = list(_fitted(meter, frame, wanted, end, trajectories, rounds, known, say)) if wanted else []
        table[name] = {c.evaluations: c for c, row in found if row["kept"]}
        rows += [row for _, row in found]
    tuned = copy.copy(model)
    tuned.tuning = replace(kept(model, frame, end), table=table, rows=tuple(rows))
    return tuned


def frame_of(model: Model, say: Callable[[str], None], like: Tuning | None = None) -> Moments:
    """The moments of the data, else those that the model is tuned in already, else those of its samples."""
    known = like or current(model)
    if model.moments is not None:
        return model.moments
    if known is not None:
        return known.frame
    say(f"drawing {_MEASURED} samples for the moments")
    return own_moments(model, Meter(model, {}))


def _fitted(meter: Meter, frame: Moments, evaluations: list[int], t_end: float, n: int, rounds: int,
            known: Mapping[int, Calibration] | None, say: Callable[[str], None]
            ) -> Iterator[tuple[Calibration, dict[str, Any]]]:
    """For each number of evaluations the calibration and what was measured of it."""
    name, clock = ",".join(meter.cond), time.monotonic()
    say(f"following {(1 + 2 * MORE) * n} paths" + f" given {name}" * bool(name))
    fitted = Reference.follow(meter, frame, n, 0, t_end)
    found: list[Fit] = []
    chosen, held = (Ends.follow(meter, frame, MORE * n, first, t_end) for first in (CHOSEN, HELD))
    for steps in evaluations:
        say(f"fitting {steps} evaluations" + f" given {name}" * bool(name))
        found = search(fitted, steps, rounds, found) if known is None else [refit(fitted, known[steps])]
        best = found[0].calibration if known else chosen_of(fitted, chosen, found, rounds)
        after, _ = held.error(best.method(frame), steps)
        untuned = [held.error(method, steps, grid) for method, grid in UNTUNED]
        before, method = min(untuned, key=lambda pair: loss(pair[0]))
        row = {"given": name, "evaluations": steps, "untuned": method,
               "kept": all(better(after, other) for other, _ in untuned),
               "before": figures(before, frame), "after": figures(after, frame), "calls": meter.rows,
               "seconds": round(time.monotonic() - clock, 2)}
        meter.rows, clock = 0, time.monotonic()
        yield best, row


def chosen_of(fitted: Reference, chosen: Ends, found: list[Fit], rounds: int, moved: bool = True) -> Calibration:
    """The best on other starts of the fits that were found, the best of them with gates, and the best of all those with
    their coefficients improved together. The loss times the root mean square is what counts: where fits differ little
    in the one, it is the lost paths that tell them apart. moved: gates may bring nodes of their own.
    """

    def ranked(fits: Iterable[Fit]) -> list[tuple[float, Fit]]:
        errors = ((chosen.error(f.calibration.method(chosen.frame), f.steps)[0], f) for f in fits)
        return [(loss(error) * float(error.square().mean().sqrt()), f) for error, f in errors]

    def best(pairs: list[tuple[float, Fit]], n: int) -> list[Fit]:
        return [f for _, f in sorted(pairs, key=lambda pair: pair[0])[:n]]

    known = ranked(found)
    known += ranked(gated(fitted, f, rounds if moved else 0) for f in best(known, _GATED))
    known += ranked(f for start in best(known, _LEADING) for f in together(fitted, start, rounds))
    return best(known, 1)[0].calibration


def better(after: Tensor, before: Tensor) -> bool:
    """Whether errors (n, k) are less than others of the same starts: the loss is, and the mean square is not greater by
    more than two standard errors, of which a single path that is lost makes one."""
    rise = after.square().sum(1) - before.square().sum(1)
    return loss(after) < loss(before) and float(rise.mean()) <= 2 * float(rise.std()) / len(rise) ** 0.5


def figures(error: Tensor, frame: Moments) -> dict[str, float]:
    """The root mean square over paths and their median error, in deviations of the data."""
    each = error.norm(dim=1) / frame.total_std
    return {"rmse": float(each.square().mean().sqrt()), "median": float(each.median())}


def _conditions(model: Model, n: int, given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The conditions for n samples by their names."""
    labels: dict[str, Any] = {"label": torch.arange(n) % max(model.classes, 1)}
    every = {"": dict[str, Any](), "label": labels}
    return {name: cond for name, cond in every.items() if name in given and (model.classes or not name)}


def own_moments(model: Model, meter: Meter) -> Moments:
    """The moments of the model's own samples: all directions only where there are many more samples than those."""
    x = meter.run(_MEASURED, _DRAWN, steps=20).x
    d = x[0].numel()
    if 4 * d <= _MEASURED:
        return Moments.measure(x, "pca")
    return Moments.measure(x, "dct") if len(model.shape) == 3 else Moments.measure(x, "pca", _MEASURED // 8)


def _check(model: ReverseModel, evaluations: Sequence[int], trajectories: int, rounds: int) -> None:
    if not isinstance(model, Model):
        raise InputError(f"got a {type(model).__name__}, which has no denoiser; expected a model of a Gaussian process")
    if not evaluations or not all(isinstance(n, int) and 2 <= n <= 100 for n in evaluations):
        raise InputError(f"got evaluations={list(evaluations)}; expected numbers from 2 to 100, such as 5,8,20")
    if trajectories < 4 or rounds < 0:
        raise InputError(f"got trajectories={trajectories} and rounds={rounds}; expected at least 4 and 0")
