"""`undiffuse ema RUN`."""

from __future__ import annotations

from pathlib import Path


def ema(run: Path, /, *, sweep: bool = False, keep: float | None = None) -> None:
    """After training, choose the average of the weights (EMA) that is used for sampling.

    Args:
        run: Folder of the run.
        sweep: Print the held-out loss for many averaging lengths and use the best one.
        keep: Use the power average of this relative width (σ_rel, such as 0.1); 0: the exponential average.
    """
    from undiffuse.errors import InputError
    from undiffuse.training import ema_sweep, open_run

    opened = open_run(run)
    if sweep and keep is not None:
        raise InputError("got both --sweep and --keep; use one of them")
    if sweep:
        scores = ema_sweep.compare_ema(
            run, on_score=lambda score: print(f"{_name(score.sigma_rel):16}{score.held_out:10.5f}", flush=True))
        keep = min(scores, key=lambda score: score.held_out).sigma_rel or 0.0
    if keep is not None:
        opened.choose_ema(keep or None)
    print(f"{run} is sampled with the {_name(opened.ema_choice()).strip()} average of the weights")


def _name(sigma_rel: float | None) -> str:
    return "exponential" if sigma_rel is None else f"σ_rel {sigma_rel:g}"
