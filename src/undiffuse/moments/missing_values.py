"""Rows with missing values: the maximum-likelihood mean and covariance, and samples of the missing values.

With x_o the observed values and M the corresponding rows of the identity,

    E[x | x_o] = μ + G (x − μ),   Cov[x | x_o] = C − G C,   G = C Mᵀ (M C Mᵀ)⁻¹ M.

Reference: Dempster, Laird and Rubin (1977), section 4.1.3; Little and Rubin (2019), section 11.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.linear_solvers import conjugate_gradients
from undiffuse.moments.linear_part import Moments
from undiffuse.random import Purpose, normal, uniform

_ROUNDS, _CLOSE = 60, 1e-4
_PRIOR = 3.0  # pseudo-rows of independent columns by which the covariance is shrunk
_LARGE = 128  # columns above which an inverse covariance serves all patterns of missing values
_DENSE = 1024  # above which there is no matrix
_RIDGE, _SMALLEST = 3e-3, 1e-12
_BLOCK, _ITERATIONS = 64, 60
_ROWS = 2000  # rows used, and rows per batch
_JITTER = 1e-9
_MIN_DONORS, _MAX_DONORS, _DONORS = 50, 5000, 5  # complete rows that may fill others; nearest ones


class GaussianParams(NamedTuple):
    """A Gaussian: mean (d,) and covariance (d, d), float64."""

    mean: Tensor
    cov: Tensor


def pairwise_covariance(z: Tensor) -> GaussianParams:
    """Mean and covariance of rows z (n, d), each entry from the rows in which both columns are observed."""
    observed = (~z.isnan()).double()
    mean = z.nan_to_num(0.0).sum(0) / observed.sum(0).clamp_min(1)
    centred = torch.where(observed > 0, z - mean, 0.0)
    return GaussianParams(mean, centred.mT @ centred / (observed.mT @ observed).clamp_min(1))


def fit_em(z: Tensor, prior: float = _PRIOR) -> GaussianParams:
    """The maximum-likelihood mean and covariance by EM, with `prior` pseudo-rows of independent columns."""
    start = pairwise_covariance(z)
    diagonal = torch.diag(start.cov.diagonal())
    params = GaussianParams(start.mean, diagonal)
    patterns, of = torch.unique(z.isnan(), dim=0, return_inverse=True)
    for _ in range(_ROUNDS):
        G = regression_gain(params.cov, patterns)
        full = conditional_mean(z, params, G[of])
        mean = full.mean(0)
        conditional = torch.bincount(of).double() @ (params.cov - G @ params.cov).flatten(1)
        scatter = (full - mean).mT @ (full - mean) + conditional.reshape(params.cov.shape) + prior * diagonal
        before, params = params, GaussianParams(mean, (scatter + scatter.mT) / (2 * (len(z) + prior)))
        if (params.cov - before.cov).abs().max() < _CLOSE * params.cov.diagonal().max():
            break
    return params


def regression_gain(cov: Tensor, missing: Tensor) -> Tensor:
    """The regression gain G (n, d, d) of rows with missing values where `missing` (n, d) is True."""
    observed = (~missing).to(cov)
    both = observed[:, :, None] * observed[:, None, :] * cov + torch.diag_embed(1 - observed + _JITTER)
    solved: Tensor = torch.linalg.solve(both, (cov * observed[:, :, None]))
    return (solved * observed[:, :, None]).mT


def fill_missing(z: Tensor, moments: Moments, seed: int, draw: int) -> Tensor:
    """z (n, d) with each NaN replaced by a sample given the observed values of its row.

    x + G (z − x) with x ~ N(μ, C) has that distribution for Gaussian data. Where a tenth of the rows and at least 50
    are complete, x is one of the five of them that are nearest in the observed entries, so that relations need not be
    linear.

    Args:
        z: rows (n, d) in model units, NaN where missing.
        moments: mean μ and covariance C.
        seed: seed of the random numbers.
        draw: index of the draw.

    Reference: Hoffman and Ribak (1991), eq. 3; Morris, White and Royston (2014), section 2, for local residual draws.
    """
    missing = z.isnan()
    complete = ~missing.any(1)
    eps = normal(seed, Purpose.PROBE, (1 << 32) + draw, 0, len(z), tuple(z.shape[1:]), torch.float64)
    x = moments.prior_sample(eps, 1.0, 0.0).flatten(1)
    if int(complete.sum()) >= max(_MIN_DONORS, len(z) // 10):
        donors = z[complete.nonzero()[:_MAX_DONORS, 0]].double()
        u = uniform(seed, Purpose.PROBE, (1 << 32) + draw, 0, len(z))
        x = torch.cat([_nearest_donor(*part, donors) for part in zip(z.split(_ROWS), u.split(_ROWS), strict=True)])
    if z.shape[1] <= _LARGE:
        cov = covariance(moments)
        parts = zip(x.split(_ROWS), z.split(_ROWS), missing.split(_ROWS), strict=True)
        x = torch.cat([conditional_mean(b, GaussianParams(a, cov), regression_gain(cov, m)) for a, b, m in parts])
    else:
        x = regress(z, x, moments)
    return torch.where(missing, x.to(z), z)


def _nearest_donor(z: Tensor, u: Tensor, donors: Tensor) -> Tensor:
    """For each row of z (n, d) the donor among the nearest in the observed entries that u (n,) chooses, (n, d)."""
    observed, filled = (~z.isnan()).double(), z.double().nan_to_num(0.0)
    distance = observed @ donors.square().mT - 2 * filled @ donors.mT
    nearest = distance.topk(_DONORS, largest=False).indices
    return donors[nearest.gather(1, (u[:, None] * _DONORS).long().clamp_max(_DONORS - 1))[:, 0]]


def covariance(moments: Moments, variances: Tensor | None = None) -> Tensor:
    """The covariance matrix C (d, d), or that with other variances in the same directions."""
    unit = torch.eye(len(moments.mean), dtype=torch.float64)
    directions = moments.rotate(unit)
    values = moments.spectrum if variances is None else variances.cpu()
    return (values * directions) @ directions.mT


def regress(z: Tensor, x: Tensor, moments: Moments, variances: Tensor | None = None, ridge: float = _RIDGE) -> Tensor:
    """x + G (z − x): rows x with their missing entries moved by what z observes.

    Up to 1,024 entries exactly, by the inverse covariance P, G (z − x) = −P_mm⁻¹ P_mo (z − x)_o in the missing entries;
    above by conjugate gradients for (M C Mᵀ + ridge) w = M (z − x).

    Args:
        z: rows (n, d), NaN where missing.
        x: rows (n, d), the centres.
        moments: covariance C.
        variances: variances in the directions of the moments instead of theirs.
        ridge: fraction of the mean variance that is added to the variances, where the covariance is not well known.
    """
    s2 = (moments.spectrum if variances is None else variances).double().cpu()
    s2 = s2 + ridge * float(s2.mean())
    missing, difference = z.isnan().cpu(), (z.double() - x.double()).nan_to_num(0.0).cpu()
    if z.shape[1] > _DENSE:
        moved = _regress_by_iteration(difference, missing, moments, s2)
    else:
        precision = covariance(moments, 1 / s2.clamp_min(_SMALLEST * float(s2.max())))
        moved = torch.cat([_regress_block(d, m, precision) for d, m in zip(
            difference.split(_BLOCK), missing.split(_BLOCK), strict=True)])
    return torch.where(missing.to(x.device), x.double() + moved.to(x.device), z.double())


def _regress_block(difference: Tensor, missing: Tensor, precision: Tensor) -> Tensor:
    """−P_mm⁻¹ P_mo difference_o in the missing entries of a few rows, which are padded to the longest of them."""
    counts = missing.sum(1)
    places = missing.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    padding = torch.arange(places.shape[1]) >= counts[:, None]
    P = precision[places[:, :, None], places[:, None, :]].masked_fill(padding[:, :, None] | padding[:, None, :], 0.0)
    right = (difference @ precision).gather(1, places).masked_fill(padding, 0.0)
    factor = torch.linalg.cholesky(P + torch.diag_embed(padding.double()))
    return torch.zeros_like(difference).scatter(1, places, -torch.cholesky_solve(right[..., None], factor)[..., 0])


def _regress_by_iteration(difference: Tensor, missing: Tensor, moments: Moments, s2: Tensor) -> Tensor:
    """C Mᵀ w with (M C Mᵀ) w = M difference."""
    def apply(u: Tensor) -> Tensor:
        return moments.unrotate(s2 * moments.rotate(u.reshape(-1, *moments.shape))).flatten(1)

    w = conjugate_gradients(lambda u: torch.where(missing, 0.0, apply(torch.where(missing, 0.0, u))), difference,
                            _ITERATIONS)
    return apply(w)


def conditional_mean(z: Tensor, params: GaussianParams, gain: Tensor) -> Tensor:
    """E[z | observed] = m + G (z − m).

    Args:
        z: rows (n, d), NaN where missing.
        params: mean m, (d,) or one per row.
        gain: regression gains (n, d, d), see `regression_gain`.
    """
    residual = torch.where(z.isnan(), 0.0, z.double() - params.mean)
    return params.mean + (gain @ residual[..., None])[..., 0]
