"""Covariance-matched stochastic steps: mean and covariance of x_s given x_t are exact for steps of any size.

In z = x/α, z_s = x_0 + κ (z_t − x_0) + √(σ̂_s² − κ² σ̂_t²) ξ with x_0 from p(x_0 | z_t) has the distribution p_s for
any κ. So

    mean        κ z + (1 − κ) D
    covariance  (σ̂_s² − κ² σ̂_t²) I + (1 − κ)² Cov(x_0 | z_t)         κ = (σ̂_s/σ̂_t)^{1 + η²}

hold for a step of any size. DDPM (η = 1) and DDIM (η = 0) omit the second term. Here it is approximated without further
evaluations: by the Wiener filter's (C⁻¹ + σ̂⁻²)⁻¹, exact for Gaussian data, or by averages over the data that were
measured once (`PosteriorCovariance`).

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
"""Standard normals -> normals with the covariance of a step."""
_FULL = 512


@dataclass(frozen=True)
class PosteriorCovariance:
    """E Cov(x_0 | x_t) by noise level.

    Args:
        log_snr: the noise levels λ (L,), increasing.
        ratios: E Cov(x_0 | x_t) in units of s² σ̂²/(s² + σ̂²): (L, d, d) over the flattened event, or (L,), the mean
            over coordinates, for events of over 512 entries.
        s2: s², the data's variance.
    """

    log_snr: Tensor
    ratios: Tensor
    s2: float

    @classmethod
    @torch.no_grad()
    def measure(cls, model: Model, x0: Tensor, levels: int = 32, seed: int = 0) -> PosteriorCovariance:
        """The mean of (x_0 − D)(x_0 − D)ᵀ over data, noised once per level.

        Args:
            model: the model whose denoiser D is measured.
            x0: data in model units, (n, *shape).
            levels: number of noise levels.
            seed: seed of the noise.
        """
        start = max(float(model.sde.log_snr(model.t_start())), -math.log(160 * model.sigma_data))
        lam = torch.linspace(start, float(model.sde.log_snr(model.t_end())), levels, dtype=torch.float64)
        s2 = model.sigma_data**2
        ratios = [cls._error(model, x0, t, k, seed) / _wiener(s2, v)
                for k, (t, v) in enumerate(zip(model.sde.time_of(lam), torch.exp(-2 * lam), strict=True))]
        return cls(lam, torch.stack(ratios), s2)

    @staticmethod
    def _error(model: Model, x0: Tensor, t: Tensor, level: int, seed: int) -> Tensor:
        eps = normal(seed, Purpose.PROBE, level, 0, len(x0), model.shape, model.dtype)
        pairs = zip(x0.to(model.dtype).split(model.block), eps.split(model.block), strict=True)
        error = torch.cat([(a - model.denoise(model.sde.perturb(a, t, b), t)).double().flatten(1) for a, b in pairs])
        return error.mT @ error / len(error) if error.shape[1] <= _FULL else error.square().mean()

    @property
    def full(self) -> bool:
        """Whether the table holds matrices."""
        return self.ratios.ndim == 3

    def at(self, node: Node) -> Tensor:
        """The table at a node, (d, d) or (), interpolated linearly in λ."""
        index = torch.searchsorted(self.log_snr, torch.tensor([node.log_snr], dtype=torch.float64)).item()
        k = min(max(int(index), 1), len(self.log_snr) - 1)
        low, high = self.log_snr[k - 1], self.log_snr[k]
        u = ((node.log_snr - low) / (high - low)).clamp(0, 1)
        return ((1 - u) * self.ratios[k - 1] + u * self.ratios[k]) * _posterior_variance(self.s2, node)


def _wiener(s2: float, sigma_hat2: Tensor) -> Tensor:
    return s2 * sigma_hat2 / (s2 + sigma_hat2)


def _posterior_variance(s2: Tensor | float, node: Node) -> Tensor:
    """s² σ̂²/(s² + σ̂²), the posterior variance of a Gaussian of variance s²; s² from α = 0."""
    s2 = _f64(s2)
    return s2 * node.sigma**2 / (node.alpha**2 * s2 + node.sigma**2)


def _f64(c: Tensor | float) -> Tensor:
    return torch.as_tensor(c, dtype=torch.float64)


def bridge(t: Node, s: Node, eta: float = 1.0) -> tuple[float, float, float]:
    """(a, b, c²) of x_s = a x_t + b x_0 + c ξ, the distribution of x_s given x_t and x_0; finite where α_t = 0.

    Args:
        t: the node of x_t, the start of the step.
        s: the node of x_s, with less noise.
        eta: η, the noise of the step: 0 is DDIM's deterministic step, 1 the posterior of the process.
    """
    kappa, ratio = s.sigma * t.alpha / (s.alpha * t.sigma), s.sigma / t.sigma
    shrink = kappa ** (eta**2)
    return ratio * shrink, s.alpha * (1 - kappa * shrink), s.sigma**2 * (1 - shrink**2)


def matched_step(eta: float, root: Callable[[float, float, Node], Root]) -> Step:
    """The step with mean α_s (κ z + (1 − κ) D); root(a, b, t) has the covariance a I + b Cov(x_0|x_t)."""
    roots: dict[tuple[float, float], Root] = {}

    def step(state: State, s: Node) -> State:
        t = state.node
        a, b, noise = bridge(t, s, eta)
        if (key := (t.log_snr, s.log_snr)) not in roots:
            roots[key] = root(noise, b**2, t)
        mean = a * state.x + b * state.model.denoise(state.x, t)
        return state.advance(mean + roots[key](state.normal(s)), s)

    return step


def matched(context: SamplerContext, *, eta: float = 0.5) -> Step:
    """Covariance of the Wiener filter: of the data's moments, or of N(0, sigma_data² I) where there are none."""
    moments = context.moments

    def root(noise: float, weight: float, t: Node) -> Root:
        variances = _f64(context.data_std**2) if moments is None else moments.spectrum
        return _root_in(moments, (noise + weight * _posterior_variance(variances, t)).sqrt())

    return matched_step(eta, root)


def matched_iso(context: SamplerContext, *, eta: float = 0.5, covariance: PosteriorCovariance | None = None) -> Step:
    """The mean variance for all coordinates.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        eta: η, the noise of a step, from 0 (deterministic) to 1 (the process).
        covariance: the measured covariance; None: the Wiener filter's.

    Reference: Bao et al. (2022), theorem 1. arXiv:2201.06503
    """

    def variance(t: Node) -> float:
        if covariance is not None:
            measured = covariance.at(t)
            return float(measured.diagonal().mean() if covariance.full else measured)
        if context.moments is None:
            return float(_posterior_variance(context.data_std**2, t))
        rest = _posterior_variance(context.moments.spectrum, t)
        return float(rest.sum()) / math.prod(context.moments.shape) if context.moments.complete else float(rest.mean())

    return matched_step(eta, lambda noise, weight, t: _root_in(None, _f64(noise + weight * variance(t)).sqrt()))


def matched_average(context: SamplerContext, *, eta: float = 0.5, covariance: PosteriorCovariance | None = None
                    ) -> Step:
    """The measured average of the covariance.

    Args:
        context: the model, the grid, and the dtype and device of the states.
        eta: η, the noise of a step, from 0 (deterministic) to 1 (the process).
        covariance: the measured covariance; None, or not full: the Wiener filter's.
    """
    if covariance is None or not covariance.full:
        return matched(context, eta=eta)

    def root(noise: float, weight: float, t: Node) -> Root:
        values, basis = torch.linalg.eigh(covariance.at(t))
        half = ((basis * (noise + weight * values.clamp_min(0)).sqrt()) @ basis.mT).to(context.template)
        return lambda xi: (xi.flatten(1) @ half).reshape(xi.shape)

    return matched_step(eta, root)


def _root_in(moments: Moments | None, std: Tensor) -> Root:
    """Normals with these standard deviations along the principal directions, or along all."""
    if moments is None:
        return lambda xi: float(std) * xi
    return lambda xi: moments.unrotate(std.to(xi) * moments.rotate(xi))
