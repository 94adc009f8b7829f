"""Why a training stopped: the failing update is made again by its number, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.loss import denoising_loss
from undiffuse.training.batches import Batch, Feed
from undiffuse.training.optimizers import parts
from undiffuse.training.state import State
from undiffuse.transforms.conditions import split

_SHOWN = 5


def batch_losses(feed: Feed, batch: Batch) -> Tensor:
    """The loss of every row of a batch, (B,)."""
    cond = {} if batch.label is None else {"label": batch.label}
    cond |= {} if batch.given is None else split(feed.model.conditions, batch.given)
    weighting = feed.experiment.weighting
    return denoising_loss(feed.model, batch.x0, batch.t, batch.eps, weighting, feed.levels, batch.share, **cond)


def batch_gradient(state: State, feed: Feed, first: int, end: int) -> Tensor:
    """What the slots `first` ... `end` − 1 of the next batch add to the slope of its mean loss."""
    batch = feed.batch(state.step, first, end)
    return _slope(state, batch_losses(feed, batch), batch, feed.experiment.batch_size)


def _slope(state: State, values: Tensor, batch: Batch, size: int) -> Tensor:
    """That of the losses of rows, as they are minimised: with learned log-variances not as they are."""
    goal = state.uncertainty.objective(values, batch.t) if state.uncertainty else values
    return state.slope(goal.sum() / size, values.sum() / size)


def explain(state: State, feed: Feed, numbers: Tensor, advice: str) -> InputError:
    """The error for an update that was not made because a number is not finite.

    It names the step, the rows (by their `numbers` in the data) with their times and losses, and the parameters.
    """
    step = int(state.made)
    batch = feed.batch(step)
    values = batch_losses(feed, batch)
    gradient = _slope(state, values, batch, len(values))[: len(state.weights)]
    found = _weights(state) or _rows(batch, values.detach().cpu(), numbers) or _gradients(state, gradient)
    return InputError(f"stopped before the update of step {step}: {found}; {advice}")


def _weights(state: State) -> str:
    names = [name for name, p in state.parameters.items() if not torch.isfinite(p).all()]
    return f"the weights {_join(names)} are not finite" if names else ""


def _rows(batch: Batch, values: Tensor, numbers: Tensor) -> str:
    bad = (~torch.isfinite(values)).nonzero()[:, 0]
    shown = [f"row {int(numbers[batch.rows[i]])} (t = {float(batch.t[i]):.6g}, loss {float(values[i])})" for i in bad]
    return f"the loss is not finite for {len(bad)} of {len(values)} rows: {_join(shown)}" if shown else ""


def _gradients(state: State, gradient: Tensor) -> str:
    pieces = parts(gradient, list(state.parameters.values()))
    names = [name for name, g in zip(state.parameters, pieces, strict=True) if not torch.isfinite(g).all()]
    return f"the gradient of {_join(names)} is not finite" if names else "the norm of the gradient is not finite"


def _join(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
