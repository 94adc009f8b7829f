"""Explanation of a training that stopped: the failed update is computed again, sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.training.batches import Batch, Feed, batch_losses, gradient_of
from undiffuse.training.optimizers import unflatten
from undiffuse.training.state import TrainingState

_LISTED = 5


def explain(state: TrainingState, feed: Feed, numbers: Tensor, advice: str) -> InputError:
    """The error for an update that was not made because a number is not finite.

    It names the step, the rows with their times and losses, and the parameters.

    Args:
        state: The state, unchanged since the failed update.
        feed: The batches of the training.
        numbers: Number of each training row in the data.
        advice: End of the sentence.
    """
    step = int(state.steps_applied)
    batch = feed.batch(step)
    losses = batch_losses(feed, batch)
    gradient = gradient_of(state, losses, batch, len(losses))[: len(state.weights)]
    fault = _weights(state) or _rows(batch, losses.detach().cpu(), numbers) or _gradients(state, gradient)
    return InputError(f"stopped before the update of step {step}: {fault}; {advice}")


def _weights(state: TrainingState) -> str:
    names = [name for name, p in state.parameters.items() if not torch.isfinite(p).all()]
    return f"the weights {_join(names)} are not finite" if names else ""


def _rows(batch: Batch, losses: Tensor, numbers: Tensor) -> str:
    bad = (~torch.isfinite(losses)).nonzero()[:, 0]
    rows = [f"row {int(numbers[batch.rows[i]])} (t = {float(batch.t[i]):.6g}, loss {float(losses[i])})" for i in bad]
    return f"the loss is not finite for {len(bad)} of {len(losses)} rows: {_join(rows)}" if rows else ""


def _gradients(state: TrainingState, gradient: Tensor) -> str:
    pieces = unflatten(gradient, list(state.parameters.values()))
    names = [name for name, g in zip(state.parameters, pieces, strict=True) if not torch.isfinite(g).all()]
    return f"the gradient of {_join(names)} is not finite" if names else "the norm of the gradient is not finite"


def _join(items: list[str]) -> str:
    return ", ".join(items[:_LISTED]) + (f" and {len(items) - _LISTED} more" if len(items) > _LISTED else "")
