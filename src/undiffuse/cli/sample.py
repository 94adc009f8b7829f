"""`undiffuse sample RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from undiffuse.cli.parsing import (
    condition_texts,
    cycle_labels,
    cycle_prompts,
    guided,
    index_ranges,
    labels_of,
    print_once,
    report_sampler,
    say_once,
    scale_of,
)


def sample(run: str, /, *, n: int = 100, label: str | None = None, condition: list[str] | None = None,
           prompt: list[str] | None = None, negative: str | None = None, guidance_scale: list[str] | None = None,
           seed: int = 0, first_index: int = 0, indices: str | None = None, method: str = "auto", steps: int = 20,
           out: Path | None = None, device: str = "auto") -> None:
    """Draw new samples; sample i depends only on the model, the settings, the seed and i.

    Args:
        run: Folder of a run, of `undiffuse import` or of a diffusers pipeline, or hf:OWNER/NAME.
        n: Number of samples.
        label: Class, or several in turn: cat, or 0,3,5-7, or all; by default as frequent as in the data.
        condition: A condition such as age=40 or note="a red circle"; repeat the flag for several. Conditions without a
            value are unspecified.
        prompt: Text for a text-to-image model; repeat the flag for several in turn.
        negative: Text that guidance moves away from, instead of the empty text.
        guidance_scale: Guidance strength: 0 unconditional, 1 conditional, above 1 stronger; or age=2 for one condition,
            repeated for several. `undiffuse tune --guidance-scale` fits the sampler to it.
        seed: Seed of all random numbers.
        first_index: Index of the first sample.
        indices: Indices of the samples, such as 7,9000,20-29, instead of --n and --first-index.
        method: Sampler: auto, euler_maruyama, ancestral, ddim, euler, heun, ...
        steps: Number of steps from noise to data.
        out: File to write: .png, .npy or .csv; by default samples.png (images), samples.npy (arrays) or
            samples.csv in the run. Windows of a series are .csv or .npy.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import torch

    from undiffuse.pipelines.sample_to_file import random_labels, sample_to_file
    from undiffuse.samplers import driver
    opened = _open(run, device)
    about, conditions = opened.data, condition_texts(condition, opened.model.conditions)
    cycle, counts = labels_of(label, about["classes"]) if label is not None else [], about.get("counts", ())
    names = [*["label"] * (label is not None), *conditions, *["prompt"] * bool(prompt)]
    model = guided(opened.model, scale_of(guidance_scale), names, prompt, negative)
    ranges = index_ranges(indices) if indices else [(first_index, n)]
    labelled = len(cycle) > 0 or (not conditions and len(counts) > 0)
    report_sampler(model, method, steps, [*["label"] * (labelled and "label" not in names), *names])

    def classes(first: int, n: int) -> Any:
        return torch.tensor(cycle_labels(cycle, first, n) if cycle else random_labels(counts, seed, first, n)).long()

    def rows(first: int, count: int, progress: driver.Progress) -> Any:
        cond = {**conditions, **({"label": classes(first, count)} if labelled else {}),
                **cycle_prompts(prompt, first, count)}
        return driver.sample(model, count, method, steps, seed=seed, first_index=first, progress=progress, **cond).x

    file = _place(opened, out)
    summary = sample_to_file(model, rows, ranges, file, lambda x: _save(
        opened, file, x, torch.cat([classes(*part) for part in ranges]) if labelled else None, conditions))
    print_once(summary)


def _place(opened: Any, out: Path | None) -> Path:
    """The file to write, which must not be the data of the run."""
    from undiffuse.atomic_files import check_places
    from undiffuse.pipelines.series import is_series

    suffix = "csv" if is_series(opened.model) else {"image": "png", "array": "npy"}.get(opened.data["kind"], "csv")
    file = out or opened.folder / f"samples.{suffix}"
    check_places([file], [opened.experiment.data])
    return file


def _open(run: str, device: str) -> Any:
    """The opened model, with a warning if its network, one for images, has learned little."""
    from undiffuse.interop import open_model
    from undiffuse.training.linear_loss import little_learned
    from undiffuse.training.metrics_log import NAME, read_metrics

    opened = open_model(run, device)
    if opened.data["kind"] == "image" and (opened.folder / "experiment.json").is_file():
        say_once(little_learned(read_metrics(opened.folder / NAME), opened.experiment, opened.model))
    return opened


def _save(opened: Any, file: Path, x: Any, labels: Any, conditions: dict[str, Any]) -> Path:
    """Write samples x with their labels, in the form of the model's data."""
    from undiffuse import data
    from undiffuse.data.pixel_units import PixelUnits
    from undiffuse.pipelines import series, series_files

    if series.is_series(opened.model) and file.suffix.lower() == ".csv":
        return series_files.save_windows(file, x[:], series.schema_of(opened.model))
    units = PixelUnits.from_config(opened.data) if opened.data["kind"] == "image" else None
    return data.save_samples(file, x, units=units, classes=opened.data["classes"], labels=labels,
                             schema=opened.model.schema, array=opened.model.array, condition_texts=conditions)
