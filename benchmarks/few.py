"""A few evaluations of a network that learned images: which sampler and grid is nearest to real images?

    python -m benchmarks few RUN [samples] [evaluations,...]

Fréchet distance to the run's held-out rows on the features of `benchmarks.tuned`, labels in turn where there are
classes. `samplers.default.IMAGES` was chosen by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.tuned import features, levels
from undiffuse import training
from undiffuse.metrics import frechet
from undiffuse.samplers.default import TABLES, default_sampler
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import Method
from undiffuse.samplers.registry import as_method
from undiffuse.tuning.tuning_file import untuned

ENTRIES = (("dpmpp_2m", "karras"), ("dpmpp_2m", "karras(5)"), ("dpmpp_2m_sde", "karras"), ("dpmpp_2m_sde", "log_snr"),
           ("deis_3", "karras"), ("unipc", "time_quadratic"), ("auto", None), ("sde", None))
_SEED = 21


def table(run: str, n: str = "1000", evaluations: str = "4,6,8,10,12,16,20") -> Iterator[str]:
    """A row per sampler and grid, the defaults last, and then those for laws that are known exactly."""
    loaded, (train, held_out) = training.load(run), training.load_data(run)
    if held_out is None:
        raise SystemExit("benchmarks few: this needs a run with held-out rows")
    model, features_of, budgets = untuned(loaded), features(train), [int(word) for word in evaluations.split(",")]
    real, cond = features_of(held_out.x), dict[str, Any]()
    if model.classes:
        cond["label"] = torch.arange(int(n)) % model.classes
    yield f"{'sampler':34}" + "".join(f"{k:8}" for k in budgets)

    def of(method: str, k: int, images: bool) -> str | Method:
        exact = method in TABLES and not images
        return default_sampler(model, k, (None, None), bool(cond), method, False).build() if exact else method

    for images, entries, word in ((True, ENTRIES, ""), (False, ENTRIES[-2:], ", for exact laws")):
        for method, grid in entries:
            batches = (sample(model, int(n), as_method(of(method, k, images)), k, grid=grid, seed=_SEED,
                              denoise_last=False, **cond).x for k in budgets)
            yield f"{method + (f' on {grid}' if grid else '') + word:34}" + "".join(
                f"{frechet(features_of(levels(x)), real):8.2f}" for x in batches)
