"""What an update is made from: rows, noise levels, noise and hidden labels, all pure functions of (seed, step, slot).

The batch of step s are the positions sB ... sB + B − 1 of the epochs' permutations laid end to end. There is nothing
to save, nothing to skip on resume, and a batch larger than the data wraps round.

Cells of a table that are missing are filled with draws of what they may be, given the row's other cells, in turns; the
loss does not count them. If the draws had the law of the data, its minimum would be where it is without missing cells.

Augmentation of images: mirrored and moved, each by a draw that is a function of (seed, step, slot).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.data.lazy import Lazy
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution
from undiffuse.model import Denoiser, Model
from undiffuse.moments import fill
from undiffuse.random import Purpose, normal, permutation, uniform


def check_augment(experiment: Experiment, shape: tuple[int, ...]) -> None:
    """InputError where an augmentation is asked for that these data cannot have."""
    asked = experiment.flip or experiment.shift > 0
    if asked and len(shape) != 3:
        raise InputError(f"got flip={experiment.flip}, shift={experiment.shift} for data of shape {shape}; only images "
                         "are augmented, so leave them out")
    if asked and experiment.shift >= min(shape[1:]):
        raise InputError(f"got shift={experiment.shift} for images of {shape[2]}x{shape[1]}; expected less than a side")


def augment(x: Tensor, experiment: Experiment, step: int, first: int) -> Tensor:
    """Images (B, C, H, W) of the slots `first` ... of a step: each mirrored left to right with probability ½ if
    `flip`, and moved by −shift ... shift pixels down and right, pixels at the edge being repeated."""
    if not (experiment.flip or experiment.shift):
        return x
    n, reach, (height, width) = len(x), experiment.shift, x.shape[-2:]
    u = uniform(experiment.seed, Purpose.AUGMENT, step, first, n, (3,)).to(x.device, non_blocking=True)
    down, right = ((2 * reach + 1) * u[:, :2]).long().sub(reach).unbind(1)
    mirrored = (u[:, 2] < 0.5) & experiment.flip
    row = torch.arange(height, device=x.device).sub(down[:, None]).clamp(0, height - 1)
    column = torch.arange(width, device=x.device).sub(right[:, None]).clamp(0, width - 1)
    column = torch.where(mirrored[:, None], width - 1 - column, column)
    each = torch.arange(n, device=x.device)[:, None, None]
    return x[each, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


_FILLS = 8  # draws of the missing cells, which take turns


class Batch(NamedTuple):
    """Rows of the training data (B,), their values x0 in model units, times t (B,), noise eps and labels or None.

    given (B, width) are the raw numbers of the model's conditions, NaN where they are hidden or not known, or None.
    share (B, *event) is what each entry counts: 0 if it is missing, and more than 1 if others of its column are. None
    if nothing is missing.
    """

    rows: Tensor
    x0: Tensor
    t: Tensor
    eps: Tensor
    label: Tensor | None
    share: Tensor | None = None
    given: Tensor | None = None

    def blocks(self, size: int) -> Iterator[Batch]:
        """The batch in parts of `size` rows."""
        parts = [repeat(None) if p is None else torch.split(p, size) for p in self]
        return (Batch(*block) for block in zip(*parts, strict=False))


def order(seed: int, n: int, first: int, count: int) -> Tensor:
    """The rows at positions first ... first + count − 1 of an endless reading of n rows, shuffled in every epoch."""
    pieces, position = [], first
    while position < first + count:
        epoch, start = divmod(position, n)
        piece = _epoch(seed, n, epoch)[start : start + first + count - position]
        pieces.append(piece)
        position += len(piece)
    return torch.cat(pieces)


@lru_cache(maxsize=4)
def _epoch(seed: int, n: int, epoch: int) -> Tensor:
    return permutation(seed, Purpose.ORDER, epoch, n)


class Feed:
    """The batches of a training; the rows lie on the device as one tensor: images as they came, points transformed."""

    def __init__(self, experiment: Experiment, data: Dataset, model: Denoiser) -> None:
        check_augment(experiment, model.shape)
        self.experiment, self.model = experiment, model
        self._late = not data.x.is_floating_point()
        z = data.x if self._late else model.transform.forward(data.x).to(model.dtype)
        gaps = data.kind == "table" and bool(z.isnan().any())
        self.x = z if isinstance(z, Lazy) else z.to(model.device)
        self.fills = [completed(z, model, k).to(model.device) for k in range(_FILLS)] if gaps else [self.x]
        self.share = _shares(self.x).to(model.dtype) if gaps else None
        self.y = None if data.y is None or model.classes == 0 else data.y.to(model.device)
        self.given = None if data.condition_values is None else data.condition_values.to(model.device)
        self.levels = NoiseLevelDistribution(
            experiment.levels, experiment.level_mean, experiment.level_std, model.sigma_data
        )

    def batch(self, step: int, first: int = 0, end: int | None = None) -> Batch:
        """The batch of an update, or its slots from `first` to before `end`."""
        size, end = self.experiment.batch, self.experiment.batch if end is None else end
        rows = order(self.experiment.seed, len(self.x), step * size + first, end - first)
        plain = self.at(step, rows, self.experiment.label_dropout, first, size)
        if isinstance(self.x, Lazy):
            for later in (step + 1, step + 2):
                self.x.prefetch(order(self.experiment.seed, len(self.x), later * size + first, end - first))
        return plain._replace(x0=augment(plain.x0, self.experiment, step, first))

    def at(self, step: int, rows: Tensor, hide: float = 0.0, first: int = 0, size: int | None = None) -> Batch:
        """Some rows with the levels and the noise of a step, and a share `hide` of the labels replaced by the null.

        Of other conditions each is hidden as often, one independent of another.
        The rows are in slots `first` ... of a batch of `size`, by default the whole of it.
        """
        seed, n, on = self.experiment.seed, len(rows), self._send(rows, self.x.device)
        x0 = self.model.transform.forward(self._send(self.x[on])).to(
            self.model.dtype) if self._late else (self.fills[step % len(self.fills)][on])
        t = self.levels.times(self.model.sde, seed, step, first, n, size or n)
        eps = normal(seed, Purpose.NOISE, step, first, n, tuple(x0.shape[1:]), self.model.dtype)
        share = None if self.share is None else self.share[on]
        given = None if self.given is None else self._hidden(self.given[on], step, first, hide)
        if self.y is None:
            return Batch(rows, x0, t, self._send(eps), None, share, given)
        hidden = self._send(uniform(seed, Purpose.CONDITION, step, first, n) < hide)
        return Batch(rows, x0, t, self._send(eps), torch.where(hidden, self.model.classes, self.y[on]), share, given)

    def _hidden(self, given: Tensor, step: int, first: int, hide: float) -> Tensor:
        """The conditions of a batch, each NaN with probability `hide`."""
        widths = torch.tensor([c.width for c in self.model.conditions])
        u = uniform(self.experiment.seed, Purpose.CONDITION, (1 << 32) + step, first, len(given), (len(widths),))
        hidden = (u < hide).repeat_interleave(widths, 1)
        return given.masked_fill(self._send(hidden), torch.nan)

    def _send(self, made: Tensor, where: torch.device | None = None) -> Tensor:
        """What was made on the CPU, on the device of the model, which is not waited for."""
        return made.to(where or self.model.device, non_blocking=made.device.type == "cpu")


def completed(z: Tensor, model: Model, draw: int = 0) -> Tensor:
    """Rows in model units with missing cells drawn from the model's Gaussian part, or 0 if it has none."""
    moments = model.moments
    return z.nan_to_num(0.0) if moments is None else fill(z, moments, 0, draw)


def _shares(z: Tensor) -> Tensor:
    """1 over the share of a column's cells that are there, 0 for those that are not."""
    seen = (~z.isnan()).double()
    return seen / seen.mean(0).clamp_min(1 / len(z))
