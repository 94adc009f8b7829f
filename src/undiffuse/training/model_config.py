"""From an experiment and its data to a denoiser, and from a denoiser to the JSON that rebuilds it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from undiffuse import __version__, moments, nets
from undiffuse.data import Dataset, Transform
from undiffuse.data.dataset import fit_transform
from undiffuse.data.lazy import Lazy
from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.model import Denoiser
from undiffuse.moments import Moments, measurable
from undiffuse.predictions import WIENER
from undiffuse.processes import make_sde
from undiffuse.training.distributed import local_rank
from undiffuse.training.precision import precision
from undiffuse.transforms import base
from undiffuse.transforms.conditions import from_config, split
from undiffuse.transforms.table_schema import TableSchema

FORMAT = 1
_HALFWAY = 2  # of models with predict="wiener", since their networks see what `Moments.precondition` shows them now
_CHUNK = 4096


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is cuda if there is one, else mps, else cpu. MachineError if it is missing.

    Of several processes on one machine each takes a GPU of its own.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    device = torch.device(name)
    if device == torch.device("cuda") and local_rank():
        device = torch.device("cuda", local_rank())
    if not there[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError(f"got device {name}, but this machine or this PyTorch has none; use auto or cpu")
    return device


def describe(experiment: Experiment, train: Dataset, fingerprint: str, transform: Transform | None = None,
             std: float | None = None) -> dict[str, Any]:
    """What `rebuild` needs, as JSON; what the experiment leaves open is measured on the training rows.

    `fingerprint` is that of all the data, the held-out rows included. `transform` and `std`, the deviation of the rows
    in model units, are measured if they are not given.
    """
    transform, chosen = transform or fit_transform(train), precision(experiment, pick_device(experiment.device))
    shape = model_shape(train, transform)
    classes = len(train.classes) if train.y is not None else 0
    known = [] if train.condition_values is None else [
        c.fitted(split(train.conditions, train.condition_values)[c.name]) for c in train.conditions]
    given = {"given": [list(c.form) for c in known]} if known else {}
    return {
        "format": _format(experiment.predict),
        "net": {**experiment.net_args, "name": experiment.net, "shape": shape, "classes": classes, **given},
        **({"conditions": [c.config() for c in known]} if known else {}),
        "moments": measurable(tuple(shape)) and len(train) > 1,
        "sde": make_sde(experiment.sde, **experiment.sde_args).config(),
        "predict": experiment.predict,
        "sigma_data": experiment.sigma_data or (deviation(train.x, transform) if std is None else std),
        "transform": transform.config(),
        "block": experiment.block,
        "dtype": experiment.dtype,
        **({"precision": chosen} if chosen != "fp32" else {}),
        "data": {"name": train.name, "kind": train.kind, "levels": train.levels, "classes": list(train.classes),
                 "counts": torch.bincount(train.y, minlength=classes).tolist() if train.y is not None else [],
                 "label": experiment.label, "columns": list(train.columns),
                 "categories": [list(c) for c in train.categories], "notes": list(train.notes), "rows": len(train),
                 "fingerprint": fingerprint},
        "versions": versions(),
    }


def rebuild(config: Mapping[str, Any]) -> Denoiser:
    """The denoiser that `describe` described, its weights not yet set; InputError for anything else."""
    try:
        if config["format"] != _format(config["predict"]):
            raise ValueError(f"with predict={config['predict']!r} its format is {config['format']}, and this version "
                             f"reads {_format(config['predict'])}; train it again")
        net = nets.build(**config["net"]).to(_dtype(config["dtype"]))
        model = Denoiser(net, make_sde(**config["sde"]), config["predict"], shape=tuple(config["net"]["shape"]),
                         sigma_data=config["sigma_data"], transform=base.from_config(config["transform"]),
                         classes=config["net"]["classes"], block=config["block"],
                         conditions=[from_config(c) for c in config.get("conditions", ())])
        model.schema = TableSchema.from_config(config["data"], model.conditions)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the description of the model is not one of undiffuse: {error!r}") from None
    model.moments = Moments.blank(model.shape) if config["moments"] else None
    return model


def initialized(config: Mapping[str, Any], seed: int, data: Dataset) -> Denoiser:
    """The model that a run of that description starts from."""
    model = rebuild(config)
    nets.initialize(model.net, seed)
    model.moments = moments_of(data, model)
    return model


def moments_of(data: Dataset, model: Denoiser) -> Moments | None:
    """The mean and covariance of the data in model units (`missing.measured`); None if the model has none."""
    if model.moments is None:
        return None
    return moments.measured(data.x, torch.arange(len(data)), model.transform, data.kind == "table")


def deviation(x: Tensor, transform: Transform) -> float:
    """The standard deviation of all the numbers of the data in model units; cells that are missing have none.

    Data on the disk are measured on 10,000 rows.
    """
    count, total, squares = 0, 0.0, 0.0
    if isinstance(x, Lazy):
        x = x[torch.linspace(0, len(x) - 1, min(len(x), moments.MEASURED)).round().long()]
    for part in torch.split(x, _CHUNK):
        z = transform.forward(part).double()
        seen = z[~z.isnan()]
        count, total, squares = count + seen.numel(), total + float(seen.sum()), squares + float(seen.square().sum())
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))


def model_shape(data: Dataset, transform: Transform) -> list[int]:
    """The shape of one sample in model units."""
    return list(transform.forward(data.x[:1]).shape[1:])


def versions() -> dict[str, str]:
    """The versions that decide the last bits of a result."""
    return {"undiffuse": __version__, "torch": torch.__version__, "python": platform.python_version(),
            "machine": platform.machine()}


def _format(predict: str) -> int:
    return _HALFWAY if predict == WIENER else FORMAT


def _dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "float64": torch.float64}[name]
