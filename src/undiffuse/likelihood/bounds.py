"""Bounds: the evidence lower bound in continuous time and of a chain of N steps, and the bound on KL divergences.

With z_λ = x + σ̂ ε and the decoder N(x; z_λ0, σ̂₀² I),

    log p(x) ≥ −½ d log(2πe σ̂₀²) − KL(q(z_T | x) ‖ π) − ∫_{λ_T}^{λ_0} e^{2λ} E‖x − D(z_λ)‖² dλ,

and a chain with steps at λ_0 > ... > λ_N has ½ (e^{2λ_{i−1}} − e^{2λ_i}) E‖x − D(z_{λ_i})‖² for the integral's parts.
For the exact denoiser, λ_0 → ∞ and λ_T → −∞ the bound in continuous time is log p(x) at every x (I-MMSE), so that only
the chance in its estimate stands between the two.

Reference: Kingma et al. (2021), eqs. 13-18, arXiv:2107.00630; Guo, Shamai and Verdú (2005) and Kong et al. (2023),
arXiv:2302.03792 for I-MMSE; Song et al. (2021), theorem 1, arXiv:2101.09258 for the KL divergence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.data.transforms import Levels
from undiffuse.errors import InputError
from undiffuse.exact import Mixture
from undiffuse.grid import time_grid
from undiffuse.likelihood.discrete import half_bin
from undiffuse.likelihood.frame import Frame, gaussian_model, rows_of
from undiffuse.likelihood.rows import pack_size, packed, pick
from undiffuse.model import Model, ReverseModel
from undiffuse.noise import Purpose, normal, uniform
from undiffuse.sde import as_time, bcast

_GROUPS = 8


class Elbo(NamedTuple):
    """A lower bound of log p(x) in nats of the user's units, (B,), its standard error, and its three parts."""

    value: Tensor
    stderr: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor


class Bound(NamedTuple):
    """An upper bound and its standard error."""

    value: float
    stderr: float


def elbo(model: ReverseModel, x: Tensor, samples: int = 64, seed: int = 0, *, steps: int | None = None,
         grid: str = "log_snr", control: bool = True, decoder: str = "auto", first_index: int = 0,
         t_end: float | None = None, **cond: Any) -> Elbo:
    """The evidence lower bound of every row of x (B, *event), in data units.

    samples: evaluations a row, in 8 independent groups (their spread gives the standard error), each of them spread
    evenly over the levels. steps: None for continuous time, N for the chain of N steps on a `grid` of `grid.GRIDS`,
    whose bound is worse by O(1/N). control: integrate the Wiener filter's part in closed form and only the difference
    by chance, which is exact in expectation. decoder: how x comes from z_0, "gaussian" N(z_0, σ̂₀² I) for densities or
    "levels" for the probability of a grey level, in proportion to that density; auto by the model's data.
    """
    chosen, z = gaussian_model(model), rows_of(gaussian_model(model), x)
    kind = ("levels" if isinstance(chosen.transform, Levels) else "gaussian") if decoder == "auto" else decoder
    _check(kind, chosen, samples, steps)
    frame = Frame(chosen, t_end)
    task = _Task(frame, z, samples // _GROUPS, steps, grid, control, seed, first_index)

    def part(rows: Tensor) -> tuple[Tensor, ...]:
        return task.diffusion(rows, pick(cond, rows)), task.prior(rows), task.reconstruction(rows, kind)

    with torch.no_grad():
        groups, prior, data = packed(part, torch.arange(len(z)), pack_size(frame.dim))
    log_det = torch.zeros_like(prior) if kind == "levels" else chosen.transform.log_det(x).double().cpu()
    value = data - prior - groups.mean(1) + log_det
    return Elbo(value, groups.std(1) / math.sqrt(_GROUPS), prior, groups.mean(1), data)


@dataclass(frozen=True)
class _Task:
    """The bound of rows z in model units."""

    frame: Frame
    z: Tensor
    each: int
    steps: int | None
    grid: str
    control: bool
    seed: int
    first_index: int

    def diffusion(self, rows: Tensor, cond: dict[str, Any]) -> Tensor:
        """∫ e^{2λ} E‖x − D‖² dλ, or the chain's sum, by every group: (B, groups)."""
        found = [self._group(g, rows, cond) for g in range(_GROUPS)]
        total = torch.stack(found, 1)
        return total + self._closed(rows)[:, None] if self.control else total

    def _group(self, group: int, rows: Tensor, cond: dict[str, Any]) -> Tensor:
        """The mean over one group's levels, which are spread evenly, of integrand (less the Wiener filter's)."""
        z = self.z[rows].to(self.frame.model.device)
        lam, weight = self._levels(group, rows)
        total = z.new_zeros(len(z))
        for j in range(self.each):
            at = (group * self.each + j) * 2 + 1
            eps = self._per_row(at, rows, tuple(z.shape[1:]), True).to(z)
            noisy = z + bcast(torch.exp(-lam[:, j]), z) * eps
            error = (z - self.frame.denoise(noisy, lam[:, j].to(z), cond).to(z)).flatten(1).square().sum(1)
            if self.control:
                error = error - (z - self._wiener(noisy, lam[:, j])).flatten(1).square().sum(1)
            total = total + weight[:, j].to(z) * error
        return (total / self.each).cpu()

    def _wiener(self, noisy: Tensor, lam: Tensor) -> Tensor:
        u = self.frame.enter(noisy, lam)
        return self.frame.leave(self.frame.spectrum / self.frame.psi(lam) ** 2 * u, lam)

    def _levels(self, group: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """λ (B, each) and the weights by which squared errors make the integral or sum."""
        shift = self._per_row(group * self.each * 2, rows, (), False)
        u = (torch.arange(self.each, dtype=torch.float64) + shift[:, None]) / self.each
        if self.steps is None:
            low, high = self.frame.end, self.frame.start
            lam = high + u * (low - high)
            return lam, (high - low) * torch.exp(2 * lam)
        grid, i = self.chain(), (u * self.steps).long().clamp_max(self.steps - 1)
        return grid[i + 1], self.steps * 0.5 * (torch.exp(2 * grid[i]) - torch.exp(2 * grid[i + 1]))

    def chain(self) -> Tensor:
        """λ_0 > ... > λ_N."""
        assert self.steps is not None
        frame, sde = self.frame, self.frame.model.sde
        first, last = float(sde.time_of(frame.start)), float(sde.time_of(frame.end))
        lam = sde.log_snr(time_grid(sde, self.steps, self.grid, last, first, frame.model.sigma_data)).flip(0)
        return torch.cat([frame.start.reshape(1), lam[1:-1], frame.end.reshape(1)])

    def _per_row(self, step: int, rows: Tensor, shape: tuple[int, ...], gaussian: bool) -> Tensor:
        """Random numbers of every row, by its index."""
        first, n = int(rows[0]), int(rows[-1] - rows[0]) + 1
        draws = normal(self.seed, Purpose.PROBE, step, self.first_index + first, n, shape, torch.float64) if gaussian \
            else uniform(self.seed, Purpose.PROBE, step, self.first_index + first, n, shape)
        return draws[(rows - first).cpu()]

    def _closed(self, rows: Tensor) -> Tensor:
        """What the Wiener filter has for the integral, or the chain's sum, in closed form (B,)."""
        frame = self.frame
        y2 = (frame.enter(self.z[rows].to(frame.model.device), frame.start) * frame.psi(frame.start)) ** 2
        s2 = frame.spectrum
        if self.steps is not None:
            grid = self.chain().to(y2)
            a = torch.exp(-2 * grid[1:])[:, None]
            weight = 0.5 * (torch.exp(2 * grid[:-1]) - torch.exp(2 * grid[1:]))[:, None]
            pull, left = (weight * (a / (s2 + a)) ** 2).sum(0), (weight * a * (s2 / (s2 + a)) ** 2).sum(0)
            return (y2 * pull + frame.share * left).sum(1).cpu()
        a, b = torch.exp(-2 * frame.start).to(y2), torch.exp(-2 * frame.end).to(y2)
        spread = _primitive(b, s2) - _primitive(a, s2)
        return (0.5 * y2 * (1 / (s2 + a) - 1 / (s2 + b)) + 0.5 * frame.share * spread).sum(1).cpu()

    def prior(self, rows: Tensor) -> Tensor:
        """KL(q(z_T | x) ‖ π), (B,)."""
        frame, z = self.frame, self.z[rows].to(self.frame.model.device)
        known = frame.model.moments is not None or frame.cut
        a = torch.exp(-2 * frame.end).to(z)
        total = frame.spectrum + a if known else a.expand(len(frame.spectrum))
        y2 = (frame.enter(z, frame.start) * frame.psi(frame.start)) ** 2
        return 0.5 * (y2 / total + frame.share * (a / total - 1 - (a / total).log())).sum(1).cpu()

    def reconstruction(self, rows: Tensor, kind: str) -> Tensor:
        """E log p(x | z_0), (B,)."""
        frame, z = self.frame, self.z[rows]
        variance = float(torch.exp(-2 * frame.start))
        if kind == "gaussian":
            return z.new_full((len(z),), -0.5 * frame.dim * math.log(2 * math.pi * math.e * variance)).cpu()
        eps = self._per_row(_GROUPS * self.each * 2 + 1, rows, tuple(z.shape[1:]), True).to(z)
        levels = round(1 / half_bin(frame.model)) + 1
        values = torch.linspace(-1, 1, levels, dtype=z.dtype, device=z.device)
        noisy = z + math.sqrt(variance) * eps
        logits = -0.5 * (noisy[..., None] - values) ** 2 / variance
        at = ((z + 1) / 2 * (levels - 1)).round().long()
        return logits.log_softmax(-1).gather(-1, at[..., None])[..., 0].flatten(1).sum(1).cpu()


def kl_bound(model: Model, law: Mixture, samples: int = 4096, seed: int = 0, t_end: float | None = None) -> Bound:
    """The upper bound of D(p_t ‖ p_SDE), p_t the law at t_end and p_SDE what the model's reverse SDE gives there:

        D ≤ D(p_T ‖ π) + ∫ e^{2λ} E‖D* − D_θ‖² dλ = D(p_T ‖ π) + ½ ∫ g² E‖∇log p_t − s_θ‖² dt,

    an inequality (an equality holds for the paths only), and none for the probability-flow ODE. D* is the law's own
    denoiser; the levels are spread evenly over λ.
    """
    frame, exact = Frame(gaussian_model(model), t_end), law.denoiser(model.sde)
    n, shape = samples // _GROUPS * _GROUPS, law.shape
    u = (torch.arange(n, dtype=torch.float64) + uniform(seed, Purpose.TIME, 0, 0, n)) / n
    lam = frame.end + u * (frame.start - frame.end)
    eps = normal(seed, Purpose.NOISE, 0, 0, n, shape, torch.float64)
    z = law.sample(n, seed) + bcast(torch.exp(-lam), eps) * eps
    with torch.no_grad():
        gap = Frame(exact, t_end).denoise(z, lam, {}) - frame.denoise(z, lam, {}).double()
        integrand = (frame.start - frame.end) * torch.exp(2 * lam) * gap.flatten(1).square().sum(1)
    far = normal(seed, Purpose.NOISE, 1, 0, n, shape, torch.float64)
    ratio = _log_ratio(frame, law, law.sample(n, seed, n), far)
    means = torch.stack([(integrand + ratio)[i::_GROUPS].mean() for i in range(_GROUPS)])
    return Bound(float(means.mean()), float(means.std()) / math.sqrt(_GROUPS))


def _log_ratio(frame: Frame, law: Mixture, x0: Tensor, eps: Tensor) -> Tensor:
    """log p_T/π at draws of z_T, whose mean is D(p_T ‖ π)."""
    sde, t = frame.model.sde, frame.model.sde.time_of(frame.end)
    z = x0 + torch.exp(-frame.end) * eps
    alpha = float(sde.alpha(as_time(t)))
    ours = frame.log_prior(frame.enter(z, frame.end)) - frame.log_volume(frame.end)
    return law.diffused(sde, float(t)).log_prob(alpha * z) + frame.dim * math.log(alpha) - ours


def _primitive(a: Tensor, s2: Tensor) -> Tensor:
    """∫ s⁴/(a (s² + a)²) da = log a/(s² + a) + s²/(s² + a)."""
    return (a / (s2 + a)).log() + s2 / (s2 + a)


def _check(kind: str, model: Model, samples: int, steps: int | None) -> None:
    if kind not in ("gaussian", "levels") or (kind == "levels" and not isinstance(model.transform, Levels)):
        raise InputError(f"got decoder={kind!r}; expected gaussian, or levels for a model of grey levels")
    if samples < _GROUPS or (steps is not None and steps < 1):
        raise InputError(f"got samples={samples}, steps={steps}; expected at least {_GROUPS} samples and 1 step")
