"""The swiss roll by its default recipe in so many CPU seconds: sliced W₂ to held-out points, and how far off the curve.

The number of updates is what fits by the pace in CPU seconds on a few that are thrown away; saves and the measurement
of the held-out loss are part of the time, start and evaluation are not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from undiffuse import training
from undiffuse.recipes import for_data
from undiffuse.report import evaluate
from undiffuse.training.timing import measure


def table(seconds: str = "20", seeds: str = "2", *words: str) -> Iterator[str]:
    """seconds: of the CPU, for a training. seeds: runs. words: fields, such as prediction_type=wiener."""
    fields: dict[str, Any] = dict(word.split("=", 1) for word in words)
    recipe = for_data("swiss_roll", **fields)
    e, timing = recipe.experiment, measure(recipe, time.process_time)
    steps = min(e.steps, timing.max_steps(float(seconds), lambda n: -(-n // 8)))
    yield f"{steps:,} updates of {e.steps:,}, {1000 * timing.update:.2f} ms of the CPU each"
    for seed in range(int(seeds)):
        with TemporaryDirectory() as folder:
            start = time.process_time()
            training.train(e.replace(steps=steps, save_every=-(-steps // 8), seed=seed), Path(folder) / "run",
                           progress=False)
            spent = time.process_time() - start
            n = evaluate(Path(folder) / "run")
        yield (f"seed {seed}: {spent:.1f} s, sliced W2 {n['sliced_w2']:.4f}, {n['sliced_w2_ratio']:.2f} times its "
               f"floor, off the curve {n['curve_distance']:.4f}")
