"""`undiffuse train DATA`."""

from __future__ import annotations

from pathlib import Path

from undiffuse.cli.options import OptionalChanges, fix_steps, folder_for, resolve
from undiffuse.launcher import is_first


def train(data: str, /, *, out: Path | None = None, track: list[str] | None = None,
          preview: int = 0, peer_timeout: float = 30.0, minutes: float | None = None,
          changes: OptionalChanges = None) -> None:
    """Learn the distribution of DATA; an interrupted run resumes where it stopped.

    Args:
        data: A built-in set (digits, swiss_roll, moons, 8gaussians, checkerboard, spiral), a .npy, .npz, .csv, .parquet
            or IDX file, a folder of images, OWNER/NAME of the Hugging Face Hub, or a run (or its experiment.json) to
            resume or to repeat.
        out: Folder of the run; runs/NAME by default.
        track: Trackers that receive the metrics: tensorboard, trackio, wandb, mlflow, ... (installed separately).
        preview: Number of sample images per checkpoint, written to previews/STEP.png of the run; 0: none.
        minutes: Train for about this long, instead of --steps: a few updates are timed on this machine and the number
            of updates is derived. It is stored with the run and not changed when the run resumes.
        peer_timeout: Seconds after which an unresponsive torchrun process is considered lost.
    """
    changes, minutes, notes = fix_steps(data, out, changes, minutes)
    recipe = resolve(data, changes, minutes)
    folder = out or folder_for(data, recipe.experiment)
    is_main = is_first()
    if is_main:
        print(f"Recipe for {recipe.experiment.data}:", *recipe.reasons, *notes, sep="\n  ")
    from undiffuse import training

    training.train(recipe, folder, progress=True, peer_timeout=peer_timeout, track=track or (), preview=preview)
    if is_main:
        print(f"The model is in {folder}; next: undiffuse sample {folder}, undiffuse report {folder}")
