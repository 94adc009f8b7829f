"""`undiffuse sample RUN`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from undiffuse.cli.parsing import cycled, labels_of, parse_conditions, scale_of, stretches, tell


def sample(run: Path, /, *, n: int = 100, label: str | None = None, condition: list[str] | None = None,
           guidance_scale: list[str] | None = None, seed: int = 0, first_index: int = 0, indices: str | None = None,
           method: str = "auto", steps: int = 20, out: Path | None = None, device: str = "auto") -> None:
    """Draw new samples; number i of a seed is the same whatever else is drawn.

    Args:
        run: Folder of the run.
        n: How many.
        label: Class asked for, or several in turn: cat, or 0,3,5-7, or all. Without it: as frequent as in the data.
        condition: A condition, as age=40 or note="a red circle"; once for each. Those left out: any.
        guidance_scale: How far to lean towards label and conditions: 1 is these themselves, 0 any, 2 past them; or
            age=2 for one of them, once for each. `undiffuse tune --guidance-scale` fits the sampler to it.
        seed: The seed of everything random.
        first_index: Index of the first sample.
        indices: The samples' indices, such as 7,9000,20-29, in place of n and first-index.
        method: Sampler: auto, euler_maruyama, ancestral, ddim, euler, heun, ...
        steps: Number of steps from noise to data.
        out: File to write: .png, .npy or .csv; samples.png (images) or samples.csv in the run by default.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import torch

    from undiffuse import data, guidance, training
    from undiffuse.pipelines.sample_to_file import draw, random_labels
    from undiffuse.samplers import driver
    opened, plain = training.open_run(run), training.load(run, device=device)
    about, given = opened.config["data"], parse_conditions(condition, [c.name for c in plain.conditions])
    model = guidance.with_guidance(plain, scale_of(guidance_scale), [*["label"] * (label is not None), *given])
    asked, counts = labels_of(label, about["classes"]) if label is not None else [], about.get("counts", ())
    wanted = stretches(indices) if indices is not None else [(first_index, n)]
    marked = len(asked) > 0 or (not given and len(counts) > 0)
    tell(model, method, steps, [*["label"] * marked, *given])

    def classes(first: int, count: int) -> Any:
        return torch.tensor(cycled(asked, first, count) if asked else random_labels(counts, seed, first, count)).long()

    def rows(first: int, count: int, progress: driver.Progress) -> Any:
        cond = {"label": classes(first, count), **given} if marked else given
        return driver.sample(model, count, method, steps, seed=seed, first_index=first, progress=progress, **cond).x

    file = out or run / ("samples.png" if about["kind"] == "image" else "samples.csv")
    done = draw(model, rows, wanted, file, lambda x: data.save_samples(
        file, x, levels=about["levels"], columns=about["columns"], classes=about["classes"],
        labels=torch.cat([classes(*part) for part in wanted]) if marked else None,
        label_name=opened.experiment.label or "label", categories=about["categories"]))
    if os.environ.get("RANK", "0") == "0":
        print(done)
