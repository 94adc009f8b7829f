"""What a sampler is made for and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.gaussian import Moments
from undiffuse.model import ReverseModel
from undiffuse.sde import GaussianSDE
from undiffuse.steps.state import Node, Step


@dataclass(frozen=True)
class Plan:
    """What a step is made for: the model, the nodes of the grid, and a tensor of the states' dtype and device."""

    model: ReverseModel
    nodes: list[Node]
    like: Tensor

    @property
    def sde(self) -> GaussianSDE:
        """The process, which has to be Gaussian."""
        sde = self.model.process()
        if not isinstance(sde, GaussianSDE):
            raise InputError(f"got a {type(sde).__name__} for a method that needs a Gaussian process")
        return sde

    @property
    def deviation(self) -> float:
        """The data's deviation; 1 where the model does not know it."""
        return float(getattr(self.model, "sigma_data", 1.0))

    @property
    def frame(self) -> Moments | None:
        """The data's moments, where the model has them."""
        return getattr(self.model, "moments", None)


@dataclass(frozen=True)
class Method:
    """A sampler: `make(plan, **options)` gives its step, `order` is the claimed one (weak, where `stochastic`).

    grid: the one it likes; first: the multiple of the data's deviation at which that begins, after one step; free:
    which costs nothing. gaussian: it needs a Gaussian process. adaptive: one step goes all the way and chooses its own
    times sample by sample. path: its noise is keyed by time. group: so many samples, from a multiple of it on, are
    drawn together. steps: how many it takes if nothing is said.
    """

    make: Callable[..., Step]
    order: int
    stochastic: bool = False
    grid: str | Tensor = "log_snr"
    first: float | None = None
    free: bool = False
    gaussian: bool = True
    adaptive: bool = False
    path: bool = False
    group: int = 1
    steps: int = 20

    @property
    def options(self) -> dict[str, Any]:
        """The options that `make` takes, with their defaults."""
        return {name: p.default for name, p in signature(self.make).parameters.items() if p.kind == p.KEYWORD_ONLY}

    def step(self, plan: Plan, options: dict[str, Any]) -> Step:
        """The step for a plan; raises InputError for an option that this method does not have."""
        if unknown := [name for name in options if name not in self.options]:
            raise InputError(f"got the option {', '.join(unknown)}; this method has "
                             f"{', '.join(f'{k}={v}' for k, v in self.options.items()) or 'none'}")
        return self.make(plan, **options)
