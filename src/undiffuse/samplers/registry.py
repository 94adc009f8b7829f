"""The table of samplers: name, step, default grid and claimed order.

The deterministic part of the table: rows of the exponential family for the probability-flow ODE.

A row is a kernel (what is integrated exactly), an order or stages, a corrector, and a rule that makes weights of
moments. Options of every row: `frame` puts data prediction into the frame of the data's moments; of multistep rows,
`lower_final` lets the order fall to 1 towards the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from undiffuse.errors import InputError
from undiffuse.ode import BOGACKI_SHAMPINE, DORMAND_PRINCE, EULER, HEUN, MIDPOINT, RK4
from undiffuse.samplers.coefficients import (
    DataPrediction,
    Kernel,
    NoisePrediction,
    Rule,
    adams,
    exact,
    half_curvature,
    midpoint,
    square,
)
from undiffuse.samplers.combinators import edm_churn, edm_restart
from undiffuse.samplers.covariance_matched import matched, matched_average, matched_iso
from undiffuse.samplers.exponential import Multistep, Singlestep, after, first_order, rosenbrock
from undiffuse.samplers.method import Method, Node, SamplerContext, Step
from undiffuse.samplers.runge_kutta import ode, runge_kutta, runge_kutta_log_snr, runge_kutta_sigma
from undiffuse.samplers.stochastic import (
    adaptive_sde,
    annealed_langevin,
    euler_maruyama,
    multistep_sde,
    predictor_corrector,
    reverse_diffusion,
    sa_solver,
    sde_then_ode,
    singlestep_sde,
)

Make = Callable[..., Step]
Choice = Callable[[SamplerContext, bool], Kernel]


def data(plan: SamplerContext, frame: bool = False) -> Kernel:
    """Data prediction."""
    return DataPrediction(frame=plan.frame if frame else None)


def noise(plan: SamplerContext, frame: bool = False) -> Kernel:
    """Noise prediction; data prediction in a frame."""
    return data(plan, frame) if frame else NoisePrediction()


KERNELS: dict[str, Choice] = {"data": data, "noise": noise}


def multistep(order: int, prediction: Literal["data", "noise"] = "data", rule: Rule = exact, *,
              corrector: bool = False, frame: bool = False, claims: int | None = None) -> Method:
    """A multistep sampler: the remainder is a polynomial through its last `order` values, integrated exactly.

    Args:
        order: Number of values of the denoiser that a step combines.
        prediction: What is interpolated, the data D or the noise ε̂.
        rule: Weights from moments: `exact`, or that of a published method (`undiffuse.samplers.coefficients`).
        corrector: Correct every step by the value at its end, without another evaluation (UniPC).
        frame: Integrate the Gaussian part that the data's moments give exactly; the default of the option `frame`.
        claims: Order of convergence; order, or order + 1 with a corrector, by default.

    Returns:
        A `Method` for `ud.sample(model, n, method)`.
    """
    framed, kernel = frame, KERNELS[prediction]

    def make(plan: SamplerContext, *, lower_final: bool = False, frame: bool = framed) -> Step:
        def build(chosen: Kernel, nodes: list[Node]) -> Step:
            return Multistep(chosen, order, nodes, plan.like, corrector, rule, lower_final)

        return _begun(build, kernel(plan, frame), plan)

    return Method(make, order + corrector if claims is None else claims)


def singlestep(stages: tuple[float, ...], final: tuple[int, ...], kernel: Choice = data, rule: Rule = exact) -> Make:
    """An exponential Runge-Kutta row with those stages."""

    def make(plan: SamplerContext, *, frame: bool = False) -> Step:
        def build(chosen: Kernel, nodes: list[Node]) -> Step:
            return Singlestep(chosen, stages, final, plan.sde, plan.like, rule)

        return _begun(build, kernel(plan, frame), plan)

    return make


def _begun(build: Callable[[Kernel, list[Node]], Step], kernel: Kernel, plan: SamplerContext) -> Step:
    """The method; from α(T) = 0, where ε says nothing of x_0, noise prediction begins after a first-order step."""
    if plan.nodes[0].alpha == 0 and isinstance(kernel, NoisePrediction):
        return after(first_order, build(kernel, plan.nodes[1:]))
    return build(kernel, plan.nodes)


_HALF, _THIRDS = ((0.5,), (0, 1)), ((1 / 3, 2 / 3), (0, 2))

DETERMINISTIC: dict[str, Method] = {
    "ddim": multistep(1),
    "dpm_solver_2s": Method(singlestep(*_HALF, noise, midpoint), 2),
    "dpm_solver_3s": Method(singlestep(*_THIRDS, noise), 3),
    "dpm_solver_2m": multistep(2, "noise", midpoint),
    "dpmpp_2s": Method(singlestep(*_HALF, data, midpoint), 2),
    "dpmpp_3s": Method(singlestep(*_THIRDS), 3),
    "dpmpp_2m": multistep(2, rule=midpoint),
    "dpmpp_2m_heun": multistep(2),
    "dpmpp_3m": multistep(3),
    "dpmpp_3m_classic": multistep(3, rule=half_curvature, claims=2),
    "dpmpp_4m": multistep(4),
    "unipc": multistep(2, rule=midpoint, corrector=True),
    "unipc_bh1": multistep(2, rule=square, corrector=True),
    "unipc_3": multistep(3, rule=midpoint, corrector=True),
    "unipc_3_bh1": multistep(3, rule=square, corrector=True),
    "unipc_3_noise": multistep(3, "noise", corrector=True),
    "unipc_4_noise": multistep(4, "noise", corrector=True),
    "unipc_5_noise": multistep(5, "noise", corrector=True),
    "deis_2": multistep(2, "noise"),
    "deis_3": multistep(3, "noise"),
    "deis_4": multistep(4, "noise"),
    "ipndm": multistep(4, "noise", adams, claims=2),
    "rosenbrock": Method(rosenbrock, 2),
    "wiener_1": multistep(1, frame=True),
    "wiener_2m": multistep(2, frame=True),
    "wiener_3m": multistep(3, frame=True),
    "wiener_4m": multistep(4, frame=True),
}
"""`dpmpp_3m` has the correct second derivative, `dpmpp_3m_classic` half of it, as published. `deis` interpolates in λ
(exponential Adams-Bashforth); `ipndm` has the numbers of equal steps whatever the grid: order 4 on a grid even in σ̂,
order 2 on any other smooth one. UniPC's two functions B(h) differ only where it has two values."""


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
                         "Method of undiffuse.samplers")
    return METHODS[name]


def as_row(method: str | Method) -> str | Method:
    """The row of `ALL` with that name; anything else unchanged."""
    return ALL.get(method, method) if isinstance(method, str) else method
