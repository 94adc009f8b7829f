"""Imputation and forecasts of series: the Gaussian law of their windows, and a learned correction where it is better.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse import storage
from undiffuse.atomic_files import atomic_set
from undiffuse.inverse.window_correction import (
    PAIRS,
    TESTED,
    Correction,
    GapNet,
    Pairs,
    fit_correction,
    normal_crps,
    relative_crps,
)
from undiffuse.inverse.window_law import WindowLaw, fill, fit_law

_EM_RIDGE, _DEFAULT_RIDGE = 2e-4, 5e-4
_RIDGES = (1e-5, 1e-4, 5e-4, 2e-3)
_MEMORIES = (0, 1000, 300)
_SCALES = tuple(0.7 + 0.05 * k for k in range(11))
_USES, _COST = 8, 900_000_000  # times that a window is used; windows times the square of their values
_CHOICE = 200  # held-out windows on which ridge and period are chosen
NAME = "series.safetensors"
"""Name of the file in the folder of a run."""


@dataclass(frozen=True, eq=False)
class SeriesImputer:
    """Draws of missing values of windows and series, in model units.

    Args:
        law: Gaussian law of the windows.
        correction: its correction; None: none was better on held-out windows.
        scores: `relative_crps` on held-out windows, by name: law, corrected.
    """

    law: WindowLaw
    correction: Correction | None = None
    scores: dict[str, float] | None = None

    @classmethod
    def fit(cls, x: Tensor, begins: Tensor, held_out: Tensor | None = None, held_out_begins: Tensor | None = None,
            period: int = 0, seed: int = 0) -> SeriesImputer:
        """Fits law and correction.

        Args:
            x: windows (N, C, T) in model units, NaN where missing.
            begins: group and first step of every window (N, 2); windows that overlap or adjoin are one series.
            held_out: windows on which ridge, period and correction are chosen; None: no correction.
            held_out_begins: their group and first step.
            period: number of steps of a period that the series may have; 0: none.
            seed: seed of the random numbers.
        """
        pieces = pieces_of(x, begins)
        law, filled = fit_law(pieces.series, pieces.starts, x.shape[2], period, _EM_RIDGE, seed)
        if held_out is None or held_out_begins is None or len(held_out) < 2:
            return cls(replace(law, ridge=_DEFAULT_RIDGE))
        at = held_out_begins[:, 1]
        robust = WindowLaw.measure(filled, pieces.starts, x.shape[2], period, _EM_RIDGE, _without_period(law))
        law = _choose([law, _of_trace(robust, law)], held_out, at, seed)
        test = Pairs.make(law, held_out, at, TESTED, seed + 1)
        count = min(PAIRS, _USES * len(x), _COST // law.dim**2)
        pairs = Pairs.make(law, x, begins[:, 1], count, seed)
        correction = fit_correction(law, pairs, test, seed)
        scores = {"law": _score(test)}
        if correction is not None:
            scores["corrected"] = correction.score(test)
        return cls(law, correction, scores)

    def series(self, x: Tensor, begin: int, draws: int, seed: int = 0, future: int = 0, corrected: bool = True,
               stream: int = 0) -> Tensor:
        """Draws (draws, C, steps) of a series; see `window_law.fill`."""
        return fill(self.law, x, begin, draws, seed, stream, future, self.correction if corrected else None)

    def windows(self, x: Tensor, begins: Tensor, draws: int, seed: int = 0, corrected: bool = True) -> Tensor:
        """Draws (draws, N, C, T) of windows (N, C, T), each by itself.

        Args:
            x: windows, NaN where missing.
            begins: step at which each begins (N,).
            draws: number of draws.
            seed: seed of the random numbers.
            corrected: whether the correction is used.
        """
        rows = [self.series(row, int(at), draws, seed, 0, corrected, k << 16)
                for k, (row, at) in enumerate(zip(x, begins, strict=True))]
        return torch.stack(rows, 1)

    def describe(self) -> str:
        """One sentence on what was chosen."""
        period = f"a period of {self.law.period} steps" if self.law.period else "no period"
        if self.scores is None:
            return f"missing values are drawn from the Gaussian law of windows, with {period}; no windows were held out"
        law, corrected = self.scores["law"], self.scores.get("corrected")
        better = ("a network did not improve on it" if corrected is None else
                  f"corrected by a network, {corrected:.3f}")
        return (f"missing values are drawn from the Gaussian law of windows, with {period}; CRPS on hidden values of "
                f"held-out windows {law:.3f} of that expected, {better}")

    def save(self, path: Path) -> None:
        """Writes the imputer to a file."""
        law = self.law
        tensors = {"law.weights": law.weights, "law.first": law.first, "law.second": law.second}
        if self.correction is not None:
            tensors |= {f"net.{name}": value for name, value in self.correction.net.state_dict().items()}
            tensors["ranks"] = self.correction.ranks
        state = {"shape": list(law.shape), "period": law.period, "ridge": law.ridge, "memory": law.memory,
                 "scores": self.scores}
        with atomic_set([path]) as (stream,):
            storage.write(stream, tensors, json.loads(json.dumps(state)))

    @classmethod
    def load(cls, path: Path) -> SeriesImputer:
        """The imputer in a file; InputError if it is damaged."""
        tensors, state = storage.read(path)
        shape: Any = tuple(state["shape"])
        law = WindowLaw(shape, state["period"], tensors["law.weights"], tensors["law.first"], tensors["law.second"],
                        state["ridge"], state["memory"])
        if "ranks" not in tensors:
            return cls(law, None, state["scores"])
        net = GapNet(shape[0])
        net.load_state_dict(storage.with_prefix(tensors, "net."))
        return cls(law, Correction(net.requires_grad_(False), tensors["ranks"], shape, law.period), state["scores"])


class Pieces(NamedTuple):
    """The series that windows cover.

    Args:
        series: each (C, steps).
        starts: step at which each begins.
        places: for every window its series and its first step there (N, 2).
    """

    series: list[Tensor]
    starts: list[int]
    places: Tensor


def pieces_of(x: Tensor, begins: Tensor) -> Pieces:
    """The series that windows cover; windows that overlap or adjoin are of one.

    Args:
        x: windows (N, C, T).
        begins: group and first step of every window (N, 2).
    """
    T, parts, starts, places = x.shape[2], list[list[Tensor]](), list[int](), torch.zeros(len(x), 2).long()
    group, end = -1, 0
    for i in sorted(range(len(x)), key=lambda i: begins[i].tolist()):
        series, start = begins[i].tolist()
        if not parts or series != group or start > end:
            parts.append([])
            starts.append(start)
            end = start
        if start + T > end:
            parts[-1].append(x[i, :, end - start:])
        places[i] = torch.tensor([len(parts) - 1, start - starts[-1]])
        group, end = series, max(end, start + T)
    return Pieces([torch.cat(part, 1) for part in parts], starts, places)


def _without_period(law: WindowLaw) -> WindowLaw:
    return replace(law, period=0, weights=law.weights[:1], first=law.first[:1], second=law.second[:1])


def _of_trace(law: WindowLaw, other: WindowLaw) -> WindowLaw:
    """The law with its covariance scaled to the trace of another one's."""
    mean, cov = _without_period(replace(law, ridge=0.0)).moments(0)
    ratio = float(_without_period(replace(other, ridge=0.0)).moments(0)[1].trace() / cov.trace())
    # x = m + √r (x' − m) has the covariance r C: E x xᵀ = r E x' x'ᵀ + (√r − r)(E x' mᵀ + m E x'ᵀ) + (1 − √r)² m mᵀ
    root, outer = ratio**0.5, torch.outer(mean, mean)
    cross = torch.stack([torch.outer(f, mean) + torch.outer(mean, f) for f in law.first])
    second = ratio * law.second + (root - ratio) * cross + (1 - root) ** 2 * law.weights[:, None, None] * outer
    return replace(law, first=root * law.first + (1 - root) * law.weights[:, None] * mean, second=second)


def _choose(laws: Sequence[WindowLaw], x: Tensor, begins: Tensor, seed: int) -> WindowLaw:
    """The law with the smallest CRPS on hidden values: its windows' weights, its period, its memory and its ridge are
    chosen in turn."""
    forms = [*laws, *(_without_period(law) for law in laws if law.period)]

    def best(candidates: Sequence[WindowLaw]) -> WindowLaw:
        scores = [_crps(Pairs.make(each, x, begins, _CHOICE, seed + 1)) for each in candidates]
        return candidates[min(range(len(candidates)), key=scores.__getitem__)]

    law = best([replace(form, ridge=_DEFAULT_RIDGE) for form in forms])
    law = best([replace(law, memory=memory) for memory in _MEMORIES])
    return best([replace(law, ridge=ridge) for ridge in _RIDGES])


def _crps(pairs: Pairs) -> float:
    """Mean CRPS of the law over the windows, with the best of some factors of its standard deviations, which the
    correction chooses later."""
    h, std = pairs.hidden, pairs.std.clamp_min(1e-9)
    count = h.flatten(1).sum(1).clamp_min(1)
    return min(float(((normal_crps(pairs.x - pairs.mean, scale * std) * h).flatten(1).sum(1) / count).mean())
               for scale in _SCALES)


def _score(pairs: Pairs) -> float:
    return float(relative_crps(pairs.x - pairs.mean, pairs.std, pairs.hidden))
