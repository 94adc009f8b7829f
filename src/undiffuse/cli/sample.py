"""`undiffuse sample RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from undiffuse.cli.select import cycled, labels_of, stretches


def sample(run: Path, /, *, n: int = 100, label: str | None = None, seed: int = 0, first_index: int = 0,
           indices: str | None = None, method: str = "auto", steps: int = 20, out: Path | None = None) -> None:
    """Draw new samples; number i of a seed is the same whatever else is drawn.

    Args:
        run: Folder of the run.
        n: How many.
        label: Class asked for: 4, or several in turn: 0,3,5-7 or all. Without it: any.
        seed: The seed of everything random.
        first_index: Index of the first sample.
        indices: The samples' indices, such as 7,9000,20-29, in place of n and first-index.
        method: auto, euler_maruyama, ancestral, ddim, euler or heun.
        steps: Number of steps from noise to data.
        out: File to write: .png, .npy or .csv; samples.png (images) or samples.csv in the run by default.
    """
    import torch

    from undiffuse import data, sampling, training

    wanted = stretches(indices) if indices is not None else [(first_index, n)]
    model = training.load(run)
    labels = labels_of(label, model.classes) if label is not None else None
    pieces = []
    for first, count in wanted:
        condition: dict[str, Any] = {} if labels is None else {"label": torch.tensor(cycled(labels, first, count))}
        drawn = sampling.sample(model, count, method, steps, seed=seed, first_index=first, **condition)
        pieces.append(drawn.x)
    file = out or run / ("samples.png" if len(model.shape) == 3 else "samples.csv")
    data.save_samples(file, torch.cat(pieces))
    print(file)
