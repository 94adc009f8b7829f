"""Which model a tuning is for: what is fitted to one says nothing of another, or of the same one after a training."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from undiffuse.gaussian import Moments
from undiffuse.model import Model
from undiffuse.steps.calibrated import Tuning


def digest(model: Model) -> str:
    """SHA-256 over a model's process, shape, scale, moments and weights."""
    about = [type(model.sde).__name__, str(model.sde), list(model.shape), model.sigma_data, model.classes]
    moments = {} if model.moments is None else model.moments.tensors()
    return seal({**model.state_dict(), **{f"moments.{k}": v for k, v in moments.items()}}, about)


def seal(tensors: dict[str, Tensor], about: Any) -> str:
    """SHA-256 (hex) over named tensors and what JSON can hold."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    found.update(json.dumps(about, sort_keys=True).encode())
    return found.hexdigest()


def current(model: Model) -> Tuning | None:
    """What the model is tuned to, if it has not changed since."""
    old = model.tuning
    return old if isinstance(old, Tuning) and old.model == digest(model) else None


def kept(model: Model, frame: Moments, t_end: float) -> Tuning:
    """The same in this frame and to this end, to set another kind of sampler beside it; else an empty tuning."""
    old = current(model)
    if old is not None and old.frame is frame and old.t_end == t_end:
        return old
    return Tuning(frame, t_end, {}, model=digest(model))
