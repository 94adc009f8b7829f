"""`undiffuse replay RUN`."""

from __future__ import annotations

from pathlib import Path


def replay(run: Path, /, *, step: int, rows: int = 10, device: str = "auto") -> None:
    """Repeat one update of a run bit for bit and print its rows, losses and gradient; no file is written.

    Args:
        run: Folder of the run.
        step: Number of the update; the first one is 0.
        rows: Number of rows to print, those with the largest loss.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse import training

    update = training.replay(run, step, device=device)
    equal, total = update.agreement
    print(f"Update {step}: loss {update.loss:.6g}, gradient norm {update.norm:.6g}, learning rate {update.lr:.4g}.")
    if total:
        print(f"{equal} of {total} entries of metrics.jsonl since the checkpoint came out the same to the last bit.")
    print(f"Weights before: {update.before[:16]}; after: {update.after[:16]} (SHA-256).")
    print(f"\n{'row':>10} {'t':>12} {'loss':>12}")
    for i in update.losses.nan_to_num(float("inf")).argsort(descending=True, stable=True)[:rows].tolist():
        print(f"{int(update.rows[i]):>10} {float(update.batch.t[i]):>12.6g} {float(update.losses[i]):>12.6g}")
    print(f"\n{'parameter':<40} {'gradient':>12}")
    for name, g in update.gradient.items():
        print(f"{name:<40} {float(g.norm()):>12.6g}")
