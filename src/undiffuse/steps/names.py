"""The table of samplers: name, step, default grid and claimed order."""

from __future__ import annotations

from undiffuse.errors import InputError
from undiffuse.ode import BOGACKI_SHAMPINE, DORMAND_PRINCE, EULER, HEUN, MIDPOINT, RK4
from undiffuse.steps.adaptive import adaptive_sde
from undiffuse.steps.combinators import edm_churn, edm_restart
from undiffuse.steps.deterministic import DETERMINISTIC
from undiffuse.steps.flow import ode, runge_kutta, runge_kutta_log_snr, runge_kutta_sigma
from undiffuse.steps.langevin import annealed_langevin, predictor_corrector
from undiffuse.steps.matched import matched, matched_average, matched_iso
from undiffuse.steps.method import Method
from undiffuse.steps.quiet import sde_then_ode
from undiffuse.steps.rows import midpoint
from undiffuse.steps.stochastic import (
    euler_maruyama,
    multistep_sde,
    reverse_diffusion,
    sa_solver,
    singlestep_sde,
)

ALL: dict[str, Method] = {
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
    **DETERMINISTIC,
    "euler_maruyama": Method(euler_maruyama, 1, stochastic=True, grid="time", gaussian=False),
    "reverse_diffusion": Method(reverse_diffusion, 1, stochastic=True, grid="time"),
    "ancestral": Method(multistep_sde(1), 1, stochastic=True),
    "dpmpp_2m_sde": Method(multistep_sde(2, midpoint), 2, stochastic=True),
    "dpmpp_2m_sde_heun": Method(multistep_sde(2), 2, stochastic=True),
    "dpmpp_3m_sde": Method(multistep_sde(3), 2, stochastic=True),
    "dpmpp_sde": Method(singlestep_sde((0.5,), (0, 1), midpoint), 2, stochastic=True),
    "seeds_2": Method(singlestep_sde((0.5,), (0, 1)), 2, stochastic=True),
    "sde_then_ode": Method(sde_then_ode, 2, stochastic=True),
    "sa_solver": Method(sa_solver, 2, stochastic=True),
    "wiener_2m_sde": Method(multistep_sde(2, eta=0.5, frame=True), 2, stochastic=True),
    "matched": Method(matched, 1, stochastic=True),
    "matched_iso": Method(matched_iso, 1, stochastic=True),
    "matched_average": Method(matched_average, 1, stochastic=True),
    "edm_churn": Method(edm_churn, 2, stochastic=True, grid="karras"),
    "restart": Method(edm_restart, 2, stochastic=True, grid="karras"),
    "predictor_corrector": Method(predictor_corrector, 1, stochastic=True, grid="time", gaussian=False),
    "annealed_langevin": Method(annealed_langevin, 0, stochastic=True),
    "adaptive_sde": Method(adaptive_sde, 1, stochastic=True, gaussian=False, adaptive=True, path=True),
}
"""Every row that is measured: `auto` takes its samplers from here, and tests and benchmarks run all of them."""

METHODS: dict[str, Method] = {name: ALL[name] for name in (
    "euler", "midpoint", "heun", "rk4", "rk4_log_snr", "ode45", "ddim", "dpm_solver_2m", "dpmpp_2m", "dpmpp_3m",
    "unipc", "deis_3", "euler_maruyama", "reverse_diffusion", "ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde",
    "sde_then_ode", "matched", "edm_churn", "restart", "predictor_corrector", "annealed_langevin", "adaptive_sde")}
"""The samplers that have a public name; all others are passed as a `Method`, from `multistep` or from `ALL`."""


def method_of(name: str) -> Method:
    """The sampler of that name; raises InputError naming those that exist."""
    if name not in METHODS:
        raise InputError(f"got method={name!r}; expected auto, sde or one of {', '.join(METHODS)}, or a "
                         "Method of undiffuse.steps")
    return METHODS[name]


def as_row(method: str | Method) -> str | Method:
    """The row of `ALL` with that name; anything else unchanged."""
    return ALL.get(method, method) if isinstance(method, str) else method
