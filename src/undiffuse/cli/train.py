"""`undiffuse train DATA`."""

from __future__ import annotations

import os
from pathlib import Path

from undiffuse.cli.options import OptionalChanges, fix_steps, folder_for, resolve


def train(data: str, /, *, out: Path | None = None, track: list[str] | None = None,
          preview: int = 0, peer_timeout: float = 30.0, minutes: float | None = None,
          changes: OptionalChanges = None) -> None:
    """Learn the distribution of DATA; a run that was interrupted goes on where it stopped.

    Args:
        data: A built-in set (digits, swiss_roll, moons, 8gaussians, checkerboard, spiral), a .npy, .npz, .csv, .parquet
            or IDX file, a folder of images, OWNER/NAME of the Hugging Face hub, or a run (or its experiment.json) to go
            on with or to repeat.
        out: Folder of the run; runs/NAME by default.
        track: Trackers that hear of the metrics: tensorboard, trackio, wandb, mlflow, ... (to be installed).
        preview: Of images: how many samples to draw at every save, into previews/STEP.png of the run.
        minutes: Instead of --steps: the number of updates that fit into so many minutes on this machine, by a few that
            are tried first. The number is stored with the run; a run that goes on keeps its own.
        peer_timeout: Of several processes (torchrun): seconds after which one that is stuck is given up.
    """
    changes, minutes, known = fix_steps(data, out, changes, minutes)
    recipe = resolve(data, changes, minutes)
    folder = out or folder_for(data, recipe.experiment)
    speaks = os.environ.get("RANK", "0") == "0"
    if speaks:
        print(f"Recipe for {recipe.experiment.data}:", *recipe.reasons, *known, sep="\n  ")
    from undiffuse import training

    training.train(recipe, folder, progress=True, peer_timeout=peer_timeout, track=track or (), preview=preview)
    if speaks:
        print(f"The model is in {folder}; next: undiffuse sample {folder}, undiffuse report {folder}")
