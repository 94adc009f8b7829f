"""Early stopping on the held-out path loss, and the choice of the best checkpoint.

Everything follows from the entries of metrics.jsonl, so that an interrupted run ends where it would have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from undiffuse.experiment import Experiment

Entries = Sequence[dict[str, Any]]


def best_checkpoint(entries: Entries) -> tuple[int, float] | None:
    """The first step with the smallest held-out path loss, and that loss; None before the first measurement."""
    measured = [(e["step"], e["path"]) for e in entries if "path" in e]
    return min(measured, key=lambda pair: pair[1], default=None)


def should_stop(entries: Entries, patience: int) -> bool:
    """Whether `patience` checkpoints have been measured since the best one after update 0; False with patience 0."""
    best = best_checkpoint([e for e in entries if e["step"] > 0])
    later = 0 if best is None else sum("path" in e and e["step"] > best[0] for e in entries)
    return 0 < patience <= later


def model_step(entries: Entries, experiment: Experiment) -> int:
    """The step of the model: with patience the step of the smallest held-out path loss, else the last step."""
    best = best_checkpoint(entries) if experiment.patience else None
    return max((e["step"] for e in entries), default=0) if best is None else best[0]


def last_step(entries: Entries, experiment: Experiment) -> int:
    """The number of updates of a complete run: fewer than `experiment.steps` after early stopping."""
    return max(e["step"] for e in entries) if should_stop(entries, experiment.patience) else experiment.steps


def stopping_summary(entries: Entries, experiment: Experiment) -> str:
    """One sentence: the last step of a run, why it ended, and the checkpoint of its model."""
    step, best = max((e["step"] for e in entries), default=0), best_checkpoint(entries)
    if step < experiment.steps and should_stop(entries, experiment.patience):
        progress = (f"Stopped early at step {step:,} of {experiment.steps:,}: the held-out path loss did not improve "
                    f"for {experiment.patience} checkpoint{'s' * (experiment.patience > 1)}")
    elif step == experiment.steps:
        progress = f"All {step:,} updates made"
    else:
        progress = f"At step {step:,} of {experiment.steps:,}"
    if best is None or not experiment.patience:
        return f"{progress}."
    return (f"{progress}; the model is from step {best[0]:,}, with the smallest held-out path loss, {best[1]:.4f} "
            "nats per entry.")
