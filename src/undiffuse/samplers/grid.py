"""Time grids: the times of a sampler's steps, from t_start down to t_end.

Reference: Karras et al. (2022), eq. 5 (arXiv:2206.00364); Lu et al. (2022), section 3.4 (arXiv:2206.00927).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.sde import SDE, GaussianSDE


def _time(a: float, b: float, u: Tensor) -> Tensor:
    return a + (b - a) * u


def _time_quadratic(a: float, b: float, u: Tensor) -> Tensor:
    return (math.sqrt(a) + (math.sqrt(b) - math.sqrt(a)) * u) ** 2


def _log_snr(a: float, b: float, u: Tensor) -> Tensor:
    return a + (b - a) * u


def _karras(a: float, b: float, u: Tensor, rho: float = 7.0) -> Tensor:
    """σ̂^{1/ρ} evenly spaced, as a function of λ = −log σ̂."""
    high, low = math.exp(-a / rho), math.exp(-b / rho)
    return -rho * torch.log(high + (low - high) * u)


def _cosine_log_snr(a: float, b: float, u: Tensor) -> Tensor:
    """arctan(σ̂) evenly spaced: the angle of a variance-preserving process."""
    high, low = math.atan(math.exp(-a)), math.atan(math.exp(-b))
    return -torch.log(torch.tan(high + (low - high) * u))


_IN_TIME: dict[str, Callable[[float, float, Tensor], Tensor]] = {"time": _time, "time_quadratic": _time_quadratic}
_IN_LOG_SNR: dict[str, Callable[[float, float, Tensor], Tensor]] = {
    "log_snr": _log_snr, "karras": _karras, "cosine_log_snr": _cosine_log_snr,
}
GRIDS = (*_IN_TIME, *_IN_LOG_SNR)
"""The grids by name: even in t, in √t, in λ = log(α/σ), in σ̂^{1/7}, in arctan σ̂; karras(5) is even in σ̂^{1/5}."""


def time_grid(sde: SDE, steps: int, grid: str | Tensor = "log_snr", t_start: float | None = None,
              t_end: float = 0.0, sigma_data: float = 0.5, start_level: float | None = None) -> Tensor:
    """The steps + 1 times of a grid, float64, strictly decreasing.

    Args:
        sde: the process.
        steps: number of intervals.
        grid: a name in `GRIDS`, "karras(ρ)", or a tensor of times, which is validated and returned.
        t_start: first time; None: T.
        t_end: last time.
        sigma_data: the data's standard deviation.
        start_level: grids in λ go in one step to σ̂ = start_level · sigma_data and are even from there; None: even from
            t_start, or from 160 if α(t_start) = 0.

    Raises:
        InputError: for an unknown name, an empty range, and times that do not decrease.
    """
    start = sde.T if t_start is None else t_start
    if isinstance(grid, Tensor):
        return _custom(grid, sde.T)
    if steps < 1 or not 0 <= t_end < start <= sde.T:
        raise InputError(f"got steps={steps} from t={start:g} to t={t_end:g}; expected at least 1 step and "
                         f"0 ≤ t_end < t_start ≤ T = {sde.T:g}")
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if grid in _IN_TIME:
        times = _IN_TIME[grid](start, t_end, u)
    elif (spacing := _spacing(grid)) and isinstance(sde, GaussianSDE):
        times = _in_log_snr(sde, steps, spacing, start, t_end, sigma_data, start_level)
    else:
        raise InputError(f"got grid={grid!r} for {type(sde).__name__}; expected one of "
                         f"{', '.join(GRIDS if isinstance(sde, GaussianSDE) else _IN_TIME)} or a tensor of times")
    times[0], times[-1] = start, t_end
    return times


def _spacing(grid: str) -> Callable[[float, float, Tensor], Tensor] | None:
    """The grid in λ of that name."""
    if match := re.fullmatch(r"karras\((\d*\.?\d+)\)", grid):
        rho = float(match[1])
        return (lambda a, b, u: _karras(a, b, u, rho)) if rho else None
    return _IN_LOG_SNR.get(grid)


def _in_log_snr(sde: GaussianSDE, steps: int, spacing: Callable[[float, float, Tensor], Tensor], start: float,
                end: float, sigma_data: float, start_level: float | None) -> Tensor:
    """The times of a grid in λ, with one step in front if there is a start level or σ̂ is infinite at the start.

    Beyond σ̂ = 10⁶ sigma_data neighbouring times are not distinguishable, and the data do not matter.
    """
    high, low = float(sde.log_snr(start)), float(sde.log_snr(end))
    if math.isinf(low):
        raise InputError(f"got t_end={end:g}, where log-SNR is infinite; choose t_end > 0 or a grid in time")
    inner = -math.log((start_level or 160) * sigma_data)
    if high < -math.log(1e6 * sigma_data):
        inner = min(inner, low - 1e-3)
    elif start_level is None or steps == 1 or not high < inner < low:
        return sde.time_of(spacing(high, low, torch.linspace(0, 1, steps + 1, dtype=torch.float64)))
    rest = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)
    times = sde.time_of(spacing(inner, low, rest))
    return torch.cat([torch.tensor([start], dtype=torch.float64), times])


def _custom(grid: Tensor, T: float) -> Tensor:
    times = grid.detach().double().cpu()
    times = torch.where((times - T).abs() <= 1e-6 * T, T, times)  # a float32 table may exceed T
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() < 0).all()) or times[0] > T or times[-1] < 0:
        raise InputError(f"got a grid of shape {tuple(grid.shape)}; expected at least 2 strictly decreasing times "
                         f"within [0, {T:g}]")
    return times
