"""Reference trajectories: the probability flow of a model from a few dozen starts, by many small steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.moments import Moments
from undiffuse.samplers.coefficients import DataPrediction
from undiffuse.samplers.default import DefaultSampler, default_sampler
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import CountingModel, Method, Node, nodes_of
from undiffuse.samplers.registry import ALL, as_method
from undiffuse.samplers.samples import Samples
from undiffuse.transforms.base import Identity
from undiffuse.wrappers import TransparentWrapper

LEVELS, LARGE = 128, 16_384
"""The number of levels of a reference, and the number of entries of a state from which on it is 48 in float32."""
SEED = (1 << 40) + 7
"""The seed of the noise that tuning fits to and validates on; users' samples have other seeds."""


class ModelUnits(TransparentWrapper):
    """A model whose data units are its model units, and with other moments if they are given."""

    def __init__(self, inner: Model, moments: Moments | None = None) -> None:
        super().__init__(inner)
        self.transform = Identity()
        if moments is not None:
            self.moments = moments


class RowCounter(CountingModel):
    """A model in model units, untuned, that counts `rows`, its evaluations times their rows."""

    model: Model

    def __init__(self, model: Model, cond: dict[str, Any]) -> None:
        super().__init__(ModelUnits(model), cond)
        self.rows = 0

    @torch.no_grad()
    def denoise_rows(self, x: Tensor, node: Node, n: int | None = None) -> Tensor:
        """D(x, t), like x, with the limits that sampling has.

        Args:
            x: states (M, *shape), or several copies of n states.
            node: node with the time t.
            n: number of different states, to which the conditions belong; None: all.
        """
        self.rows += len(x)
        of, out = torch.arange(len(x)) % (n or len(x)), torch.empty_like(x)
        for rows in torch.arange(len(x)).split(self.block(len(x))):
            D = self.model.denoise(x[rows].to(self.model.device, self.model.dtype), node.t, **self.conditions(of[rows]))
            out[rows] = (D if self.model.clip is None else self.model.clip(D)).to(out)
        return out

    @property
    def large(self) -> bool:
        """Whether states are so large that memory decides on the form of a reference."""
        return math.prod(self.model.shape) >= LARGE

    @property
    def measured(self) -> int:
        """The number of samples for moments."""
        return 64 if self.large else 512

    @property
    def levels(self) -> int:
        """The number of levels of a reference."""
        return 48 if self.large else LEVELS

    def exact(self, x: Tensor) -> Tensor:
        """x in the precision of a reference, on the CPU."""
        return x.to("cpu", torch.float32 if self.large else torch.float64)

    def block(self, n: int) -> int:
        """The rows of one call for n states."""
        return max(1, min(n, self.model.block if self.large else max(128, n)))

    def default(self, steps: int, t_end: float | None = None) -> DefaultSampler:
        """The default sampler for exact distributions: the reference is the exact trajectory of the model."""
        return default_sampler(self.model, steps, (None, t_end), bool(self.cond), images=False)

    def sample(self, n: int, first: int, **request: Any) -> Samples:
        """`sample` for starts `first` to `first + n − 1`, in blocks of at most 128, to t_end."""
        block = self.block(n) if self.large else min(n, 128)
        out = sample(self.model, n, seed=SEED, first_index=first, denoise_last=False, **{"block": block, **request},
                     **self.conditions(torch.arange(n)))
        self.rows += out.nfe * n
        return out

    def conditions(self, rows: Tensor) -> dict[str, Any]:
        """The conditions of these rows."""
        return {k: v[rows] if isinstance(v, Tensor) and v.ndim else v for k, v in self.cond.items()}


@dataclass
class Reference:
    """The trajectories of M starts in whitened coordinates, at noise levels λ_0 < ... < λ_L.

    u = y/(α Ψ) changes by the remainder only, du/dλ = R/Ψ, so that between two levels it is the cubic through the
    values and derivatives at both.

    Args:
        counter: the model.
        kernel: the coordinates.
        nodes: the L levels.
        x: the starts (M, *shape).
        u: (L, M, k).
        slope: du/dλ, (L, M, k).
    """

    counter: RowCounter
    kernel: DataPrediction
    nodes: list[Node]
    x: Tensor
    u: Tensor
    slope: Tensor

    @classmethod
    def follow(cls, counter: RowCounter, moments: Moments, n: int, first: int, t_end: float) -> Reference:
        """The reference for some starts, by two steps of a fourth-order method between levels.

        Args:
            counter: the model, which counts evaluated rows.
            moments: moments of the coordinates.
            n: number of starts.
            first: index of the first start.
            t_end: end time.
        """
        return cls.in_coordinates(counter, moments, trajectories(counter, n, first, t_end))

    @classmethod
    def in_coordinates(cls, counter: RowCounter, moments: Moments, states: Iterable[tuple[Node, Tensor, Tensor]]
                       ) -> Reference:
        """The `trajectories` in the coordinates of these moments.

        Args:
            counter: the model, which counts evaluated rows.
            moments: moments of the coordinates.
            states: nodes with x and D (n, *shape), as returned by `trajectories`.
        """
        kernel, nodes, us, slopes, start = DataPrediction(frame=moments), list[Node](), [], [], None
        for node, x, D in states:
            y, total = kernel.to_coordinates(x, node), _total(kernel, node).to(x)
            us.append(y / total)
            slopes.append(kernel.residual(y, D, node) * (node.alpha / total))
            nodes.append(node)
            start = x if start is None else start
        assert start is not None
        return cls(counter, kernel, nodes, start, torch.stack(us), torch.stack(slopes))

    @cached_property
    def log_snr(self) -> Tensor:
        """λ of the levels, −∞ first where α(T) = 0."""
        return torch.tensor([node.log_snr for node in self.nodes], dtype=torch.float64)

    def at(self, node: Node) -> Tensor:
        """The coordinates y of all trajectories at a node, (M, k)."""
        lam = self.log_snr
        k = min(max(int(torch.searchsorted(lam, node.log_snr)), 1 + math.isinf(float(lam[0]))), len(lam) - 1)
        h = float(lam[k] - lam[k - 1])
        q = (node.log_snr - float(lam[k - 1])) / h
        rise, bend = q * q * (3 - 2 * q), q * (1 - q) * h
        u = (1 - rise) * self.u[k - 1] + rise * self.u[k]
        return (u + bend * ((1 - q) * self.slope[k - 1] - q * self.slope[k])) * _total(self.kernel, node).to(u)

    def residual(self, y: Tensor, node: Node) -> Tensor:
        """The remainder R of the model at coordinates y (M, k), or (p M, k)."""
        D = self.counter.denoise_rows(self.kernel.from_coordinates(y, node), node, len(self.x))
        return self.kernel.residual(y, D, node)

    def curvature(self) -> tuple[Tensor, Tensor]:
        """λ of the inner levels, and the median over trajectories of Ψ_end/Ψ ‖∂²R/∂λ²‖, the local error."""
        skip = int(math.isinf(float(self.log_snr[0])))
        lam, nodes = self.log_snr[skip:], self.nodes[skip:]
        psi = [_total(self.kernel, node).to(self.u) / node.alpha for node in nodes]
        spacing, errors = lam.diff().tolist(), []
        R = [self.slope[skip + k] * psi[k] for k in range(2)]
        for k in range(1, len(lam) - 1):
            R = [*R[-2:], self.slope[skip + k + 1] * psi[k + 1]]
            rise = (R[2] - R[1]) / spacing[k] - (R[1] - R[0]) / spacing[k - 1]
            errors.append((2 / (spacing[k] + spacing[k - 1]) * rise * (psi[-1] / psi[k])).norm(dim=1).median())
        return lam[1:-1], torch.stack(errors).double()


def trajectories(counter: RowCounter, n: int, first: int, t_end: float) -> Iterator[tuple[Node, Tensor, Tensor]]:
    """The nodes of a reference with the states of all trajectories and the model's D there, (n, *shape).

    Args:
        counter: the model, which counts evaluated rows.
        n: number of starts.
        first: index of the first start.
        t_end: end time.
    """
    out = counter.sample(n, first, method=ALL["unipc_4_noise"], grid="log_snr", steps=2 * counter.levels, t_end=t_end,
                         trajectory=True)
    states = [out.trajectory[0], *out.trajectory[2::2]]
    nodes = nodes_of(counter.model.sde, torch.tensor([t for t, _ in states], dtype=torch.float64))
    for node, (_, z) in zip(nodes, states, strict=True):
        x = counter.exact(z)
        yield node, x, counter.denoise_rows(x, node, n)


@dataclass
class PathEnds:
    """The endpoints of the trajectories of n other starts, y (n, k) at the node `end`, to measure samplers with."""

    counter: RowCounter
    moments: Moments
    first: int
    end: Node
    y: Tensor

    @classmethod
    def follow(cls, counter: RowCounter, moments: Moments, n: int, first: int, t_end: float) -> PathEnds:
        """The endpoints for some starts, in `levels` steps of a fourth-order method.

        Args:
            counter: the model, which counts evaluated rows.
            moments: moments of the coordinates.
            n: number of starts.
            first: index of the first start.
            t_end: end time.
        """
        out = counter.sample(n, first, method=ALL["unipc_4_noise"], grid="log_snr", steps=counter.levels, t_end=t_end)
        end = nodes_of(counter.model.sde, torch.tensor([t_end], dtype=torch.float64))[0]
        y = DataPrediction(frame=moments).to_coordinates(counter.exact(out.x), end)
        return cls(counter, moments, first, end, y)

    def in_coordinates(self, moments: Moments) -> PathEnds:
        """These endpoints in the coordinates of other moments."""
        x = DataPrediction(frame=self.moments).from_coordinates(self.y, self.end)
        return replace(self, moments=moments, y=DataPrediction(frame=moments).to_coordinates(x, self.end))

    def error(self, method: str | Method, steps: int, grid: str | None = None) -> tuple[Tensor, str]:
        """The error (n, k) of a sampler, in units of x_0 and of one coordinate, and its name.

        Args:
            method: sampling method or its name; "auto": the default sampler.
            steps: number of steps.
            grid: name of the time grid; None: the default of `sample`.
        """
        name, t_end = f"{method} on {grid}" if isinstance(method, str) else "custom", float(self.end.t)
        if method == "auto":
            entry = self.counter.default(steps, t_end)
            method, name = entry.build(), str(entry)
        out = self.counter.sample(len(self.y), self.first, method=as_method(method), grid=grid, steps=steps,
                                  t_end=t_end)
        y = DataPrediction(frame=self.moments).to_coordinates(self.counter.exact(out.x), self.end)
        return (y - self.y) / (self.end.alpha * y.shape[1] ** 0.5), name


def _total(kernel: DataPrediction, node: Node) -> Tensor:
    """α Ψ = √(α² s² + σ²), (k,)."""
    return torch.from_numpy(np.sqrt(kernel.s2 * node.alpha**2 + node.sigma**2))
