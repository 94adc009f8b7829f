"""Replay of one update of a run: rows, times, losses, gradient and weights, bit for bit.

Randomness has no state, so an update follows from the weights before it and its number. Replay starts from the
last checkpoint before it, or from the initial weights, and repeats the updates in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.hashing import sha256_of
from undiffuse.progress import say
from undiffuse.training import checkpoint
from undiffuse.training.batches import Batch, Feed, batch_gradient, batch_losses
from undiffuse.training.distributed import ProcessGroup
from undiffuse.training.early_stopping import last_step
from undiffuse.training.loop import ENTRIES
from undiffuse.training.model_config import initialized, pick_device
from undiffuse.training.optimizers import learning_rate, unflatten
from undiffuse.training.precision import configure
from undiffuse.training.run import check_data, load_dataset, open_run, split_held_out
from undiffuse.training.state import TrainingState, gradient_norm, schema


@dataclass(frozen=True)
class Replay:
    """Update number `step`, the first being 0.

    Args:
        step: Number of the update.
        batch: The batch.
        rows: Numbers of its rows in the data, (B,).
        losses: Loss per row, (B,).
        loss: Mean loss.
        gradient: Gradient by parameter, before clipping.
        norm: Norm of the gradient.
        lr: Learning rate.
        before: SHA-256 of the weights before the update.
        after: SHA-256 of the weights after it.
        agreement: Number of entries of metrics.jsonl since the checkpoint that came out with the same bits, and of all.
    """

    step: int
    batch: Batch
    rows: Tensor
    losses: Tensor
    loss: float
    gradient: dict[str, Tensor]
    norm: float
    lr: float
    before: str
    after: str
    agreement: tuple[int, int]


def replay(run: Path | str, step: int, data: Dataset | None = None, device: str = "auto") -> Replay:
    """Makes update number `step` of a run again; nothing is written.

    Args:
        run: Folder of the run.
        step: Number of the update; the first one is 0.
        data: The data of a run that was trained on data in memory.
        device: Where it is computed.

    Raises:
        InputError: If the run has no such update.
    """
    opened = open_run(run)
    e = opened.experiment
    last = last_step(opened.metrics(), e)
    if not 0 <= step < last:
        raise InputError(f"got step={step}; expected 0 to {last - 1}, the updates of this run")
    dataset = load_dataset(e) if data is None else data
    check_data(opened, dataset)
    rows, _, numbers = split_held_out(dataset, e.held_out)
    model = initialized(opened.config, e.seed, rows)
    state = TrainingState(e, model.to(pick_device(device)))
    configure(model, e, opened.config["precision"])
    feed, group = Feed(e, rows, model), ProcessGroup(deterministic=e.deterministic_reduction)
    _restore(opened.folder, state, step)
    entries = {line["step"]: line for line in opened.metrics() if "loss" in line}
    total, equal, every = 0, 0, max(1, e.steps // ENTRIES)
    while state.step < step:
        state.update(group.batch_sum(lambda a, b: batch_gradient(state, feed, a, b), e.batch_size))
        if state.step % every == 0 or state.step == 1:
            total, equal = total + (state.step in entries), equal + _agrees(entries.get(state.step), state.sums)
            state.sums.zero_()
    return _record(state, feed, numbers, group, (equal, total))


def _restore(folder: Path, state: TrainingState, step: int) -> None:
    """Brings a state to the last intact checkpoint up to a step, if there is one."""
    for earlier in sorted((s for s in checkpoint.steps(folder) if s <= step), reverse=True):
        try:
            expected = schema(state.model, state.experiment.weighting)
            stored = checkpoint.load(checkpoint.path_of(folder, earlier), expected)
        except InputError as error:
            say(f"{error}; trying the one before")
            continue
        state.restore(stored.step, stored.tensors)
        return


def _agrees(line: dict[str, Any] | None, sums: Tensor) -> bool:
    """Whether an entry of the metrics has these numbers, to the last bit."""
    count, loss, norm = sums.tolist()
    return line is not None and (line["loss"], line["grad_norm"]) == (loss / count, norm / count)


def _record(state: TrainingState, feed: Feed, numbers: Tensor, group: ProcessGroup, agreement: tuple[int, int]
            ) -> Replay:
    """The next update of a state, which is made."""
    step, batch = state.step, feed.batch(state.step)
    with torch.no_grad():
        losses = batch_losses(feed, batch).cpu()
    size = state.experiment.batch_size
    gradient_and_loss = group.batch_sum(lambda a, b: batch_gradient(state, feed, a, b), size).clone()
    gradient = gradient_and_loss[: len(state.weights)]
    pieces = unflatten(gradient.clone(), list(state.parameters.values()))
    before, loss, norm = _digest(state), float(gradient_and_loss[-1]), float(gradient_norm(gradient))
    state.update(gradient_and_loss)
    return Replay(step, batch, numbers[batch.rows], losses, loss, dict(zip(state.parameters, pieces, strict=True)),
                  norm,
                  learning_rate(state.experiment, step), before, _digest(state), agreement)


def _digest(state: TrainingState) -> str:
    return sha256_of(state.weights.detach().cpu().numpy().data)
