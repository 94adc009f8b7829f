"""When a training has learned what it can: its held-out path loss no longer falls, and its best model is kept.

All of it follows from the entries of metrics.jsonl, so that a run that was interrupted ends where it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from undiffuse.experiment import Experiment

Entries = Sequence[dict[str, Any]]


def best_checkpoint(entries: Entries) -> tuple[int, float] | None:
    """The step with the least held-out path loss, the first of equals, and that loss; None before it was measured."""
    measured = [(e["step"], e["path"]) for e in entries if "path" in e]
    return min(measured, key=lambda pair: pair[1], default=None)


def should_stop(entries: Entries, patience: int) -> bool:
    """Whether so many saves have passed since the best one; never with 0."""
    found = best_checkpoint(entries)
    later = 0 if found is None else sum("path" in e and e["step"] > found[0] for e in entries)
    return 0 < patience <= later


def model_step(entries: Entries, experiment: Experiment) -> int:
    """The step of the model: with patience that of the least held-out path loss, else the last."""
    found = best_checkpoint(entries) if experiment.patience else None
    return max((e["step"] for e in entries), default=0) if found is None else found[0]


def last_step(entries: Entries, experiment: Experiment) -> int:
    """The updates that a run is to have: fewer than it was given where its patience ended it."""
    return max(e["step"] for e in entries) if should_stop(entries, experiment.patience) else experiment.steps


def stopping_summary(entries: Entries, experiment: Experiment) -> str:
    """One sentence: how far a run came, why it ended, and which of its saves the model is from."""
    step, found = max((e["step"] for e in entries), default=0), best_checkpoint(entries)
    least = "the held-out path loss"
    if step < experiment.steps and should_stop(entries, experiment.patience):
        least = "it"
        said = (f"Ended at step {step:,} of {experiment.steps:,}, for the held-out path loss had not fallen for "
                f"{experiment.patience} save{'s' * (experiment.patience > 1)}")
    else:
        said = f"All {step:,} updates made" if step == experiment.steps else f"At step {step:,} of {experiment.steps:,}"
    if found is None or not experiment.patience:
        return f"{said}."
    return f"{said}; the model is that of step {found[0]:,}, where {least} was least, {found[1]:.4f} nats an entry."
