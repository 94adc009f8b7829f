"""Recipes: an experiment for any data, and in one sentence each why it is so.

What can be measured on the data is measured (how far the noise has to reach, how much there is to learn); networks,
rates and numbers of updates are those that did best in trials on two CPU cores.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from undiffuse import training
from undiffuse.data import Dataset, Source, Transform, describe, open_data
from undiffuse.data.dataset import fit_transform
from undiffuse.errors import InputError
from undiffuse.experiment import MEMORY, Experiment, Recipe
from undiffuse.model import Denoiser
from undiffuse.moments import measurable
from undiffuse.predictions import WIENER
from undiffuse.progress import say
from undiffuse.training.model_config import deviation
from undiffuse.training.timing import measure

_COMPARED = 1000  # rows whose distances are taken
_EPOCHS = 200  # readings of the data that a small network can stand before it learns them by heart
_FEWEST = 500  # updates
_SOME, _SEVERAL = 2000, 20_000  # rows from which the network for a table is larger
_HIDDEN = 0.3  # share of the rows in which each of several conditions is hidden
_BATCH = {"unet": 32, "dit": 64}
_FLAT = 200  # values of an image up to which a multilayer perceptron learns faster than a U-Net


@dataclass(frozen=True)
class _Part:
    """Some fields of an experiment and the sentence that explains them, mainly the first."""

    fields: dict[str, Any]
    why: str


@dataclass(frozen=True)
class _Case:
    """What a recipe looks at: the rows to learn, their deviation and largest distance in model units, the network."""

    train: Dataset
    held_out: int
    transform: Transform
    deviation: float
    reach: float
    net: str
    predict: str = WIENER

    @property
    def table(self) -> bool:
        return self.train.kind == "table"

    @property
    def image(self) -> bool:
        return self.train.kind == "image"

    @property
    def corrects(self) -> bool:
        """Whether the network corrects the best linear denoiser: an MLP; a U-Net's samples are no better for it."""
        suits = self.net == "mlp" and self.train.kind != "points" and measurable(self.train.shape)
        return suits and self.predict == WIENER


def for_data(source: Source, *, minutes: float | None = None, **overrides: Any) -> Recipe:
    """The experiment for what `open_data` finds at `source`, why it was chosen, and the data, for `train`.

    Args:
        source: A built-in name, a path, an array, list, tensor, DataFrame or Dataset.
        minutes: The number of updates is the one that fits into that time, by the pace measured on this machine.
        overrides: Fields of the experiment that are set by hand; what depends on them follows.

    Raises:
        InputError: For data that cannot be opened, for fields that do not exist or have no such value, and for minutes
            that leave no time for an update, or together with steps, or of several processes.
    """
    _check_time(minutes, overrides)
    asked = Experiment(data=_name_of(source), precision="auto", compile="auto").replace(**overrides)
    data = open_data(source, size=asked.size, label=asked.label, condition=asked.condition,
                     first=asked.first)
    case = _examine(data, asked.held_out if "held_out" in overrides else _held_out(data), overrides.get("net"),
                    overrides.get("predict", WIENER))
    parts = [_rows(case), _process(case, overrides.get("sde", "edm")), _network(case), _levels(case),
             _updates(case, overrides)]
    last = _conditions(case)
    so_far = asked.replace(**{**_fields(parts + last), **overrides})
    parts += [_duration(case, so_far.batch) if minutes is None else
              _within(case, so_far, data, minutes, overrides.get("save_every")), *last]
    reasons = [f"{describe(data)}.", *(f"{note}." for note in data.notes)]
    reasons += [part.why for part in parts if next(iter(part.fields)) not in overrides]
    reasons += [f"{name} = {value}, as asked." for name, value in overrides.items()]
    experiment = asked.replace(**{**_fields(parts), **overrides})
    return Recipe(experiment, tuple(reasons), data, case.transform, case.deviation)


def train(data: Source | Experiment | Recipe, out: str | os.PathLike[str] | None = None, *, progress: bool = True,
          minutes: float | None = None, stop: Callable[[int], bool] | None = None, track: Sequence[str] = (),
          preview: int = 0, **fields: Any) -> Denoiser:
    """Trains a model of data, or continues the training in the folder `out`; see `training.train`.

    Args:
        data: What `for_data` takes, a recipe that it gave, or an experiment.
        out: The folder of the run; None: a new temporary one, which is `model.folder`.
        progress: Whether to show how far the training is.
        minutes: As for `for_data`.
        stop: stop(step) is asked after every update; True ends the training there.
        track: Trackers that get the metrics, such as tensorboard.
        preview: Of images: how many samples are drawn at every save.
        fields: Fields of the experiment set by hand, where `data` is neither recipe nor experiment.

    Returns:
        The model with the averaged weights.

    Raises:
        InputError: As `for_data` does, and where `out` holds something else.
    """
    ready = isinstance(data, Experiment | Recipe)
    if ready and (fields or minutes is not None):
        raise InputError(f"got {', '.join(fields) or 'minutes'} beside a {type(data).__name__}, which has them; give "
                         "the data themselves, or change the experiment with .replace")
    recipe = data if isinstance(data, Experiment | Recipe) else for_data(data, minutes=minutes, **fields)
    folder = Path(tempfile.mkdtemp(prefix="undiffuse-") if out is None else out)
    if out is None and progress:
        say(f"the run is in {folder}")
    return training.train(recipe, folder, progress=progress, stop=stop, track=track, preview=preview)


def _name_of(source: Source) -> str:
    """How an experiment names its data."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    return MEMORY + (source.name if isinstance(source, Dataset) else "table" if hasattr(source, "columns") else "array")


def digits(**overrides: Any) -> Experiment:
    """The handwritten digits of scikit-learn, by class: about a minute on one core."""
    return for_data("digits", **overrides).experiment


def swiss_roll(**overrides: Any) -> Experiment:
    """The swiss roll in the plane: about half a minute on one core."""
    return for_data("swiss_roll", **overrides).experiment


def mnist(path: str | os.PathLike[str], **overrides: Any) -> Experiment:
    """The IDX files of MNIST or Fashion-MNIST at `path`, by class: under ten minutes on two cores."""
    return for_data(path, **{"size": 28, **overrides}).experiment


def _examine(data: Dataset, held_out: int, net: str | None, predict: str) -> _Case:
    if net in _BATCH and data.kind != "image":
        raise InputError(f"got net={net} for {data.kind}, and it needs images; use mlp")
    train = data.split(held_out)[0] if held_out else data
    transform = fit_transform(train)
    few = train.x[torch.linspace(0, len(train) - 1, min(len(train), _COMPARED)).long()]
    reach = _largest_distance(transform.forward(few))
    if reach == 0:
        raise InputError(f"got held_out={held_out}, which leaves {len(train)} rows that are all equal; hold out fewer")
    default = "unet" if data.kind == "image" and math.prod(data.shape) > _FLAT else "mlp"
    return _Case(train, held_out, transform, deviation(train.x, transform), reach, net or default, predict)


def _largest_distance(z: Tensor) -> float:
    """The largest distance between two rows, cells that are missing in the middle."""
    rows = z.flatten(1).double().nan_to_num(0.0)
    return float(torch.cdist(rows, rows).max())


def _held_out(data: Dataset) -> int:
    """A fifth of the rows, two fifths of points, within what measuring needs."""
    if len(data) < 10:
        return 0
    return min(4000, 2 * len(data) // 5) if data.kind == "points" else min(5000, len(data) // 5)


def _rows(case: _Case) -> _Part:
    learned = f"{len(case.train):,} are learned."
    why = f"{case.held_out:,} rows are held out to measure with, {learned}" if case.held_out else f"All {learned}"
    return _Part({"held_out": case.held_out}, why)


def _process(case: _Case, sde: str) -> _Part:
    """Noise as far as the data reach. Reference: Song and Ermon (2020), technique 1. arXiv:2006.09011"""
    sigma_max = _round_up(case.reach)
    args = {"edm": {"sigma_max": sigma_max}, "ve": {"sigma_min": 0.002, "sigma_max": sigma_max, "from_data": True}}
    why = (f"Noise up to sigma = {sigma_max:g}, at which no row can be told from another: the two farthest are "
           f"{case.reach:.3g} apart in model units, where the data have standard deviation {case.deviation:.3g}.")
    return _Part({"sde": sde, "sde_args": args.get(sde, {})}, why)


def _network(case: _Case) -> _Part:
    """The network of the case, in the size that suits its rows."""
    if case.table and case.net == "mlp":
        return _correction(case)
    if case.net == "unet":
        args = _unet_args(case)
        why = (f"A U-Net of widths {', '.join(map(str, args['widths']))} that takes {args['stem']}x{args['stem']} "
               "pixels as one: the quickest learner for images of this size.")
        return _Part({"net": "unet", "net_args": args, "block": 64}, why)
    if case.net == "dit" and case.image:
        args = {"patch": max(2, -(-max(case.train.shape[-2:]) // 8)), "width": 96, "depth": 4, "heads": 4}
        why = (f"A transformer of {args['depth']} x {args['width']} on patches of {args['patch']}x{args['patch']} "
               "pixels; within minutes on a CPU a U-Net or, for small images, an MLP learns more.")
        return _Part({"net_args": args, "net": "dit", "block": 64}, why)
    large = case.image or case.train.x[0].numel() > 16
    args = {"width": 256, "depth": 4, "condition": 128} if large else {"width": 128, "depth": 3, "condition": 64}
    fields = {"net": case.net, "net_args": args if case.net == "mlp" else {}, "block": 256}
    why = (f"A residual MLP of {args['depth']} x {args['width']}: the quickest learner for "
           f"{case.train.x[0].numel()} values a row; one thread serves it best.")
    if case.corrects:
        fields["predict"] = WIENER
        why += " It corrects the best linear denoiser, and so learns in half of the time."
    return _Part(fields, why)


def _correction(case: _Case) -> _Part:
    """For tables a network that is added to the best linear denoiser, the larger the more rows there are."""
    width = 64 if len(case.train) < _SOME else 128 if len(case.train) < _SEVERAL else 256
    args = {"width": width, "depth": 2 if width == 64 else 3, "condition": width // 2}
    why = (f"A residual MLP of {args['depth']} x {width} that corrects the best linear denoiser, whose mean and "
           "covariance are measured; one thread serves it best.")
    fields = {"net": "mlp", "net_args": args, "block": 256}
    return _Part({**fields, "predict": WIENER} if case.corrects else fields, why)


def _unet_args(case: _Case) -> dict[str, Any]:
    """A stem that leaves 8 to 32 pixels, levels down to 8 or fewer, and attention on the coarsest."""
    side = max(case.train.shape[-2:])
    if side <= 16:
        return {"stem": 1, "widths": [32, 64, 64], "blocks": 1, "attention": [2]}
    stem = 2 if side <= 64 else 4
    depth = max(2, 1 + math.ceil(math.log2(side / stem / 8)))
    widths = [48, 96, 144][:depth] + [192] * (depth - 3)
    return {"stem": stem, "widths": widths, "blocks": 1, "attention": [depth - 1]}


def _levels(case: _Case) -> _Part:
    """Where on the scale of noise the training looks."""
    mean, std = (-1.2, 1.2) if case.image else (-1.6, 1.6)
    where = "at which images take shape" if case.image else "down to those that draw points onto thin curves"
    return _Part({"level_mean": mean, "level_std": std}, f"Noise levels lognormal({mean:g}, {std:g}), {where}.")


def _updates(case: _Case, overrides: dict[str, Any]) -> _Part:
    """The optimiser; its sentence says what is asked for."""
    batch = min(len(case.train), _BATCH.get(case.net, 128 if case.image or case.table else 256))
    lr, schedule = (2e-3, "linear") if case.image else (1e-3 if case.table else 5e-3, "cosine")
    fields = {"lr": lr, "schedule": schedule, "batch": batch, "warmup": 50, "optimizer": "adamw", "betas": (0.9, 0.99),
              "ema": 0.999 if case.net in _BATCH else 0.99 if case.table else 0.998}
    told = {**fields, **overrides}
    name = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon"}[told["optimizer"]]
    falls = "stays" if told["schedule"] == "constant" else f"falls to 0 ({told['schedule']})"
    return _Part(fields, f"{name} on {told['batch']} rows at a time, with a rate of {told['lr']:g} that {falls}.")


def _duration(case: _Case, batch: int) -> _Part:
    """The number of updates: what the kind of data needs, and no more than so many readings of the data."""
    needed, most = _rows_needed(case) // batch, _epochs(case) * len(case.train) // batch
    steps = min(max(needed, _fewest(case)), _most(case, batch))
    why = ("which is enough for data of this kind" if needed <= most else
           f"in which every row is seen {_epochs(case)} times")
    return _Part({"steps": steps, "save_every": _save_every(steps)}, f"{steps:,} updates, {why}.")


def _within(case: _Case, experiment: Experiment, data: Dataset, minutes: float, save_every: int | None) -> _Part:
    """The number of updates that fit into a time, but no more than the data can stand."""
    most = _most(case, experiment.batch)
    pace = measure(Recipe(experiment, (), data, case.transform, case.deviation))
    room = pace.most(60 * minutes, lambda n: save_every or _save_every(n))
    if room == 0:
        raise InputError(f"got minutes={minutes:g}, in which no update fits: one takes {pace.update:.3g} s here and a "
                         f"save {pace.save:.3g} s; give more, or a smaller batch")
    steps = min(room, most)
    seen = experiment.batch * steps / len(case.train)
    why = (f"as many as fit into {minutes:g} minutes: one takes {pace.update:.3g} s on this machine, a save with its "
           f"measurement {pace.save:.2g} s" if room <= most else
           f"in which every row is seen {seen:.0f} times, although {room:,} would fit into {minutes:g} minutes: more "
           "of them would learn the rows by heart")
    return _Part({"steps": steps, "save_every": _save_every(steps)}, f"{steps:,} updates, {why}.")


def _check_time(minutes: float | None, overrides: dict[str, Any]) -> None:
    if minutes is None:
        return
    if not 0 < minutes < math.inf:
        raise InputError(f"got minutes={minutes:g}, expected a number above 0")
    if "steps" in overrides:
        raise InputError(f"got minutes={minutes:g} and steps={overrides['steps']}; give one of them")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"got minutes={minutes:g} for {os.environ['WORLD_SIZE']} processes, of which each would "
                         "measure another pace; give steps")


def _fields(parts: list[_Part]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.fields.items()}


def _save_every(steps: int) -> int:
    """Eight saves, but not for less than 100 updates each."""
    return max(100, -(-steps // 8))


def _epochs(case: _Case) -> int:
    """Readings of the data after which a network begins to learn them by heart."""
    return _EPOCHS // 2 if case.table or case.corrects else _EPOCHS


def _fewest(case: _Case) -> int:
    return _FEWEST // 5 if case.table else _FEWEST // 2 if case.corrects else _FEWEST


def _most(case: _Case, batch: int) -> int:
    """The largest number of updates that the data can stand, or the fewest that are made in any case."""
    return max(_fewest(case), _epochs(case) * len(case.train) // batch)


def _conditions(case: _Case) -> list[_Part]:
    """How often conditions are hidden, where there are several."""
    several = len(case.train.conditions) + (case.train.y is not None)
    if several < 2 or not case.train.conditions:
        return []
    why = f"Each of {several} conditions is hidden in {_HIDDEN:.0%} of the rows, so that any of them can be left out."
    return [_Part({"label_dropout": _HIDDEN}, why)]


def _rows_needed(case: _Case) -> int:
    """How many rows a training reads: for a U-Net such that it takes the same time for images of any size."""
    if case.net != "unet":
        return 256_000 if case.image else 512_000
    height, width = (-(-side // _unet_args(case)["stem"]) for side in case.train.shape[-2:])
    return max(32_000, int(128_000 * 196 / (height * width)))


def _round_up(x: float) -> float:
    """x rounded up to one digit."""
    unit = 10.0 ** math.floor(math.log10(x))
    return round(math.ceil(x / unit) * unit, 12)
