"""The moments of data: which kind, and variances that are those of new rows.

Along the principal directions of few rows these rows vary more, and along all others less, than new rows do; along the
directions beyond their number they do not vary at all. So the variances are measured on rows that were left out.

Reference: Bartz (2016), "Cross-validation based nonlinear shrinkage". arXiv:1611.00798
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor

from undiffuse.moments.linear_part import MOMENT_ROWS, SPECTRAL, Moments, best_kind, is_short
from undiffuse.moments.missing_values import fill_missing, fit_em, pairwise_covariance, regress
from undiffuse.random import Purpose, normal
from undiffuse.transforms.base import Transform

_FOLDS = 5
_LONG = 1024  # entries above which fewer rows are used
_FEW_ROWS, _EM_ROWS = 2500, 2000
_EM_ENTRIES = 128  # up to which missing values are integrated out exactly
_ROUNDS, _MORE_ROUNDS, _MANY = 4, 9, 0.2  # of filling in and measuring again, from a fraction of missing values on
_FLOOR = 1e-9  # of the mean variance


def measure_moments(x: Tensor, index: Tensor, transform: Transform, missing: bool, kind: str = "auto") -> Moments:
    """The moments in model units of at most 10,000 of the rows x[index]; 2,500 of a low rank.

    Rows that are not finite are ignored, except for missing values.

    Args:
        x: the rows in data units.
        index: indices of the rows that may be used.
        transform: transform to model units.
        missing: whether NaN is a missing value, as in tables and arrays.
        kind: see `Moments.measure`.
    """
    most = _FEW_ROWS if kind == "low_rank" else MOMENT_ROWS
    z = transform.forward(x[index[torch.linspace(0, len(index) - 1, min(len(index), most)).round().long()]])
    if missing and bool(z.isnan().any()):
        return moments_with_missing(z, kind)
    rows = z[z.flatten(1).isfinite().all(1)]
    return shrunk(Moments.measure(rows, kind), rows) if missing else Moments.measure(rows, kind)


def kind_for(z: Tensor) -> str:
    """The kind of moments for an array: that under which every other row is the more likely by the rest.

    Args:
        z: rows (n, C, *space) in model units, NaN where missing.
    """
    shape, d = tuple(z.shape[1:]), math.prod(z.shape[1:])
    complete = z[~z.flatten(1).isnan().any(1)][:_EM_ROWS]
    dense = "pca" if d <= _LONG else "low_rank"
    if len(complete) < 20:
        return dense if d <= _EM_ENTRIES or len(shape) == 1 else "cosine"
    fitted, new = complete[::2].double(), complete[1::2].double()
    scores = {kind: _log_likelihood(shrunk(Moments.measure(fitted, kind), fitted), new)
              for kind in (dense, *SPECTRAL)}
    return max(scores, key=lambda kind: scores[kind])


def shrunk(moments: Moments, rows: Tensor) -> Moments:
    """Moments with variances along their principal directions that rows which were left out have.

    Args:
        moments: moments of the rows.
        rows: the rows (n, *event).
    """
    n, d = len(rows), math.prod(moments.shape)
    if moments.kind not in ("pca", "low_rank") or n < 2 * _FOLDS or not (
            moments.kind == "low_rank" or is_short(moments.shape, n)):
        return moments
    flat, k = rows.flatten(1).double(), len(moments.variances)
    values, residuals = [], []
    for fold in range(min(_FOLDS, n)):
        left_out = torch.arange(n) % _FOLDS == fold
        train, test = flat[~left_out], flat[left_out]
        rank = min(k, n - -(-n // _FOLDS) - 1)
        basis = _directions(train - train.mean(0), rank)
        centred = test - train.mean(0)
        along = (centred @ basis).square().mean(0)
        values.append(along)
        residuals.append((centred.square().sum(1).mean() - along.sum()) / max(1, d - rank))
    count = min(map(len, values))
    mean = torch.stack([v[:count] for v in values]).mean(0)
    residual = float(torch.stack(residuals).mean().clamp_min(0))
    weights = torch.cat([torch.ones(count), torch.tensor([max(1e-9, float(d - count))])])
    steps = isotonic_regression(torch.cat([mean, torch.tensor([residual])]).numpy(), sample_weight=weights.numpy(),
                                increasing=False)
    decreasing = torch.from_numpy(steps.copy())
    variances = torch.full((k,), float(decreasing[-1]), dtype=torch.float64)
    variances[:count] = decreasing[:count]
    return replace(moments, variances=variances, residual_variance=0.0 if moments.complete else float(decreasing[-1]))


def moments_with_missing(z: Tensor, kind: str = "pca") -> Moments:
    """Moments of rows with NaN for missing values: up to 128 entries by EM with shrinkage; above, the values are filled
    in by samples given the others, and the moments are measured again, three to eight times.

    Args:
        z: rows (n, *event).
        kind: kind of the moments.
    """
    z = z[torch.linspace(0, len(z) - 1, min(len(z), _EM_ROWS)).round().long()]
    shape, flat = tuple(z.shape[1:]), z.flatten(1).double()
    if flat.shape[1] <= _EM_ENTRIES and kind not in SPECTRAL:
        return Moments.of_covariance(shape, *fit_em(flat))
    kind = best_kind(shape, len(z)) if kind == "auto" else kind
    filled = interpolated(z).flatten(1).double() if len(shape) > 1 else fill_missing(flat, _pairwise(flat), 0, 0)
    rounds = _ROUNDS if float(flat.isnan().double().mean()) < _MANY else _MORE_ROUNDS
    for k in range(rounds):
        rows = filled.reshape(-1, *shape)
        moments = shrunk(Moments.measure(rows, kind), rows)
        if k + 1 < rounds:
            eps = normal(k, Purpose.PROBE, 3 << 32, 0, len(flat), shape, torch.float64)
            filled = regress(flat, moments.prior_sample(eps, 1.0, 0.0).flatten(1), moments)
    return moments


def _pairwise(flat: Tensor) -> Moments:
    """The moments of columns whose pairs are measured where both are observed; variances below 1 % are raised to it."""
    params = pairwise_covariance(flat)
    if flat.shape[1] > _LONG:
        return Moments((flat.shape[1],), params.mean, params.cov.diagonal()[:0],
                       basis=torch.zeros(flat.shape[1], 0, dtype=torch.float64), residual_variance=1.0)
    variances, basis = torch.linalg.eigh(params.cov)
    return Moments((flat.shape[1],), params.mean, variances.flip(0).clamp_min(0.01 * float(variances.mean())), "pca",
                   basis.flip(1).contiguous())


def interpolated(z: Tensor) -> Tensor:
    """Samples with their missing values interpolated along the last axis, the nearest value beyond the ends; rows
    without any are the mean of their channel, NaN where it has none.

    Args:
        z: samples (n, C, *space), NaN where missing.
    """
    n = z.shape[-1]
    observed, place = ~z.isnan(), torch.arange(n)
    before = torch.where(observed, place, -1).cummax(-1).values
    after = torch.where(observed, place, n).flip(-1).cummin(-1).values.flip(-1)
    left, right = (torch.where(before < 0, after, before).clamp(0, n - 1),
                   torch.where(after >= n, before, after).clamp(0, n - 1))
    low, high = z.gather(-1, left), z.gather(-1, right)
    weight = (place - left).to(z) / (right - left).clamp_min(1)
    mean = z.transpose(0, 1).flatten(1).nanmean(1).reshape(1, -1, *[1] * (z.ndim - 2))
    line = torch.lerp(low, high, weight)
    return torch.where(observed, z, torch.where(line.isnan(), mean, line))


def _directions(centred: Tensor, rank: int) -> Tensor:
    """The leading principal directions (d, rank) of centred rows."""
    if len(centred) < centred.shape[1]:
        left: Tensor = torch.linalg.eigh(centred @ centred.T)[1]
        along = centred.T @ left.flip(1)[:, :rank]
        directions: Tensor = along / along.norm(dim=0).clamp_min(_FLOOR)
        return directions
    directions = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :rank]
    return directions


def _log_likelihood(moments: Moments, rows: Tensor) -> float:
    """The mean log-density of rows under the Gaussian, per row up to a constant."""
    y = moments.rotate(rows) - moments.rotated_mean(rows)
    s2 = moments.spectrum.clamp_min(_FLOOR * moments.total_std**2)
    k = len(moments.variances)
    volume = s2[:k].log().sum() + (0 if moments.complete else (y.shape[1] - 2 * k) * s2[-1].log())
    return -0.5 * float(volume + (y.square() / s2).sum(1).mean())


