"""Answers of the loopback server about a trained 1-D or 2-D model: description, samples, denoising field."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import torch
from torch import Tensor

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.model import Model
from undiffuse.samplers import METHODS
from undiffuse.samplers.driver import sample

LIMITS = {"n": 2000, "steps": 256, "seed": 2**32 - 1}
_ROWS, _FRAMES, _LATTICE = 2000, 64, 24


class Busy(Exception):
    """Raised while another request is being computed."""


class _Stopped(Exception):
    """Raised when the page has cancelled the computation."""


@dataclass
class RunModel:
    """A trained model with its training data; one computation at a time, and `stop` ends it after its current step."""

    model: Model
    data: Dataset
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.model.shape not in ((1,), (2,)):
            raise InputError(f"got a model of shape {self.model.shape}; expected samples of one or two "
                             "numbers; run explore without --run")

    def answer(self, route: str, query: str) -> dict[str, Any]:
        """The JSON answer to a request.

        Raises:
            KeyError: for an unknown route.
            InputError: for a number out of range.
            Busy: while another request is being computed.
        """
        work = {"about": self.about, "sample": self.sample, "field": self.field, "stop": self.stop}[route]
        params = {key: values[-1] for key, values in parse_qs(query).items()}
        return work(params) if route == "stop" else self._alone(work, params)

    def about(self, params: dict[str, str]) -> dict[str, Any]:
        """Name, columns, process, request limits and the first 2,000 training rows."""
        sde = self.model.sde
        return {"name": self.data.name, "d": self.data.x.shape[1], "columns": list(self.data.columns), "T": sde.T,
                "sde": sde.name, "rows": self.data.x[:_ROWS].flatten().tolist(), "most": LIMITS}

    def sample(self, params: dict[str, str]) -> dict[str, Any]:
        """Trajectories of `n` samples: at most about 64 times and states, in data units."""
        method = params.get("method", "auto")
        if method != "auto" and method not in METHODS:
            raise InputError("got an unknown method; expected auto or a sampler of the library")
        n, steps, seed = (_integer(params, key, low) for key, low in (("n", 1), ("steps", 1), ("seed", 0)))
        out = sample(self.model, n, method, steps, seed=seed, trajectory=True, callback=self._watch)
        every = max(1, len(out.trajectory) // _FRAMES)
        frames = [*out.trajectory[:-1:every], out.trajectory[-1]]
        return {"t": [t for t, _ in frames], "x": [_rounded(x) for _, x in frames], "nfe": out.nfe,
                "method": out.sampler}

    def field(self, params: dict[str, str]) -> dict[str, Any]:
        """Denoised positions of a lattice of points over the data, at the time `t` (a fraction of T)."""
        t = min(max(float(params.get("t", "0")), 1e-3), 1.0) * self.model.sde.T
        low, high = (self.data.x.double().quantile(q, 0) for q in (0.0, 1.0))
        axes = [torch.linspace(float(a), float(b), _LATTICE) for a, b in zip(low, high, strict=True)]
        x = torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")], 1)
        alpha = self.model.sde.alpha(torch.tensor(t, dtype=torch.float64))
        with torch.no_grad():
            D = self.model.denoise(float(alpha) * self.model.transform.forward(x), t)
        return {"x": _rounded(x), "to": _rounded(self.model.transform.inverse(D))}

    def stop(self, params: dict[str, str]) -> dict[str, Any]:
        """Stop the current computation."""
        self.stopped.set()
        return {}

    def _alone(self, work: Callable[[dict[str, str]], dict[str, Any]], params: dict[str, str]) -> dict[str, Any]:
        if not self.lock.acquire(blocking=False):
            raise Busy
        try:
            self.stopped.clear()
            return work(params)
        except _Stopped:
            return {"stopped": True}
        finally:
            self.lock.release()

    def _watch(self, step: int, t: float, x: Tensor) -> None:
        if self.stopped.is_set():
            raise _Stopped


def _integer(params: dict[str, str], key: str, low: int) -> int:
    text = params.get(key, str(max(low, 20)))
    if not text.isdecimal() or not low <= int(text) <= LIMITS[key]:
        raise InputError(f"got {key} out of range; expected {low} to {LIMITS[key]}")
    return int(text)


def _rounded(x: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in x.double().flatten().tolist()]
