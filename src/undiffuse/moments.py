"""The linear part: mean and covariance of the data, and the best linear denoiser at every noise level.

In a basis U that diagonalises the covariance, C = U diag(s²) Uᵀ, the Wiener filter is
D(z) = μ + U diag(s²/(s² + σ̂²)) Uᵀ (z − μ) for z = x/α, and p_t ≈ N(α μ, α² C + σ² I). It is exact for Gaussian
data; samplers integrate it exactly, training and likelihood subtract it.

For rows with missing values, the maximum-likelihood mean and covariance, and samples of the missing values: with
x_o the observed values and M the corresponding rows of the identity,

    E[x | x_o] = μ + G (x − μ),   Cov[x | x_o] = C − G C,   G = C Mᵀ (M C Mᵀ)⁻¹ M.

Reference: Wiener (1949); Wang and Vastola (2024), arXiv:2412.09726; Dempster, Laird and Rubin (1977), section 4.1.3;
Little and Rubin (2019), section 11.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from undiffuse.cosines import EVEN, colours, mixed, mixes, separable
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal, uniform
from undiffuse.transforms.base import Transform

MOMENT_ROWS = 10_000
"""Largest number of rows on which moments are measured."""
_FULL = 1024
_ROWS_PER_ENTRY = 8  # below which the principal directions of images are not those of the distribution
_NARROW = 0.01  # of the data's standard deviation
_TINY = 1e-20  # smallest variance


@dataclass(frozen=True)
class Moments:
    """Mean (d,), variances (k,) in an orthonormal basis, and that basis, of data with events of `shape` (d entries).

    kind "pca": `basis` (d, k) holds principal directions; if k < d, all other directions have variance
    `residual_variance`. kind "dct": the directions are the cosines of the type-II transform over the last two axes, of
    the principal directions of the colours, `basis` (C, C), in its columns; None: of every channel.
    """

    shape: tuple[int, ...]
    mean: Tensor
    variances: Tensor
    kind: str = "pca"
    basis: Tensor | None = None
    residual_variance: float = 0.0

    @classmethod
    def measure(cls, x: Tensor, kind: str = "auto", rank: int | None = None) -> Moments:
        """The moments of data x (n, *event).

        Args:
            x: Data.
            kind: "pca", "dct", or "auto": cosines for images of more than 1,024 entries or fewer than eight rows per
                entry, of which principal directions would be wrong; else principal directions.
            rank: Number of principal directions; default all up to 1,024 entries, else 256.
        """
        if len(x) < 2:
            raise InputError(f"got {len(x)} rows; expected at least 2 to measure a covariance")
        shape, flat = tuple(x.shape[1:]), x.flatten(1).double()
        kind = best_kind(shape, len(x)) if kind == "auto" else kind
        mean = flat.mean(0)
        if kind == "dct":
            cosines = cls(shape, mean, torch.zeros_like(mean), kind, colours(flat - mean, shape))
            return replace(cosines, variances=cosines.rotate(flat - mean).square().mean(0))
        return _principal(shape, mean, flat - mean, rank)

    @classmethod
    def blank(cls, shape: tuple[int, ...], kind: str) -> Moments:
        """Moments of zeros with the form that `measure` gives for this shape and kind, to be filled from a checkpoint.
        """
        d = math.prod(shape)
        zero = torch.zeros(d, dtype=torch.float64)
        size = d if kind == "pca" else shape[0] if mixes(shape) else 0
        return cls(shape, zero, zero.clone(), kind, zero.new_zeros(size, size) if size else None)

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole space."""
        return self.basis is None or self.basis.shape[0] == self.basis.shape[1]

    @cached_property
    def spectrum(self) -> Tensor:
        """The variance of every coordinate that `rotate` returns, float64."""
        if self.complete:
            return self.variances
        assert self.basis is not None
        remainder = torch.full((self.basis.shape[0],), self.residual_variance, dtype=torch.float64)
        return torch.cat([self.variances, remainder])

    @property
    def total_std(self) -> float:
        """The root mean variance per entry, σ_data."""
        d = math.prod(self.shape)
        residual = 0.0 if self.complete else self.residual_variance * (d - len(self.variances))
        return math.sqrt((float(self.variances.sum()) + residual) / d)

    def rotate(self, x: Tensor) -> Tensor:
        """The coordinates (B, k) of x (B, *event or d), not centred; a low-rank basis adds the remainder (d)."""
        flat = x.flatten(1)
        if self.kind == "dct":
            return separable(mixed(flat, self.basis), self.shape, inverse=False)
        basis, d, k = self._basis_like(x), flat.shape[1], len(self.variances)
        y = _times(flat, basis, k)
        return y if self.complete else torch.cat([y, flat - _times(y, basis.T, d)], 1)

    def unrotate(self, y: Tensor) -> Tensor:
        """The inverse of `rotate`: x (B, *event)."""
        if self.kind == "dct":
            back = None if self.basis is None else self.basis.T
            return mixed(separable(y, self.shape, inverse=True), back).reshape(-1, *self.shape)
        basis, k = self._basis_like(y), len(self.variances)
        flat = _times(y[:, :k], basis.T, math.prod(self.shape))
        return (flat if self.complete else flat + y[:, k:]).reshape(-1, *self.shape)

    def rotated_mean(self, like: Tensor) -> Tensor:
        """The coordinates of the mean, (1, k)."""
        return _to_device(self._centre, like).to(like.dtype)

    @cached_property
    def _centre(self) -> Tensor:
        return self.rotate(self.mean[None])

    def wiener(self, z: Tensor, sigma_hat: float) -> Tensor:
        """The best linear denoiser of z = x_0 + σ̂ ε: μ + U diag(s²/(s² + σ̂²)) Uᵀ (z − μ)."""
        gain = (self.spectrum / (self.spectrum + sigma_hat**2)).to(z.device, z.dtype)
        centre = self.rotated_mean(z)
        return self.unrotate(centre + gain * (self.rotate(z) - centre))

    def precondition(self, x: Tensor, alpha: Tensor, sigma: Tensor,
                     directions: bool = True) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The input of a network for x (B, *event), and the function from its output F to the denoiser D.

        D = μ + α C S⁻¹ (x − α μ) + E^{½} F with S = α² C + σ² I: the Wiener filter plus a correction of unit variance.
        With `directions`, E = σ² C S⁻¹, the covariance of what the filter leaves, and the input is
        S^{−¼} (x − α μ)/√(tr S^{½}/d), of mean variance 1, half-way between one scale for all directions and whitening,
        which would amplify the many directions of small variance. Without, E = tr(σ² C S⁻¹)/d · I, and the input is
        (x − α μ)/√(tr S/d): a network that works on pixels keeps them. For C = σ_d² I and μ = 0 both are EDM's.

        Args:
            x: Noisy states.
            alpha: Mean coefficient, () or (B,).
            sigma: Noise standard deviation, () or (B,).
            directions: Whether input and correction have a scale per direction, or one.

        Reference: Karras et al. (2022), eqs. 114-144, with matrices for numbers. arXiv:2206.00364
        """
        alpha, sigma = (_to_device(c.double().reshape(-1, 1), x) for c in (alpha, sigma))
        s2, centre = _to_device(self.spectrum, x), self.rotated_mean(x)
        total2 = (alpha**2 * s2 + sigma**2).clamp_min(_TINY)
        y = self.rotate(x) - alpha.to(x) * centre
        linear, error2 = centre + (alpha * s2 / total2).to(x) * y, sigma**2 * s2 / total2
        if not directions:
            per_row = (-1, *[1] * len(self.shape))
            a, c_in, c_out = (c.to(x).reshape(per_row) for c in (
                alpha, self._mean(total2).rsqrt(), self._mean(error2).sqrt()))
            mean, filtered = _to_device(self.mean, x).to(x).reshape(self.shape), self.unrotate(linear)
            return c_in * (x - a * mean), lambda F: filtered + c_out * F
        correction_scale, root = error2.sqrt().to(x), total2.sqrt()
        input_scale = (root * self._mean(root)).rsqrt().to(x)
        return self.unrotate(input_scale * y), lambda F: self.unrotate(linear + correction_scale * self.rotate(F))

    def whitened(self, error: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The error of a denoiser (B, *event) in units of the network's output: σ⁻¹ S^{½} C^{−½} (D − x_0), (B, k).

        The inverse of the last factor of `precondition`, in the basis of `rotate`. Standard deviations below 1 % of the
        data's are replaced by 1 %.

        Args:
            error: D − x_0 in model units, (B, *event).
            alpha: α at the time of each row, () or (B,).
            sigma: σ at the time of each row, () or (B,).
        """
        alpha, sigma = (_to_device(c.double().reshape(-1, 1), error) for c in (alpha, sigma))
        s2 = _to_device(self.spectrum.clamp_min((_NARROW * self.total_std) ** 2), error)
        return (alpha**2 / sigma**2 + 1 / s2).sqrt().to(error) * self.rotate(error)

    def prior_sample(self, eps: Tensor, alpha: float, sigma: float) -> Tensor:
        """The moment-matched Gaussian N(α μ, α² C + σ² I) from standard normals (B, *event).

        Args:
            eps: standard normals (B, *event).
            alpha: α at the time of the prior.
            sigma: σ at the time of the prior.
        """
        spread = (alpha**2 * self.spectrum + sigma**2).sqrt().to(eps.device, eps.dtype)
        return self.unrotate(alpha * self.rotated_mean(eps) + spread * self.rotate(eps))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores in addition to `config()`."""
        named = {"mean": self.mean, "variances": self.variances}
        return named if self.basis is None else {**named, "basis": self.basis}

    def config(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON."""
        return {"shape": list(self.shape), "kind": self.kind, "residual_variance": self.residual_variance}

    @classmethod
    def from_config(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Moments:
        """The inverse of `config()` and `tensors()`."""
        return cls(tuple(config["shape"]), kind=config["kind"], residual_variance=config["residual_variance"],
                   **tensors)

    def _mean(self, values: Tensor) -> Tensor:
        """The mean over the d directions, (B, 1), of values for the coordinates that `rotate` returns, (B, k)."""
        k, d = len(self.variances), math.prod(self.shape)
        residual = (d - k) * values[:, k:].mean(1, keepdim=True) if values.shape[1] > k else 0.0
        return (values[:, :k].sum(1, keepdim=True) + residual) / d

    @cached_property
    def _casts(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}

    def _basis_like(self, x: Tensor) -> Tensor:
        """The basis in the dtype and on the device of x, converted once, with zeros up to multiples of `EVEN`."""
        assert self.basis is not None
        key, (d, k) = (x.device, x.dtype), self.basis.shape
        if key not in self._casts:
            padded = torch.zeros(d + -d % EVEN, k + -k % EVEN, device=x.device, dtype=x.dtype)
            padded[:d, :k] = self.basis
            self._casts[key] = padded
        return self._casts[key]


def _times(rows: Tensor, matrix: Tensor, width: int) -> Tensor:
    """The first `width` columns of rows (B, d) times a zero-padded matrix."""
    short = matrix.shape[0] - rows.shape[1]
    return ((torch.nn.functional.pad(rows, (0, short)) if short else rows) @ matrix)[:, :width]


def measurable(shape: tuple[int, ...]) -> bool:
    """Whether the full spectrum can be measured and stored for events of this shape."""
    return len(shape) == 3 or math.prod(shape) <= _FULL


def best_kind(shape: tuple[int, ...], rows: int) -> str:
    """Cosines for images that are too large or too few for a full covariance, principal directions otherwise."""
    few = math.prod(shape) > min(_FULL, min(rows, MOMENT_ROWS) / _ROWS_PER_ENTRY)
    return "dct" if len(shape) == 3 and few else "pca"


def _principal(shape: tuple[int, ...], mean: Tensor, centred: Tensor, rank: int | None) -> Moments:
    """Principal directions: all of them up to 1,024 entries, else the leading `rank` (256)."""
    n, d = centred.shape
    if d <= _FULL and rank is None:
        variances, basis = torch.linalg.eigh(centred.T @ centred / n)
        return Moments(shape, mean, variances.flip(0).clamp_min(0), "pca", basis.flip(1).contiguous())
    k = min(rank or 256, n - 1, d)
    _, singular, vt = np.linalg.svd(centred.numpy(), full_matrices=False)
    variances = torch.from_numpy(singular[:k] ** 2 / n)
    residual = max(0.0, float(centred.square().sum() / n - variances.sum())) / max(1, d - k)
    return Moments(shape, mean, variances, "pca", torch.from_numpy(vt[:k].T.copy()), residual)


def _to_device(c: Tensor, x: Tensor) -> Tensor:
    """c on the device of x; copies from the CPU are asynchronous."""
    return c.to(x.device, non_blocking=c.device.type == "cpu")


_ROUNDS, _CLOSE = 60, 1e-4
_PRIOR = 3.0  # pseudo-rows of independent columns by which the covariance is shrunk
_LARGE = 128  # columns above which the covariance is pairwise
_ROWS = 2000  # rows used, and rows per batch
_JITTER = 1e-9
_MIN_DONORS, _MAX_DONORS, _DONORS = 50, 5000, 5  # complete rows that may fill others; nearest ones


class GaussianParams(NamedTuple):
    """A Gaussian: mean (d,) and covariance (d, d), float64."""

    mean: Tensor
    cov: Tensor


def moments_with_missing(z: Tensor) -> Moments:
    """Moments of rows z (n, d) with NaN for missing values, by EM with shrinkage; pairwise above 128 columns."""
    flat = z.flatten(1).double()
    rows = flat[torch.linspace(0, len(flat) - 1, min(len(flat), _ROWS)).round().long()]
    params = pairwise_covariance(rows) if rows.shape[1] > _LARGE else fit_em(rows)
    variances, basis = torch.linalg.eigh(params.cov)
    return Moments(tuple(z.shape[1:]), params.mean, variances.flip(0).clamp_min(0), "pca", basis.flip(1).contiguous())


def measure_moments(x: Tensor, index: Tensor, transform: Transform, table: bool, kind: str = "auto") -> Moments:
    """The moments in model units of at most 10,000 of the rows x[index].

    Rows that are not finite are ignored, except for missing values of tables.

    Args:
        x: the rows in data units.
        index: indices of the rows that may be used.
        transform: transform to model units.
        table: whether the rows are of a table, in which NaN is a missing value.
        kind: see `Moments.measure`.
    """
    z = transform.forward(x[index[torch.linspace(0, len(index) - 1, min(len(index), MOMENT_ROWS)).round().long()]])
    if table and bool(z.isnan().any()):
        return moments_with_missing(z)
    return Moments.measure(z[z.flatten(1).isfinite().all(1)], kind)


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
    linear. Above 128 columns the samples are unconditional.

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
    return torch.where(missing, x.to(z), z)


def _nearest_donor(z: Tensor, u: Tensor, donors: Tensor) -> Tensor:
    """For each row of z (n, d) the donor among the nearest in the observed entries that u (n,) chooses, (n, d)."""
    observed, filled = (~z.isnan()).double(), z.double().nan_to_num(0.0)
    distance = observed @ donors.square().mT - 2 * filled @ donors.mT
    nearest = distance.topk(_DONORS, largest=False).indices
    return donors[nearest.gather(1, (u[:, None] * _DONORS).long().clamp_max(_DONORS - 1))[:, 0]]


def covariance(moments: Moments) -> Tensor:
    """The covariance matrix C (d, d)."""
    unit = torch.eye(len(moments.mean), dtype=torch.float64)
    directions = moments.unrotate(unit).flatten(1)
    return directions.mT @ (moments.variances[:, None] * directions)


def conditional_mean(z: Tensor, params: GaussianParams, gain: Tensor) -> Tensor:
    """E[z | observed] = m + G (z − m).

    Args:
        z: rows (n, d), NaN where missing.
        params: mean m, (d,) or one per row.
        gain: regression gains (n, d, d), see `regression_gain`.
    """
    residual = torch.where(z.isnan(), 0.0, z.double() - params.mean)
    return params.mean + (gain @ residual[..., None])[..., 0]
