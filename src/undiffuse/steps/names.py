"""The table of samplers: a name, how its step is made, the grid it likes and the order it claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.gaussian import Moments
from undiffuse.model import ReverseModel
from undiffuse.ode import EULER, HEUN, MIDPOINT, RK4
from undiffuse.sde import GaussianSDE
from undiffuse.steps.exponential import Multistep, Singlestep, Tweak, exact, half_curvature, midpoint
from undiffuse.steps.kernel import Data, Kernel, Noise
from undiffuse.steps.state import Node, Step
from undiffuse.steps.stepping import euler_maruyama, runge_kutta


@dataclass(frozen=True)
class Plan:
    """What a step is made for: the model, the nodes of the grid, and a tensor of the states' dtype and device."""

    model: ReverseModel
    nodes: list[Node]
    like: Tensor

    @property
    def frame(self) -> Moments | None:
        """The data's moments, where the model has them."""
        return getattr(self.model, "moments", None)


@dataclass(frozen=True)
class Method:
    """A named sampler: `make(plan)` gives its step, `order` is the claimed one (weak, where `stochastic`)."""

    make: Callable[[Plan], Step]
    order: int
    stochastic: bool = False
    grid: str = "log_snr"
    gaussian: bool = True


def multistep(order: int, ell: float = 0.0, *, corrector: bool = False, tweak: Tweak = exact,
              kernel: Callable[[Plan], Kernel] | None = None, lower_final: bool = False) -> Callable[[Plan], Step]:
    """A row of the multistep family."""

    def make(plan: Plan) -> Step:
        chosen = kernel(plan) if kernel else Data(ell)
        return Multistep(chosen, order, plan.nodes, plan.like, corrector, tweak, lower_final)

    return make


def singlestep(stages: tuple[float, ...], final: tuple[int, ...], kernel: Callable[[Plan], Kernel],
               tweak: Tweak = exact) -> Callable[[Plan], Step]:
    """An exponential Runge-Kutta method with those stages."""

    def make(plan: Plan) -> Step:
        sde = plan.model.process()
        assert isinstance(sde, GaussianSDE)
        return Singlestep(kernel(plan), stages, final, sde, plan.nodes, plan.like, tweak)

    return make


def data(plan: Plan) -> Kernel:
    """Data prediction."""
    return Data()


def wiener(plan: Plan) -> Kernel:
    """Data prediction in the frame of the data's moments, where the model has them."""
    return Data(frame=plan.frame)


def noise(plan: Plan) -> Kernel:
    """Noise prediction; data prediction from α(T) = 0, where ε says nothing of x_0."""
    return Data() if plan.nodes[0].alpha == 0 else Noise()


METHODS: dict[str, Method] = {
    "euler": Method(lambda plan: runge_kutta(EULER), 1, gaussian=False),
    "midpoint": Method(lambda plan: runge_kutta(MIDPOINT), 2, gaussian=False),
    "heun": Method(lambda plan: runge_kutta(HEUN), 2, grid="karras", gaussian=False),
    "rk4": Method(lambda plan: runge_kutta(RK4), 4, gaussian=False),
    "euler_maruyama": Method(lambda plan: euler_maruyama(), 1, stochastic=True, grid="time", gaussian=False),
    "ddim": Method(multistep(1), 1),
    "ancestral": Method(multistep(1, 1.0), 1, stochastic=True),
    "dpm_solver_2s": Method(singlestep((0.5,), (0, 1), noise, midpoint), 2),
    "dpm_solver_3s": Method(singlestep((1 / 3, 2 / 3), (0, 2), noise), 3),
    "dpm_solver_2m": Method(multistep(2, kernel=noise), 2),
    "deis_2": Method(multistep(2, kernel=noise), 2),
    "deis_3": Method(multistep(3, kernel=noise), 3),
    "deis_4": Method(multistep(4, kernel=noise), 4),
    "dpmpp_2s": Method(singlestep((0.5,), (0, 1), data, midpoint), 2),
    "dpmpp_3s": Method(singlestep((1 / 3, 2 / 3), (0, 2), data), 3),
    "dpmpp_2m": Method(multistep(2, tweak=midpoint), 2),
    "dpmpp_3m": Method(multistep(3), 3),
    "dpmpp_3m_classic": Method(multistep(3, tweak=half_curvature), 2),
    "unipc": Method(multistep(2, corrector=True, tweak=midpoint), 3),
    "unipc_3": Method(multistep(3, corrector=True), 4),
    "wiener_2m": Method(multistep(2, kernel=wiener), 2),
    "wiener_3m": Method(multistep(3, kernel=wiener), 3),
}


def method_of(name: str) -> Method:
    """The sampler of that name; raises InputError naming those that exist."""
    if name not in METHODS:
        raise InputError(f"got method={name!r}; expected auto or one of {', '.join(METHODS)}")
    return METHODS[name]
