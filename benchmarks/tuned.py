"""Tuned sampling of a run of images: Fréchet distance on a classifier's features, beside untuned samplers.

    python -m benchmarks tuned RUN [samples] [evaluations,...] [evaluations of the untuned,...]

The features are the last hidden layer of a small convolutional network trained here on the run's own training data.
The distance depends on the number of samples; what two sets of real data of that size have is printed as the floor.
Laws that are known exactly, and distances to a model's own paths, are in `python -m benchmarks tuning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse import training
from undiffuse.data import Dataset
from undiffuse.metrics import frechet
from undiffuse.model import Model
from undiffuse.random import Purpose, permutation
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.tuning import tune
from undiffuse.tuning.tune import UNTUNED

Features = Callable[[Tensor], Tensor]


def table(run: str, n: str = "1000", evaluations: str = "6", untuned: str = "6,12") -> Iterator[str]:
    """The floor, the model at 100 evaluations, the untuned samplers, and the tuned one."""
    model = training.load(run)
    train, held = training.load_data(run)
    seen = features(train)
    real = train.x[permutation(1, Purpose.ORDER, 0, len(train))[: 2 * int(n)]]
    yield from distances(model, seen, real[: int(n)], real[int(n):] if held is None else held.x[: int(n)],
                         _numbers(evaluations), _numbers(untuned))


def distances(model: Model, seen: Features, real: Tensor, other: Tensor, evaluations: list[int],
              untuned: list[int]) -> Iterator[str]:
    """A line for each sampler: Fréchet distance to `real` (n, *event) in data units, labels in turn."""
    n = len(real)
    cond: dict[str, Any] = {"label": torch.arange(n) % model.classes} if model.classes else {}

    def line(name: str, used: Model, method: str, steps: int, grid: str | None = None) -> str:
        x = sample(used, n, as_method(method), steps, grid=grid, denoise_last=False, **cond).x
        return f"{name:46}{steps:5}{frechet(seen(levels(x)), seen(real)):9.3f}"

    yield f"{'sampler':46}{'evals':>5}{'Frechet':>9}"
    yield f"{'other real data':46}{0:5}{frechet(seen(other), seen(real)):9.3f}"
    tuned = tune(model, evaluations)
    for steps in evaluations:
        yield line("tuned", tuned, "tuned", steps)
    for steps in untuned:
        for method, grid in (*UNTUNED, ("dpmpp_2m_sde", "log_snr")):
            yield line(f"{method} on {grid or 'its own grid'}", model, method, steps, grid)
    yield line("unipc_4_noise on log_snr", model, "unipc_4_noise", 100, "log_snr")


def features(data: Dataset, updates: int = 600, batch: int = 128) -> Features:
    """The last hidden layer (128 numbers) of a small classifier trained on grey or coloured images."""
    return features_of(classifier(data, updates, batch)[0])


def features_of(body: nn.Module) -> Features:
    """What the body of a classifier makes of images in data units."""
    return lambda x: torch.cat([body(_unit(part)) for part in x.split(500)]).double()


def classifier(data: Dataset, updates: int = 600, batch: int = 128) -> tuple[nn.Module, nn.Module]:
    """A small convolutional network trained on images with labels: what makes its 128 features, and what reads them."""
    if data.y is None:
        raise SystemExit("benchmarks tuned: the features need data with labels")
    channels, side = data.x.shape[1], data.x.shape[-1] // 4
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(32 * side**2, 128), nn.ReLU())
    head = nn.Linear(128, len(data.classes))
    whole = nn.Sequential(body, head)
    optimiser = torch.optim.Adam(whole.parameters(), 2e-3)
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: 1 - k / updates)
    for k in range(updates):
        rows = permutation(0, Purpose.ORDER, k, len(data))[:batch]
        loss = nn.functional.cross_entropy(whole(_unit(data.x[rows])), data.y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    return body.requires_grad_(False), head.requires_grad_(False)


def levels(x: Tensor) -> Tensor:
    """Images in whole grey levels."""
    return x.round().clamp(0, 255)


def _unit(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]
