"""The denoiser of a table from the rows next to a row, and its residual: an anomaly score that needs no training.

Around x the data are taken as the Gaussian of its k nearest training rows, with mean m and covariance C. The residual
of its Wiener filter at the noise level σ is

    x − D_σ(x) = σ² (C + σ² I)⁻¹ (x − m),

large where x is off the rows next to it in a direction in which they hardly vary. The score averages ‖x − D‖, in units
of its median over the training rows, over noise levels relative to the mean square distance s² of the k rows from x,
σ² = r s², and over the denoiser of the training rows themselves at σ → 0, which is the nearest row.

The residual is also that of the best reconstruction of x by weights of the k rows that add up to 1, with r k s² times
the sum of squares of the weights as a penalty.

Reference: Saul and Roweis (2003), "Think globally, fit locally", section 2, for the weights; Wang and Vastola (2024),
arXiv:2412.09726, for the Wiener filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

LEVELS = (0.01, 0.03, 0.1)
_CELLS = 1 << 24  # numbers of a block of distances and of neighbours
_TINY, _FLOOR = 1e-9, 1e-3


@dataclass(frozen=True)
class LocalDenoiser:
    """The Wiener filter of the Gaussian of the nearest rows.

    Args:
        rows: training rows (N, d), float64; entries in comparable units.
        neighbors: number k of rows.
        levels: noise levels r, σ² in units of the mean square distance of the k rows.
    """

    rows: Tensor
    neighbors: int = 10
    levels: tuple[float, ...] = LEVELS

    def residuals(self, x: Tensor) -> Tensor:
        """x − D(x) of rows x (B, d) for the nearest row and at every noise level, (B, 1 + levels, d).

        A row that equals a training row is scored as that row would be without it.
        """
        empty = x.new_zeros(0, 1 + len(self.levels), x.shape[1])
        return torch.cat([empty, *map(self._residuals, x.split(self._block))])

    def scores(self, x: Tensor) -> Tensor:
        """log of the mean of ‖x − D(x)‖ over the denoisers, in units of their medians, (B,); larger if unusual."""
        return self.log_size(self.residuals(x))

    def log_size(self, residuals: Tensor) -> Tensor:
        """`scores` of residuals (B, 1 + levels, d)."""
        return self._log_mean(residuals.norm(dim=2))

    @cached_property
    def training_scores(self) -> Tensor:
        """`scores` of the training rows, (N,)."""
        return self._log_mean(self._training[0])

    def shares(self, residuals: Tensor) -> Tensor:
        """The share of every entry in the squares of residuals (B, 1 + levels, d), each in units of its mean over the
        training rows, averaged over the denoisers, (B, d)."""
        spread = self._training[1]
        squares = residuals.square() / (spread + _FLOOR * spread.mean(1, keepdim=True) + _TINY**2)
        return (squares / squares.sum(2, keepdim=True).clamp_min(_TINY**2)).mean(1)

    @property
    def _block(self) -> int:
        """Rows of a block."""
        return max(1, _CELLS // max(len(self.rows), self.neighbors * self.rows.shape[1]))

    @cached_property
    def _training(self) -> tuple[Tensor, Tensor]:
        """Of the residuals of the training rows, each without itself: the sizes (N, 1 + levels), and the mean squares
        (1 + levels, d)."""
        sizes, squares = [], torch.zeros(1 + len(self.levels), self.rows.shape[1], dtype=self.rows.dtype)
        for rows in self.rows.split(self._block):
            residuals = self._residuals(rows)
            sizes.append(residuals.norm(dim=2))
            squares += residuals.square().sum(0)
        return torch.cat(sizes), squares / len(self.rows)

    def _log_mean(self, sizes: Tensor) -> Tensor:
        """log of the mean of sizes (B, 1 + levels) in units of their medians, or of a thousandth of their means."""
        training = self._training[0]
        typical = torch.maximum(training.median(0).values, _FLOOR * training.mean(0)) + _TINY
        return ((sizes + _TINY) / typical).mean(1).log()

    def _residuals(self, x: Tensor) -> Tensor:
        offsets = self.rows[self._nearest(x)] - x[:, None]
        mean = offsets.mean(1)
        centred, square = offsets - mean[:, None], offsets.square().sum(2).sum(1) + _TINY**2
        gram, product = centred @ centred.mT, centred @ mean[..., None]
        eye = torch.eye(gram.shape[1], dtype=gram.dtype)
        parts = [-offsets[:, 0]]
        for level in self.levels:
            weights = torch.linalg.solve(gram + level * square[:, None, None] * eye, product)
            parts.append((centred.mT @ weights)[..., 0] - mean)
        return torch.stack(parts, 1)

    def _nearest(self, x: Tensor) -> Tensor:
        """The numbers of the nearest rows (B, k), without one that equals x."""
        k = min(self.neighbors, len(self.rows) - 1)
        index = torch.cdist(x, self.rows).topk(k + 1, largest=False).indices
        equal = (self.rows[index[:, 0]] == x).all(1, keepdim=True)
        return torch.where(equal, index[:, 1:], index[:, :k])
