"""The table of samplers: a name, how its step is made, the grid it likes and the order it claims."""

from __future__ import annotations

from collections.abc import Callable

from undiffuse.errors import InputError
from undiffuse.ode import BOGACKI_SHAMPINE, DORMAND_PRINCE, EULER, HEUN, MIDPOINT, RK4
from undiffuse.steps.exponential import Multistep, Singlestep, Tweak, exact, half_curvature, midpoint
from undiffuse.steps.flow import ode, runge_kutta, runge_kutta_log_snr, runge_kutta_sigma
from undiffuse.steps.kernel import Data, Kernel, Noise
from undiffuse.steps.method import Method, Plan
from undiffuse.steps.state import Step
from undiffuse.steps.stochastic import (
    euler_maruyama,
    multistep_sde,
    reverse_diffusion,
    sa_solver,
    singlestep_sde,
)


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
        return Singlestep(kernel(plan), stages, final, plan.sde, plan.like, tweak)

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
    "euler": Method(runge_kutta(EULER), 1, gaussian=False),
    "midpoint": Method(runge_kutta(MIDPOINT), 2, gaussian=False),
    "heun": Method(runge_kutta(HEUN), 2, grid="karras", gaussian=False),
    "rk4": Method(runge_kutta(RK4), 4, gaussian=False),
    "midpoint_log_snr": Method(runge_kutta_log_snr(MIDPOINT), 2),
    "heun_log_snr": Method(runge_kutta_log_snr(HEUN), 2),
    "rk4_log_snr": Method(runge_kutta_log_snr(RK4), 4),
    "heun_sigma": Method(runge_kutta_sigma(HEUN), 2, grid="karras"),
    "ode23": Method(ode(BOGACKI_SHAMPINE), 3, gaussian=False, adaptive=True),
    "ode45": Method(ode(DORMAND_PRINCE), 5, gaussian=False, adaptive=True),
    "ddim": Method(multistep(1), 1),
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
    "euler_maruyama": Method(euler_maruyama, 1, stochastic=True, grid="time", gaussian=False),
    "reverse_diffusion": Method(reverse_diffusion, 1, stochastic=True, grid="time"),
    "ancestral": Method(multistep_sde(1), 1, stochastic=True),
    "sde_dpmpp_1": Method(multistep_sde(1), 1, stochastic=True),
    "dpmpp_2m_sde": Method(multistep_sde(2, midpoint), 2, stochastic=True),
    "dpmpp_2m_sde_heun": Method(multistep_sde(2), 2, stochastic=True),
    "dpmpp_3m_sde": Method(multistep_sde(3), 2, stochastic=True),
    "dpmpp_sde": Method(singlestep_sde((0.5,), (0, 1), midpoint), 2, stochastic=True),
    "seeds_2": Method(singlestep_sde((0.5,), (0, 1)), 2, stochastic=True),
    "sa_solver": Method(sa_solver, 2, stochastic=True),
}


def method_of(name: str) -> Method:
    """The sampler of that name; raises InputError naming those that exist."""
    if name not in METHODS:
        raise InputError(f"got method={name!r}; expected auto or one of {', '.join(METHODS)}")
    return METHODS[name]
