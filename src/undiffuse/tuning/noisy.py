"""Fitting a sampler with noise to a model: a few candidates for every number of evaluations, and draws that decide.

Where paths can be followed (points, tables), the candidates are chains of exact flows and noise with coefficients in
closed form (`coupled`), one for each η. For images no path survives so much noise at few steps, and least squares
blurs; there the candidates are rows of DPM-Solver++(2M) for the SDE, whose η and levels are searched.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from undiffuse.gaussian import Moments
from undiffuse.metrics import sliced_w2
from undiffuse.model import Model
from undiffuse.steps.auto import automatic
from undiffuse.steps.calibrated import VALUES
from undiffuse.steps.method import Method
from undiffuse.steps.renoised import Noisy
from undiffuse.tuning.coupled import couple
from undiffuse.tuning.fit import fit
from undiffuse.tuning.identity import kept
from undiffuse.tuning.likeness import Likeness
from undiffuse.tuning.nodes import loss, starts
from undiffuse.tuning.reference import Meter, Reference

ETAS = (0.25, 0.5, 0.7, 1.0)
"""The amounts of noise of the coupled candidates."""
_GRIDS = 3
_DRAWS, _IMAGES = 8192, 1024
_CHAINS, _NEAR = 256, 0.05
_SEARCHED, _HELD, _KNOWN = 1 << 22, 1 << 23, 1 << 24

M = TypeVar("M", bound=Model)


def tune_noisy(model: M, evaluations: Sequence[int], *, frame: Moments, t_end: float, trajectories: int,
               data: Tensor | None = None, say: Callable[[str], None] = lambda line: None) -> M:
    """The same model with samplers with noise fitted to it, which `ud.sample(tuned, method="sde", steps=n)` takes.

    For every n and every condition some candidates are made; the one whose draws are nearest to `data` (n, *shape; in
    model units), or without data to draws of the model in 100 steps, is kept if on other noises it is nearer than the
    untuned `sde`, and for images than the untuned `auto`. The distance is `Likeness`. `tuned.tuning.noisy_rows` says
    what was measured.
    """
    table: dict[str, dict[int, Noisy]] = {}
    rows: list[dict[str, Any]] = []
    for given in [False, True][: 1 + bool(model.classes)]:
        trial = Trial(model, frame, t_end, given, data)
        found = list(_fitted(trial, sorted(set(evaluations)), trajectories, say))
        table[trial.name] = {noisy.evaluations: noisy for noisy, row in found if row["kept"]}
        rows += [row for _, row in found]
    tuned = copy.copy(model)
    tuned.tuning = replace(kept(model, frame, t_end), noisy=table, noisy_rows=tuple(rows))
    return tuned


class Trial:
    """A model with or without labels in turn, and the draws that its samplers are measured against."""

    def __init__(self, model: Model, frame: Moments, t_end: float, given: bool, data: Tensor | None) -> None:
        self.model, self.frame, self.t_end, self.name = model, frame, t_end, "label" * given
        self.image, self.rows = len(model.shape) == 3, 0
        self.n = _IMAGES if self.image else _DRAWS
        known = self.draw("dpmpp_2m_sde", 100, _KNOWN, "log_snr") if data is None else data
        self.likeness = Likeness(known)

    def meter(self, n: int) -> Meter:
        """The model, counting, with labels for n samples if labels are given."""
        return Meter(self.model, {"label": torch.arange(n) % self.model.classes} if self.name else {})

    def untuned(self, n: int) -> list[tuple[str, Method]]:
        """What is to be beaten: the untuned `sde`, and for images the untuned `auto` as well."""
        kinds = ("sde", "auto") if self.image else ("sde",)
        return [automatic(self.model, n, (None, self.t_end), bool(self.name), kind) for kind in kinds]

    def draw(self, method: Any, steps: int, first: int, grid: str | None = None) -> Tensor:
        """Draws of a sampler from the starts number `first` and on."""
        meter = self.meter(self.n)
        x: Tensor = meter.run(self.n, first, method=method, steps=steps, grid=grid, t_end=self.t_end).x
        self.rows += meter.rows
        return x

    def distance(self, noisy: Noisy, first: int = _SEARCHED) -> float:
        """How far the draws of a candidate are from what is known."""
        found = self.likeness(self.draw(noisy.method(self.frame), len(noisy.times) - 1, first))
        return found if math.isfinite(found) else math.inf


def _fitted(trial: Trial, evaluations: list[int], trajectories: int, say: Callable[[str], None]
            ) -> Iterator[tuple[Noisy, dict[str, Any]]]:
    """For each number of evaluations the best candidate and what was measured of it."""
    reference = None if trial.image else _reference(trial, trajectories)
    for n in evaluations:
        clock = time.monotonic()
        say(f"fitting {n} evaluations with noise" + f" given {trial.name}" * bool(trial.name))
        best = searched(trial, n) if reference is None else coupled(trial, reference, n, trajectories)
        before, untuned = min((trial.likeness(trial.draw(method, n, _HELD)), name)
                              for name, method in trial.untuned(n))
        after = trial.distance(best, _HELD)
        yield best, {"given": trial.name, "evaluations": n, "eta": best.eta, "before": before, "after": after,
                     "untuned": untuned,
                     "kept": after < before, "calls": trial.rows, "seconds": round(time.monotonic() - clock, 2)}
        trial.rows = 0


def _reference(trial: Trial, trajectories: int) -> Reference:
    meter = trial.meter(trajectories)
    reference = Reference.follow(meter, trial.frame, trajectories, 0, trial.t_end)
    trial.rows += meter.rows
    return reference


def coupled(trial: Trial, reference: Reference, n: int, trajectories: int) -> Noisy:
    """For every η the grid on which the states stay nearest to their chains; then the greatest η whose draws are within
    `_NEAR` deviations of the chains', as laws, on other noises, or else the least η."""
    tried = sorted((fit(reference, nodes, leap) for nodes, leap in starts(reference, n)), key=lambda f: loss(f.error))
    fitting, judging = trial.meter(trajectories), trial.meter(_CHAINS)
    for eta in sorted(ETAS, reverse=True):
        pairs = [(couple(fitting, trial.frame, f.nodes, f.leap, eta, trajectories), f.nodes) for f in tried[:_GRIDS]]
        (best, *_), nodes = min(pairs, key=lambda pair: loss(pair[0].error))
        new = couple(judging, trial.frame, nodes, best.leap, eta, _CHAINS, best, _SEARCHED)
        if sliced_w2(new.x, new.chain) < _NEAR * trial.frame.total_std:
            break
    trial.rows += fitting.rows + judging.rows
    return best


class Recipe(NamedTuple):
    """DPM-Solver++(2M) for the SDE: η, the levels in deviations of the data where it begins and of its last evaluation,
    and the exponent ρ of the levels between (Karras et al., 2022, eq. 5)."""

    eta: float = 1.0
    first: float = 15.0
    last: float = 0.16
    rho: float = 2.5

    def made(self, model: Model, t_end: float, n: int) -> Noisy:
        """The sampler for n evaluations: from T itself where that is no higher, and never below the end.

        In the last step nothing is extrapolated.
        """
        start, end = (torch.tensor([t], dtype=torch.float64) for t in (float(model.sde.T), t_end))
        high, low = (float(torch.exp(-model.sde.log_snr(t))) for t in (start, end))
        leap = 1.1 * self.first * model.sigma_data < high
        ends = self.first * model.sigma_data if leap else high, max(self.last * model.sigma_data, 1.2 * low)
        first, last = (level ** (1 / self.rho) for level in ends)
        lam = -self.rho * torch.log(torch.linspace(first, last, n, dtype=torch.float64))
        theta, h = torch.zeros(n, 1 + VALUES, dtype=torch.float64), lam.diff()
        theta[1:-1, 1] = h[1:] / (2 * h[:-1])
        theta[:, 2] = -theta[:, 1]
        inner = model.sde.time_of(lam if leap else lam[1:])
        return Noisy(torch.cat([start, inner, end]), theta, self.eta, framed=False, leap=leap)


LADDERS: Mapping[str, Sequence[float]] = {
    "first": (6.0, 10.0, 15.0, 25.0), "eta": (0.7, 1.0, 1.3), "last": (0.08, 0.16, 0.32), "rho": (2.5, 4.0)}
_GIVEN = 15.0
"""No sampler begins lower where there are labels, of which the moments know nothing."""
_GAIN = 0.9


def searched(trial: Trial, n: int, sweeps: int = 2) -> Noisy:
    """The recipe of the nearest draws, coordinate by coordinate along the ladders from the usual one.

    A rung is taken where it is nearer by a tenth: so much do two sets of noises of one sampler differ.
    """
    known: dict[Recipe, float] = {}

    def distance(recipe: Recipe) -> float:
        if recipe not in known:
            known[recipe] = trial.distance(recipe.made(trial.model, trial.t_end, n))
        return known[recipe]

    best, ladders = Recipe(), {**LADDERS, "first": [f for f in LADDERS["first"] if f >= _GIVEN or not trial.name]}
    for _, (name, ladder) in product(range(sweeps), ladders.items()):
        k = ladder.index(getattr(best, name))
        for rung in (*ladder[max(0, k - 1):k], *ladder[k + 1:k + 2]):
            moved = best._replace(**{name: rung})
            best = moved if distance(moved) < _GAIN * distance(best) else best
    return best.made(trial.model, trial.t_end, n)
