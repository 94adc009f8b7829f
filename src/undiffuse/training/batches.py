"""The batches of a training, their losses and gradients: pure functions of (seed, step, slot).

The batch of step s has the positions sB ... sB + B − 1 of the concatenated permutations of all epochs. So nothing needs
to be saved or skipped on resume, and a batch larger than the data wraps round.

Missing cells of a table are filled with samples given the other cells of the row, several fills in turn, and do not
count in the loss. With fills from the distribution of the data the minimum of the loss is as with complete rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.data.dataset import has_missing
from undiffuse.data.lazy import Lazy
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution, denoising_loss
from undiffuse.model import Denoiser, Model
from undiffuse.moments import fill_missing
from undiffuse.random import Purpose, normal, permutation, uniform
from undiffuse.training.series_fills import has_law, series_fills
from undiffuse.training.state import TrainingState
from undiffuse.transforms.conditions import split

_FILLS = 8  # fills of the missing cells


def check_augment(experiment: Experiment, shape: tuple[int, ...]) -> None:
    """InputError if the augmentation of an experiment does not suit data of a shape."""
    augments = experiment.flip or experiment.shift > 0
    if augments and len(shape) != 3:
        raise InputError(f"got flip={experiment.flip}, shift={experiment.shift} for data of shape {shape}; expected "
                         "images; leave them out")
    if augments and experiment.shift >= min(shape[1:]):
        raise InputError(f"got shift={experiment.shift} for images of {shape[2]}x{shape[1]}; expected less than a side")


def augment(x: Tensor, experiment: Experiment, step: int, first: int) -> Tensor:
    """Randomly mirrored and moved images: with `flip` mirrored left to right with probability ½, and moved down and
    right by −shift ... shift pixels, with the pixels at the edge repeated.

    Args:
        x: Images (B, C, H, W) of the slots `first` ... of a step.
        experiment: Its `flip`, `shift` and `seed` count.
        step: Number of the update.
        first: Slot of the first image.
    """
    if not (experiment.flip or experiment.shift):
        return x
    n, largest, (height, width) = len(x), experiment.shift, x.shape[-2:]
    u = uniform(experiment.seed, Purpose.AUGMENT, step, first, n, (3,)).to(x.device, non_blocking=True)
    down, right = ((2 * largest + 1) * u[:, :2]).long().sub(largest).unbind(1)
    mirrored = (u[:, 2] < 0.5) & experiment.flip
    row = torch.arange(height, device=x.device).sub(down[:, None]).clamp(0, height - 1)
    column = torch.arange(width, device=x.device).sub(right[:, None]).clamp(0, width - 1)
    column = torch.where(mirrored[:, None], width - 1 - column, column)
    image = torch.arange(n, device=x.device)[:, None, None]
    return x[image, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2).contiguous()


class Batch(NamedTuple):
    """A batch of B rows.

    Args:
        rows: Row numbers in the training data, (B,).
        x0: Values in model units, (B, *event).
        t: Times, (B,).
        eps: Noise, (B, *event).
        label: Labels (B,), or None.
        entry_weights: Weight of each entry in the loss, (B, *event): 0 if it is missing, above 1 if others of its
            column are; None if nothing is missing.
        conditions: Numbers of the model's conditions (B, width), NaN where hidden or unknown; None without conditions.
    """

    rows: Tensor
    x0: Tensor
    t: Tensor
    eps: Tensor
    label: Tensor | None
    entry_weights: Tensor | None = None
    conditions: Tensor | None = None

    def blocks(self, size: int) -> Iterator[Batch]:
        """The batch in blocks of `size` rows."""
        parts = [repeat(None) if p is None else torch.split(p, size) for p in self]
        return (Batch(*block) for block in zip(*parts, strict=False))


def order(seed: int, n: int, first: int, count: int) -> Tensor:
    """The rows at positions first ... first + count − 1 of an endless sequence of epochs of n rows, each shuffled.

    Args:
        seed: Seed of the run.
        n: Number of rows in an epoch.
        first: First position.
        count: Number of positions.
    """
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
    """The batches of a training. The rows are one tensor on the device: images as stored, other data transformed.

    Args:
        experiment: The settings.
        data: The training rows, or held-out rows.
        model: The model that is trained or measured.
    """

    def __init__(self, experiment: Experiment, data: Dataset, model: Denoiser) -> None:
        check_augment(experiment, model.shape)
        self.experiment, self.model = experiment, model
        self._transform_later = isinstance(data.x, Lazy) or not data.x.is_floating_point()
        z = data.x if self._transform_later else model.transform.forward(data.x).to(model.dtype)
        self.x, self.missing = z if isinstance(z, Lazy) else z.to(model.device), has_missing(data)
        stored = self.missing and not self._transform_later
        self.fills = [part.to(model.device) for part in _fills(data, z, model)] if stored else [self.x]
        self.entry_weights = _entry_weights(self.x).to(model.dtype) if stored else None
        self.y = None if data.y is None or model.classes == 0 else data.y.to(model.device)
        self.conditions = None if data.condition_values is None else data.condition_values.to(model.device)
        self.levels = NoiseLevelDistribution(experiment.noise_distribution, experiment.level_mean, experiment.level_std,
                                             model.sigma_data)

    def batch(self, step: int, first: int = 0, end: int | None = None) -> Batch:
        """The batch of an update, or some of its slots.

        Args:
            step: Number of the update.
            first: First slot.
            end: Slot after the last; None: the end of the batch.
        """
        size, end = self.experiment.batch_size, self.experiment.batch_size if end is None else end
        rows = order(self.experiment.seed, len(self.x), step * size + first, end - first)
        plain = self.at(step, rows, self.experiment.label_dropout, first, size)
        if isinstance(self.x, Lazy):
            for later in (step + 1, step + 2):
                self.x.prefetch(order(self.experiment.seed, len(self.x), later * size + first, end - first))
        return plain._replace(x0=augment(plain.x0, self.experiment, step, first))

    def at(self, step: int, rows: Tensor, dropout: float = 0.0, first: int = 0, size: int | None = None) -> Batch:
        """A batch of given rows with the noise levels and the noise of a step.

        Args:
            step: Number of the update.
            rows: Row numbers, (B,).
            dropout: Probability with which the label, and each condition independently, is hidden.
            first: Slot of the first row.
            size: Number of slots of the whole batch; B by default.
        """
        seed, n, on = self.experiment.seed, len(rows), self._send(rows, self.x.device)
        x0 = self.fills[step % len(self.fills)][on]
        weights = None if self.entry_weights is None else self.entry_weights[on]
        if self._transform_later:
            x0 = self.model.transform.forward(self._send(x0)).to(self.model.dtype)
            if self.missing:
                x0, weights = completed(x0, self.model, step % _FILLS), (~x0.isnan()).to(x0)
        t = self.levels.times(self.model.sde, seed, step, first, n, size or n)
        eps = normal(seed, Purpose.NOISE, step, first, n, tuple(x0.shape[1:]), self.model.dtype)
        conditions = None if self.conditions is None else self._hide(self.conditions[on], step, first, dropout)
        label = None
        if self.y is not None:
            hidden = self._send(uniform(seed, Purpose.CONDITION, step, first, n) < dropout)
            label = torch.where(hidden, self.model.classes, self.y[on])
        return Batch(rows, x0, t, self._send(eps), label, weights, conditions)

    def _hide(self, conditions: Tensor, step: int, first: int, dropout: float) -> Tensor:
        """The conditions of a batch, each NaN with probability `dropout`."""
        widths = torch.tensor([c.width for c in self.model.conditions])
        u = uniform(self.experiment.seed, Purpose.CONDITION, (1 << 32) + step, first, len(conditions), (len(widths),))
        hidden = (u < dropout).repeat_interleave(widths, 1)
        return conditions.masked_fill(self._send(hidden), torch.nan)

    def _send(self, x: Tensor, device: torch.device | None = None) -> Tensor:
        """A tensor on a device, by default the model's; the CPU does not wait for the copy."""
        return x.to(device or self.model.device, non_blocking=x.device.type == "cpu")


def _fills(data: Dataset, z: Tensor, model: Denoiser) -> list[Tensor]:
    """Several draws of the missing values of rows in model units."""
    if has_law(data) and model.moments is not None:
        return series_fills(data, z, model, _FILLS)
    return [completed(z, model, k) for k in range(_FILLS)]


def completed(z: Tensor, model: Model, draw: int = 0) -> Tensor:
    """Rows in model units with missing cells sampled from the model's Gaussian part, or 0 if it has none.

    Args:
        z: Rows (N, *event) in model units, NaN where missing.
        model: Model with or without moments.
        draw: Number of the draw; each has its own random numbers.
    """
    moments = model.moments
    return z.nan_to_num(0.0) if moments is None else fill_missing(z.flatten(1), moments, 0, draw).reshape(z.shape)


def _entry_weights(z: Tensor) -> Tensor:
    """1 over the observed fraction of the column for observed cells, 0 for missing ones."""
    observed = (~z.isnan()).double()
    return observed / observed.mean(0).clamp_min(1 / len(z))


def batch_losses(feed: Feed, batch: Batch) -> Tensor:
    """The loss per row of a batch, (B,)."""
    cond = {} if batch.label is None else {"label": batch.label}
    cond |= {} if batch.conditions is None else split(feed.model.conditions, batch.conditions)
    weighting = feed.experiment.weighting
    return denoising_loss(feed.model, batch.x0, batch.t, batch.eps, weighting, feed.levels, batch.entry_weights, **cond)


def batch_gradient(state: TrainingState, feed: Feed, first: int, end: int) -> Tensor:
    """The contribution of the slots `first` ... `end` − 1 of the next batch to the gradient of its mean loss.

    Args:
        state: State before the update.
        feed: Source of the batch.
        first: First slot.
        end: Slot after the last.
    """
    batch = feed.batch(state.step, first, end)
    return gradient_of(state, batch_losses(feed, batch), batch, feed.experiment.batch_size)


def gradient_of(state: TrainingState, losses: Tensor, batch: Batch, size: int) -> Tensor:
    """The gradient of the sum of losses over `size`, with learned log-variances if the state has them.

    Args:
        state: State before the update.
        losses: Loss per row, (B,).
        batch: Rows of the losses, with their times.
        size: Number of slots of the whole batch.
    """
    objective = state.uncertainty.objective(losses, batch.t) if state.uncertainty else losses
    return state.gradient(objective.sum() / size, losses.sum() / size)
