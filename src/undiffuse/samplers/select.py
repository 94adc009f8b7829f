"""The choice of a sampler: from a request to a method, a grid and a number of steps.

    required sampler of the model  >  tuned sampler  >  default sampler  >  the method of that name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from undiffuse.errors import InputError, did_you_mean
from undiffuse.model import Model, ReverseModel
from undiffuse.samplers.default import DRIFT_ONLY, TABLES, DefaultSampler, EndTimes, default_sampler
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import Method, required_sampler
from undiffuse.samplers.registry import ALL, DISTILLED, METHODS
from undiffuse.samplers.tuned import TunedChoice, find_tuned, require_tuned
from undiffuse.sde import GaussianSDE, as_time


@dataclass(frozen=True)
class SamplerRequest:
    """The arguments of `sample` that decide on the sampler, the conditions, and whether it starts from noise."""

    method: str | Method = "auto"
    steps: int | None = None
    grid: str | Tensor | None = None
    end_times: EndTimes = (None, None)
    cond: Mapping[str, Any] = field(default_factory=dict)
    from_noise: bool = True

    @property
    def evaluations(self) -> int:
        """The number of evaluations that a default or tuned sampler is chosen for."""
        return 20 if self.steps is None else self.steps


@dataclass(frozen=True)
class SamplerPlan:
    """A resolved request: the method and its name, the grid, the number of steps, and the description of a tuning."""

    name: str
    method: Method
    grid: str | Tensor
    steps: int
    tuned_for: str = ""

    @property
    def start(self) -> str:
        """"moments" if the first step is the Gaussian flow of the data's moments, else "prior"."""
        return "moments" if self.method.first_step_free else "prior"

    @property
    def start_level(self) -> float | None:
        """The noise level in standard deviations of the data at which a named grid begins after the first step."""
        return self.method.start_level if isinstance(self.grid, str) else None

    @property
    def grid_name(self) -> str:
        """The name of the grid."""
        return "tuned" if self.tuned_for else self.grid if isinstance(self.grid, str) else "custom"

    def times(self, model: ReverseModel, end_times: EndTimes, denoise_last: bool = False) -> Tensor:
        """The times of the steps, decreasing, float64."""
        method, steps, grid, (t_start, t_end) = self.method, self.steps, self.grid, end_times
        if isinstance(model, Model):
            t_start = model.t_start() if t_start is None else t_start
        if method.adaptive:
            steps = 1 + (isinstance(model, Model) and float(model.sde.alpha(as_time(t_start or 0.0))) == 0)
        if isinstance(model, Model):
            end, steps = model.t_end() if t_end is None else t_end, steps + (method.first_step_free and steps > 0)
            early = method.ends_early and denoise_last and isinstance(grid, str) and steps > 0
            times = time_grid(model.sde, steps + early, grid, t_start, end, model.sigma_data, method.start_level)
            return times[:-1] if early else times
        in_time = "time" if isinstance(grid, str) and grid not in ("time", "time_quadratic") else grid
        return time_grid(model.process(), steps, in_time, t_start, 0.0 if t_end is None else t_end)


def resolve_method(model: ReverseModel, request: SamplerRequest) -> SamplerPlan:
    """The sampler for a request.

    Args:
        model: the model.
        request: method "auto" is the tuned sampler if there is one for this request and no grid is given, else the
            default; "tuned" the tuned sampler; "sde" the stochastic default; or a name in `METHODS`, or a `Method`.

    Raises:
        InputError: for an unknown name, a method that cannot sample this model, and "tuned" without a tuned sampler.
    """
    choice: TunedChoice | tuple[str, Method]
    if (tuned := _tuned(model, request)) is not None:
        choice = tuned
    elif (required := required_sampler(model)) is not None:
        if request.method != "auto":
            raise InputError(f"got method={request.method!r} for a model that has its own sampler; leave method out")
        choice = ("required", required)
    elif isinstance(request.method, Method):
        choice = ("custom", request.method)
    else:
        choice = _default(model, request) if request.method in TABLES else _by_name(model, request.method)
    name, method = choice
    steps = method.steps if request.steps is None else request.steps
    grid = method.grid if request.grid is None else request.grid
    return SamplerPlan("tuned", method, grid, steps, name) if tuned else SamplerPlan(name, method, grid, steps)


def _tuned(model: ReverseModel, request: SamplerRequest) -> TunedChoice | None:
    """The tuned sampler: for "tuned", and for "auto" without a grid if there is one."""
    if request.method == "tuned":
        return require_tuned(model, request.evaluations, request.end_times, request.cond)
    usable = request.method == "auto" and request.grid is None
    return find_tuned(model, request.evaluations, request.end_times, request.cond) if usable else None


def _default(model: ReverseModel, request: SamplerRequest) -> tuple[str, Method]:
    """The default sampler of kind "auto" or "sde"."""
    kind = str(request.method)
    if not isinstance(model, Model):
        return DRIFT_ONLY[kind], ALL[DRIFT_ONLY[kind]]
    if model.kind != "denoiser":
        return next(iter(DISTILLED.items()))
    from_noise = request.from_noise and request.grid is None
    entry: DefaultSampler = default_sampler(model, request.evaluations, request.end_times,
                                            bool(request.cond) or not from_noise, kind, from_noise=from_noise)
    return entry.method, entry.build()


def _by_name(model: ReverseModel, name: str) -> tuple[str, Method]:
    """The method of that name in `METHODS`, if it can sample the process."""
    if name not in METHODS:
        raise InputError(f"got method={str(name)[:60]!r}, which is not a sampler; expected auto, sde, tuned "
                         f"or a name in ud.samplers.METHODS{did_you_mean(str(name), METHODS)}")
    method = METHODS[name]
    if method.gaussian and not isinstance(model.process(), GaussianSDE):
        usable = ", ".join(k for k, m in METHODS.items() if not m.gaussian)
        raise InputError(f"got method={name!r} for a process that has no closed-form kernel; expected one of {usable}")
    return name, method
