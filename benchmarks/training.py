"""Training beside other libraries' networks: images a second at equal parameters, and quality at equal CPU seconds.

    python -m benchmarks training speed MNIST [rounds] [small,medium,folded]
    python -m benchmarks training quality MNIST [ours,ours-folded,diffusers,lucidrains,azula] [CPU seconds] [samples]
                                          [evaluations] [folder for pictures]

speed: an update is a batch of 64 from memory, forward, loss, backward, clipping, Adam and the average of the weights,
MNIST padded to 32x32; everybody makes one update in turn. Ours is what the training loop does. "folded" gives the
others 2x2 pixels as channels, which our network does by itself. quality: MNIST at 16x16 without labels; rates fall
linearly to 0 over the time; ours is the recipe, "ours-folded" the network of larger images, which takes 2x2 pixels as
one; `ours:1` is a training of seed 1. The features of the Fréchet distance are those of `benchmarks.tuned`; of a
rival's two samplers the one that is better on 500 samples draws all. `rivals.py` says what has to be installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.rivals import Rival, rival
from benchmarks.tuned import classifier, features_of
from undiffuse import recipes
from undiffuse.data import Dataset, open_data, save_samples
from undiffuse.experiment import Experiment
from undiffuse.metrics import frechet
from undiffuse.samplers.driver import sample
from undiffuse.training.batches import Feed, batch_gradient
from undiffuse.training.distributed import ProcessGroup
from undiffuse.training.model_config import describe, initialized
from undiffuse.training.state import TrainingState

BATCH, RATE, FIRST = 64, 2e-3, 500
SIZES: dict[str, dict[str, Any]] = {
    "small": {"ours": {"widths": [32, 64, 64], "stem": 2, "attention": [2]}, "ours, no stem":
              {"widths": [32, 64, 64], "stem": 1, "attention": [2]},
              "diffusers": (24, 40, 48), "lucidrains": (16, (1, 2, 3)), "azula": (24, 48, 80)},
    "medium": {"ours": {"widths": [80, 160, 240], "stem": 2, "attention": [2]}, "ours, no stem":
               {"widths": [80, 160, 240], "stem": 1, "attention": [2]},
               "diffusers": (64, 128, 136), "lucidrains": (50, (1, 2, 3)), "azula": (80, 160, 232)},
}
OURS: dict[str, dict[str, Any]] = {
    "ours": {}, "ours-folded": {"net_args": {"stem": 2, "widths": [48, 96], "blocks": 1, "attention": [1]}},
}
SIZES["folded"] = {name: args for name, args in SIZES["small"].items() if name != "ours, no stem"}


class Ours:
    """Our training of an experiment on images without labels; the number of updates is estimated as it goes."""

    samplers = ("auto",)

    def __init__(self, data: Dataset, experiment: Experiment) -> None:
        self.experiment, self.team = experiment, ProcessGroup()
        model = initialized(describe(experiment, data, ""), experiment.seed, data)
        self.state, self.feed = TrainingState(experiment, model), Feed(experiment, data, model)

    @property
    def parameters(self) -> int:
        """The number of weights that are trained."""
        return len(self.state.weights)

    def update(self, share: float) -> None:
        """An update as the training loop makes it, when a share of the time has passed."""
        if share and self.state.step % 20 == 0:
            steps = round(self.state.step / share) + 1
            self.state.experiment = self.experiment.replace(steps=max(steps, self.experiment.warmup + 1))
        self.state.update(self.team.batch_sum(lambda first, end: batch_gradient(self.state, self.feed, first, end),
                                          self.experiment.batch_size))

    def draw(self, n: int, sampler: str, evaluations: int) -> Tensor:
        """n samples of the averaged model between -1 and 1."""
        return sample(self.state.ema_model, n, sampler, evaluations, denoise_last=False).x.float() / 127.5 - 1


def table(what: str, mnist: str, *words: str) -> Iterator[str]:
    """what: speed or quality. mnist: the folder of its IDX files."""
    parts: dict[str, Callable[..., Iterator[str]]] = {"speed": speed, "quality": quality}
    yield from parts[what](mnist, *words)


def speed(mnist: str, rounds: str = "7", sizes: str = "small,medium,folded") -> Iterator[str]:
    """Median and range over rounds of images a CPU second, and of the fastest rival's share in the same round."""
    data = _bare(open_data(mnist, n=2000))
    data = replace(data, x=nn.functional.pad(data.x, (2, 2, 2, 2)))
    for size in sizes.split(","):
        both = {name: _trainer(name, data, args, size == "folded") for name, args in SIZES[size].items()}
        found = _rates(both, int(rounds))
        best = torch.stack([r for name, r in found.items() if not name.startswith("ours")]).amax(0)
        for name, rates in found.items():
            yield (f"{size:8}{name:14}{both[name].parameters / 1e6:7.3f} M{_spread(rates, 0)} images/s"
                   f"   {_spread(rates / best, 2)} of the fastest rival")


def _trainer(name: str, data: Dataset, args: Any, folded: bool) -> Ours | Rival:
    if name.startswith("ours"):
        return Ours(data, recipes.for_data("digits", net="unet", held_out=0).experiment.replace(
            net_args={**args, "blocks": 1}, batch_size=BATCH, steps=10_000))
    rows = _unit(data.x)
    return rival(name, nn.functional.pixel_unshuffle(rows, 2) if folded else rows, args, BATCH, RATE)


def _rates(trainers: dict[str, Ours | Rival], rounds: int) -> dict[str, Tensor]:
    """Images a CPU second of each in every round, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in trainers}
    for k in range(rounds + 1):
        for name, trainer in trainers.items():
            start = time.process_time()
            trainer.update(0.0)
            if k:
                found[name].append(BATCH / (time.process_time() - start))
    return {name: torch.tensor(rates) for name, rates in found.items()}


def _spread(values: Tensor, digits: int) -> str:
    return f"{float(values.median()):8.{digits}f} ({float(values.min()):.{digits}f}-{float(values.max()):.{digits}f})"


class Judge(NamedTuple):
    """Classifier, real images to compare with, and what the comparison needs of them."""

    features: Callable[[Tensor], Tensor]
    head: nn.Module
    real: Tensor

    def line(self, name: str, x: Tensor) -> str:
        """Fréchet distance, distance of the shares of the classes read, and the share read with confidence over .9."""
        h = self.features(x)
        p, q = (self.head(f.float()).softmax(1) for f in (h, self.real))
        shares = [torch.bincount(probabilities.argmax(1), minlength=p.shape[1]) / len(probabilities)
                  for probabilities in (p, q)]
        return (f"{name:44}{len(x):6}{frechet(h, self.real):9.3f}{float((shares[0] - shares[1]).abs().sum() / 2):8.3f}"
                f"{float((p.amax(1) > 0.9).double().mean()):8.3f}")


def quality(mnist: str, names: str = "ours,diffusers,lucidrains,azula", seconds: str = "480", n: str = "5000",
            evaluations: str = "25", folder: str = "") -> Iterator[str]:
    """The floors, and for each of the names what its samples are after so many CPU seconds of training."""
    data, test = (open_data(mnist, size=16, part=part) for part in ("train", "test"))
    body, head = classifier(data, 1000)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    right = (head(body(_unit(test.x))).argmax(1) == test.y).double().mean()
    seen = features_of(body)
    judge = Judge(seen, head, seen(data.x[order[:10_000]]))
    yield f"the judge reads {float(right):.2%} of the test images"
    yield f"{'':44}{'n':>6}{'Frechet':>9}{'TV':>8}{'>.9':>8}"
    yield judge.line("training images", data.x[order[10_000 : 10_000 + int(n)]])
    yield judge.line("test images", test.x[: int(n)])
    for word in names.split(","):
        name, seed = word.partition(":")[0], int(word.partition(":")[2] or 0)
        trainer = (Ours(_bare(data), recipes.for_data(mnist, image_size=16, seed=seed, **OURS[name]).experiment)
                   if name in OURS else
                   rival(name, _unit(data.x), SIZES["small"][name], BATCH, RATE, seed))
        updates = train(trainer, float(seconds))
        yield f"{name}: {trainer.parameters / 1e6:.3f} M parameters, {updates} updates in {seconds} CPU seconds"
        yield from judged(judge, name, trainer, int(n), int(evaluations), folder)


def judged(judge: Judge, name: str, trainer: Ours | Rival, n: int, evaluations: int, folder: str) -> Iterator[str]:
    """All samplers on `FIRST` samples, and the best of them on n."""
    few = {s: _pixels(trainer.draw(min(n, FIRST), s, evaluations)) for s in trainer.samplers}
    order = sorted(few, key=lambda s: frechet(judge.features(few[s]), judge.real), reverse=True)
    for s in order:
        yield judge.line(f"{name}, {s}, {evaluations} evaluations", few[s])
    x = _pixels(trainer.draw(n, order[-1], evaluations))
    yield judge.line(f"{name}, {order[-1]}, {evaluations} evaluations", x)
    if folder:
        yield str(save_samples(Path(folder) / f"{name}.png", x[:100], levels=256))


def train(trainer: Ours | Rival, seconds: float) -> int:
    """Updates for a time; their number."""
    start, count = time.process_time(), 0
    while (share := (time.process_time() - start) / seconds) < 1:
        trainer.update(share)
        count += 1
    return count


def _bare(data: Dataset) -> Dataset:
    """The images without labels."""
    return replace(data, y=None, classes=())


def _unit(x: Tensor) -> Tensor:
    return x.float() / 127.5 - 1


def _pixels(x: Tensor) -> Tensor:
    return ((x + 1) * 127.5).round().clamp(0, 255)
