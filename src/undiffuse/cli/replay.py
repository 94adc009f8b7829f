"""`undiffuse replay RUN`."""

from __future__ import annotations

from pathlib import Path


def replay(run: Path, /, *, step: int, rows: int = 10, device: str = "auto") -> None:
    """Make one update of a run again, exactly, and show what it was made of; nothing is written.

    Args:
        run: Folder of the run.
        step: Number of the update; the first one is 0.
        rows: How many rows to show, those with the largest loss first.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse import training

    seen = training.replay(run, step, device=device)
    same, met = seen.agree
    print(f"Update {step}: loss {seen.loss:.6g}, norm of the gradient {seen.norm:.6g}, rate {seen.lr:.4g}.")
    if met:
        print(f"On the way {same} of {met} entries of metrics.jsonl came out the same to the last bit.")
    print(f"Weights before: {seen.before[:16]}; after: {seen.after[:16]} (SHA-256).")
    print(f"\n{'row':>10} {'t':>12} {'loss':>12}")
    for i in seen.losses.nan_to_num(float("inf")).argsort(descending=True, stable=True)[:rows].tolist():
        print(f"{int(seen.rows[i]):>10} {float(seen.batch.t[i]):>12.6g} {float(seen.losses[i]):>12.6g}")
    print(f"\n{'parameter':<40} {'gradient':>12}")
    for name, g in seen.gradient.items():
        print(f"{name:<40} {float(g.norm()):>12.6g}")
