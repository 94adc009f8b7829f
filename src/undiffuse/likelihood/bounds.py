"""Bounds: the evidence lower bound in continuous time and of a chain, a bound on the KL divergence, and path weights.

With z_λ = x + σ̂ ε and the decoder N(x; z_λ0, σ̂₀² I),

    log p(x) ≥ −½ d log(2πe σ̂₀²) − KL(q(z_T | x) ‖ π) − ∫_{λ_T}^{λ_0} e^{2λ} E‖x − D(z_λ)‖² dλ,

and a chain of N steps at λ_0 > ... > λ_N has Σ ½ (e^{2λ_{i−1}} − e^{2λ_i}) E‖x − D(z_{λ_i})‖² instead of the integral.
For the exact denoiser, λ_0 → ∞ and λ_T → −∞ the bound in continuous time equals log p(x) at every x (I-MMSE), so that
only the Monte Carlo error remains.

The weight of a path z_0, ..., z_N through the levels a_0 < ... < a_N, a = σ̂², noised by q and denoised by DDPM's steps,

    w = π(z_N) Π_i p(z_{i−1} | z_i)/q(z_i | z_{i−1}),  p = N(ρ z_i + (1 − ρ) D(z_i), a_{i−1} (1 − ρ)), ρ = a_{i−1}/a_i,

has the mean p_chain(z_0). Hence E log w ≤ log p_chain, and log (1/K) Σ w_k lies between. With many steps log w is
Girsanov's log π(z_T) + ∫ ∇log p · dz − ½ ∫ ‖∇log p‖² da along the path (Itô, from the noise end): no divergence.

Reference: Kingma et al. (2021), eqs. 13-18, arXiv:2107.00630; Guo, Shamai and Verdú (2005) and Kong et al. (2023),
arXiv:2302.03792 for I-MMSE; Song et al. (2021), theorem 1 and appendix A, arXiv:2101.09258 for the KL divergence and
the weight of a path; Karczewski et al. (2024), theorem 1, arXiv:2411.01293.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.likelihood.batching import map_packs, pack_size, select_conditions
from undiffuse.likelihood.coordinates import WhitenedCoordinates, gaussian_model, to_model_units
from undiffuse.likelihood.dequantization import half_bin_width, log_mean_weight
from undiffuse.mixture import Mixture
from undiffuse.model import Model, ReverseModel
from undiffuse.random import Purpose, normal, uniform
from undiffuse.samplers.driver import conditions_of
from undiffuse.samplers.grid import time_grid
from undiffuse.sde import as_time, bcast
from undiffuse.tensors import ArrayLike, ConditionValue
from undiffuse.transforms.base import GreyLevels
from undiffuse.transforms.table_schema import data_rows

_GROUPS = 8  # independent groups of samples, whose spread gives the standard error
_MAX_LEVELS = 256  # up to which all levels are weighed


class Elbo(NamedTuple):
    """A lower bound of log p(x) in nats of data units, (B,), its standard error, and its three terms."""

    value: Tensor
    stderr: Tensor
    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor


class Bound(NamedTuple):
    """An upper bound and its standard error."""

    value: float
    stderr: float


class PathEstimate(NamedTuple):
    """A stochastic lower bound of log p_σ̂₀(x), (B,), its standard error, and the log-weight of every path (K, B)."""

    value: Tensor
    stderr: Tensor
    log_weights: Tensor


def elbo(model: ReverseModel, x: ArrayLike, samples: int = 64, seed: int = 0, *, steps: int | None = None,
         grid: str = "log_snr", control: bool = True, decoder: str = "auto", first_index: int = 0,
         t_end: float | None = None, **cond: ConditionValue) -> Elbo:
    """The evidence lower bound of every row of x.

    Args:
        model: a model with a denoiser of a Gaussian process.
        x: (B, *event) in data units.
        samples: model evaluations per row, in 8 independent groups, each stratified over the noise levels.
        seed: seed of noise levels and noise.
        steps: None for continuous time; N for the chain of N steps, whose bound is lower by O(1/N).
        grid: the chain's grid, one of `grid.GRIDS`.
        control: integrate the Wiener filter's part in closed form and only the difference by Monte Carlo; unbiased.
        decoder: "gaussian", N(z_0, σ̂₀² I) for densities; "levels", the probability of a grey level in proportion to
            that density; "auto": by the model's data, a density for more than 256 levels.
        first_index: random address of the first row.
        t_end: time of the smallest noise level; None: `model.t_end()`.
        cond: conditions such as label.

    Returns:
        An `Elbo`.

    Raises:
        InputError: for invalid arguments.

    Reference: Kingma et al. (2021), eqs. 13-18, arXiv:2107.00630.
    """
    denoiser, x = gaussian_model(model), data_rows(model.schema, x)
    z = to_model_units(denoiser, x)
    cond = conditions_of(denoiser, cond, len(z), elbo)
    few = isinstance(denoiser.transform, GreyLevels) and denoiser.transform.levels <= _MAX_LEVELS
    kind = ("levels" if few else "gaussian") if decoder == "auto" else decoder
    _check(kind, denoiser, samples, steps)
    coordinates = WhitenedCoordinates(denoiser, t_end)
    terms = _ElboTerms(coordinates, z, samples // _GROUPS, steps, grid, control, seed, first_index)

    def evaluate(rows: Tensor) -> tuple[Tensor, ...]:
        return terms.diffusion(rows, select_conditions(cond, rows)), terms.prior(rows), terms.reconstruction(rows, kind)

    with torch.no_grad():
        groups, prior, reconstruction = map_packs(evaluate, torch.arange(len(z)), pack_size(coordinates.dim))
    log_det = torch.zeros_like(prior) if kind == "levels" else denoiser.transform.log_det(x).double().cpu()
    value = reconstruction - prior - groups.mean(1) + log_det
    return Elbo(value, groups.std(1) / math.sqrt(_GROUPS), prior, groups.mean(1), reconstruction)


@dataclass(frozen=True)
class _ElboTerms:
    """The three terms of the bound for rows z in model units."""

    coordinates: WhitenedCoordinates
    z: Tensor
    samples_per_group: int
    steps: int | None
    grid: str
    control: bool
    seed: int
    first_index: int

    def diffusion(self, rows: Tensor, cond: dict[str, Any]) -> Tensor:
        """∫ e^{2λ} E‖x − D‖² dλ, or the chain's sum, by every group: (B, groups)."""
        total = torch.stack([self._group(g, rows, cond) for g in range(_GROUPS)], 1)
        return total + self._wiener_part(rows)[:, None] if self.control else total

    def _group(self, group: int, rows: Tensor, cond: dict[str, Any]) -> Tensor:
        """The mean over one group's levels of the integrand, with control minus the integrand of the Wiener filter."""
        z = self.z[rows].to(self.coordinates.model.device)
        lam, weight = self._levels(group, rows)
        total = z.new_zeros(len(z))
        for j in range(self.samples_per_group):
            address = (group * self.samples_per_group + j) * 2 + 1
            eps = self._normal(address, rows).to(z)
            noisy = z + bcast(torch.exp(-lam[:, j]), z) * eps
            error = (z - self.coordinates.denoise(noisy, lam[:, j].to(z), cond).to(z)).flatten(1).square().sum(1)
            if self.control:
                error = error - (z - self._wiener(noisy, lam[:, j])).flatten(1).square().sum(1)
            total = total + weight[:, j].to(z) * error
        return (total / self.samples_per_group).cpu()

    def _wiener(self, noisy: Tensor, lam: Tensor) -> Tensor:
        """The Wiener filter's estimate of z."""
        u = self.coordinates.whiten(noisy, lam)
        return self.coordinates.unwhiten(self.coordinates.spectrum / self.coordinates.psi(lam) ** 2 * u, lam)

    def _levels(self, group: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Stratified λ (B, samples) and the weights by which squared errors give the integral or sum."""
        n = self.samples_per_group
        first, local = _address_range(rows, self.first_index)
        shift = uniform(self.seed, Purpose.PROBE, group * n * 2, *first, ())[local]
        u = (torch.arange(n, dtype=torch.float64) + shift[:, None]) / n
        if self.steps is None:
            low, high = self.coordinates.log_snr_noise, self.coordinates.log_snr_data
            lam = high + u * (low - high)
            return lam, (high - low) * torch.exp(2 * lam)
        grid, i = self._chain(), (u * self.steps).long().clamp_max(self.steps - 1)
        return grid[i + 1], self.steps * 0.5 * (torch.exp(2 * grid[i]) - torch.exp(2 * grid[i + 1]))

    def _chain(self) -> Tensor:
        """λ_0 > ... > λ_N."""
        assert self.steps is not None
        coordinates, sde = self.coordinates, self.coordinates.model.sde
        t_data, t_noise = float(sde.time_of(coordinates.log_snr_data)), float(sde.time_of(coordinates.log_snr_noise))
        times = time_grid(sde, self.steps, self.grid, t_noise, t_data, coordinates.model.sigma_data)
        lam = sde.log_snr(times).flip(0)
        return torch.cat([coordinates.log_snr_data.reshape(1), lam[1:-1], coordinates.log_snr_noise.reshape(1)])

    def _normal(self, step: int, rows: Tensor) -> Tensor:
        """Standard normal noise of every row, (B, *event)."""
        first, local = _address_range(rows, self.first_index)
        return normal(self.seed, Purpose.PROBE, step, *first, tuple(self.z.shape[1:]), torch.float64)[local]

    def _wiener_part(self, rows: Tensor) -> Tensor:
        """The integral, or the chain's sum, of the Wiener filter in closed form (B,)."""
        coordinates = self.coordinates
        y2, s2 = self._squares(self.z[rows].to(coordinates.model.device)), coordinates.spectrum
        if self.steps is not None:
            grid = self._chain().to(y2)
            a = torch.exp(-2 * grid[1:])[:, None]
            weight = 0.5 * (torch.exp(2 * grid[:-1]) - torch.exp(2 * grid[1:]))[:, None]
            bias, variance = (weight * (a / (s2 + a)) ** 2).sum(0), (weight * a * (s2 / (s2 + a)) ** 2).sum(0)
            return (y2 * bias + coordinates.multiplicity * variance).sum(1).cpu()
        a, b = torch.exp(-2 * coordinates.log_snr_data).to(y2), torch.exp(-2 * coordinates.log_snr_noise).to(y2)
        variance = _primitive(b, s2) - _primitive(a, s2)
        return (0.5 * y2 * (1 / (s2 + a) - 1 / (s2 + b)) + 0.5 * coordinates.multiplicity * variance).sum(1).cpu()

    def _squares(self, z: Tensor) -> Tensor:
        """(Uᵀ (z − μ))², (B, k)."""
        coordinates = self.coordinates
        return (coordinates.whiten(z, coordinates.log_snr_data) * coordinates.psi(coordinates.log_snr_data)) ** 2

    def prior(self, rows: Tensor) -> Tensor:
        """KL(q(z_T | x) ‖ π), (B,)."""
        coordinates, z = self.coordinates, self.z[rows].to(self.coordinates.model.device)
        includes_data = coordinates.model.moments is not None or coordinates.prior_truncated
        a = torch.exp(-2 * coordinates.log_snr_noise).to(z)
        total = coordinates.spectrum + a if includes_data else a.expand(len(coordinates.spectrum))
        y2 = self._squares(z)
        return 0.5 * (y2 / total + coordinates.multiplicity * (a / total - 1 - (a / total).log())).sum(1).cpu()

    def reconstruction(self, rows: Tensor, kind: str) -> Tensor:
        """E log p(x | z_0), (B,)."""
        coordinates, z = self.coordinates, self.z[rows]
        variance = float(torch.exp(-2 * coordinates.log_snr_data))
        if kind == "gaussian":
            return z.new_full((len(z),), -0.5 * coordinates.dim * math.log(2 * math.pi * math.e * variance)).cpu()
        eps = self._normal(_GROUPS * self.samples_per_group * 2 + 1, rows).to(z)
        levels = round(1 / half_bin_width(coordinates.model)) + 1
        values = torch.linspace(-1, 1, levels, dtype=z.dtype, device=z.device)
        noisy = z + math.sqrt(variance) * eps
        logits = -0.5 * (noisy[..., None] - values) ** 2 / variance
        index = ((z + 1) / 2 * (levels - 1)).round().long()
        return logits.log_softmax(-1).gather(-1, index[..., None])[..., 0].flatten(1).sum(1).cpu()


def kl_bound(model: Model, distribution: Mixture, samples: int = 4096, seed: int = 0, t_end: float | None = None
             ) -> Bound:
    """An upper bound of KL(p_t ‖ p_SDE), from the data distribution at t_end to the distribution of the reverse SDE.

        KL ≤ KL(p_T ‖ π) + ∫ e^{2λ} E‖D* − D_θ‖² dλ = KL(p_T ‖ π) + ½ ∫ g² E‖∇log p_t − s_θ‖² dt,

    with the distribution's exact denoiser D*. It is an equality for the distributions of paths only, and does not hold
    for the probability-flow ODE.

    Args:
        model: a model with a denoiser of a Gaussian process.
        distribution: distribution of the data.
        samples: number of Monte Carlo samples, stratified over λ.
        seed: seed of noise levels, data and noise.
        t_end: time of the smallest noise level; None: `model.t_end()`.

    Returns:
        A `Bound`.

    Raises:
        InputError: for a model without a denoiser.

    Reference: Song et al. (2021), theorem 1, arXiv:2101.09258.
    """
    coordinates, exact = WhitenedCoordinates(gaussian_model(model), t_end), distribution.denoiser(model.sde)
    n, shape = samples // _GROUPS * _GROUPS, distribution.shape
    u = (torch.arange(n, dtype=torch.float64) + uniform(seed, Purpose.TIME, 0, 0, n)) / n
    lam = coordinates.log_snr_noise + u * (coordinates.log_snr_data - coordinates.log_snr_noise)
    eps = normal(seed, Purpose.NOISE, 0, 0, n, shape, torch.float64)
    z = distribution.sample(n, seed) + bcast(torch.exp(-lam), eps) * eps
    with torch.no_grad():
        error = WhitenedCoordinates(exact, t_end).denoise(z, lam, {}) - coordinates.denoise(z, lam, {}).double()
        width = coordinates.log_snr_data - coordinates.log_snr_noise
        integrand = width * torch.exp(2 * lam) * error.flatten(1).square().sum(1)
    prior_eps = normal(seed, Purpose.NOISE, 1, 0, n, shape, torch.float64)
    ratio = _log_prior_ratio(coordinates, distribution, distribution.sample(n, seed, n), prior_eps)
    means = torch.stack([(integrand + ratio)[i::_GROUPS].mean() for i in range(_GROUPS)])
    return Bound(float(means.mean()), float(means.std()) / math.sqrt(_GROUPS))


def path_log_likelihood(model: ReverseModel, x: ArrayLike, steps: int = 128, paths: int = 8, seed: int = 0, *,
                        first_index: int = 0, t_end: float | None = None, **cond: ConditionValue) -> PathEstimate:
    """A stochastic lower bound of log p(x) of every row of x under the reverse SDE, from the weights of random paths.

    Use it to rank samples or to check `log_likelihood`. Its bias falls like 1/steps, and with `paths` as the variance
    of the weights' mean does.

    Args:
        model: a model with a denoiser of a Gaussian process.
        x: (B, *event) in data units, taken to be at t_end.
        steps: number of steps of the chain, uniform in log-SNR from T to t_end.
        paths: number of independent paths, K; the value is the logarithm of their mean weight.
        seed: seed of the paths.
        first_index: random address of the first row.
        t_end: time of the smallest noise level; None: `model.t_end()`.
        cond: conditions such as label.

    Returns:
        A `PathEstimate`.

    Raises:
        InputError: for invalid arguments.

    Reference: Song et al. (2021), appendix A, arXiv:2101.09258; Karczewski et al. (2024), theorem 1, arXiv:2411.01293.
    """
    denoiser, x = gaussian_model(model), data_rows(model.schema, x)
    z = to_model_units(denoiser, x)
    cond = conditions_of(denoiser, cond, len(z), path_log_likelihood)
    if steps < 1 or paths < 1:
        raise InputError(f"got steps={steps}, paths={paths}; expected at least 1 of both")
    coordinates = WhitenedCoordinates(denoiser, t_end)
    grid = torch.linspace(float(coordinates.log_snr_data), float(coordinates.log_snr_noise), steps + 1,
                          dtype=torch.float64)

    def log_weights(rows: Tensor) -> tuple[Tensor, ...]:
        pack_cond = select_conditions(cond, rows)
        addresses = _address_range(rows, first_index)
        weights = [_path_log_weight(coordinates, z[rows], grid, seed, k, addresses, pack_cond) for k in range(paths)]
        return (torch.stack(weights, 1),)

    with torch.no_grad():
        (weights,) = map_packs(log_weights, torch.arange(len(z)), pack_size(coordinates.dim))
    value, stderr = log_mean_weight(weights.T)
    return PathEstimate(value + denoiser.transform.log_det(x).double().cpu(), stderr, weights.T)


def _path_log_weight(coordinates: WhitenedCoordinates, z: Tensor, grid: Tensor, seed: int, path: int,
                     addresses: tuple[tuple[int, int], Tensor], cond: dict[str, Any]) -> Tensor:
    """log w of one path per row, with the noise at the rows' random addresses."""
    z = z.to(coordinates.model.device, coordinates.state_dtype)
    first, local = addresses
    total = z.new_zeros(len(z))
    for i, (low, high) in enumerate(pairwise(grid)):
        eps = normal(seed, Purpose.STEP, path * len(grid) + i, *first, tuple(z.shape[1:]), torch.float64)[local].to(z)
        a, b = math.exp(-2 * low), math.exp(-2 * high)
        noisier = z + math.sqrt(b - a) * eps
        D = coordinates.denoise(noisier, high.to(z).expand(len(z)), cond).to(z)
        rho = a / b
        backward = _log_normal(z - rho * noisier - (1 - rho) * D, a * (1 - rho))
        total = total + backward - _log_normal(noisier - z, b - a)
        z = noisier
    end = coordinates.log_snr_noise.to(z)
    return (total + coordinates.log_prior(coordinates.whiten(z, end)) - coordinates.log_volume(end)).cpu()


def _address_range(rows: Tensor, first_index: int) -> tuple[tuple[int, int], Tensor]:
    """The range (first, number) that contains the random addresses of some rows, and their indices in it."""
    first = int(rows[0])
    return (first_index + first, int(rows[-1]) - first + 1), (rows - first).cpu()


def _log_prior_ratio(coordinates: WhitenedCoordinates, distribution: Mixture, x0: Tensor, eps: Tensor) -> Tensor:
    """log p_T/π at samples of z_T, whose mean is KL(p_T ‖ π)."""
    end = coordinates.log_snr_noise
    sde, t = coordinates.model.sde, coordinates.model.sde.time_of(end)
    z = x0 + torch.exp(-end) * eps
    alpha = float(sde.alpha(as_time(t)))
    log_prior = coordinates.log_prior(coordinates.whiten(z, end)) - coordinates.log_volume(end)
    return distribution.diffused(sde, float(t)).log_prob(alpha * z) + coordinates.dim * math.log(alpha) - log_prior


def _log_normal(x: Tensor, variance: float) -> Tensor:
    """log N(x; 0, variance I), (B,)."""
    flat = x.flatten(1)
    return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))


def _primitive(a: Tensor, s2: Tensor) -> Tensor:
    """∫ s⁴/(a (s² + a)²) da = log a/(s² + a) + s²/(s² + a)."""
    return (a / (s2 + a)).log() + s2 / (s2 + a)


def _check(kind: str, model: Model, samples: int, steps: int | None) -> None:
    """Raise InputError for invalid arguments of `elbo`."""
    if kind not in ("gaussian", "levels") or (kind == "levels" and not isinstance(model.transform, GreyLevels)):
        raise InputError(f"got decoder={kind!r}; expected gaussian, or levels for a model of grey levels")
    if samples < _GROUPS or (steps is not None and steps < 1):
        raise InputError(f"got samples={samples}, steps={steps}; expected at least {_GROUPS} samples and 1 step")
