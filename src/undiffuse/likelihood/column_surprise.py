"""Which columns make a row unusual: the part of every column in the path integral of the row's log-likelihood.

The bound −log p(x) ≤ const + ∫ e^{2λ} E‖x − D(z_λ)‖² dλ, an equality for an exact denoiser, is a sum over the entries
of x. The surprise of column j is its part, less the mean of that part over samples of the model:

    s_j(x) = ∫ e^{2λ} E‖(x − D(z_λ))_j‖² dλ − E_{x'~p} of the same,   Σ_j s_j(x) = E log p − log p(x).

For independent normal columns s_j = ½ ((x_j − μ_j)²/σ_j² − 1). All rows have the same noise and its negative, so
that most of its effect cancels in the difference.

Reference: Kong et al. (2023), eq. 8, arXiv:2302.03792, for the integral.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from undiffuse.likelihood.batching import map_packs, pack_size
from undiffuse.likelihood.coordinates import WhitenedCoordinates, gaussian_model
from undiffuse.model import ReverseModel
from undiffuse.moments import fill_missing
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.tensors import ArrayLike
from undiffuse.transforms.base import Table
from undiffuse.transforms.table_schema import data_rows

_REFERENCE = 256  # samples of the model


def column_surprise(model: ReverseModel, x: ArrayLike, levels: int = 32, seed: int = 0) -> Tensor:
    """The surprise s_j of every column of rows x, (B, D), in nats; 0 where missing.

    Args:
        model: a model of a table or of points, with a denoiser of a Gaussian process.
        x: (B, D) in data units, NaN where missing.
        levels: number of noise levels of the integral, each with a noise and its negative.
        seed: seed of the noise and of the model's samples.
    """
    denoiser, x = gaussian_model(model), data_rows(model.schema, x)
    coordinates = WhitenedCoordinates(denoiser)
    widths = denoiser.transform.widths if isinstance(denoiser.transform, Table) else [1] * x.shape[1]
    reference = sample(denoiser, _REFERENCE, seed=seed).x

    def part(rows: Tensor) -> Tensor:
        z = denoiser.transform.forward(rows.double())
        filled = z.nan_to_num(0.0) if denoiser.moments is None else fill_missing(z, denoiser.moments, seed, 0)
        return _part(coordinates, filled, widths, levels, seed)

    with torch.no_grad():
        surprise = part(x) - part(reference).mean(0)
    return torch.where(x.isnan(), 0.0, surprise)


def _part(coordinates: WhitenedCoordinates, z: Tensor, widths: Sequence[int], levels: int, seed: int) -> Tensor:
    """∫ e^{2λ} E‖(z − D)_j‖² dλ for every column, (B, D), by the midpoint rule in λ."""
    low, high = float(coordinates.log_snr_noise), float(coordinates.log_snr_data)
    eps = normal(seed, Purpose.PROBE, 1, 0, levels, tuple(z.shape[1:]), torch.float64)
    owner = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))

    def evaluate(rows: Tensor) -> tuple[Tensor, ...]:
        total = z.new_zeros(len(rows), z.shape[1])
        for k in range(levels):
            lam = torch.tensor(low + (k + 0.5) / levels * (high - low), dtype=torch.float64)
            clean = z[rows].to(coordinates.model.device)
            for sign in (1, -1):
                noisy = clean + sign * math.exp(-lam) * eps[k].to(clean)
                D = coordinates.denoise(noisy, lam.to(clean).expand(len(rows)), {})
                total += (0.5 * math.exp(2 * lam) * (clean - D.to(clean)).square()).cpu()
        return (total,)

    (entries,) = map_packs(evaluate, torch.arange(len(z)), pack_size(coordinates.dim))
    return z.new_zeros(len(z), len(widths)).index_add(1, owner, entries * ((high - low) / levels))
