"""Covariance-matched stochastic steps: what a step of any size adds has the mean and the covariance of the true law.

In z = x/α, z_s = x_0 + κ (z_t − x_0) + √(σ̂_s² − κ² σ̂_t²) ξ with x_0 from p(x_0 | z_t) has the law p_s for any κ. So

    mean        κ z + (1 − κ) D
    covariance  (σ̂_s² − κ² σ̂_t²) I + (1 − κ)² Cov(x_0 | z_t)         κ = (σ̂_s/σ̂_t)^{1 + η²}

are those of a step of any size. DDPM (η = 1) and DDIM (η = 0) leave the second term out. Here it is a guess that needs
no further evaluation: the Wiener filter's (C⁻¹ + σ̂⁻²)⁻¹, which is exact on Gaussian data, or averages over the data
that were measured once (`Posterior`).

Reference: Bao et al. (2022), Analytic-DPM, arXiv:2201.06503 (a scalar); Ou et al. (2024), arXiv:2406.10808.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.samplers.method import Node, SamplerContext, State, Step

Root = Callable[[Tensor], Tensor]
"""Standard normals -> a draw with the covariance of a step."""
_FULL = 512


@dataclass(frozen=True)
class Posterior:
    """E Cov(x_0 | x_t) at noise levels log_snr (L,) rising, as multiples of s² σ̂²/(s² + σ̂²), which it is near.

    `ratios` is (L, d, d) over the flattened event, or (L,), the mean over coordinates, for events of over 512 entries.
    """

    log_snr: Tensor
    ratios: Tensor
    s2: float

    @classmethod
    @torch.no_grad()
    def measure(cls, model: Model, x0: Tensor, levels: int = 32, seed: int = 0) -> Posterior:
        """The mean of (x_0 − D)(x_0 − D)ᵀ over data x0 (n, *shape) in model units, noised once at each level."""
        start = max(float(model.sde.log_snr(model.sde.T)), -math.log(160 * model.sigma_data))
        lam = torch.linspace(start, float(model.sde.log_snr(model.t_end())), levels, dtype=torch.float64)
        s2 = model.sigma_data**2
        rows = [cls._error(model, x0, t, k, seed) / _wiener(s2, v)
                for k, (t, v) in enumerate(zip(model.sde.time_of(lam), torch.exp(-2 * lam), strict=True))]
        return cls(lam, torch.stack(rows), s2)

    @staticmethod
    def _error(model: Model, x0: Tensor, t: Tensor, level: int, seed: int) -> Tensor:
        eps = normal(seed, Purpose.PROBE, level, 0, len(x0), model.shape, model.dtype)
        pairs = zip(x0.to(model.dtype).split(model.block), eps.split(model.block), strict=True)
        apart = torch.cat([(a - model.denoise(model.sde.perturb(a, t, b), t)).double().flatten(1) for a, b in pairs])
        return apart.mT @ apart / len(apart) if apart.shape[1] <= _FULL else apart.square().mean()

    @property
    def full(self) -> bool:
        """Whether the table holds matrices."""
        return self.ratios.ndim == 3

    def covariance(self, node: Node) -> Tensor:
        """The table at a node, (d, d) or (), interpolated linearly in λ."""
        place = torch.searchsorted(self.log_snr, torch.tensor([node.log_snr], dtype=torch.float64)).item()
        k = min(max(int(place), 1), len(self.log_snr) - 1)
        low, high = self.log_snr[k - 1], self.log_snr[k]
        u = ((node.log_snr - low) / (high - low)).clamp(0, 1)
        return ((1 - u) * self.ratios[k - 1] + u * self.ratios[k]) * _kept(self.s2, node)


def _wiener(s2: float, sigma_hat2: Tensor) -> Tensor:
    return s2 * sigma_hat2 / (s2 + sigma_hat2)


def _kept(s2: Tensor | float, node: Node) -> Tensor:
    """s² σ̂²/(s² + σ̂²), the posterior variance of a Gaussian of variance s²; s² from α = 0."""
    s2 = _f64(s2)
    return s2 * node.sigma**2 / (node.alpha**2 * s2 + node.sigma**2)


def _f64(c: Tensor | float) -> Tensor:
    return torch.as_tensor(c, dtype=torch.float64)


def bridge(t: Node, s: Node, eta: float = 1.0) -> tuple[float, float, float]:
    """(a, b, c²) of the law x_s = a x_t + b x_0 + c ξ that x_s has given x_t and x_0; finite where α_t = 0."""
    fall, keep = s.sigma * t.alpha / (s.alpha * t.sigma), s.sigma / t.sigma
    lost = fall ** (eta**2)
    return keep * lost, s.alpha * (1 - fall * lost), s.sigma**2 * (1 - lost**2)


def matched_step(eta: float, root: Callable[[float, float, Node], Root]) -> Step:
    """The step with mean α_s (κ z + (1 − κ) D); root(noise, share, t) draws from N(0, noise I + share Cov(x_0|x_t))."""
    roots: dict[tuple[float, float], Root] = {}

    def step(state: State, s: Node) -> State:
        t = state.node
        keep, share, noise = bridge(t, s, eta)
        if (key := (t.log_snr, s.log_snr)) not in roots:
            roots[key] = root(noise, share**2, t)
        mean = keep * state.x + share * state.model.denoise(state.x, t)
        return state.moved(mean + roots[key](state.normal(s)), s)

    return step


def matched(plan: SamplerContext, *, eta: float = 0.5) -> Step:
    """With the Wiener filter's covariance: of the data's moments, or of N(0, sigma_data² I) where there are none."""
    frame = plan.frame

    def root(noise: float, share: float, t: Node) -> Root:
        variances = _f64(plan.deviation**2) if frame is None else frame.spectrum
        return _in_frame(frame, (noise + share * _kept(variances, t)).sqrt())

    return matched_step(eta, root)


def matched_iso(plan: SamplerContext, *, eta: float = 0.5) -> Step:
    """With the mean variance: measured if the model has a `Posterior`, else the Wiener filter's.

    Reference: Bao et al. (2022), theorem 1. arXiv:2201.06503
    """

    def variance(t: Node) -> float:
        table = _table(plan)
        if table is not None:
            found = table.covariance(t)
            return float(found.diagonal().mean() if table.full else found)
        if plan.frame is None:
            return float(_kept(plan.deviation**2, t))
        rest = _kept(plan.frame.spectrum, t)
        return float(rest.sum()) / math.prod(plan.frame.shape) if plan.frame.complete else float(rest.mean())

    return matched_step(eta, lambda noise, share, t: _in_frame(None, _f64(noise + share * variance(t)).sqrt()))


def matched_average(plan: SamplerContext, *, eta: float = 0.5) -> Step:
    """With the measured average of the covariance; the Wiener filter's if the model has no full `Posterior`."""
    table = _table(plan)
    if table is None or not table.full:
        return matched(plan, eta=eta)

    def root(noise: float, share: float, t: Node) -> Root:
        values, basis = torch.linalg.eigh(table.covariance(t))
        half = ((basis * (noise + share * values.clamp_min(0)).sqrt()) @ basis.mT).to(plan.like)
        return lambda xi: (xi.flatten(1) @ half).reshape(xi.shape)

    return matched_step(eta, root)


def _in_frame(frame: Moments | None, spread: Tensor) -> Root:
    """Normals with these deviations along the directions of a frame, or along all."""
    if frame is None:
        return lambda xi: float(spread) * xi
    return lambda xi: frame.unrotate(spread.to(xi) * frame.rotate(xi))


def _table(plan: SamplerContext) -> Posterior | None:
    return getattr(plan.model, "posterior", None)
