"""One update of a run made again, to look at it: its rows, times, losses, gradient and weights are the same bits.

Nothing random has a state, so an update follows from the weights before it and its number. The weights are those of
the last checkpoint before it, or the first weights of all, and the updates in between are made again.
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
from undiffuse.training.batches import Batch, Feed
from undiffuse.training.diagnose import batch_gradient, batch_losses
from undiffuse.training.distributed import ProcessGroup
from undiffuse.training.early_stopping import last_step
from undiffuse.training.loop import ENTRIES
from undiffuse.training.model_config import initialized, pick_device
from undiffuse.training.optimizers import learning_rate, parts
from undiffuse.training.precision import configure
from undiffuse.training.run import load_dataset, open_run, same_data, split_held_out
from undiffuse.training.state import State, gradient_norm, schema


@dataclass(frozen=True)
class Replay:
    """Update number `step`, the first being 0.

    `batch` as it was learned from, `rows` (B,) the numbers of its rows in the data, `losses` (B,), their mean `loss`,
    the `gradient` by parameter before it was clipped, its `norm`, the rate `lr`; `before` and `after` are the SHA-256
    of the weights. `agree` counts the entries of metrics.jsonl that were met on the way: (with the same numbers, all).
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
    agree: tuple[int, int]


def replay(run: Path | str, step: int, data: Dataset | None = None, device: str = "auto") -> Replay:
    """Makes update number `step` of a run again; nothing is written.

    `data` are those of a run that was trained on data in memory. Raises InputError if the run has no such update.
    """
    opened = open_run(run)
    e = opened.experiment
    last = last_step(opened.metrics(), e)
    if not 0 <= step < last:
        raise InputError(f"got step={step}; expected 0 to {last - 1}, which are the updates of this run")
    whole = load_dataset(e) if data is None else data
    same_data(opened, whole)
    rows, _, numbers = split_held_out(whole, e.held_out)
    model = initialized(opened.config, e.seed, rows)
    state = State(e, model.to(pick_device(device)))
    configure(model, e, opened.config.get("precision", "fp32"))
    feed, team = Feed(e, rows, model), ProcessGroup(exact=e.deterministic_reduction)
    _restore(opened.folder, state, step)
    noted = {line["step"]: line for line in opened.metrics() if "loss" in line}
    met, same, every = 0, 0, max(1, e.steps // ENTRIES)
    while state.step < step:
        state.update(team.total(lambda a, b: batch_gradient(state, feed, a, b), e.batch_size))
        if state.step % every == 0 or state.step == 1:
            met, same = met + (state.step in noted), same + _agrees(noted.get(state.step), state.meter)
            state.meter.zero_()
    return _look(state, feed, numbers, team, (same, met))


def _restore(folder: Path, state: State, step: int) -> None:
    """Brings a state to the last intact checkpoint up to a step, if there is one."""
    for there in sorted((s for s in checkpoint.steps(folder) if s <= step), reverse=True):
        try:
            found = checkpoint.load(checkpoint.path_of(folder, there), schema(state.model, state.experiment.weighting))
        except InputError as error:
            say(f"{error}; trying the one before")
            continue
        state.restore(found.step, found.tensors)
        return


def _agrees(line: dict[str, Any] | None, meter: Tensor) -> bool:
    """Whether an entry of the metrics has these numbers, to the last bit."""
    count, loss, norm = meter.tolist()
    return line is not None and (line["loss"], line["grad_norm"]) == (loss / count, norm / count)


def _look(state: State, feed: Feed, numbers: Tensor, team: ProcessGroup, agree: tuple[int, int]) -> Replay:
    step, batch = state.step, feed.batch(state.step)
    with torch.no_grad():
        each = batch_losses(feed, batch).cpu()
    whole = team.total(lambda a, b: batch_gradient(state, feed, a, b), state.experiment.batch_size).clone()
    like = list(state.parameters.values())
    slopes = whole[: len(state.weights)]
    gradient = dict(zip(state.parameters, parts(slopes.clone(), like), strict=True))
    before, loss, norm = _digest(state), float(whole[-1]), float(gradient_norm(slopes))
    state.update(whole)
    return Replay(step, batch, numbers[batch.rows], each, loss, gradient, norm, learning_rate(state.experiment, step),
                  before, _digest(state), agree)


def _digest(state: State) -> str:
    return sha256_of(state.weights.detach().cpu().numpy().data)
