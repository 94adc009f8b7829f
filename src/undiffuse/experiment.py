"""The settings of a training run as plain values that fit in one JSON file.

Equal experiments give equal weights, bit for bit, on one machine: an experiment is the recipe and the identity of a
run. The fields of `Experiment` are the only list of settings: defaults, domains, the class docstring, the command's
flags and their help follow from them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import operator
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from undiffuse.errors import InputError, did_you_mean
from undiffuse.hashing import sha256_of
from undiffuse.regular_files import open_regular

if TYPE_CHECKING:
    from undiffuse.data import Dataset, Transform

MEMORY = "memory:"
"""Prefix of `Experiment.data` for data that were in memory; a name follows."""

DEVICES = r"auto|cpu|cuda(:\d{1,4})?|mps"
"""Pattern of the names of devices."""
_MAX_BYTES = 1 << 20
_TABLE = ("ignore", "columns", "missing", "header", "sep", "decimal", "encoding")


class FieldSpec(NamedTuple):
    """The domain of a field: its description, and a function to the canonical value that raises for any other."""

    description: str
    clean: Callable[[Any], Any]


def _integer(low: int) -> FieldSpec:
    def clean(value: Any) -> int:
        number = operator.index(value)
        _check(value, number >= low and not isinstance(value, bool))
        return number

    return FieldSpec(f"a whole number of at least {low}", clean)


def _real(description: str, holds: Callable[[float], bool] = lambda x: True) -> FieldSpec:
    def clean(value: Any) -> float:
        _check(value, isinstance(value, numbers.Real) and not isinstance(value, bool))
        number = float(value)
        _check(value, math.isfinite(number) and holds(number))
        return number

    return FieldSpec(description, clean)


def _text(description: str, pattern: str = r"[^\0\ud800-\udfff]+") -> FieldSpec:
    return FieldSpec(description, lambda value: _check(value, re.fullmatch(pattern, value) is not None))


def _choice(*options: str) -> FieldSpec:
    return _text("one of " + ", ".join(options), "|".join(options))


def _or_none(domain: FieldSpec) -> FieldSpec:
    return FieldSpec(domain.description + ", or none", lambda value: None if value is None else domain.clean(value))


def _object(value: Any) -> dict[str, Any]:
    clean: dict[str, Any] = json.loads(json.dumps(_check(value, isinstance(value, Mapping)), allow_nan=False))
    return clean


def _pair(value: Any) -> tuple[float, float]:
    first, second = (_real("", lambda x: 0 <= x < 1).clean(item) for item in value)
    return first, second


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(_NAME.clean(name) for name in _check(value, isinstance(value, list | tuple)))
    _check(names, len(set(names)) == len(names))
    return names


def _check(value: Any, holds: bool) -> Any:
    if not holds:
        raise ValueError
    return value


_NAME = _text("a name")
_ARGS = FieldSpec("a set of named JSON values", _object)
_YES_OR_NO = FieldSpec("true or false", lambda value: _check(value, isinstance(value, bool)))
_POSITIVE = _real("a number above 0", lambda x: x > 0)


def setting(domain: FieldSpec, default: Any, help: str, flag: bool = True) -> Any:
    """A field of `Experiment` with its domain, default and help; `flag`: whether the command line has it."""
    metadata = {"domain": domain, "help": help, "flag": flag}
    if default in ({}, ()):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Experiment:
    """All settings that determine the result of training; the fields are keyword arguments.

    Args:
{fields}

    Raises:
        InputError: For a value outside its domain.
    """

    data: str = setting(
        _text("a built-in name or a path"), dataclasses.MISSING,
        "Source of the data as `open_data` takes it; memory:NAME for data in memory, passed to `train`.",
        False)
    image_size: int | None = setting(
        _or_none(_integer(1)), None, "Side in pixels to which images are resized; none: unchanged.")
    label: str | None = setting(
        _or_none(_NAME), None, "Column of a table that holds the class; none: the labels of the source, if any.")
    condition: tuple[str, ...] = setting(
        FieldSpec("a list of different names", _names), (),
        "Columns (tables) or keys (.npz) that are conditions: age,sex, or with a kind: note:words.")
    ignore: tuple[str, ...] = setting(
        FieldSpec("a list of different names", _names), (), "Columns of a table that are left out: id,name.")
    columns: tuple[str, ...] = setting(
        FieldSpec("a list of different names", _names), (), "Columns of a table that are learned: age,fare; by "
                                                            "default all.")
    missing: tuple[str, ...] = setting(
        FieldSpec("a list of different texts", _names), (),
        "Texts that stand for a missing value in every column of a table: -999,unknown.")
    header: str = setting(
        _choice("auto", "yes", "no"), "auto", "Whether the first line of a table holds names: yes, no, or auto.")
    sep: str | None = setting(
        _or_none(_text("one character, tab, or space", r"[^\0\n\r\w]|tab|space")), None,
        "Separator of the cells of a table: one character, tab or space; none: decided from the lines.")
    decimal: str | None = setting(
        _or_none(_text("a point or a comma", r"[.,]")), None,
        "Decimal sign of a table, a point or a comma; none: decided from the cells.")
    encoding: str | None = setting(
        _or_none(_text("the name of an encoding", r"[\w-]{1,30}")), None,
        "Encoding of a table, such as cp1252 or mac_roman; none: decided from the bytes.")
    time: str | None = setting(
        _or_none(_NAME), None, "Column of the times of a series, whose windows are learned; none: the rows are "
                               "consecutive steps.")
    window: int | None = setting(
        _or_none(_integer(2)), None, "Number of steps of a window, which makes a table a series; none: its rows are "
                               "learned.")
    stride: int = setting(_integer(1), 1, "Steps between the beginnings of consecutive windows of a series.")
    group: str | None = setting(
        _or_none(_NAME), None, "Column that tells the series of a table apart; none: one series.")
    layout: str | None = setting(
        _or_none(_text("one letter per axis, such as NTC or NCHW", "[A-Za-z]{2,5}")), None,
        "Axes of an array: N samples, C channels, T time, D H W space, such as NTC, NHWC or NCDHW; none: inferred.")
    channels: tuple[str, ...] = setting(
        FieldSpec("a list of different names", _names), (), "Names of the channels of an array: u,v,pressure.")
    key: str | None = setting(
        _or_none(_NAME), None, "Name of the array in an .npz file; none: x, arr_0, images or data.")
    skip_broken: bool = setting(
        _YES_OR_NO, False, "Leave out images of a folder that cannot be read, or differ from the others in size or "
                           "mode.")
    max_rows: int | None = setting(
        _or_none(_integer(2)), None,
        "Number of rows to take from the start of the data; for OWNER/NAME only these are downloaded.")
    held_out: int = setting(_integer(0), 0, "Number of rows held out of training for evaluation.")
    sde: str = setting(_NAME, "vp", "Diffusion process: vp, subvp, ve, power_ve, edm, cosine or rectified_flow.")
    sde_args: Mapping[str, Any] = setting(_ARGS, {}, "Arguments of the process, as in --sde-args.sigma-max 80.")
    net: str = setting(_NAME, "mlp", "Network: mlp, unet or dit.")
    net_args: Mapping[str, Any] = setting(_ARGS, {}, "Arguments of the network.", False)
    prediction_type: str = setting(
        _NAME, "edm", "Quantity that the network predicts: edm, data, noise, score, v, velocity, wiener or linear.")
    sigma_data: float | None = setting(
        _or_none(_POSITIVE), None,
        "Standard deviation of the data in model units; none: measured on the training rows.", False)
    weighting: str = setting(
        _NAME, "edm", "Weight of the loss at each noise level: edm, simple, likelihood, min_snr, whitened or learned.")
    noise_distribution: str = setting(
        _NAME, "lognormal",
        "Distribution of the noise levels in training: lognormal, log_uniform, importance or time. For lognormal, "
        "log(sigma/alpha) ~ N(level_mean, level_std^2) in units in which the data have standard deviation 0.5.", False)
    level_mean: float = setting(_real("a number"), -1.2, "Mean of the lognormal distribution of noise levels.", False)
    level_std: float = setting(
        _POSITIVE, 1.2, "Standard deviation of the lognormal distribution of noise levels.", False)
    steps: int = setting(_integer(1), 2000, "Number of updates.")
    batch_size: int = setting(_integer(1), 256, "Rows per update, over all processes.")
    lr: float = setting(_POSITIVE, 1e-3, "Highest learning rate.")
    schedule: str = setting(
        _choice("constant", "cosine", "linear"), "cosine",
        "Learning rate after the warm-up: constant, linear (to 0) or cosine (to 0).", False)
    warmup: int = setting(_integer(0), 100, "Updates in which the learning rate rises linearly from 0.", False)
    optimizer: str = setting(
        _choice("adam", "adamw", "muon"), "adam", "adam, adamw or muon (hidden matrices; adamw for the rest).")
    betas: tuple[float, float] = setting(
        FieldSpec("two numbers, each at least 0 and below 1", _pair), (0.9, 0.999),
        "Decay rates of the optimizer's moments.", False)
    weight_decay: float = setting(
        _real("a number of at least 0", lambda x: x >= 0), 0.0, "Weight decay of the optimizer.", False)
    max_grad_norm: float | None = setting(
        _or_none(_POSITIVE), 1.0, "Largest norm of the gradient, to which it is clipped; none: no clipping.", False)
    ema_decay: float = setting(
        _real("a number above 0 and below 1", lambda x: 0 < x < 1), 0.999,
        "Decay per update of the moving average of the weights; the averaged model is sampled.")
    label_dropout: float = setting(
        _real("a number from 0 to 1", lambda x: 0 <= x <= 1), 0.1,
        "Fraction of the rows in which the class, and each condition independently, is hidden in training, so that one "
        "network learns p(x|y) and p(x).")
    conditional_mean: bool = setting(
        _YES_OR_NO, False, "Start from the best linear prediction of the data from class and conditions, which the "
                           "network corrects; with prediction_type wiener.")
    flip: bool = setting(_YES_OR_NO, False, "Mirror images left to right, each with probability 1/2.")
    shift: int = setting(
        _integer(0), 0, "Largest random shift of images, vertically and horizontally, in pixels.")
    deterministic_reduction: bool = setting(
        _YES_OR_NO, False, "Make the sum over a batch bit-identical on 1, 2, 4 and 8 processes.")
    seed: int = setting(
        FieldSpec("a whole number from 0 to 2^64 - 1", lambda x: _check(_integer(0).clean(x), x < 1 << 64)), 0,
        "Seed of all random numbers.")
    save_every: int = setting(_integer(1), 500, "Updates between checkpoints.")
    patience: int = setting(
        _integer(0), 0,
        "Early stopping: end after this many checkpoints without a lower held-out path loss and take the best one; 0: "
        "make all updates and take the last one.")
    eval_batch_size: int = setting(
        _integer(1), 64,
        "Rows per evaluation of the network outside training; part of the run, so that results do not depend on the "
        "number of samples.", False)
    device: str = setting(
        _text("auto, cpu, cuda, cuda:N or mps", DEVICES), "auto", "auto, cpu, cuda, cuda:N or mps.")
    dtype: str = setting(_choice("float32", "float64"), "float32", "float32 or float64.", False)
    precision: str = setting(
        _choice("auto", "fp32", "bf16"), "fp32",
        "Precision of the layers in training: fp32 (that is, dtype), bf16, or auto (bf16 for a U-Net or DiT on GPUs "
        "with bf16 units).")
    compile: str = setting(
        _choice("auto", "on", "off"), "off",
        "Compile the layers in training: on, off or auto (where it is faster); results differ by rounding only.")

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value, domain = getattr(self, name), setting.metadata["domain"]
            try:
                object.__setattr__(self, name, domain.clean(value))
            except (ValueError, TypeError, OverflowError, RecursionError):
                raise InputError(f"got {name}={_short(value)}; expected {domain.description}") from None

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types; `from_dict` is the inverse."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Experiment:
        """The inverse of `to_dict`; InputError names an unknown or missing key."""
        if not isinstance(values, Mapping):
            raise InputError(f"got {_short(values)}; expected the fields of an experiment as a JSON object")
        _check_keys(values)
        missing = [name for name in SETTINGS if name not in values]
        if missing:
            raise InputError(f"the experiment lacks {', '.join(missing)}; every field must be given")
        return cls(**values)

    def table_options(self) -> dict[str, Any]:
        """The settings that say how a table is read and are not the default."""
        return {name: value for name in _TABLE if (value := getattr(self, name)) not in ((), None, "auto")}

    def data_options(self) -> dict[str, Any]:
        """The arguments of `data.open_data` that read the training data."""
        return {"size": self.image_size, "label": self.label, "condition": self.condition, "first": self.max_rows,
                "skip_broken": self.skip_broken, "time": self.time, "window": self.window, "stride": self.stride,
                "group": self.group, "layout": self.layout, "channels": self.channels, "key": self.key,
                **self.table_options()}

    def replace(self, **changes: Any) -> Experiment:
        """A copy with some fields changed; InputError names a field that does not exist."""
        _check_keys(changes)
        return dataclasses.replace(self, **changes)

    def digest(self) -> str:
        """SHA-256, in hex, of the canonical JSON: the identity of the experiment."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return sha256_of(text)

    def differences(self, other: Experiment) -> list[str]:
        """The names of the fields whose values differ, in the order of the fields."""
        return [name for name in SETTINGS if getattr(self, name) != getattr(other, name)]


SETTINGS: dict[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(Experiment)}
"""The fields of `Experiment` by name, with `domain`, `help` and `flag` in their metadata."""

Experiment.__doc__ = (Experiment.__doc__ or "").replace(
    "{fields}", "\n".join(f"        {name}: {f.metadata['help']}" for name, f in SETTINGS.items()))


@dataclass(frozen=True, eq=False)
class Recipe:
    """An experiment, the reasons for its choices, and the data that were opened and measured to choose it.

    Args:
        experiment: The settings of the training.
        reasons: One sentence per choice.
        data: All the data; None: those that the experiment names, not opened yet.
        transform: The transform to model units, fitted to the training rows; None: not fitted yet.
        data_std: The standard deviation of the training rows in model units.
    """

    experiment: Experiment
    reasons: tuple[str, ...] = ()
    data: Dataset | None = None
    transform: Transform | None = None
    data_std: float | None = None

    def __repr__(self) -> str:
        return f"Recipe({self.experiment.data!r}, {self.experiment.steps} updates of {self.experiment.net})"


def read(path: Path | str) -> Experiment:
    """The experiment in a JSON file, or in the `experiment.json` of a run's folder.

    Raises:
        InputError: If the file is missing or from another version.
    """
    path = Path(path)
    file = path / "experiment.json" if path.is_dir() else path
    try:
        with open_regular(file) as stream:
            text = stream.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("it is larger than 1 MiB")
        values = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read an experiment from {file}: {reason}; expected a run's experiment.json") from None
    try:
        return Experiment.from_dict(values)
    except InputError as error:
        if not isinstance(values, Mapping) or SETTINGS.keys() == values.keys():
            raise
        source = str(values.get("data", "DATA"))
        command = shlex.join(["undiffuse", "train", source[:200], "--out", f"{file.parent}-2"])
        raise InputError(f"{file} is not an experiment of this version: {error}; train it again: `{command}`") from None


def _check_keys(names: Iterable[str]) -> None:
    for key in names:
        if key not in SETTINGS:
            hint = did_you_mean(str(key), SETTINGS) or "; the fields are " + ", ".join(SETTINGS)
            raise InputError(f"an experiment has no field {_short(key)}{hint}")


def _short(value: Any) -> str:
    """The value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
