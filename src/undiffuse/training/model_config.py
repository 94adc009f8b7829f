"""The description of a model in JSON, made from an experiment and its data, and the denoiser that it describes."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from undiffuse import __version__, moments, nets
from undiffuse.data import Dataset, Transform
from undiffuse.data.dataset import WITH_MISSING, fit_transform
from undiffuse.data.lazy import Lazy
from undiffuse.errors import InputError, MachineError, quote
from undiffuse.experiment import DEVICES, Experiment
from undiffuse.model import Denoiser
from undiffuse.moments import Moments, best_kind, kind_for, measurable
from undiffuse.moments.conditional import Regression, feature_count, features_of
from undiffuse.processes import make_sde
from undiffuse.training.distributed import local_rank
from undiffuse.training.precision import precision
from undiffuse.training.series_fills import has_law, series_moments
from undiffuse.transforms import base
from undiffuse.transforms.array_schema import ArraySchema
from undiffuse.transforms.conditions import from_config, split
from undiffuse.transforms.table_schema import TableSchema

FORMAT = 4
_CHUNK = 4096
_LIKENED = 4000  # samples of an array from which the kind of moments is chosen


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is cuda if available, else mps, else cpu. MachineError if it does not exist.

    Each of several processes on one machine takes a separate GPU.
    """
    if not isinstance(name, str) or not re.fullmatch(DEVICES, name):
        raise InputError(f"got device {quote(name)}; expected auto, cpu, cuda, cuda:N or mps")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, exists in available.items() if exists)
    device = torch.device(name)
    if device == torch.device("cuda") and local_rank():
        device = torch.device("cuda", local_rank())
    if not available[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError(f"got device={name}; expected a device of this machine and this PyTorch; use auto or cpu")
    return device


def describe(experiment: Experiment, train: Dataset, fingerprint: str, transform: Transform | None = None,
             std: float | None = None) -> dict[str, Any]:
    """The description of a model as JSON, the input of `rebuild`.

    Args:
        experiment: The settings.
        train: The training rows.
        fingerprint: Fingerprint of all the data, held-out rows included.
        transform: The transform to model units; fitted to the training rows by default.
        std: Standard deviation of the training rows in model units; measured by default.
    """
    transform, layers = transform or fit_transform(train), precision(experiment, pick_device(experiment.device))
    shape = model_shape(train, transform)
    classes = len(train.classes) if train.y is not None else 0
    conditions = [] if train.condition_values is None else [
        c.fitted(split(train.conditions, train.condition_values)[c.name]) for c in train.conditions]
    return {
        "format": FORMAT,
        "net": {**experiment.net_args, "name": experiment.net, "shape": shape, "classes": classes,
                **({"conditions": [list(c.form) for c in conditions]} if conditions else {})},
        "conditions": [c.config() for c in conditions],
        "moments": _moments_kind(train, transform, tuple(shape)),
        "regression": feature_count(conditions, classes) if experiment.conditional_mean else 0,
        "sde": make_sde(experiment.sde, **experiment.sde_args).config(),
        "prediction_type": experiment.prediction_type,
        "sigma_data": experiment.sigma_data or (deviation(train.x, transform) if std is None else std),
        "transform": transform.config(),
        "eval_batch_size": experiment.eval_batch_size,
        "dtype": experiment.dtype,
        "precision": layers,
        "data": {"name": train.name, "kind": train.kind, "levels": train.levels, "classes": list(train.classes),
                 "counts": torch.bincount(train.y, minlength=classes).tolist() if train.y is not None else [],
                 "label": experiment.label, "columns": list(train.columns),
                 "categories": [list(c) for c in train.categories],
                 "schema": None if train.schema is None else train.schema.config(), "notes": list(train.notes),
                 "units": train.units and train.units.config(), "rows": len(train),
                 "array": train.array and train.array.config(),
                 "fingerprint": fingerprint},
        "versions": versions(),
    }


def _moments_kind(train: Dataset, transform: Transform, shape: tuple[int, ...]) -> str | None:
    """The kind of moments of the training rows: of arrays the likeliest one; None where they are not measured."""
    if not measurable(shape) or len(train) < 2:
        return None
    if train.kind != "array":
        return best_kind(shape, len(train))
    some = torch.linspace(0, len(train) - 1, min(len(train), _LIKENED)).round().long()
    return kind_for(transform.forward(train.x[some]))


def rebuild(config: Mapping[str, Any]) -> Denoiser:
    """The denoiser of a description, with weights that are not set yet; InputError for an invalid description."""
    try:
        if config["format"] != FORMAT:
            raise ValueError(f"its format is {config['format']}, and this version reads {FORMAT}; train it again")
        net = nets.build(**config["net"]).to(_dtype(config["dtype"]))
        model = Denoiser(net, make_sde(**config["sde"]), config["prediction_type"], shape=tuple(config["net"]["shape"]),
                         sigma_data=config["sigma_data"], transform=base.from_config(config["transform"]),
                         classes=config["net"]["classes"], block=config["eval_batch_size"],
                         conditions=[from_config(c) for c in config["conditions"]])
        model.schema = TableSchema.from_config(config["data"], model.conditions)
        model.array = ArraySchema.from_config(config["data"].get("array"))
        model.moments = Moments.blank(model.shape, config["moments"]) if config["moments"] else None
        if config["moments"] and config["regression"]:
            model.regression = Regression.blank(model.shape, config["moments"], config["regression"])
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError("got a description of a model (model/config.json) that this version cannot read: "
                         f"{reason}; train it again, or restore the file") from None
    return model


def initialized(config: Mapping[str, Any], seed: int, data: Dataset) -> Denoiser:
    """The initial model of a run: initial weights and the moments of the data.

    Args:
        config: Configuration of the model.
        seed: Seed of the initial weights.
        data: Training data.
    """
    model = rebuild(config)
    nets.initialize(model.net, seed)
    model.moments = moments_of(data, model)
    model.regression = regression_of(data, model)
    return model


def moments_of(data: Dataset, model: Denoiser) -> Moments | None:
    """The mean and covariance of the data in model units (`moments.measured`); None if the model has no moments."""
    if model.moments is None:
        return None
    if has_law(data) and bool(data.x.isnan().any()):
        return series_moments(data, model)
    return moments.measure_moments(data.x, torch.arange(len(data)), model.transform, data.kind in WITH_MISSING,
                                   model.moments.kind)


def regression_of(data: Dataset, model: Denoiser) -> Regression | None:
    """The regression of the data in model units on their conditions; None if the model has none."""
    if model.regression is None or model.moments is None:
        return None
    index = torch.linspace(0, len(data) - 1, min(len(data), moments.MOMENT_ROWS)).round().long()
    part = data.take(index)
    z = model.transform.forward(part.x)
    z = moments.fill_missing(z, model.moments, 0, 0) if bool(z.isnan().any()) else z
    rows = None if part.condition_values is None else torch.cat(
        [c.standardise(values) for c, values in zip(
            model.conditions, split(model.conditions, part.condition_values).values(), strict=True)], 1)
    features = features_of(model.conditions, rows, model.classes, part.y)
    return Regression.measure(z, features, model.moments)


def deviation(x: Tensor, transform: Transform) -> float:
    """The standard deviation of all entries of the data in model units, without missing ones.

    It is measured on 10,000 rows of data on the disk.
    """
    count, total, squares = 0, 0.0, 0.0
    if isinstance(x, Lazy):
        x = x[torch.linspace(0, len(x) - 1, min(len(x), moments.MOMENT_ROWS)).round().long()]
    for part in torch.split(x, _CHUNK):
        z = transform.forward(part).double()
        z = z[~z.isnan()]
        count, total, squares = count + z.numel(), total + float(z.sum()), squares + float(z.square().sum())
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))


def model_shape(data: Dataset, transform: Transform) -> list[int]:
    """The shape of one sample in model units."""
    return list(transform.forward(data.x[:1]).shape[1:])


def versions() -> dict[str, str]:
    """The versions that decide the last bits of a result."""
    return {"undiffuse": __version__, "torch": torch.__version__, "python": platform.python_version(),
            "machine": platform.machine()}


def _dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "float64": torch.float64}[name]
