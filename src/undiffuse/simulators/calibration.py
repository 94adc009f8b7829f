"""Whether a posterior is calibrated: simulations held out of the training compared with draws given their outputs.

For the true posterior the rank of a parameter θ* among L draws given x* is uniform on 0 ... L, and so is the fraction
of draws that are nearer to a random point than θ* is. From both follow the coverages of intervals and of regions.

Reference: Talts et al. (2018), arXiv:1804.06788, for ranks; Lemos et al. (2023), arXiv:2302.03026, for regions around
random points (TARP); Lopez-Paz and Oquab (2017), arXiv:1610.06545, for the classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from undiffuse.errors import InputError
from undiffuse.random import Purpose, uniform

Array = NDArray[np.float64]

LEVELS = (0.5, 0.8, 0.9, 0.95)
_FEWEST = 20  # simulations
_BINS = 10
_SIGNIFICANT, _TAIL = 0.01, 0.05
_ERRORS = 2.6  # standard errors of a coverage beyond which it is wrong, that is the same level


@dataclass(frozen=True)
class Calibration:
    """The calibration of a posterior.

    Args:
        names: Names of the parameters.
        simulations: Number of simulations m.
        draws: Draws per simulation L.
        ranks: Of every simulation and parameter the number of draws below the true value (m, d).
        nearer: Of every simulation the fraction of draws that are nearer to a random point than the true values (m,).
        predicted: Of every simulation and entry of the output the fraction of simulations of the draws below it (m, k);
            None without a simulator.
        c2st: Accuracy of a classifier of (θ, x) pairs, true against drawn, cross-validated; ½ for the true posterior.
        c2st_stderr: Its standard error for equal laws.
    """

    names: tuple[str, ...]
    simulations: int
    draws: int
    ranks: Array
    nearer: Array
    predicted: Array | None
    c2st: float
    c2st_stderr: float

    @property
    def coverage(self) -> dict[str, list[float]]:
        """By parameter the fraction of true values in the central intervals of `LEVELS`."""
        return {name: [central(self.ranks[:, j] + 0.5, self.draws + 1, level) for level in LEVELS]
                for j, name in enumerate(self.names)}

    @property
    def expected_coverage(self) -> list[float]:
        """The fraction of true values in the regions of `LEVELS` around random points."""
        return [float((self.nearer < level).mean()) for level in LEVELS]

    @property
    def stderr(self) -> list[float]:
        """The standard errors of the coverages of `LEVELS` for a calibrated posterior."""
        return [math.sqrt(level * (1 - level) / self.simulations) for level in LEVELS]

    @property
    def p_values(self) -> dict[str, float]:
        """By parameter the probability of ranks as uneven as these for a calibrated posterior (χ²)."""
        return {name: _p_value((self.ranks[:, j] + 0.5) / (self.draws + 1)) for j, name in enumerate(self.names)}

    @property
    def predictive_outside(self) -> float | None:
        """The largest fraction, over entries of the output, outside of the 95 % intervals of simulations of the draws,
        which is at most 5 % for a calibrated posterior; None without a simulator."""
        if self.predicted is None:
            return None
        return float((np.abs(self.predicted - 0.5) > 0.5 - _TAIL / 2).mean(0).max())

    @property
    def findings(self) -> list[str]:
        """What deviates from a calibrated posterior; empty if nothing does."""
        findings = [*self._coverage_findings(), *self._rank_findings()]
        excess = (self.c2st - 0.5) / self.c2st_stderr
        if excess > _ERRORS:
            findings.append(f"a classifier tells drawn from true parameters in {self.c2st:.1%} of cases")
        outside, error = self.predictive_outside, math.sqrt(_TAIL * (1 - _TAIL) / self.simulations)
        if outside is not None and outside > _TAIL + _ERRORS * error:
            findings.append(f"{outside:.0%} of the outputs lie outside of the {1 - _TAIL:.0%} intervals of simulations "
                            "of the draws")
        return findings

    @property
    def verdict(self) -> str:
        """The findings in one sentence."""
        tested = f"{self.simulations} held-out simulations with {self.draws} draws each"
        if not (findings := self.findings):
            return f"No deviation from a calibrated posterior in {tested}."
        return f"Not calibrated: {'; '.join(findings)} ({tested})."

    @property
    def calibrated(self) -> bool:
        """Whether no deviation was detected."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """All numbers but the ranks, as JSON types."""
        values = {k: v for k, v in asdict(self).items() if k not in ("ranks", "nearer", "predicted")}
        return {**values, "names": list(self.names), "levels": list(LEVELS), "coverage": self.coverage,
                "expected_coverage": self.expected_coverage, "stderr": self.stderr, "p_values": self.p_values,
                "predictive_outside": self.predictive_outside, "verdict": self.verdict}

    def _coverage_findings(self) -> list[str]:
        """Coverages that are too small or too large: those of regions, and of the worst parameter."""
        findings = []
        rows = {"the parameters together": self.expected_coverage, **self.coverage}
        for name, values in rows.items():
            errors = [(v - level) / e for v, level, e in zip(values, LEVELS, self.stderr, strict=True)]
            worst = max(range(len(LEVELS)), key=lambda k: abs(errors[k]))
            if abs(errors[worst]) > _ERRORS + math.log(len(rows)) / 4:
                kind = "too narrow" if errors[worst] < 0 else "too wide"
                findings.append(f"the {LEVELS[worst]:.0%} regions of {name} hold {values[worst]:.0%}, so they are "
                                f"{kind}")
        return findings[:3]

    def _rank_findings(self) -> list[str]:
        uneven = {name: p for name, p in self.p_values.items() if p < _SIGNIFICANT / len(self.names)}
        return [f"the ranks of {name} are uneven (p = {p:.1g})" for name, p in list(uneven.items())[:3]]


def calibration_of(names: tuple[str, ...], theta: Array, drawn: Array, x: Array, seed: int = 0,
                   simulator: Callable[[Array], Any] | None = None) -> Calibration:
    """The calibration of draws of parameters given outputs.

    Args:
        names: Names of the parameters.
        theta: True parameters of simulations that the posterior was not trained on (m, d).
        drawn: Draws given the output of each (m, L, d).
        x: The outputs (m, k).
        seed: Seed of the random points.
        simulator: A function from parameters (n, d) to outputs (n, ...), for the posterior predictive.

    Raises:
        InputError: For fewer than 20 simulations or draws.
    """
    m, draws = drawn.shape[:2]
    if m < _FEWEST or draws < _FEWEST:
        raise InputError(f"got {m} simulations that the posterior was not trained on and {draws} draws; expected at "
                         f"least {_FEWEST} of both, so hold out more simulations (held_out)")
    ranks = (drawn < theta[:, None]).sum(1).astype(np.float64)
    accuracy, error = _classify(theta, drawn[:, 0], x)
    predicted = None if simulator is None else _predict(simulator, drawn, x)
    return Calibration(names, m, draws, ranks, _nearer(theta, drawn, seed), predicted, accuracy, error)


def central(ranks: Array, count: int, level: float) -> float:
    """The fraction of ranks ½ ... count − ½ in the central interval of a level."""
    return float((np.abs(ranks / count - 0.5) < level / 2).mean())


def _nearer(theta: Array, drawn: Array, seed: int) -> Array:
    """The fraction of draws nearer to a random point of the box of the draws than the true parameters are, (m,)."""
    low, high, std = drawn.min((0, 1)), drawn.max((0, 1)), drawn.std((0, 1))
    u = uniform(seed, Purpose.PROBE, 1 << 33, 0, len(theta), (theta.shape[1],)).double().numpy()
    point = low + (high - low) * u
    to_draws = np.square((drawn - point[:, None]) / std).sum(2)
    to_truth = np.square((theta - point) / std).sum(1)
    return np.asarray((to_draws < to_truth[:, None]).mean(1))


def _predict(simulator: Callable[[Array], Any], drawn: Array, x: Array) -> Array:
    """The fraction of simulated outputs of the draws below each observed one, ties halved, (m, k)."""
    m, count, d = drawn.shape
    outputs = np.asarray(simulator(drawn.reshape(-1, d)), np.float64).reshape(m, count, -1)
    if outputs.shape[2] != x.shape[1]:
        raise InputError(f"got a simulator with outputs of {outputs.shape[2]} numbers; expected {x.shape[1]}")
    return np.asarray((outputs < x[:, None]).mean(1) + (outputs == x[:, None]).mean(1) / 2)


def _classify(theta: Array, drawn: Array, x: Array) -> tuple[float, float]:
    """The cross-validated accuracy of a classifier of true and drawn pairs, and its standard error for equal laws."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import GroupKFold, cross_val_score

    m = len(theta)
    rows = np.concatenate([np.concatenate([theta, x], 1), np.concatenate([drawn, x], 1)])
    labels, groups = np.repeat([0, 1], m), np.tile(np.arange(m), 2)
    model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=0)
    score = cross_val_score(model, rows, labels, groups=groups, cv=GroupKFold(min(5, m)))
    return float(score.mean()), 0.5 / math.sqrt(2 * m)


def _p_value(u: Array) -> float:
    """The probability of numbers in (0, 1) as uneven as these, by χ² of ten bins."""
    counts, _ = np.histogram(u, _BINS, (0, 1))
    return float(stats.chisquare(counts).pvalue)
