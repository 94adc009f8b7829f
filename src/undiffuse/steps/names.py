"""The table of samplers: a name, its step, the grid it likes and the order it claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from undiffuse.errors import InputError
from undiffuse.ode import EULER, HEUN, MIDPOINT, RK4
from undiffuse.steps.exponential import exponential
from undiffuse.steps.state import Step
from undiffuse.steps.stepping import euler_maruyama, runge_kutta


@dataclass(frozen=True)
class Method:
    """A named sampler: `make()` gives its step, `order` is the claimed one (weak, where `stochastic`)."""

    make: Callable[[], Step]
    order: int
    stochastic: bool = False
    grid: str = "log_snr"
    gaussian: bool = True


METHODS: dict[str, Method] = {
    "euler": Method(lambda: runge_kutta(EULER), 1, gaussian=False),
    "midpoint": Method(lambda: runge_kutta(MIDPOINT), 2, gaussian=False),
    "heun": Method(lambda: runge_kutta(HEUN), 2, grid="karras", gaussian=False),
    "rk4": Method(lambda: runge_kutta(RK4), 4, gaussian=False),
    "euler_maruyama": Method(euler_maruyama, 1, stochastic=True, grid="time", gaussian=False),
    "ddim": Method(exponential, 1),
    "ancestral": Method(lambda: exponential(1, 1.0), 1, stochastic=True),
    "dpmpp_2m": Method(lambda: exponential(2), 2),
}


def method_of(name: str) -> Method:
    """The sampler of that name; raises InputError naming those that exist."""
    if name not in METHODS:
        raise InputError(f"got method={name!r}; expected auto or one of {', '.join(METHODS)}")
    return METHODS[name]
