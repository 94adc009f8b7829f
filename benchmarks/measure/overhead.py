"""The cost of a step beside a hand-written minimal loop in the same process, the model's own cost being nothing.

The model gives back one stored tensor. The loop knows its coefficients beforehand and does nothing else: no nodes, no
blocks, no addresses of random numbers, no check of the result.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from undiffuse.model import Model
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal
from undiffuse.samplers import ALL
from undiffuse.samplers.driver import sample
from undiffuse.sde import Time

Draw = Callable[[Tensor], Tensor]
LOOPS = {"ddim": 1, "dpmpp_2m": 2, "deis_3": 3, "deis_4": 4, "dpmpp_3m": 3, "unipc": 3, "heun": 2, "ancestral": 1,
         "dpmpp_2m_sde": 2}
"""The samplers compared, and how many values of the denoiser the loop combines."""


class Still(Model):
    """A denoiser that gives one tensor whatever it is asked."""

    sde = VP()

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.block = shape[1:], shape[0]
        self.value = normal(0, Purpose.PROBE, 0, 0, shape[0], shape[1:])

    def denoise(self, x: Tensor, t: Time, **cond: object) -> Tensor:
        """The tensor."""
        return self.value


@dataclass(frozen=True)
class Overhead:
    """Microseconds a step, of the library and of the loop."""

    method: str
    shape: tuple[int, ...]
    ours: float
    loop: float

    @property
    def ratio(self) -> float:
        """Ours over the loop's."""
        return self.ours / self.loop


def overheads(shapes: tuple[tuple[int, ...], ...] = ((64, 2), (64, 3, 32, 32)), steps: int = 50, repeats: int = 15,
              draw: Draw | None = None, methods: list[str] | None = None) -> Iterator[Overhead]:
    """Samplers of `LOOPS` at every shape. draw(x): normals like x for the loop; by default ready-made ones."""
    for shape in shapes:
        model, x = Still(shape), normal(0, Purpose.INIT, 0, 0, shape[0], shape[1:])
        ready = normal(0, Purpose.NOISE, 0, 0, shape[0], shape[1:])
        for name in methods or LOOPS:
            noise = (draw or (lambda x, ready=ready: ready)) if ALL[name].stochastic else None  # type: ignore[misc]
            loop_of = minimal_heun if name == "heun" else partial(minimal, values=LOOPS[name], draw=noise)
            ours, loop = _times([partial(sample, model, method=ALL[name], steps=steps, x_T=x, denoise_last=False),
                                 partial(loop_of, model, x, steps)], repeats)
            yield Overhead(name, shape, 1e6 * ours / steps, 1e6 * loop / steps)


@torch.no_grad()
def minimal(model: Still, x: Tensor, steps: int, values: int, draw: Draw | None) -> Tensor:
    """x ← c x + Σ_j w_j D_j (+ s ξ) in as few words as it can be written."""
    t, c, w, s = torch.linspace(1, 0, steps + 1), 0.9, [0.1] * values, 0.1
    old: list[Tensor] = []
    for i in range(steps):
        old = [model.denoise(x, t[i]), *old[:values - 1]]
        x = c * x
        for weight, D in zip(w, old, strict=False):
            x = x + weight * D
        if draw is not None:
            x = x + s * draw(x)
    return x


@torch.no_grad()
def minimal_heun(model: Still, x: Tensor, steps: int) -> Tensor:
    """Heun's method for v = a x + b D in as few words as it can be written."""
    t, a, b, h = torch.linspace(1, 0, steps + 1), 0.1, 0.1, -1 / steps
    for i in range(steps):
        v = a * x + b * model.denoise(x, t[i])
        y = x + h * v
        x = x + h / 2 * (v + a * y + b * model.denoise(y, t[i + 1]))
    return x


def _times(works: list[Callable[[], object]], repeats: int) -> list[float]:
    """The median seconds of this thread for each, measured in turn (the clock of the wall counts others too)."""
    found: list[list[float]] = [[] for _ in works]
    for k in range(repeats + 1):
        for work, seconds in zip(works, found, strict=True):
            start = time.thread_time()
            work()
            if k:
                seconds.append(time.thread_time() - start)
    return [statistics.median(seconds) for seconds in found]
