"""Recipes: the experiment for some data, with one sentence of explanation per choice.

The largest noise level and the amount of data are measured; networks, learning rates and numbers of updates are those
that did best in trials on two CPU cores.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from undiffuse import simulation_recipe, training
from undiffuse.data import Dataset, Source, describe, open_data
from undiffuse.data.dataset import WITH_MISSING, fit_transform
from undiffuse.errors import InputError
from undiffuse.experiment import MEMORY, Experiment, Recipe
from undiffuse.launcher import launched
from undiffuse.model import Denoiser
from undiffuse.predictions import WIENER
from undiffuse.progress import say
from undiffuse.recipe_networks import BATCH, Choice, Problem, default_net, network, unet_args
from undiffuse.training.model_config import deviation, model_shape
from undiffuse.training.timing import measure

_COMPARED = 1000  # rows whose distances are taken
_EPOCHS = 200  # epochs after which a small network begins to overfit
_MIN_STEPS = 500  # updates
_TABLE_ROWS = 1_280_000  # rows that a training on a table uses at most, if it ends by the held-out path loss
_PATIENCE = 10  # checkpoints without improvement after which a training on a table ends
_HIDDEN = 0.3  # fraction of the rows in which each of several conditions is hidden
_FEW = 1000  # pictures below which more of them help


def for_data(source: Source, *, minutes: float | None = None, **overrides: Any) -> Recipe:
    """The experiment for some data, the reasons for its choices, and the opened data.

    Args:
        source: A built-in name, a path, an array, list, tensor, DataFrame or Dataset.
        minutes: Duration of the training; the number of updates is derived by timing a few on this machine.
        overrides: Fields of the experiment to set; the choices that depend on them follow.

    Raises:
        InputError: For data that cannot be opened, for unknown fields or invalid values, and for minutes that are too
            few for an update, or together with steps or with several processes.
    """
    _check_time(minutes, overrides)
    request = Experiment(data=_name_of(source), precision="auto", compile="auto").replace(**overrides)
    data = open_data(source, **request.data_options())
    case = _examine(data, request.held_out if "held_out" in overrides else _held_out(data), overrides)
    parts = [_rows(case), _process(case, overrides.get("sde", "edm")), network(case), _levels(case),
             _updates(case, overrides), *_stopping(case)]
    last = _conditions(case)
    so_far = request.replace(**{**_fields(parts + last), **overrides})
    parts += [_duration(case, so_far.batch_size) if minutes is None else
              _within(case, so_far, data, minutes, overrides.get("save_every")), *last]
    reasons = [f"{describe(data)}.", *(f"{note}." for note in data.notes)]
    reasons += [part.why for part in parts if next(iter(part.fields)) not in overrides]
    reasons += [f"{name} = {value}, as set." for name, value in overrides.items()]
    experiment = request.replace(**{**_fields(parts), **overrides})
    return Recipe(experiment, tuple(reasons), data, case.transform, case.data_std)


def train(data: Source | Experiment | Recipe, out: str | os.PathLike[str] | None = None, *, progress: bool = True,
          minutes: float | None = None, stop: Callable[[int], bool] | None = None, track: Sequence[str] = (),
          preview: int = 0, **fields: Any) -> Denoiser:
    """Trains a model of data, or continues the training in the folder `out`; see `training.train`.

    Args:
        data: What `for_data` takes, a recipe that it gave, or an experiment.
        out: The folder of the run; None: a new temporary one, which is `model.folder`.
        progress: Whether to show how far the training is.
        minutes: As for `for_data`.
        stop: stop(step) is called after every update; True ends training.
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
        raise InputError(f"got {', '.join(fields) or 'minutes'} with a {type(data).__name__}, which has them; give "
                         "the data themselves, or change the experiment with .replace")
    recipe = data if isinstance(data, Experiment | Recipe) else for_data(data, minutes=minutes, **fields)
    folder = Path(tempfile.mkdtemp(prefix="undiffuse-") if out is None else out)
    if out is None and progress:
        say(f"the run is in {folder}")
    return training.train(recipe, folder, progress=progress, stop=stop, track=track, preview=preview)


def _name_of(source: Source) -> str:
    """The field `data` of the experiment for a source."""
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
    return for_data(path, **{"image_size": 28, **overrides}).experiment


def _examine(data: Dataset, held_out: int, overrides: dict[str, Any]) -> Problem:
    net, prediction_type = overrides.get("net"), overrides.get("prediction_type", WIENER)
    if net in BATCH and data.kind not in ("image", "array"):
        raise InputError(f"got net={net} for {data.kind}; expected images or arrays; use mlp")
    train = data.split(held_out)[0] if held_out else data
    transform = fit_transform(train)
    sampled = train.x[torch.linspace(0, len(train) - 1, min(len(train), _COMPARED)).long()]
    reach = _largest_distance(transform.forward(sampled))
    if reach == 0:
        raise InputError(f"got held_out={held_out}, which leaves {len(train)} equal rows; expected different ones; "
                         "hold out fewer")
    net = net or default_net(data, model_shape(train, transform))
    stops = data.kind in WITH_MISSING and net not in BATCH and held_out > 0 and "steps" not in overrides
    return Problem(train, held_out, transform, deviation(train.x, transform), reach, net, prediction_type, stops)


def _largest_distance(z: Tensor) -> float:
    """The largest distance between two rows, with missing cells at 0."""
    rows = z.flatten(1).double().nan_to_num(0.0)
    return float(torch.cdist(rows, rows).max())


def _held_out(data: Dataset) -> int:
    """A fifth of the rows, two fifths of points, up to 5,000 or 4,000."""
    if len(data) < 10:
        return 0
    if simulation_recipe.is_simulation(data):
        return simulation_recipe.held_out(len(data))
    return min(4000, 2 * len(data) // 5) if data.kind == "points" else min(5000, len(data) // 5)


def _rows(case: Problem) -> Choice:
    learned = f"{len(case.train):,} are used for training."
    why = f"{case.held_out:,} rows are held out for measurements, {learned}" if case.held_out else f"All {learned}"
    if case.train.kind == "image" and len(case.train) < _FEW:
        why += " A model soon memorises so few pictures; --flip and --shift make more of them, where they fit the data."
    return Choice({"held_out": case.held_out}, why)


def _process(case: Problem, sde: str) -> Choice:
    """Noise up to the largest distance of the data. Reference: Song and Ermon (2020), technique 1. arXiv:2006.09011"""
    sigma_max = _round_up(case.reach)
    args = {"edm": {"sigma_max": sigma_max}, "ve": {"sigma_min": 0.002, "sigma_max": sigma_max, "from_data": True}}
    why = (f"Noise up to sigma = {sigma_max:g}, at which no two rows can be distinguished: the two farthest are "
           f"{case.reach:.3g} apart in model units, where the data have standard deviation {case.data_std:.3g}.")
    return Choice({"sde": sde, "sde_args": args.get(sde, {})}, why)


def _levels(case: Problem) -> Choice:
    """The distribution of the noise levels in training."""
    mean, std = (-1.2, 1.2) if case.image else (-1.6, 1.6)
    where = "where images take shape" if case.image else "down to those that resolve thin curves"
    return Choice({"level_mean": mean, "level_std": std}, f"Noise levels lognormal({mean:g}, {std:g}), {where}.")


def _stopping(case: Problem) -> list[Choice]:
    """Early stopping for tables, of which some need fifty times as many updates as others of their size."""
    if not case.stops:
        return []
    why = (f"Training ends when the held-out path loss has not improved for {_PATIENCE} checkpoints, and the best one "
           "is the model: a table of independent columns needs few updates, one of words many.")
    return [Choice({"patience": _PATIENCE}, why)]


def _updates(case: Problem, overrides: dict[str, Any]) -> Choice:
    """The optimizer; its sentence includes the overrides.

    A learning rate that falls would presuppose the last update, so with early stopping it is constant and the average
    of the weights is longer.
    """
    batch = min(len(case.train), BATCH.get(case.net, 128 if case.image or case.table else 256))
    lr, schedule = (2e-3, "linear") if case.image else (1e-3 if case.table else 5e-3, "cosine")
    fields = {"lr": lr, "schedule": schedule, "batch_size": batch, "warmup": 50, "optimizer": "adamw",
              "betas": (0.9, 0.99),
              "ema_decay": 0.999 if case.net in BATCH else 0.99 if case.table else 0.998}
    if case.stops:
        fields |= {"lr": 2e-3, "schedule": "constant", "ema_decay": 0.995}
    values = {**fields, **overrides}
    name = {"adam": "Adam", "adamw": "AdamW", "muon": "Muon"}[values["optimizer"]]
    falls = "is constant" if values["schedule"] == "constant" else f"falls to 0 ({values['schedule']})"
    return Choice(fields, f"{name} on {values['batch_size']} rows per update, with a learning rate of "
                         f"{values['lr']:g} that {falls}.")


def _duration(case: Problem, batch: int) -> Choice:
    """The number of updates: as many as the kind of data needs, up to a number of epochs."""
    needed, most = _rows_needed(case) // batch, _epochs(case) * len(case.train) // batch
    steps = min(max(needed, _min_steps(case)), _max_steps(case, batch))
    why = ("which is enough for data of this kind" if needed <= most else
           f"in which every row is used {_epochs(case)} times")
    if case.stops:
        steps = _max_steps(case, batch)
        why = "if the held-out path loss improves until then"
    return Choice({"steps": steps, "save_every": _save_every(case, batch, steps)}, f"{steps:,} updates, {why}.")


def _within(case: Problem, experiment: Experiment, data: Dataset, minutes: float, save_every: int | None) -> Choice:
    """The number of updates that fit into a time, up to the number at which overfitting begins."""
    most = _max_steps(case, experiment.batch_size)
    timing = measure(Recipe(experiment, (), data, case.transform, case.data_std))
    fitting = timing.max_steps(60 * minutes, lambda n: save_every or _save_every(case, experiment.batch_size, n))
    if fitting == 0:
        raise InputError(f"got minutes={minutes:g}, in which no update fits: one takes {timing.update:.3g} s here "
                         f"and a checkpoint {timing.save:.3g} s; give more minutes or a smaller batch")
    steps = min(fitting, most)
    uses = experiment.batch_size * steps / len(case.train)
    why = (f"as many as fit into {minutes:g} minutes: one takes {timing.update:.3g} s on this machine, a checkpoint "
           f"with its measurements {timing.save:.2g} s" if fitting <= most else
           f"in which every row is used {uses:.0f} times, although {fitting:,} would fit into {minutes:g} minutes: "
           "more updates would overfit")
    return Choice({"steps": steps, "save_every": _save_every(case, experiment.batch_size, steps)},
                   f"{steps:,} updates, {why}.")


def _check_time(minutes: float | None, overrides: dict[str, Any]) -> None:
    if minutes is None:
        return
    if not 0 < minutes < math.inf:
        raise InputError(f"got minutes={minutes:g}; expected a number above 0")
    if "steps" in overrides:
        raise InputError(f"got minutes={minutes:g} and steps={overrides['steps']}; give one of them")
    if launched() > 1:
        raise InputError(f"got minutes={minutes:g} for {launched()} processes, which would measure "
                         "different times; give steps")


def _fields(parts: list[Choice]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.fields.items()}


def _save_every(case: Problem, batch: int, steps: int) -> int:
    """Updates between checkpoints: an eighth of all, at least 100; with early stopping four epochs, 100 to 500."""
    return max(100, min(500, 4 * len(case.train) // batch) if case.stops else -(-steps // 8))


def _epochs(case: Problem) -> int:
    """The number of epochs after which a network begins to overfit."""
    return _EPOCHS // 2 if case.table or case.corrects else _EPOCHS


def _min_steps(case: Problem) -> int:
    return _MIN_STEPS // 5 if case.table else _MIN_STEPS // 2 if case.corrects else _MIN_STEPS


def _max_steps(case: Problem, batch: int) -> int:
    """The number of updates at which overfitting begins, but at least `_min_steps`; with early stopping a bound on the
    time."""
    if case.stops:
        return _TABLE_ROWS // batch
    return max(_min_steps(case), _epochs(case) * len(case.train) // batch)


def _conditions(case: Problem) -> list[Choice]:
    """The fraction of rows in which each of several conditions is hidden."""
    several = len(case.train.conditions) + (case.train.y is not None)
    if several < 2 or not case.train.conditions:
        return []
    why = f"Each of {several} conditions is hidden in {_HIDDEN:.0%} of the rows, so that any subset can be given."
    return [Choice({"label_dropout": _HIDDEN}, why)]


def _rows_needed(case: Problem) -> int:
    """The number of rows that a training needs; for a U-Net such that images of any size take the same time."""
    if case.net != "unet":
        return 256_000 if case.image else 512_000
    places = math.prod(-(-side // unet_args(case)["stem"]) for side in case.space)
    return max(32_000, int(128_000 * 196 / places))


def _round_up(x: float) -> float:
    """x rounded up to one significant digit."""
    unit = 10.0 ** math.floor(math.log10(x))
    return round(math.ceil(x / unit) * unit, 12)
