"""Reference paths: where the probability flow of a model leads from a few dozen starts, by many small steps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.samplers.coefficients import DataPrediction
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import Method, Node, nodes_of
from undiffuse.samplers.registry import ALL, as_row
from undiffuse.transforms.base import Identity

LEVELS = 128
SEED = (1 << 40) + 7
"""The seed of the noises that are fitted to and validated on, which no one draws samples from."""


class Meter:
    """A model in its own units, which counts the rows that it evaluates.

    Paths are what it is asked for, so that `auto` is what it is for exact laws.
    """

    def __init__(self, model: Model, cond: dict[str, Any]) -> None:
        self.model, self.cond, self.rows = copy.copy(model), cond, 0
        self.model.transform, self.model.tuning, self.model.learned_images = Identity(), None, False

    @torch.no_grad()
    def denoise(self, x: Tensor, node: Node, n: int | None = None) -> Tensor:
        """D(x, t) in float64; x may hold n states several times over."""
        self.rows += len(x)
        at = x.to(self.model.device, self.model.dtype)
        return self.model.denoise(at, node.t, **self._given(torch.arange(len(x)) % (n or len(x)))).double().cpu()

    def run(self, n: int, first: int, **request: Any) -> Any:
        """`sample` for the starts number `first` and on, in blocks of at most 128, stopping at t_end."""
        out = sample(self.model, n, seed=SEED, first_index=first, block=min(n, 128), denoise_last=False, **request,
                     **self._given(torch.arange(n)))
        self.rows += out.nfe * n
        return out

    def _given(self, rows: Tensor) -> dict[str, Any]:
        """The conditions of these rows."""
        return {k: v[rows] if isinstance(v, Tensor) and v.ndim else v for k, v in self.cond.items()}


@dataclass
class Reference:
    """The paths of M starts in the coordinates of a frame, at levels λ_0 < ... < λ_L.

    x (M, *shape) are the starts. u (L, M, k) = y/(α Ψ) moves by the remainder alone, du/dλ = R/Ψ, so that between two
    levels it is a cubic through the values and slopes of both.
    """

    meter: Meter
    kernel: DataPrediction
    nodes: list[Node]
    x: Tensor
    u: Tensor
    slope: Tensor
    remainder: Tensor

    @classmethod
    def follow(cls, meter: Meter, frame: Moments, n: int, first: int, t_end: float) -> Reference:
        """Starts number `first` to `first + n − 1`, by two steps of a fourth-order method between levels."""
        return cls.framed(meter, frame, paths(meter, n, first, t_end))

    @classmethod
    def framed(cls, meter: Meter, frame: Moments, known: list[tuple[Node, Tensor, Tensor]]) -> Reference:
        """The `paths` in the coordinates of a frame."""
        kernel, nodes = DataPrediction(frame=frame), [node for node, _, _ in known]
        ys = [kernel.enter(x, node) for node, x, _ in known]
        R = torch.stack([kernel.value(y, D, node) for y, (node, _, D) in zip(ys, known, strict=True)])
        total = torch.stack([_total(kernel, node) for node in nodes])[:, None]
        alpha = torch.tensor([node.alpha for node in nodes], dtype=torch.float64)[:, None, None]
        return cls(meter, kernel, nodes, known[0][1], torch.stack(ys) / total, R * alpha / total, R)

    @cached_property
    def log_snr(self) -> Tensor:
        """λ of the levels, −∞ first where α(T) = 0."""
        return torch.tensor([node.log_snr for node in self.nodes], dtype=torch.float64)

    def at(self, node: Node) -> Tensor:
        """The coordinates y of all paths at a node, (M, k)."""
        lam = self.log_snr
        k = min(max(int(torch.searchsorted(lam, node.log_snr)), 1 + math.isinf(float(lam[0]))), len(lam) - 1)
        h = float(lam[k] - lam[k - 1])
        q = (node.log_snr - float(lam[k - 1])) / h
        rise, bend = q * q * (3 - 2 * q), q * (1 - q) * h
        u = (1 - rise) * self.u[k - 1] + rise * self.u[k]
        return (u + bend * ((1 - q) * self.slope[k - 1] - q * self.slope[k])) * _total(self.kernel, node)

    def value(self, y: Tensor, node: Node) -> Tensor:
        """The remainder R of the model at coordinates y (M, k), or (p M, k)."""
        return self.kernel.value(y, self.meter.denoise(self.kernel.leave(y, node), node, len(self.x)), node)

    def curvature(self) -> tuple[Tensor, Tensor]:
        """λ of the inner levels, and the median over paths of Ψ_end/Ψ ‖∂²R/∂λ²‖: what a second-order step misses."""
        skip = int(math.isinf(float(self.log_snr[0])))
        lam, R = self.log_snr[skip:], self.remainder[skip:]
        gaps = lam.diff()[:, None, None]
        second = 2 * (R.diff(dim=0) / gaps).diff(dim=0) / (gaps[1:] + gaps[:-1])
        psi = torch.stack([_total(self.kernel, node) / node.alpha for node in self.nodes[skip:]])
        return lam[1:-1], (second * (psi[-1] / psi[1:-1])[:, None]).norm(dim=2).median(1).values


def paths(meter: Meter, n: int, first: int, t_end: float) -> list[tuple[Node, Tensor, Tensor]]:
    """The levels of a reference, and the states of all paths and the model's D there, (n, *shape) in float64."""
    out = meter.run(n, first, method=ALL["unipc_4_noise"], grid="log_snr", steps=2 * LEVELS, t_end=t_end,
                    trajectory=True)
    times, xs = zip(out.trajectory[0], *out.trajectory[2::2], strict=True)
    nodes = nodes_of(meter.model.sde, torch.tensor(times, dtype=torch.float64))
    return [(node, x.double(), meter.denoise(x.double(), node, n)) for node, x in zip(nodes, xs, strict=True)]


@dataclass
class PathEnds:
    """Where the paths of n other starts end, y (n, k) at the node `end`: what finished samplers are measured with."""

    meter: Meter
    frame: Moments
    first: int
    end: Node
    y: Tensor

    @classmethod
    def follow(cls, meter: Meter, frame: Moments, n: int, first: int, t_end: float) -> PathEnds:
        """Starts number `first` to `first + n − 1`, in 128 steps of a fourth-order method."""
        out = meter.run(n, first, method=ALL["unipc_4_noise"], grid="log_snr", steps=LEVELS, t_end=t_end)
        end = nodes_of(meter.model.sde, torch.tensor([t_end], dtype=torch.float64))[0]
        return cls(meter, frame, first, end, DataPrediction(frame=frame).enter(out.x.double(), end))

    def within(self, frame: Moments) -> PathEnds:
        """The same ends in the coordinates of another frame."""
        x = DataPrediction(frame=self.frame).leave(self.y, self.end)
        return replace(self, frame=frame, y=DataPrediction(frame=frame).enter(x, self.end))

    def error(self, method: str | Method, steps: int, grid: str | None = None) -> tuple[Tensor, str]:
        """The error (n, k) of a sampler, in units of x_0 and of one coordinate, and its name."""
        out = self.meter.run(len(self.y), self.first, method=as_row(method), grid=grid, steps=steps,
                             t_end=float(self.end.t))
        y = DataPrediction(frame=self.frame).enter(out.x.double(), self.end)
        name = method if method in ALL else out.method
        return (y - self.y) / (self.end.alpha * y.shape[1] ** 0.5), f"{name} on {grid}" if grid else out.method


def _total(kernel: DataPrediction, node: Node) -> Tensor:
    """α Ψ = √(α² s² + σ²), (k,)."""
    return torch.from_numpy(np.sqrt(kernel.s2 * node.alpha**2 + node.sigma**2))
