"""The linear part: mean and covariance of the data, and the best linear denoiser at every noise level.

In a basis U that diagonalises the covariance, C = U diag(s²) Uᵀ, the Wiener filter is
D(z) = μ + U diag(s²/(s² + σ̂²)) Uᵀ (z − μ) for z = x/α, and p_t ≈ N(α μ, α² C + σ² I). It is exact for Gaussian
data; samplers integrate it exactly, training and likelihood subtract it.

Reference: Wiener (1949); Wang and Vastola (2024), arXiv:2412.09726.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.cosines import EVEN, colours, frequencies, mixed, mixed_by_frequency, mixes, principal, separable
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal

MOMENT_ROWS = 10_000
"""Largest number of rows on which moments are measured."""
_FULL = 1024
_MAX_COLUMNS = 1 << 15
_ROWS_PER_ENTRY = 8  # below which the principal directions of images are not those of the distribution
RANK = 256
"""Number of principal directions of kind "low_rank"."""
SPECTRAL = ("cosine", "fourier")
"""Kinds whose directions are waves, of one principal direction of the channels per frequency."""
KINDS = ("pca", "low_rank", "dct", *SPECTRAL)
"""All kinds."""
_NARROW = 0.01  # of the data's standard deviation
_TINY = 1e-20  # smallest variance


@dataclass(frozen=True)
class Moments:
    """Mean (d,), variances (k,) in an orthonormal basis, and that basis, of data with events of `shape` (d entries).

    kind "pca" and "low_rank": `basis` (d, k) holds principal directions; if k < d, all other directions have variance
    `residual_variance`. kind "dct": the directions are the cosines of the type-II transform over the last two axes, of
    the principal directions of the colours, `basis` (C, C), in its columns; None: of every channel. kind "cosine" and
    "fourier", for data whose covariance depends on the displacement only: the cosines, or sines and cosines, over all
    axes of space, of the principal directions of the channels at every frequency, `basis` (C, C, F).
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
            kind: A kind, or "auto": cosines for images of more than 1,024 entries or fewer than eight rows per entry,
                of which principal directions would be wrong; else principal directions.
            rank: Number of principal directions of kind "pca"; default all up to 1,024 entries, else 256.
        """
        if len(x) < 2:
            raise InputError(f"got {len(x)} rows; expected at least 2 to measure a covariance")
        shape, flat = tuple(x.shape[1:]), x.flatten(1).double()
        kind = best_kind(shape, len(x)) if kind == "auto" else kind
        mean = flat.mean(0)
        if kind == "dct":
            cosines = cls(shape, mean, torch.zeros_like(mean), kind, colours(flat - mean, shape))
            return replace(cosines, variances=cosines.rotate(flat - mean).square().mean(0))
        if kind in SPECTRAL:
            waves = frequencies(flat - mean, shape, kind)
            basis = principal(waves, shape)
            return cls(shape, mean, mixed_by_frequency(waves, basis).square().mean(0), kind, basis)
        return _principal(shape, mean, flat - mean, rank, kind)

    @classmethod
    def of_covariance(cls, shape: tuple[int, ...], mean: Tensor, cov: Tensor) -> Moments:
        """The moments of a mean (d,) and a covariance (d, d)."""
        values, basis = torch.linalg.eigh(cov)
        return cls(shape, mean, values.flip(0).clamp_min(0), "pca", basis.flip(1).contiguous())

    @classmethod
    def blank(cls, shape: tuple[int, ...], kind: str) -> Moments:
        """Moments of zeros with the form that `measure` gives for this shape and kind, to be filled from a checkpoint.
        """
        if kind not in KINDS:
            raise InputError(f"got moments of kind {kind!r}; expected one of {', '.join(KINDS)}")
        d = math.prod(shape)
        zero, rank = torch.zeros(d, dtype=torch.float64), min(RANK, d)
        if kind == "low_rank":
            return cls(shape, zero, zero[:rank].clone(), kind, zero.new_zeros(d, rank))
        if kind in SPECTRAL and shape[0] > 1:
            return cls(shape, zero, zero.clone(), kind, zero.new_zeros(shape[0], shape[0], d // shape[0]))
        size = d if kind == "pca" else shape[0] if kind == "dct" and mixes(shape) else 0
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
        if self.kind in SPECTRAL:
            return mixed_by_frequency(frequencies(flat, self.shape, self.kind), self.basis)
        basis, d, k = self._basis_like(x), flat.shape[1], len(self.variances)
        y = padded_product(flat, basis, k)
        return y if self.complete else torch.cat([y, flat - padded_product(y, basis.T, d)], 1)

    def unrotate(self, y: Tensor) -> Tensor:
        """The inverse of `rotate`: x (B, *event)."""
        if self.kind == "dct":
            back = None if self.basis is None else self.basis.T
            return mixed(separable(y, self.shape, inverse=True), back).reshape(-1, *self.shape)
        if self.kind in SPECTRAL:
            waves = mixed_by_frequency(y, None if self.basis is None else self.basis.transpose(0, 1))
            return frequencies(waves, self.shape, self.kind, inverse=True).reshape(-1, *self.shape)
        basis, k = self._basis_like(y), len(self.variances)
        flat = padded_product(y[:, :k], basis.T, math.prod(self.shape))
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
                alpha, self.average(total2).rsqrt(), self.average(error2).sqrt()))
            mean, filtered = _to_device(self.mean, x).to(x).reshape(self.shape), self.unrotate(linear)
            return c_in * (x - a * mean), lambda F: filtered + c_out * F
        correction_scale, root = error2.sqrt().to(x), total2.sqrt()
        input_scale = (root * self.average(root)).rsqrt().to(x)
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
        if not self.complete:
            named["residual_variance"] = torch.tensor(self.residual_variance, dtype=torch.float64)
        return named if self.basis is None else {**named, "basis": self.basis}

    def config(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON."""
        return {"shape": list(self.shape), "kind": self.kind, "residual_variance": self.residual_variance}

    @classmethod
    def from_config(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Moments:
        """The inverse of `config()` and `tensors()`."""
        residual = float(tensors.get("residual_variance", config["residual_variance"]))
        named = {name: tensor for name, tensor in tensors.items() if name != "residual_variance"}
        return cls(tuple(config["shape"]), kind=config["kind"], residual_variance=residual, **named)

    def average(self, values: Tensor) -> Tensor:
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


def padded_product(rows: Tensor, matrix: Tensor, width: int) -> Tensor:
    """The first `width` columns of rows (B, d) times a zero-padded matrix."""
    short = matrix.shape[0] - rows.shape[1]
    return ((torch.nn.functional.pad(rows, (0, short)) if short else rows) @ matrix)[:, :width]


def measurable(shape: tuple[int, ...]) -> bool:
    """Whether moments can be measured and stored for events of this shape: all but very long rows."""
    return len(shape) > 1 or math.prod(shape) <= _MAX_COLUMNS


def best_kind(shape: tuple[int, ...], rows: int) -> str:
    """Cosines for images that are too large or too few for a full covariance, the leading directions of other events of
    more than 1,024 entries, principal directions otherwise.

    Args:
        shape: shape of an event.
        rows: number of rows.
    """
    few = math.prod(shape) > min(_FULL, min(rows, MOMENT_ROWS) / _ROWS_PER_ENTRY)
    return "dct" if len(shape) == 3 and few else "low_rank" if math.prod(shape) > _FULL else "pca"


def is_short(shape: tuple[int, ...], rows: int) -> bool:
    """Whether there are too few rows for the variances along principal directions to be those of new rows."""
    return rows < _ROWS_PER_ENTRY * math.prod(shape)


def _principal(shape: tuple[int, ...], mean: Tensor, centred: Tensor, rank: int | None, kind: str) -> Moments:
    """Principal directions: all of them up to 1,024 entries, else the leading `rank` (256)."""
    n, d = centred.shape
    if d <= _FULL and rank is None and kind == "pca":
        return Moments.of_covariance(shape, mean, centred.T @ centred / n)
    if kind == "low_rank":
        return _leading(shape, mean, centred)
    k = min(rank or RANK, n - 1, d)
    _, singular, vt = np.linalg.svd(centred.numpy(), full_matrices=False)
    variances = torch.from_numpy(singular[:k] ** 2 / n)
    residual = max(0.0, float(centred.square().sum() / n - variances.sum())) / max(1, d - k)
    return Moments(shape, mean, variances, "pca", torch.from_numpy(vt[:k].T.copy()), residual)


def _leading(shape: tuple[int, ...], mean: Tensor, centred: Tensor) -> Moments:
    """The leading 256 principal directions, from the smaller of the two matrices of scalar products; where there are
    fewer rows, completed by directions in which these do not vary."""
    n, d = centred.shape
    k = min(RANK, d)
    if n < d:
        values, left = torch.linalg.eigh(centred @ centred.T)
        values, basis = values.flip(0)[:k], centred.T @ left.flip(1)[:, :k]
    else:
        values, basis = torch.linalg.eigh(centred.T @ centred)
        values, basis = values.flip(0)[:k], basis.flip(1)[:, :k]
    variances = torch.zeros(k, dtype=torch.float64)
    variances[: len(values)] = values.clamp_min(0) / n
    filler = normal(0, Purpose.PROBE, 2, 0, 1, (d, k), torch.float64)[0]
    independent = variances > _TINY + 1e-10 * variances[0]
    columns = torch.cat([basis, filler[:, basis.shape[1] :]], 1) if basis.shape[1] < k else basis
    orthonormal = torch.linalg.qr(torch.where(independent, columns / columns.norm(dim=0).clamp_min(_TINY), filler))[0]
    residual = max(0.0, float(centred.square().sum() / n - variances.sum())) / max(1, d - k)
    return Moments(shape, mean, variances, "low_rank", orthonormal.contiguous(), residual)


def _to_device(c: Tensor, x: Tensor) -> Tensor:
    """c on the device of x; copies from the CPU are asynchronous."""
    return c.to(x.device, non_blocking=c.device.type == "cpu")
