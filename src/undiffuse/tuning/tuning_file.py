"""A tuning on disk: one safetensors file next to its model; loading it for another model is an error.

The file stores the SHA-256 of the model, D at a few fixed states, the samplers and the measured rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from undiffuse.atomic_files import atomic
from undiffuse.errors import InputError
from undiffuse.hashing import canonical, sha256_of
from undiffuse.model import Denoiser, Model
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.samplers.tuned import VALUES, ClassCoefficients, Tuned, TunedSampler, Tuning, tuning_of
from undiffuse.storage import read, with_prefix, write


def untuned(model: Model) -> Model:
    """The model without its tuning."""
    return model.inner if isinstance(model, Tuned) else model


def model_digest(model: Model) -> str:
    """SHA-256 over a model's process, shape, scale, moments and weights."""
    model = untuned(model)
    about = [type(model.sde).__name__, str(model.sde), list(model.shape), model.sigma_data, model.classes]
    if isinstance(model, Denoiser) and model.digest is not None:  # of the files of a pretrained network
        return sha256_of(model.digest(), str(model.reading), canonical(about))
    moments = {} if model.moments is None else model.moments.tensors()
    tensors = {**model.state_dict(), **{f"moments.{k}": v for k, v in moments.items()}}
    parts = [part for name, tensor in sorted(tensors.items())
             for part in (name, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)]
    return sha256_of(*parts, canonical(about))


def valid_tuning(model: Model) -> Tuning | None:
    """The tuning of a model; None if it is not tuned or has changed since it was tuned."""
    old = model.tuning if isinstance(model, Tuned) else None
    return old if old is not None and old.model == model_digest(model) else None


def compatible_tuning(model: Model, moments: Moments, t_end: float) -> Tuning:
    """The current tuning if it has these moments and end time, so that samplers can be added; else an empty one.

    Args:
        model: model to tune.
        moments: moments of the data in model units.
        t_end: end time of the samplers.
    """
    old = valid_tuning(model)
    if old is not None and old.moments is moments and old.t_end == t_end:
        return old
    return Tuning(moments, t_end, {}, model=model_digest(model))


NAME = "tuning.safetensors"
FORMAT = 5
_PROBES = (0.02, 0.3, 3.0)

M = TypeVar("M", bound=Model)


def save(model: Model, path: Path | str) -> Path:
    """Write the tuning of a model to a file; raises InputError if it is not tuned."""
    path, tuning = Path(path), tuning_of(model)
    if tuning is None:
        raise InputError("got a model that has not been tuned; tune it first")
    frames = {"frame": tuning.moments} if tuning.moments is not model.moments else {}
    frames |= {f"class-{c}": part.moments for table in tuning.table.values() for sampler in table.values()
               for c, part in sampler.per_class.items() if part.moments is not None}
    frame = {f"{name}/{k}": v for name, moments in frames.items() for k, v in moments.tensors().items()}
    kinds = {"table": tuning.table, **{_scale(w): member.table for w, member in tuning.family}}
    tables = {f"{kind}/{names}/{n}/{part}": value for kind, by_names in kinds.items()
              for names, table in by_names.items() for n, c in table.items() for part, value in _tensors(c).items()}
    tensors = {**frame, **tables, "probe": _probe(model)}
    about = {"format": FORMAT, "model": model_digest(model), "t_end": tuning.t_end, "rows": tuning.rows,
             "frames": {name: moments.config() for name, moments in frames.items()},
             "family": [[w, member.rows] for w, member in tuning.family]}
    with atomic(path) as stream:
        write(stream, tensors, about)
    return path


def load(model: Model, path: Path | str) -> Tuned:
    """The model with the tuning in a file; raises InputError if it is damaged or was made for another model."""
    try:
        tensors, about = read(Path(path))
    except InputError as error:
        raise InputError(f"cannot read a tuning: {error}; expected a file that `undiffuse tune` wrote") from None
    try:
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, this version reads {FORMAT}")
        fits = about["model"] == model_digest(model) and _is_close(tensors["probe"], _probe(model))
        tuning = _tuning(_frames(model, about, tensors), about, tensors) if fits else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a tuning of undiffuse: {error}") from None
    if tuning is None:
        raise InputError(f"{path} was made for another model, or for this one before it changed; tune it again")
    return Tuned(model, tuning)


def attach(model: M, folder: Path | str, say: Callable[[str], None]) -> M | Tuned:
    """The model with the tuning in its folder; unchanged, with a warning, if the file does not match.

    Args:
        model: model without tuning.
        folder: folder of the model.
        say: receives the warning.
    """
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
    """D at a few fixed states, with labels if there are classes: it distinguishes models without weights and guidance
    scales."""
    cond = {"label": torch.arange(4, device=model.device) % model.classes} if model.classes else {}
    x = normal(0, Purpose.PROBE, 1, 0, 4, model.shape, model.dtype).to(model.device) * model.sigma_data
    levels = -torch.log(torch.tensor(_PROBES, dtype=torch.float64) * model.sigma_data)
    span = [float(model.sde.log_snr(t)) for t in (torch.tensor(model.t_start()), torch.tensor(model.t_end()))]
    times = model.sde.time_of(levels.clamp(max(span[0], -10.0), span[1]))
    return torch.stack([model.denoise(x * float(model.sde.alpha(t)), t, **cond) for t in times]).double().cpu()


def _is_close(a: Tensor, b: Tensor) -> bool:
    alike = a.shape == b.shape and a.dtype == b.dtype
    return alike and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def _frames(model: Model, about: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Moments]:
    """The moments by name; "frame" are those of all data."""
    frames = {name: Moments.from_config(config, with_prefix(tensors, f"{name}/"))
              for name, config in about["frames"].items()}
    if "frame" in frames:
        return frames
    if model.moments is None:
        raise ValueError("it needs the moments of the data, which the model does not have")
    return {**frames, "frame": model.moments}


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
    """The tensors of a sampler: "framed-c" for a class with separate moments, else "plain-c"."""
    classes = {f"{'plain' if part.moments is None else 'framed'}-{k}": part.theta for k, part in c.per_class.items()}
    return {"times": c.times, "theta": c.theta, **classes}


def _tables(tensors: dict[str, Tensor], kind: str, frames: dict[str, Moments]) -> dict[str, dict[int, TunedSampler]]:
    """The samplers of a kind by condition names and number of model evaluations."""
    return {names: {n: TunedSampler(parts["times"], parts["theta"], first_step_free, _per_class(parts, frames))
                    for n, (parts, first_step_free) in table.items()}
            for names, table in _parts(tensors, kind).items()}


def _per_class(parts: dict[str, Tensor], frames: dict[str, Moments]) -> dict[int, ClassCoefficients]:
    """The coefficients and moments of the classes."""
    classes = {
        int(c): ClassCoefficients(theta, frames[f"class-{c}"] if kind == "framed" else None)
        for name, theta in parts.items()
        for kind, dash, c in [name.partition("-")]
        if dash
    }
    return dict(sorted(classes.items()))


def _parts(tensors: dict[str, Tensor], kind: str) -> dict[str, dict[int, tuple[dict[str, Tensor], bool]]]:
    """The tensors of a kind by condition names and number of model evaluations, and whether the first step is free."""
    tables: dict[str, dict[int, dict[str, Tensor]]] = {}
    for name, value in sorted(with_prefix(tensors, f"{kind}/").items()):
        names, n, part = name.split("/")
        tables.setdefault(names, {}).setdefault(int(n), {})[part] = value
    return {names: {n: (parts, _has_free_step(n, parts)) for n, parts in sorted(table.items())}
            for names, table in tables.items()}


def _has_free_step(n: int, parts: dict[str, Tensor]) -> bool:
    """Whether the sampler has one step more than model evaluations; raises ValueError for other shapes."""
    times, theta = parts["times"], parts["theta"]
    first_step_free = len(times) - 1 - len(theta)
    forms = [(n, 1 + VALUES), (n, 2 + 2 * VALUES)]
    wrong = any(value.shape not in forms for name, value in parts.items() if name == "theta" or "-" in name)
    if wrong or first_step_free not in (0, 1) or not bool((times.diff() < 0).all()):
        raise ValueError(f"its entry for {n} evaluations has the wrong form")
    return bool(first_step_free)
