"""`undiffuse train DATA`."""

from __future__ import annotations

from pathlib import Path

from undiffuse.cli.recipe import OptionalChanges, folder_for, resolve


def train(data: str, /, *, out: Path | None = None, changes: OptionalChanges = None) -> None:
    """Learn the distribution of DATA; a run that was interrupted goes on where it stopped.

    Args:
        data: A built-in set (digits, swiss_roll, moons, 8gaussians, checkerboard, spiral), a .npy, .npz, .csv or IDX
            file, a folder of images, or a run (or its experiment.json) to go on with or to repeat.
        out: Folder of the run; runs/NAME by default.
    """
    experiment, reasons = resolve(data, changes)
    folder = out or folder_for(data, experiment)
    print(f"Recipe for {experiment.data}:", *reasons, sep="\n  ")
    from undiffuse import training

    training.train(experiment, folder, progress=True)
    print(f"The model is in {folder}; next: undiffuse sample {folder}, undiffuse report {folder}")
