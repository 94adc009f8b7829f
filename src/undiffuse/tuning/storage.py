"""A tuning on disk, beside its model: one safetensors file that is refused for any other model.

Which model a tuning is for: what is fitted to one says nothing of another, or of the same one after a training.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from undiffuse.data.writers import atomic
from undiffuse.errors import InputError
from undiffuse.hashing import canonical, sha256_of
from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.samplers.tuned import VALUES, ClassCoefficients, TunedSampler, Tuning


def model_digest(model: Model) -> str:
    """SHA-256 over a model's process, shape, scale, moments and weights."""
    about = [type(model.sde).__name__, str(model.sde), list(model.shape), model.sigma_data, model.classes]
    moments = {} if model.moments is None else model.moments.tensors()
    return tensors_sha256({**model.state_dict(), **{f"moments.{k}": v for k, v in moments.items()}}, about)


def tensors_sha256(tensors: dict[str, Tensor], about: Any) -> str:
    """SHA-256 (hex) over named tensors and a JSON value."""
    parts = [part for name, tensor in sorted(tensors.items())
             for part in (name, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)]
    return sha256_of(*parts, canonical(about))


def valid_tuning(model: Model) -> Tuning | None:
    """What the model is tuned to, if it has not changed since."""
    old = model.tuning
    return old if isinstance(old, Tuning) and old.model == model_digest(model) else None


def compatible_tuning(model: Model, frame: Moments, t_end: float) -> Tuning:
    """The same in this frame and to this end, to set another kind of sampler beside it; else an empty tuning."""
    old = valid_tuning(model)
    if old is not None and old.frame is frame and old.t_end == t_end:
        return old
    return Tuning(frame, t_end, {}, model=model_digest(model))


NAME = "tuning.safetensors"
FORMAT = 4
_PROBES = (0.02, 0.3, 3.0)

M = TypeVar("M", bound=Model)


def save(model: Model, path: Path | str) -> Path:
    """Writes the tuning of a model to a file, with what identifies the model. InputError if it has none."""
    path, tuning = Path(path), model.tuning
    if tuning is None:
        raise InputError("got a model that has not been tuned; tune it first")
    frames = {"frame": tuning.frame} if tuning.frame is not model.moments else {}
    frames |= {f"class-{c}": own.frame for table in tuning.table.values() for found in table.values()
               for c, own in found.own.items() if own.frame is not None}
    frame = {f"{name}/{k}": v.contiguous() for name, moments in frames.items() for k, v in moments.tensors().items()}
    kinds = {"table": tuning.table, **{_scale(w): member.table for w, member in tuning.family}}
    tables = {f"{kind}/{given}/{n}/{part}": value.contiguous() for kind, known in kinds.items()
              for given, table in known.items() for n, c in table.items() for part, value in _tensors(c).items()}
    tensors = {**frame, **tables, "probe": _probe(model)}
    about = {"format": FORMAT, "model": model_digest(model), "t_end": tuning.t_end, "rows": tuning.rows,
             "frames": {name: moments.config() for name, moments in frames.items()},
             "family": [[w, member.rows] for w, member in tuning.family]}
    about["sha256"] = tensors_sha256(tensors, about)
    with atomic(path) as stream:
        stream.write(serialised(tensors, {"undiffuse": json.dumps(about)}))
    return path


def load(model: M, path: Path | str) -> M:
    """The same model with the tuning in a file; InputError if it is damaged or was made for another model."""
    tensors, about = _read(Path(path))
    try:
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {FORMAT}")
        if about.pop("sha256") != tensors_sha256(tensors, about):
            raise ValueError("its SHA-256 is not the one written in it")
        fits = about["model"] == model_digest(model) and _alike(tensors["probe"], _probe(model))
        tuned = copy.copy(model)
        tuned.tuning = _tuning(_frames(model, about, tensors), about, tensors) if fits else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no tuning of undiffuse: {error}") from None
    if not fits:
        raise InputError(f"{path} was made for another model, or for this one before it changed; tune it again")
    return tuned


def attach(model: M, folder: Path | str, say: Callable[[str], None]) -> M:
    """The model with the tuning that lies in its folder; as it is, with a word, where that does not fit."""
    path = Path(folder) / NAME
    if not path.is_file():
        return model
    try:
        return load(model, path)
    except InputError as error:
        say(f"{error}; until then the untuned sampler is used")
        return model


@torch.no_grad()
def _probe(model: Model) -> Tensor:
    """D at a few fixed states, with labels where there are classes: what tells models apart that are functions and have
    no weights, and scales of guidance."""
    given = {"label": torch.arange(4, device=model.device) % model.classes} if model.classes else {}
    x = normal(0, Purpose.PROBE, 1, 0, 4, model.shape, model.dtype).to(model.device) * model.sigma_data
    levels = -torch.log(torch.tensor(_PROBES, dtype=torch.float64) * model.sigma_data)
    span = [float(model.sde.log_snr(t)) for t in (torch.tensor(float(model.sde.T)), torch.tensor(model.t_end()))]
    times = model.sde.time_of(levels.clamp(max(span[0], -10.0), span[1]))
    return torch.stack([model.denoise(x * float(model.sde.alpha(t)), t, **given) for t in times]).double().cpu()


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["undiffuse"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"cannot read a tuning from {path}: {error}; expected a file that `undiffuse tune` "
                         "wrote") from None


def _frames(model: Model, about: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Moments]:
    """The moments by their names, "frame" being those of all data."""
    found = {name: Moments.from_config(config, {k.removeprefix(f"{name}/"): v for k, v in tensors.items()
                                                if k.startswith(f"{name}/")})
             for name, config in about["frames"].items()}
    if "frame" not in found and model.moments is None:
        raise ValueError("it needs the moments of the data, which the model does not have")
    return found if "frame" in found else {**found, "frame": model.moments}  # type: ignore[dict-item]


def _tuning(frames: dict[str, Moments], about: dict[str, Any], tensors: dict[str, Tensor]) -> Tuning:
    frame, t_end = frames["frame"], float(about["t_end"])
    family = ((float(w), Tuning(frame, t_end, _tables(tensors, _scale(float(w)), frames), tuple(rows)))
              for w, rows in about["family"])
    return Tuning(frame, t_end, _tables(tensors, "table", frames), tuple(about["rows"]), tuple(family),
                  model=about["model"])


def _scale(strength: float) -> str:
    """The kind of the tensors of one member of a family."""
    return f"scale={strength!r}"


def _tensors(c: TunedSampler) -> dict[str, Tensor]:
    """What a calibration is; a class with moments of its own is framed, one without plain."""
    own = {f"{'plain' if found.frame is None else 'framed'}-{k}": found.theta for k, found in c.own.items()}
    return {"times": c.times, "theta": c.theta, **own}


def _tables(tensors: dict[str, Tensor], kind: str, frames: dict[str, Moments]) -> dict[str, dict[int, TunedSampler]]:
    """The calibrations of a kind by condition and number of evaluations."""
    return {given: {n: TunedSampler(parts["times"], parts["theta"], leap, _own(parts, frames))
                    for n, (parts, leap) in table.items()}
            for given, table in _parts(tensors, kind).items()}


def _own(parts: dict[str, Tensor], frames: dict[str, Moments]) -> dict[int, ClassCoefficients]:
    """What classes have of their own."""
    found = {
        int(c): ClassCoefficients(theta, frames[f"class-{c}"] if kind == "framed" else None)
        for name, theta in parts.items()
        for kind, dash, c in [name.partition("-")]
        if dash
    }
    return dict(sorted(found.items()))


def _parts(tensors: dict[str, Tensor], kind: str) -> dict[str, dict[int, tuple[dict[str, Tensor], bool]]]:
    """The tensors of a kind by condition and number of evaluations, and whether the first step evaluates nothing."""
    found: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name in sorted(tensors):
        if name.startswith(f"{kind}/"):
            _, given, n, part = name.split("/")
            found.setdefault(given, {}).setdefault(int(n), {})[part] = tensors[name]
    return {given: {n: (parts, _leaps(n, parts)) for n, parts in sorted(table.items())}
            for given, table in found.items()}


def _leaps(n: int, parts: dict[str, Tensor]) -> bool:
    """Whether there is a step more than evaluations; ValueError for anything else."""
    times, theta = parts["times"], parts["theta"]
    leap = len(times) - 1 - len(theta)
    forms = [(n, 1 + VALUES), (n, 2 + 2 * VALUES)]
    wrong = any(value.shape not in forms for name, value in parts.items() if name == "theta" or "-" in name)
    if wrong or leap not in (0, 1) or not bool((times.diff() < 0).all()):
        raise ValueError(f"its entry for {n} evaluations has the wrong form")
    return bool(leap)
