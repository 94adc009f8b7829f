"""The Gaussian law of the windows of a series, fitted to series with missing values, and exact draws from it.

A window is C channels of T consecutive times. In a series with a period (a day of hourly values) mean and covariance
of a window depend on the phase φ at which it begins. The law has one harmonic of it: with a = 0 or 1,

    μ(φ) = Σ_i w_i(φ) x_i,   C(φ) = Σ_i w_i(φ) (x_i − μ(φ)) (x_i − μ(φ))ᵀ,   w_i(φ) ∝ 1 + a cos(φ_i − φ),

over the windows i of the series, which are positive semi-definite for every φ. Given the observed values o of a window
and Q = C⁻¹, the missing ones g are N(μ_g − Q_gg⁻¹ Q_go (x_o − μ_o), Q_gg⁻¹).

Missing values of the series are drawn from the law, the law is measured on the series, and so on (stochastic EM).

Reference: Celeux and Diebolt (1985) for stochastic EM; Gladyshev (1961) for periodically correlated series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.moments import interpolated
from undiffuse.random import Purpose, normal

MAX_ENTRIES = 1024
"""Largest number C·T of values of a window for which the law is measured."""
_ROUNDS = 6
_CACHED = 40_000_000  # numbers of inverse covariances that are kept
_STREAM = 1 << 40  # of the random numbers of the fit, in the steps of Purpose.DATA


class Conditional(NamedTuple):
    """The law of the missing values g of windows: mean (B, m), and the factor L of their precision Q_gg = L Lᵀ."""

    mean: Tensor
    factor: Tensor

    @property
    def std(self) -> Tensor:
        """Standard deviation of every missing value (m,)."""
        unit = torch.eye(len(self.factor), dtype=self.factor.dtype)
        inverse: Tensor = torch.linalg.solve_triangular(self.factor, unit, upper=False)
        return inverse.square().sum(0).sqrt()

    def draw(self, eps: Tensor) -> Tensor:
        """Samples (B, m) from standard normals (B, m)."""
        deviation: Tensor = torch.linalg.solve_triangular(self.factor.T, eps.T, upper=True)
        return self.mean + deviation.T


Corrector = Callable[[Tensor, Tensor, int, Conditional, Tensor], Tensor]
"""Draws (B, m) of missing values from windows (B, C·T), their missing values (C·T,), the step at which they begin, the
law of the missing values, and standard normals (B, m)."""


@dataclass(frozen=True, eq=False)
class WindowLaw:
    """The Gaussian law of windows (C, T).

    Args:
        shape: C and T.
        period: number of steps of the period; 0: the law does not depend on the phase.
        weights: mean of 1, cos φ_i and sin φ_i over the windows (k,), k = 1 without a period, else 3.
        first: the same of x_i, (k, C·T).
        second: the same of x_i x_iᵀ, (k, C·T, C·T).
        ridge: variance that is added to that of every value.
        memory: steps m over which covariances are trusted: those at a lag l are multiplied by e^{−l/m}, a covariance
            itself, so that the product is one; 0: without end.
    """

    shape: tuple[int, int]
    period: int
    weights: Tensor
    first: Tensor
    second: Tensor
    ridge: float
    memory: int = 0

    @classmethod
    def measure(cls, series: Sequence[Tensor], begins: Sequence[int], window: int, period: int, ridge: float,
                robust: WindowLaw | None = None) -> WindowLaw:
        """The law of all windows of series without missing values.

        Args:
            series: pieces (C, steps), each at least as long as a window.
            begins: step at which each piece begins, from which phases are counted.
            window: number T of steps of a window.
            period: see the class.
            ridge: see the class.
            robust: a law under which windows are weighted by the inverse of their squared distance to its mean, so
                that restless times do not decide; the covariance is that of elliptical laws, with the trace of all
                windows.

        Reference: Tyler (1987), Annals of Statistics 15, for the weights.
        """
        total: list[Tensor] = []
        for piece, begin in zip(series, begins, strict=True):
            x = piece.double().unfold(1, window, 1).transpose(0, 1).flatten(1)
            w = _harmonics(torch.arange(begin, begin + len(x)), period)
            if robust is not None:
                mean, precision = robust.precision(0)
                w = w / ((((x - mean) @ precision) * (x - mean)).sum(1) / x.shape[1]).clamp_min(1e-3)
            parts = [w.sum(1), w @ x, torch.stack([(x * row[:, None]).T @ x for row in w])]
            total = [a + b for a, b in zip(total, parts, strict=True)] if total else parts
        n = total[0][0].clone()
        return cls((len(series[0]), window), period, total[0] / n, total[1] / n, total[2] / n, ridge)

    @classmethod
    def gaussian(cls, mean: Tensor, cov: Tensor, shape: tuple[int, int]) -> WindowLaw:
        """The law N(mean, cov) of flat windows (C·T,)."""
        second = cov.double() + torch.outer(mean.double(), mean.double())
        return cls(shape, 0, torch.ones(1, dtype=torch.float64), mean.double()[None], second[None], 0.0)

    @property
    def dim(self) -> int:
        """The number C·T of values."""
        return math.prod(self.shape)

    def moments(self, begin: int) -> tuple[Tensor, Tensor]:
        """Mean (C·T,) and covariance of a window that begins at a step."""
        h = _harmonics(torch.tensor([begin]), self.period)[:, 0]
        scale = float(h @ self.weights)
        mean = h @ self.first / scale
        cov = torch.tensordot(h, self.second, 1) / scale - torch.outer(mean, mean)
        if self.memory:
            steps = torch.arange(self.shape[1], dtype=torch.float64)
            taper = torch.exp(-(steps[:, None] - steps).abs() / self.memory)
            cov = cov * taper.repeat(self.shape[0], self.shape[0])
        return mean, cov + self.ridge * torch.eye(self.dim, dtype=torch.float64)

    def posterior(self, x: Tensor, missing: Tensor, begin: int) -> Conditional:
        """The law of the missing values of windows.

        Args:
            x: flat windows (B, C·T); missing values count not.
            missing: which are missing (C·T,), in all of them.
            begin: step at which the windows begin.
        """
        mean, precision = self.precision(begin)
        factor = torch.linalg.cholesky(precision[missing][:, missing])
        residual = (x.double() - mean)[:, ~missing]
        shift = torch.cholesky_solve(precision[missing][:, ~missing] @ residual.T, factor).T
        return Conditional(mean[missing] - shift, factor)

    def step_scores(self, x: Tensor, begin: int) -> tuple[Tensor, Tensor, Tensor]:
        """How likely every step of a window is given the steps before it; missing values are integrated out.

        With the observed values in the order of time and C = L Lᵀ, u = L⁻¹ (x − μ) are independent standard normals.

        Args:
            x: a window (C, T), NaN where missing.
            begin: step at which it begins.

        Returns:
            Log-density, Σ ½(u² − 1), and the number of observed values, of every step (T,).
        """
        C, T = self.shape
        mean, cov = self.moments(begin)
        order = torch.arange(C * T).reshape(C, T).T.flatten()
        order = order[~x.flatten()[order].isnan()]
        factor = torch.linalg.cholesky(cov[order][:, order])
        u = torch.linalg.solve_triangular(factor, (x.double().flatten() - mean)[order, None], upper=False)[:, 0]
        terms = torch.stack([-u.square() / 2 - factor.diag().log() - math.log(2 * math.pi) / 2, (u.square() - 1) / 2,
                             torch.ones_like(u)])
        log_prob, surprise, count = torch.zeros(3, T, dtype=torch.float64).index_add(1, order % T, terms)
        return log_prob, surprise, count

    @cached_property
    def _cache(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def precision(self, begin: int) -> tuple[Tensor, Tensor]:
        """Mean and inverse covariance of a window that begins at a step."""
        phase = begin % self.period if self.period else 0
        if phase not in self._cache:
            if len(self._cache) >= max(1, _CACHED // self.dim**2):
                self._cache.clear()
            mean, cov = self.moments(phase)
            self._cache[phase] = mean, torch.cholesky_inverse(torch.linalg.cholesky(cov))
        return self._cache[phase]


def fit_law(series: Sequence[Tensor], begins: Sequence[int], window: int, period: int, ridge: float,
            seed: int = 0) -> tuple[WindowLaw, list[Tensor]]:
    """The law of the windows of series with missing values, and the series with these drawn from it.

    Args:
        series: pieces (C, steps), NaN where missing, each at least as long as a window.
        begins: step at which each piece begins.
        window: number of steps of a window.
        period: see `WindowLaw`.
        ridge: see `WindowLaw`.
        seed: seed of the random numbers.

    Raises:
        InputError: for windows of more than 1,024 values, and for a channel without values.
    """
    if len(series[0]) * window > MAX_ENTRIES:
        raise InputError(f"got windows of {len(series[0])} channels and {window} steps; the covariance of a series is "
                         f"measured up to {MAX_ENTRIES:,} values per window, so choose fewer columns or a shorter "
                         f"window")
    filled = [interpolate(piece) for piece in series]
    rounds = _ROUNDS if any(bool(piece.isnan().any()) for piece in series) else 1
    for k in range(rounds):
        law = WindowLaw.measure(filled, begins, window, period, ridge)
        if k < rounds - 1:
            filled = [fill(law, piece, begin, 1, seed, _STREAM + (k << 32) + (j << 20))[0]
                      for j, (piece, begin) in enumerate(zip(series, begins, strict=True))]
    return law, filled


def interpolate(piece: Tensor) -> Tensor:
    """A series (C, steps) with missing values interpolated linearly; 0 in a channel without values."""
    return interpolated(piece.double()[None])[0].nan_to_num(0.0)


class Block(NamedTuple):
    """A window of a plan: it begins at a step, and missing values before `end` are those of its draw."""

    start: int
    end: int


def blocks(steps: int, window: int, future: int = 0) -> Iterator[Block]:
    """Windows that cover a series; each is conditioned on what the windows before it have drawn.

    In the past a value has a quarter of a window of context on both sides at least, beyond the ends of the series
    excepted. The last `future` steps, in which little is observed, are drawn half a window at a time.

    Args:
        steps: length of the series, at least a window.
        window: length of a window.
        future: number of steps at the end that are a forecast.
    """
    hop, past = max(1, window // 2), steps - future
    if past >= window:
        for start in range(0, past - window, hop):
            yield Block(start, start + window - hop // 2)
        yield Block(past - window, past)
    for end in range(past + hop, steps + hop, hop) if future else ():
        yield Block(max(0, min(end, steps) - window), min(end, steps))


def fill(law: WindowLaw, series: Tensor, begin: int, draws: int, seed: int, stream: int = 0, future: int = 0,
         correct: Corrector | None = None, first: int = 0) -> Tensor:
    """Draws (draws, C, steps) of a series with its missing values; observed values are unchanged.

    Args:
        law: law of the windows.
        series: (C, steps), NaN where missing; a series shorter than a window is extended by missing steps.
        begin: step at which it begins.
        draws: number of draws; each has its own random numbers, so that it does not depend on their number.
        seed: seed of the random numbers.
        stream: first of the numbers of streams that may be used.
        future: see `blocks`.
        correct: correction of the law's draws; None: none.
        first: number of the first draw.
    """
    C, window = law.shape
    short = max(0, window - series.shape[1])
    x = torch.nn.functional.pad(series.double(), (short, 0), value=math.nan)
    missing, full = x.isnan(), x.expand(draws, *x.shape).clone()
    for k, (start, end) in enumerate(blocks(x.shape[1], window, future)):
        flat = missing[:, start:start + window].flatten().clone()
        if not bool(missing[:, start:end].any()):
            continue
        part = full[:, :, start:start + window].flatten(1).clone()
        eps = normal(seed, Purpose.DATA, stream + k, first, draws, (law.dim,), torch.float64)[:, flat]
        at = begin - short + start
        posterior = law.posterior(part, flat, at)
        values = posterior.draw(eps) if correct is None else correct(part, flat, at, posterior, eps)
        part[:, flat] = values
        full[:, :, start:end] = part.reshape(draws, C, window)[:, :, :end - start]
        missing[:, start:end] = False
    return full[:, :, short:]


def _harmonics(steps: Tensor, period: int) -> Tensor:
    """1, cos φ and sin φ of the phases of steps, (3, n); only 1 without a period."""
    one = torch.ones(1, len(steps), dtype=torch.float64)
    if not period:
        return one
    phase = 2 * math.pi * (steps.double() % period) / period
    return torch.cat([one, phase.cos()[None], phase.sin()[None]])
