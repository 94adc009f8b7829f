"""`undiffuse restore RUN IMAGES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from undiffuse.errors import InputError


def restore(run: Path, images: Path, /, *, operator: str = "inpaint", mask: Path | None = None,
            amount: float | None = None, angle: float = 0.0, noise: float = 0.0, draws: int = 8,
            label: str | None = None, method: str = "mmps", exact: bool = False, steps: int | None = None,
            rounds: int | None = None, simulate: bool = False, seed: int = 0, out: Path | None = None,
            device: str = "auto") -> None:
    """Fill in, sharpen or enlarge images, fields, series or volumes: posterior samples under the model of a run.

    Args:
        run: Folder of the run.
        images: An image, a .npy, .npz or IDX file, or a folder; arrays in the units of the run's data, NaN where
            nothing was observed.
        operator: How the images were degraded: inpaint, random, blur, motion, downsample, fourier or grey.
        mask: Image that is white, or the larger of two values, where pixels are missing (inpaint); of a run of arrays
            an .npy file that is not 0 there.
        amount: Hidden fraction (random), width or length in pixels (blur, motion), factor (downsample), or fraction of
            frequencies (fourier).
        angle: Direction of the motion, in degrees.
        noise: Standard deviation of the noise in the images, in units of the run's data.
        draws: Number of samples per image.
        label: Class of the images, if known: cat, or 0,3,5-7 for the images in turn.
        method: mmps, pigdm, tmpd, wiener, diffpir, daps, dps, gibbs, replacement or repaint.
        exact: Use the method that converges to the exact posterior.
        steps: Number of steps from noise to data.
        rounds: Rounds of resampling an unknown class and the image given it; by default 1 for a run with up to 20
            classes, else 0.
        simulate: IMAGES are clean: apply the operator and the noise first.
        seed: Seed of all random numbers.
        out: Folder to write to; restored in the run by default.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import torch

    from undiffuse import interop
    from undiffuse.atomic_files import check_places
    from undiffuse.cli.parsing import cycle_labels, labels_of
    from undiffuse.pipelines import array_samples
    from undiffuse.pipelines import restore as pipeline

    place = out or run / "restored"
    outputs = {*pipeline.FILES, *array_samples.FILES}
    check_places([place / name for name in sorted(outputs)], [images, *([mask] if mask else [])])
    opened = interop.open_model(run, device)
    config, model = opened.data, opened.model
    y, units = _read(opened, run, images)
    classes = labels_of(label, config["classes"]) if label is not None else []
    cond = {"label": torch.tensor(cycle_labels(classes, 0, len(y)))} if classes else {}
    shape = model.shape if model.array is None else array_samples.event_shape(model)
    degradation = pipeline.operator(operator, shape, mask, amount, angle, seed)
    restored = pipeline.restore(model, degradation, y, noise / units.step, draws, simulate=simulate,
                                method=method, exact=exact, steps=steps, seed=seed, units=units, rounds=rounds,
                                class_counts=config.get("counts"), **cond)
    for path in restored.write(place):
        print(path)


def _read(opened: Any, run: Path, images: Path) -> tuple[Any, Any]:
    """The images in grey levels of the run, or samples with the channels first, and the units of its data."""
    import torch

    from undiffuse.data.pixel_units import PixelUnits
    from undiffuse.data.sources import read_images
    from undiffuse.pipelines.array_samples import read_array
    from undiffuse.progress import say

    if (array := opened.model.array) is not None:
        return array.channels_first(read_array(str(images), opened.model)), PixelUnits("float32", 0, 1, 2)
    if (kind := opened.data["kind"]) != "image":
        raise InputError(f"{run} was trained on {kind}; expected the run of images, or use undiffuse impute")
    model, units = opened.model, PixelUnits.from_config(opened.data)
    shape = model.transform.inverse(torch.empty(0, *model.shape)).shape
    y, notes = read_images(str(images), units, shape[1], opened.experiment.image_size)
    for note in notes:
        say(note)
    return y.float(), units
