"""`undiffuse restore RUN IMAGES`."""

from __future__ import annotations

from pathlib import Path


def restore(run: Path, images: Path, /, *, operator: str = "inpaint", mask: Path | None = None,
            amount: float | None = None, angle: float = 0.0, noise: float = 0.0, draws: int = 8,
            label: str | None = None, method: str = "mmps", exact: bool = False, steps: int | None = None,
            rounds: int | None = None, simulate: bool = False, seed: int = 0, out: Path | None = None,
            device: str = "auto") -> None:
    """Fill in, sharpen or enlarge images: draws of what they may have been, by the model of a run.

    Args:
        run: Folder of the run.
        images: A picture, a .npy or IDX file, or a folder; .npy in the grey levels of the run's data.
        operator: What happened to them: inpaint, random, blur, motion, downsample, fourier or grey.
        mask: Picture that is white where an image is to be filled in (inpaint).
        amount: Share hidden, blur in pixels, factor of downsampling, share of frequencies.
        angle: Direction of a motion, in degrees.
        noise: How noisy the images are that are given: a standard deviation, in grey levels of the run's data.
        draws: How many for each image.
        label: Class that they are of, if it is known: cat, or 0,3,5-7 for the images in turn.
        method: mmps, pigdm, tmpd, wiener, diffpir, daps, dps, gibbs, replacement or repaint.
        exact: Take the method that tends to the exact posterior.
        steps: Number of steps from noise to data.
        rounds: How often, where no class is told, a class is drawn for every draw and the image anew given that class;
            once for a run of up to 20 classes, else not at all.
        simulate: The images are whole; damage them first.
        seed: The seed of everything random.
        out: Folder to write to; restored in the run by default.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import torch

    from undiffuse import training
    from undiffuse.cli.parsing import cycled, labels_of
    from undiffuse.pipelines import restore as report

    about, model = training.open_run(run).config["data"], training.load(run, device=device)
    damaged = report.images(images, about["levels"])
    classes = labels_of(label, about["classes"]) if label is not None else []
    asked = {"label": torch.tensor(cycled(classes, 0, len(damaged)))} if classes else {}
    seen = report.operator(operator, model.shape, mask, amount, angle, seed)
    found = report.restore(model, seen, damaged, noise, draws, simulate=simulate, method=method,
                           exact=exact, steps=steps, seed=seed, levels=about["levels"], rounds=rounds,
                           shares=about.get("counts"), **asked)
    for path in found.write(out or run / "restored"):
        print(path)
