"""Rows with cells that are missing: the mean and covariance that all that is there makes most likely, and draws of the
rest from the conditional Gaussian.

With x_o the cells that are there and C the covariance, E[x | x_o] = μ + G (x − μ) and Cov[x | x_o] = C − G C with

    G = C Mᵀ (M C Mᵀ)⁻¹ M,   M the rows of the identity that are there.

Reference: Dempster, Laird and Rubin (1977), section 4.1.3; Little and Rubin (2019), section 11.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.data.transforms import Transform
from undiffuse.gaussian import Moments
from undiffuse.noise import Purpose, normal

MEASURED = 10_000
"""How many rows moments are measured on."""
_ROUNDS, _CLOSE = 60, 1e-4
_PRIOR = 3.0  # rows of independent columns that the covariance is shrunk by: few rows cannot tell how sure they make us
_LARGE = 128  # numbers a row beyond which the covariance is that of pairs
_ROWS = 2000  # rows that are looked at
_JITTER = 1e-9


class Law(NamedTuple):
    """A Gaussian: mean (d,) and covariance (d, d), float64."""

    mean: Tensor
    cov: Tensor


def moments(z: Tensor) -> Moments:
    """The most likely moments of rows z (n, d), NaN where missing, shrunk by three rows of independent columns.

    By the EM algorithm; rows of more than 128 numbers by the pairs that are there.
    """
    flat = z.flatten(1).double()
    rows = flat[torch.linspace(0, len(flat) - 1, min(len(flat), _ROWS)).round().long()]
    law = pairs(rows) if rows.shape[1] > _LARGE else likeliest(rows)
    variances, basis = torch.linalg.eigh(law.cov)
    return Moments(tuple(z.shape[1:]), law.mean, variances.flip(0).clamp_min(0), "pca", basis.flip(1).contiguous())


def measured(x: Tensor, index: Tensor, transform: Transform, table: bool) -> Moments:
    """The mean and covariance in model units of the rows x[index] in data units, on at most 10,000 of them.

    Rows that are not finite are left out, but for the missing cells of tables.
    """
    z = transform.forward(x[index[torch.linspace(0, len(index) - 1, min(len(index), MEASURED)).round().long()]])
    if table and bool(z.isnan().any()):
        return moments(z)
    return Moments.measure(z[z.flatten(1).isfinite().all(1)])


def pairs(z: Tensor) -> Law:
    """Mean and covariance of rows z (n, d), every entry from the rows that have both columns."""
    seen = (~z.isnan()).double()
    mean = z.nan_to_num(0.0).sum(0) / seen.sum(0).clamp_min(1)
    centred = torch.where(seen > 0, z - mean, 0.0)
    return Law(mean, centred.mT @ centred / (seen.mT @ seen).clamp_min(1))


def likeliest(z: Tensor, prior: float = _PRIOR) -> Law:
    """The mean and covariance of greatest likelihood, `prior` rows of independent columns added to the covariance."""
    start = pairs(z)
    alone = torch.diag(start.cov.diagonal())
    law = Law(start.mean, alone)
    patterns, of = torch.unique(z.isnan(), dim=0, return_inverse=True)
    for _ in range(_ROUNDS):
        G = gains(law.cov, patterns)
        full = _expected(z, law, G[of])
        mean = full.mean(0)
        unsure = torch.bincount(of).double() @ (law.cov - G @ law.cov).flatten(1)
        scatter = (full - mean).mT @ (full - mean) + unsure.reshape(law.cov.shape) + prior * alone
        before, law = law, Law(mean, (scatter + scatter.mT) / (2 * (len(z) + prior)))
        if (law.cov - before.cov).abs().max() < _CLOSE * law.cov.diagonal().max():
            break
    return law


def gains(cov: Tensor, missing: Tensor) -> Tensor:
    """G (n, d, d) for rows whose cells `missing` (n, d) are not there."""
    seen = (~missing).to(cov)
    both = seen[:, :, None] * seen[:, None, :] * cov + torch.diag_embed(1 - seen + _JITTER)
    solved: Tensor = torch.linalg.solve(both, (cov * seen[:, :, None]))
    return (solved * seen[:, :, None]).mT


def fill(z: Tensor, law: Moments, seed: int, draw: int) -> Tensor:
    """z (n, d) with NaN replaced by a draw of what is missing given what is there; the rest is as it was.

    x + G (z − x) for x ~ N(μ, C) has that law, row by row. Rows of more than 128 numbers get draws of each column.

    Reference: Hoffman and Ribak (1991), eq. 3.
    """
    missing = z.isnan()
    eps = normal(seed, Purpose.PROBE, (1 << 32) + draw, 0, len(z), tuple(z.shape[1:]), torch.float64)
    x = law.prior_sample(eps, 1.0, 0.0)
    if z.shape[1] <= _LARGE:
        cov = covariance(law)
        parts = zip(x.split(_ROWS), z.split(_ROWS), missing.split(_ROWS), strict=True)
        x = torch.cat([_expected(b, Law(a, cov), gains(cov, m)) for a, b, m in parts])
    return torch.where(missing, x.to(z), z)


def covariance(law: Moments) -> Tensor:
    """C of moments in full, (d, d)."""
    assert law.basis is not None
    return (law.basis * law.variances) @ law.basis.mT


def _expected(z: Tensor, law: Law, gain: Tensor) -> Tensor:
    """m + G (z − m) with m the mean, or one a row."""
    away = torch.where(z.isnan(), 0.0, z.double() - law.mean)
    return law.mean + (gain @ away[..., None])[..., 0]
