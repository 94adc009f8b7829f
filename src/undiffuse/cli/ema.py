"""`undiffuse ema RUN`."""

from __future__ import annotations

from pathlib import Path


def ema(run: Path, /, *, sweep: bool = False, keep: float | None = None) -> None:
    """Choose how long an average of the weights a run is sampled with, after the training.

    Args:
        run: Folder of the run.
        sweep: Print the held-out loss of averages of many lengths, and keep the best.
        keep: Keep the average of this relative length (σ_rel, such as 0.1); 0 goes back to the running one.
    """
    from undiffuse.errors import InputError
    from undiffuse.training import ema_sweep, open_run

    opened = open_run(run)
    if sweep and keep is not None:
        raise InputError("got both --sweep and --keep; use one of them")
    if sweep:
        rows = ema_sweep.compare_ema(
            run, seen=lambda row: print(f"{_name(row.length):16}{row.held_out:10.5f}", flush=True)
        )
        keep = min(rows, key=lambda row: row.held_out).length or 0.0
    if keep is not None:
        opened.choose(keep or None)
    print(f"{run} is sampled with the {_name(opened.chosen()).strip()} average of the weights")


def _name(length: float | None) -> str:
    return "running" if length is None else f"σ_rel {length:g}"
