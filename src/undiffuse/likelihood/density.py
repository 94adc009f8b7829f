"""The log-density of model units by one solution of the probability-flow ODE, sample by sample, with its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.likelihood import truncation
from undiffuse.likelihood.divergence import Product, linearised, signs, traces, units
from undiffuse.likelihood.flow import Flow
from undiffuse.likelihood.frame import Frame
from undiffuse.likelihood.rows import pack_size, packed

_EXACT_UP_TO = 64


@dataclass(frozen=True)
class Settings:
    """How a density is computed: see `log_likelihood`."""

    divergence: str = "auto"
    probes: int = 16
    rtol: float = 1e-5
    atol: float = 1e-5
    seed: int = 0
    truncation: bool = True

    def exact(self, dim: int) -> bool:
        """Whether the divergence is the whole trace."""
        return self.divergence == "exact" or (self.divergence == "auto" and dim <= _EXACT_UP_TO)


class Density(NamedTuple):
    """log p (B,) of z, and what it is made of, each (B,): see `Likelihood`."""

    log_prob: Tensor
    stderr: Tensor
    solver: Tensor
    truncation: Tensor
    truncation_error: Tensor
    prior: Tensor
    nfe: Tensor


def density(frame: Frame, z: Tensor, settings: Settings, first_index: int = 0, keep: int | None = None,
            cond: dict[str, Any] | None = None) -> Density:
    """log p(z) for z (B, *event) in model units, z = x_0, of which the first `keep` rows matter."""
    problem = _Measured(frame, z, settings, first_index, keep, cond)
    y, spent, seen = problem.solve(problem.first(), frame.start, frame.end, settings.rtol, settings.atol)
    u, b = problem.parts(y)
    problem.going = problem.real
    last, rate = problem.parts(problem.field(y, frame.end.expand(len(z))))
    gap, doubt = problem.gap()
    each = (frame.log_prior(u) - frame.log_volume(frame.start))[:, None] + b + gap
    tail = (rate.mean(1) - (u * last).sum(1)).abs() / (1 if frame.model.moments is None else 3)
    found = Density(each.mean(1), problem.spread(each), seen, gap.mean(1), doubt, tail,
                    spent + (3 if settings.truncation else 1))
    return Density(*(part[: problem.keep].cpu() for part in found))


class _Measured(Flow):
    """The ODE for (u, b): u in the frame and, for every estimate of the trace, b = ∫ tr J_R dλ from λ_0 on.

    b is carried in a unit in which a tolerance for u is √k times as large for log p.
    """

    def __init__(self, frame: Frame, z: Tensor, settings: Settings, first_index: int, keep: int | None,
                 cond: dict[str, Any] | None) -> None:
        super().__init__(frame, len(z), keep, cond)
        self.z, self.settings = z.to(frame.model.device, frame.real), settings
        exact = settings.exact(frame.dim)
        self.probes = None if exact else signs(self.z, settings.probes, settings.seed, first_index)
        self.n, k = 1 if exact else settings.probes, len(frame.spectrum)
        self.unit = math.sqrt(self.n * k / (k + self.n))
        self.known = exact and frame.divergence(self.z[:1], frame.start, self.given(torch.zeros(1).long())) is not None
        self.size = pack_size(frame.dim * (1 if self.known else frame.dim if exact else self.n))
        self.idle = False

    def watch(self, going: Tensor) -> None:
        """Before every step, whose first new stage is the second: nothing is made of the trace there."""
        super().watch(going)
        self.idle = True

    def field(self, y: Tensor, lam: Tensor) -> Tensor:
        """d(u, b)/dλ, in which b counts only where the solution or its error has a weight for it."""
        out = super().field(y, lam)
        self.idle = False
        return out

    def first(self) -> Tensor:
        """The state of the data."""
        u = self.frame.enter(self.z, self.frame.start)
        return torch.cat([u, u.new_zeros(len(u), self.n)], 1)

    def parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """u (B, k) and b (B, n)."""
        return y[:, : -self.n], self.unit * y[:, -self.n :]

    def slope(self, rows: Tensor, y: Tensor, lam: Tensor) -> Tensor:
        """d(u, b)/dλ of one pack."""
        frame, (u, _) = self.frame, self.parts(y)
        z = frame.leave(u, lam)
        if self.idle:
            D = frame.denoise(z, lam, self.given(rows)).to(z)
            return torch.cat([frame.slope(u, D, lam), u.new_zeros(len(u), self.n)], 1)
        D, trace = self._trace(rows, z, lam)
        rate = trace - frame.filtered(lam)[:, None]
        return torch.cat([frame.slope(u, D, lam), rate / self.unit], 1)

    def _linear(self, rows: Tensor, z: Tensor, lam: Tensor) -> tuple[Tensor, Product]:
        return linearised(lambda point: self.frame.denoise(point, lam, self.given(rows)), z)

    def _trace(self, rows: Tensor, z: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        """D and the estimates of tr J, (B, n): the closed form where the model has one."""
        if self.known and (found := self.frame.divergence(z, lam, self.given(rows))) is not None:
            return self.frame.denoise(z, lam, self.given(rows)).to(z), found[:, None]
        D, product = self._linear(rows, z, lam)
        if self.probes is not None:
            return D, traces(product, self.probes[rows])
        return D, traces(product, units(z)).sum(1, keepdim=True)

    def judge(self, y: Tensor, slope: Tensor, lam: Tensor, error: Tensor) -> Tensor:
        """What an error of (u, b) at λ does to log p, (B,): b's mean, and along u the gradient of log p_λ in u."""
        (u, _), (pace, _), (wrong_u, wrong_b) = map(self.parts, (y, slope, error))
        gradient = self.frame.psi(lam) ** 2 * torch.exp(2 * lam).to(u)[:, None] * pace - u
        return (wrong_b.mean(1) + (gradient * wrong_u).sum(1)).abs()

    def spread(self, each: Tensor) -> Tensor:
        """The standard error of the mean over the probes; NaN for a single one, 0 for the whole trace."""
        if self.probes is None:
            return torch.zeros_like(each[:, 0])
        return each.std(1) / math.sqrt(self.n) if self.n > 1 else torch.full_like(each[:, 0], math.nan)

    def gap(self) -> tuple[Tensor, Tensor]:
        """log p_0 − log p_σ̂₀ (B, n or 1) and how far it can be trusted (B,)."""
        zero = self.z.new_zeros(len(self.z))
        if not self.settings.truncation:
            return zero[:, None], zero
        rows = torch.arange(self.keep, device=self.z.device)
        gap, doubt = packed(self._gap, rows, self.size)
        return (torch.zeros(len(zero), gap.shape[1]).to(gap).index_copy(0, rows, gap), zero.index_copy(0, rows, doubt))

    def _gap(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        lam, z = self.frame.start.expand(len(rows)), self.z[rows]
        variance = float(torch.exp(-2 * self.frame.start))
        D, product = self._linear(rows, z, lam)
        local = truncation.exact(product, z, z - D, variance) if self.probes is None else \
            truncation.probed(product, self.probes[rows], z - D, variance)
        doubt = 0.5 * variance * (local.rate(2 * variance) - self._rate(rows, 2 * variance)).mean(1).abs()
        return local.gap(), doubt

    def _rate(self, rows: Tensor, variance: float) -> Tensor:
        """d log p/dσ̂² = ½ (Δ log p + ‖∇ log p‖²) at a variance, (B, n)."""
        z = self.z[rows]
        D, trace = self._trace(rows, z, z.new_full((len(z),), -0.5 * math.log(variance)))
        square = (z - D).flatten(1).square().sum(1) / variance
        return 0.5 * (trace - self.frame.dim + square[:, None]) / variance
