"""What a run is: the data, the process, the network and the optimiser, as plain values that fit in one JSON file.

Two runs of equal experiments give the same weights bit for bit (on one machine); so an experiment is both the recipe
of a run and its identity.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from undiffuse.errors import InputError, did_you_mean
from undiffuse.hashing import sha256_of

if TYPE_CHECKING:
    from undiffuse.data import Dataset, Transform

MEMORY = "memory:"
"""What `Experiment.data` begins with where the data were in memory; a name follows."""

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a training.

    `data`          where the data come from: a built-in name or a path, as `open_data` takes it; memory:NAME of data in
                    memory, which `train` has to be given.
    `size`          side in pixels that images are brought to; None: as they are.
    `label`         the column (tables) that holds the class; None: the source's own labels, if any.
    `condition`     the columns (tables) or keys (.npz) that are conditions, as NAME or NAME:KIND.
    `first`         so many rows from the start of the data, of a set of the hub without fetching the others; None: all.
    `held_out`      number of rows kept away from the training, to measure with.
    `sde`, `sde_args`  the diffusion process by name, and its arguments.
    `net`, `net_args`  the network by name, and its arguments.
    `predict`       what the network's output stands for: edm, data, noise, score, v, velocity or wiener.
    `sigma_data`    standard deviation of the data in model units; None: measured on the training rows.
    `weighting`     weight of the loss at each level: edm, simple, likelihood, min_snr, whitened or learned.
    `levels`        law of the noise levels in training. For lognormal: log(σ̂) ~ N(level_mean, level_std²), where
                    σ̂ = sigma/alpha in units in which the data have standard deviation 0.5.
    `level_mean`, `level_std`  see `levels`.
    `steps`         number of updates.       `batch`  rows per update.
    `lr`            highest learning rate.   `warmup`  updates in which it rises linearly from 0.
    `schedule`      what it does afterwards: constant, linear (to 0) or cosine (to 0).
    `optimizer`     adam, adamw or muon (hidden matrices; adamw for the rest), with `betas` and `weight_decay`.
    `clip`          largest norm of the gradient; None: no clipping.
    `ema`           decay per update of the moving average of the weights, which is what is sampled.
    `label_dropout` share of the labels hidden in training, so that one network learns p(x|y) and p(x); of several
                    conditions each is hidden as often, one independent of another.
    `flip`          whether images are mirrored left to right, each with probability 1/2.
    `shift`         number of pixels by which images are moved at most, down or up and right or left.
    `exact`         whether sums over a batch have the same bits on 1, 2, 4 and 8 processes.
    `seed`          the seed of everything random.
    `save_every`    updates between checkpoints.
    `patience`      saves without a lower held-out path loss after which the training ends; the model is then that of
                    the best save. 0: it makes all its updates, and the model is that of the last.
    `block`         rows per evaluation of the network outside training; fixed, so that results do not depend on
                    how many are asked for.
    `device`        auto, cpu, cuda, cuda:N or mps.   `dtype`  float32 or float64.
    `precision`     of the layers in training: fp32 (that is, `dtype`), bf16, or auto.
    `compile`       whether they are compiled in training: on, off or auto; changes the last bits only.

    Raises InputError, in one sentence, for a value outside its domain.
    """

    data: str
    size: int | None = None
    label: str | None = None
    condition: tuple[str, ...] = ()
    first: int | None = None
    held_out: int = 0
    sde: str = "vp"
    sde_args: Mapping[str, Any] = field(default_factory=dict)
    net: str = "mlp"
    net_args: Mapping[str, Any] = field(default_factory=dict)
    predict: str = "edm"
    sigma_data: float | None = None
    weighting: str = "edm"
    levels: str = "lognormal"
    level_mean: float = -1.2
    level_std: float = 1.2
    steps: int = 2000
    batch: int = 256
    lr: float = 1e-3
    schedule: str = "cosine"
    warmup: int = 100
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float = 0.999
    label_dropout: float = 0.1
    flip: bool = False
    shift: int = 0
    exact: bool = False
    seed: int = 0
    save_every: int = 500
    patience: int = 0
    block: int = 64
    device: str = "auto"
    dtype: str = "float32"
    precision: str = "fp32"
    compile: str = "off"

    def __post_init__(self) -> None:
        for name, domain in _DOMAINS.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, domain.clean(value))
            except (ValueError, TypeError, OverflowError, RecursionError):
                raise InputError(f"got {name}={_short(value)}, expected {domain.words}") from None

    def to_dict(self) -> dict[str, Any]:
        """The experiment as JSON types; `from_dict` is the inverse. Later fields are left out at their default."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in _LATER or v != _LATER[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Experiment:
        """The experiment that `to_dict` gave; InputError names a key that is unknown or missing."""
        if not isinstance(values, Mapping):
            raise InputError(f"got {_short(values)}, expected the fields of an experiment as a JSON object")
        known = {f.name for f in dataclasses.fields(cls)}
        _no_other_keys(values, known)
        missing = sorted(known - set(values) - set(_LATER))
        if missing:
            raise InputError(f"the experiment lacks {', '.join(missing)}; every field has to be given")
        return cls(**values)

    def replace(self, **changes: Any) -> Experiment:
        """The same experiment with some fields changed; InputError names a field that does not exist."""
        _no_other_keys(changes, _DOMAINS)
        return dataclasses.replace(self, **changes)

    def digest(self) -> str:
        """The identity of the experiment: SHA-256, in hex, of its canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return sha256_of(text)

    def differences(self, other: Experiment) -> list[str]:
        """The names of the fields whose values differ, in the order of the fields."""
        return [name for name in _DOMAINS if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, eq=False)
class Recipe:
    """An experiment, why it is so, and the data that were opened and measured to choose it.

    Args:
        experiment: What to train.
        reasons: A sentence for each choice.
        data: All the data; None: those that the experiment names, not opened yet.
        transform: To model units, measured on the rows that are not held out; None: not measured yet.
        deviation: The standard deviation of those rows in model units.
    """

    experiment: Experiment
    reasons: tuple[str, ...] = ()
    data: Dataset | None = None
    transform: Transform | None = None
    deviation: float | None = None

    def __repr__(self) -> str:
        return f"Recipe({self.experiment.data!r}, {self.experiment.steps} updates of {self.experiment.net})"


def read(path: Path | str) -> Experiment:
    """The experiment in a JSON file, or in the `experiment.json` of a run's folder; InputError if there is none."""
    path = Path(path)
    file = path / "experiment.json" if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
        if len(text) > _MAX_BYTES:
            raise ValueError("it is larger than 1 MiB")
        values = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot read an experiment from {file}: {reason}; expected a run's experiment.json") from None
    return Experiment.from_dict(values)


class FieldSpec(NamedTuple):
    """The values that a field may have: in words, and a function to the canonical value that raises for the rest."""

    words: str
    clean: Callable[[Any], Any]


def _whole(low: int) -> FieldSpec:
    def clean(value: Any) -> int:
        number = operator.index(value)
        _check(value, number >= low and not isinstance(value, bool))
        return number

    return FieldSpec(f"a whole number of at least {low}", clean)


def _real(words: str, holds: Callable[[float], bool] = lambda x: True) -> FieldSpec:
    def clean(value: Any) -> float:
        _check(value, isinstance(value, numbers.Real) and not isinstance(value, bool))
        number = float(value)
        _check(value, math.isfinite(number) and holds(number))
        return number

    return FieldSpec(words, clean)


def _text(words: str, pattern: str = r"[^\0\ud800-\udfff]+") -> FieldSpec:
    return FieldSpec(words, lambda value: _check(value, re.fullmatch(pattern, value) is not None))


def _choice(*options: str) -> FieldSpec:
    return _text("one of " + ", ".join(options), "|".join(options))


def _or_none(domain: FieldSpec) -> FieldSpec:
    return FieldSpec(domain.words + ", or none", lambda value: None if value is None else domain.clean(value))


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


def _no_other_keys(given: Iterable[str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            hint = did_you_mean(str(key), known) or "; the fields are " + ", ".join(_DOMAINS)
            raise InputError(f"an experiment has no field {_short(key)}{hint}")


def _short(value: Any) -> str:
    """The value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_NAME = _text("a name")
_ARGS = FieldSpec("a set of named JSON values", _object)
_YES_OR_NO = FieldSpec("true or false", lambda value: _check(value, isinstance(value, bool)))
_POSITIVE = _real("a number above 0", lambda x: x > 0)

_DOMAINS: dict[str, FieldSpec] = {
    "data": _text("a built-in name or a path"),
    "size": _or_none(_whole(1)),
    "label": _or_none(_NAME),
    "condition": FieldSpec("a list of different names", _names),
    "first": _or_none(_whole(2)),
    "held_out": _whole(0),
    "sde": _NAME,
    "sde_args": _ARGS,
    "net": _NAME,
    "net_args": _ARGS,
    "predict": _NAME,
    "sigma_data": _or_none(_POSITIVE),
    "weighting": _NAME,
    "levels": _NAME,
    "level_mean": _real("a number"),
    "level_std": _POSITIVE,
    "steps": _whole(1),
    "batch": _whole(1),
    "lr": _POSITIVE,
    "schedule": _choice("constant", "cosine", "linear"),
    "warmup": _whole(0),
    "optimizer": _choice("adam", "adamw", "muon"),
    "betas": FieldSpec("two numbers, each at least 0 and below 1", _pair),
    "weight_decay": _real("a number of at least 0", lambda x: x >= 0),
    "clip": _or_none(_POSITIVE),
    "ema": _real("a number above 0 and below 1", lambda x: 0 < x < 1),
    "label_dropout": _real("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "flip": _YES_OR_NO,
    "shift": _whole(0),
    "exact": _YES_OR_NO,
    "seed": FieldSpec("a whole number from 0 to 2^64 - 1", lambda x: _check(_whole(0).clean(x), x < 1 << 64)),
    "save_every": _whole(1),
    "patience": _whole(0),
    "block": _whole(1),
    "device": _text("auto, cpu, cuda, cuda:N or mps", r"auto|cpu|cuda(:\d+)?|mps"),
    "dtype": _choice("float32", "float64"),
    "precision": _choice("auto", "fp32", "bf16"),
    "compile": _choice("auto", "on", "off"),
}
_LATER: dict[str, Any] = {"condition": (), "first": None, "patience": 0, "precision": "fp32", "compile": "off"}
