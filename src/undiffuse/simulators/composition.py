"""The posterior of several independent observations, from the posteriors of single ones.

    p(θ | x₁ ... x_n) ∝ p(θ)^{1−n} Π p(θ | x_i)

Given a noisy θ_t the same holds for the clean one, so with Gaussian approximations N(D_i, V_i) of p(θ₀ | θ_t, x_i) and
N(D₀, V₀) of p(θ₀ | θ_t)

    D = Λ⁻¹ (Σ V_i⁻¹ D_i − (n − 1) V₀⁻¹ D₀),   Λ = Σ V_i⁻¹ − (n − 1) V₀⁻¹,   V⁻¹ = C⁻¹ + (α/σ)² I,

with the covariances C_i of the posteriors and C₀ of the prior. It is exact where these laws are Gaussian.

Reference: Linhart et al. (2024), "Diffusion posterior sampling for simulation-based inference in tall data settings",
eqs. 8 and 13. arXiv:2404.07593
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.model import Model, Wrapper
from undiffuse.moments import GaussianParams, Moments, covariance
from undiffuse.samplers.driver import sample
from undiffuse.sde import Time, as_time
from undiffuse.tensors import ArrayLike

_DRAWS, _STEPS = 500, 16  # per observation, for its covariance
_LEAST = 1e-6  # of the prior's precision, by which an observation adds information at least


class ComposedPosterior(Wrapper):
    """The denoiser of the product of posteriors over the prior to the power n − 1.

    Args:
        models: The models of the parameters given each observation.
        prior: Mean and covariance of the prior in model units, whose law is taken as Gaussian.
        laws: Mean (d,) and covariance (d, d) of each posterior in model units.
    """

    def __init__(self, models: Sequence[Model], prior: GaussianParams, laws: Sequence[GaussianParams]) -> None:
        if len(models) != len(laws) or not models:
            raise InputError(f"got {len(models)} models and {len(laws)} laws; expected one of each per observation")
        super().__init__(models[0])
        self.models, self.prior = torch.nn.ModuleList(models), prior
        precision = torch.linalg.inv(prior.cov)
        self.prior_precision = precision
        self.precisions = torch.stack([_at_least(torch.linalg.inv(law.cov), precision) for law in laws])
        total = self.precisions.sum(0) - (len(laws) - 1) * precision
        weighted = torch.einsum("kij,kj->i", self.precisions, torch.stack([law.mean for law in laws]))
        cov = torch.linalg.inv(total)
        self._moments = Moments.of_covariance(self.shape, cov @ (weighted - (len(laws) - 1) * precision @ prior.mean),
                                              (cov + cov.mT) / 2)

    @property
    def moments(self) -> Moments:  # type: ignore[override]
        """The mean and covariance of the product of the Gaussian laws."""
        return self._moments

    def denoise(self, x: ArrayLike, t: Time, **cond: Any) -> Tensor:
        """E[θ₀ | θ_t, x₁ ... x_n]."""
        x, t = self.states(x), as_time(t)
        a = ((self.sde.alpha(t) / self.sde.sigma(t)) ** 2).double().reshape(-1, 1, 1).cpu()
        one, rows = torch.eye(len(self.prior.mean), dtype=torch.float64), x.flatten(1).double().cpu()
        scaled = rows / self.sde.alpha(t).double().reshape(-1, 1).cpu()
        prior = self.prior_precision
        clean = torch.linalg.solve(prior + a * one, (prior @ self.prior.mean)[:, None] + a * scaled[..., None])
        count = len(self.models)
        total = -(count - 1) * (prior + a * one) @ clean
        for model, precision in zip(self.models, self.precisions, strict=True):
            assert isinstance(model, Model)
            D = model.denoise(x, t, **cond).flatten(1).double().cpu()
            total = total + (precision + a * one) @ D[..., None]
        precision = self.precisions.sum(0) - (count - 1) * prior + a * one
        mean: Tensor = torch.linalg.solve(precision, total)
        return mean[..., 0].reshape(x.shape).to(x)


def composed(models: Sequence[Model], prior: Moments, seed: int = 0) -> ComposedPosterior:
    """The posterior of several observations, with covariances measured on draws of the single posteriors.

    Args:
        models: The models of the parameters given each observation.
        prior: The moments of the prior in model units.
        seed: Seed of the draws.
    """
    laws = []
    for model in models:
        z = sample(model, _DRAWS, steps=_STEPS, seed=seed).z.double().flatten(1)
        laws.append(GaussianParams(z.mean(0), torch.cov(z.mT).reshape(z.shape[1], z.shape[1])))
    return ComposedPosterior(models, GaussianParams(prior.mean.cpu(), covariance(prior).cpu()), laws)


def _at_least(precision: Tensor, least: Tensor) -> Tensor:
    """The precision of a posterior, raised to that of the prior in the directions in which it is below."""
    root = torch.linalg.cholesky(least)
    relative = torch.linalg.solve(root, torch.linalg.solve(root, precision).mT)
    values, basis = torch.linalg.eigh((relative + relative.mT) / 2)
    raised: Tensor = root @ (basis * values.clamp_min(1 + _LEAST)) @ basis.mT @ root.mT
    return raised
