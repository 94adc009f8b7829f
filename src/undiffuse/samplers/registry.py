"""The table of samplers: name, step, default grid, claimed order, published formula.

A deterministic exponential method is a kernel (integrated exactly), an order or stages, a corrector, and a rule
that turns moments into weights (`coefficients`). Notation of the formulas: a step from t to s, h = λ_s − λ_t, D_0 and
ε_0 the data and noise prediction at t, D_1, ε_1 at the node before, r = (λ_t − λ_1)/h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

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
from undiffuse.samplers.discrete import consistency, ddpm, plms
from undiffuse.samplers.exponential import Multistep, Singlestep, after, first_order, rosenbrock
from undiffuse.samplers.method import Method, Node, SamplerContext, Step, StepFactory
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

KernelFactory = Callable[[SamplerContext, bool], Kernel]


def data(context: SamplerContext, frame: bool = False) -> Kernel:
    """Data prediction, in the principal coordinates of the data's moments if `frame`."""
    return DataPrediction(frame=context.moments if frame else None)


def noise(context: SamplerContext, frame: bool = False) -> Kernel:
    """Noise prediction; data prediction if `frame`."""
    return data(context, frame) if frame else NoisePrediction()


KERNELS: dict[str, KernelFactory] = {"data": data, "noise": noise}


def multistep(order: int, prediction: Literal["data", "noise"] = "data", rule: Rule = exact, *,
              corrector: bool = False, frame: bool = False, claims: int | None = None) -> Method:
    """A multistep sampler: the remainder is a polynomial through its last `order` values, integrated exactly.

    Args:
        order: number of values of the denoiser that a step combines.
        prediction: the interpolated quantity, the data D or the noise ε̂.
        rule: weights from moments: `exact`, or the rule of a published method (`undiffuse.samplers.coefficients`).
        corrector: correct every step by the value at its end, without another evaluation (UniPC).
        frame: default of the option `frame`: integrate the Gaussian part of the data's moments exactly.
        claims: order of convergence; None: order, or order + 1 with a corrector.

    Returns:
        A `Method` for `ud.sample(model, n, method)`; its option `lower_final` lowers the order to 1 towards the end.
    """
    framed, kernel = frame, KERNELS[prediction]

    def make(context: SamplerContext, *, lower_final: bool = False, frame: bool = framed) -> Step:
        split = kernel(context, frame)

        def build(nodes: list[Node]) -> Step:
            return Multistep(split, order, nodes, context.template, corrector, rule, lower_final)

        return _from_first_step(build, split, context)

    return Method(make, order + corrector if claims is None else claims)


def singlestep(stages: tuple[float, ...], final: tuple[int, ...], kernel: KernelFactory = data, rule: Rule = exact
               ) -> StepFactory:
    """The steps of an exponential Runge-Kutta method with those stages; see `Singlestep`.

    Args:
        stages: position r of each stage as a fraction of the step in log-SNR, increasing.
        final: indices of the stages that the step itself interpolates; 0 is the start.
        kernel: builds the linear part and the remainder v from the context and the option frame.
        rule: weights from moments.
    """

    def make(context: SamplerContext, *, frame: bool = False) -> Step:
        split = kernel(context, frame)

        def build(nodes: list[Node]) -> Step:
            return Singlestep(split, stages, final, context.sde, context.template, rule)

        return _from_first_step(build, split, context)

    return make


def _from_first_step(build: Callable[[list[Node]], Step], kernel: Kernel, context: SamplerContext) -> Step:
    """The method; from α(T) = 0, where ε̂ does not determine x_0, noise prediction begins after a first-order step."""
    if context.nodes[0].alpha == 0 and isinstance(kernel, NoisePrediction):
        return after(first_order, build(context.nodes[1:]))
    return build(context.nodes)


_HALF, _THIRDS = ((0.5,), (0, 1)), ((1 / 3, 2 / 3), (0, 2))

DETERMINISTIC: dict[str, Method] = {
    # Song, Meng and Ermon (2021), eq. 12, arXiv:2010.02502: x_s = (σ_s/σ_t) x + (α_s − α_t σ_s/σ_t) D_0
    "ddim": multistep(1),
    # Lu et al. (2022), DPM-Solver, algorithms 1 and 2, arXiv:2206.00927: x_s = (α_s/α_t) x − σ_s (eʰ − 1) ε(λ_t + h/2)
    "dpm_solver_2s": Method(singlestep(*_HALF, noise, midpoint), 2),
    "dpm_solver_3s": Method(singlestep(*_THIRDS, noise), 3),
    # Lu et al. (2022), arXiv:2211.01095: x_s = (α_s/α_t) x − σ_s (eʰ − 1) [(1 + 1/2r) ε_0 − 1/2r ε_1]
    "dpm_solver_2m": multistep(2, "noise", midpoint),
    # Lu et al. (2022), DPM-Solver++, algorithm 1: x_s = (σ_s/σ_t) x + α_s (1 − e⁻ʰ) D(λ_t + h/2)
    "dpmpp_2s": Method(singlestep(*_HALF, data, midpoint), 2),
    "dpmpp_3s": Method(singlestep(*_THIRDS), 3),
    # Lu et al. (2022), DPM-Solver++, algorithm 2: x_s = (σ_s/σ_t) x + α_s (1 − e⁻ʰ) [(1 + 1/2r) D_0 − 1/2r D_1]
    "dpmpp_2m": multistep(2, rule=midpoint),
    # The same interpolation integrated exactly: I_0 D_0 + I_1 (D_0 − D_1)/(r h), I_k = α_s ∫₀ʰ e^{u−h} uᵏ du
    "dpmpp_2m_heun": multistep(2),
    # I_0 D_0 + I_1 D' + I_2 D''/2 with divided differences; `classic` has I_2/2 as published, which is of order 2
    "dpmpp_3m": multistep(3),
    "dpmpp_3m_classic": multistep(3, rule=half_curvature, claims=2),
    "dpmpp_4m": multistep(4),
    # Zhao et al. (2023), UniPC, algorithms 5 to 8, arXiv:2302.04867, with B₂(h) = eʰ − 1; bh1: B₁(h) = h
    "unipc": multistep(2, rule=midpoint, corrector=True),
    "unipc_bh1": multistep(2, rule=square, corrector=True),
    "unipc_3": multistep(3, rule=midpoint, corrector=True),
    "unipc_3_bh1": multistep(3, rule=square, corrector=True),
    "unipc_3_noise": multistep(3, "noise", corrector=True),
    "unipc_4_noise": multistep(4, "noise", corrector=True),
    "unipc_5_noise": multistep(5, "noise", corrector=True),
    # Zhang and Chen (2023), tAB-DEIS, eq. 14, arXiv:2204.13902, the polynomial in λ: x_s = (α_s/α_t) x + Σ_j w_j ε_j
    "deis_2": multistep(2, "noise"),
    "deis_3": multistep(3, "noise"),
    "deis_4": multistep(4, "noise"),
    # Zhang and Chen (2023), algorithm 2: (55 ε_0 − 59 ε_1 + 37 ε_2 − 9 ε_3)/24; order 4 on a grid even in σ̂, else 2
    "ipndm": multistep(4, "noise", adams, claims=2),
    # Liu et al. (2022), PNDM, eqs. 12 and 13, arXiv:2202.09778: the same, the first step by the mean of both its ends
    "plms": Method(plms, 2),
    # Hochbruck, Ostermann and Schweitzer (2009), eq. 2.6
    "rosenbrock": Method(rosenbrock, 2),
    # v = D − Wiener(z) in the principal coordinates of the data's moments; exact for Gaussian data
    "wiener_1": multistep(1, frame=True),
    "wiener_2m": multistep(2, frame=True),
    "wiener_3m": multistep(3, frame=True),
    "wiener_4m": multistep(4, frame=True),
}
"""Exponential methods for the probability-flow ODE. UniPC's two functions B(h) differ only for two values of D."""


ALL: dict[str, Method] = {
    # dx = v(x, t) dt by Runge-Kutta methods (Butcher tableaus in `undiffuse.ode`), in t, λ or σ̂
    "euler": Method(runge_kutta(EULER), 1, gaussian=False),
    "midpoint": Method(runge_kutta(MIDPOINT), 2, gaussian=False),
    "heun": Method(runge_kutta(HEUN), 2, grid="karras", gaussian=False),
    "rk4": Method(runge_kutta(RK4), 4, gaussian=False),
    "midpoint_log_snr": Method(runge_kutta_log_snr(MIDPOINT), 2),
    "heun_log_snr": Method(runge_kutta_log_snr(HEUN), 2),
    "rk4_log_snr": Method(runge_kutta_log_snr(RK4), 4),
    # Karras et al. (2022), algorithm 1, arXiv:2206.00364: Heun for dz/dσ̂ = (z − D)/σ̂
    "heun_sigma": Method(runge_kutta_sigma(HEUN), 2, grid="karras"),
    # Bogacki and Shampine (1989); Dormand and Prince (1980)
    "ode23": Method(ode(BOGACKI_SHAMPINE), 3, gaussian=False, adaptive=True),
    "ode45": Method(ode(DORMAND_PRINCE), 5, gaussian=False, adaptive=True),
    **DETERMINISTIC,
    # Song et al. (2021), eq. 6, arXiv:2011.13456: x − drift h + η g √h ξ
    "euler_maruyama": Method(euler_maruyama, 1, stochastic=True, grid="time", gaussian=False),
    # Song et al. (2021), eq. 46: (2 − a) x + G² ∇log p_t + G ξ
    "reverse_diffusion": Method(reverse_diffusion, 1, stochastic=True, grid="time"),
    # Ho et al. (2020), DDPM, algorithm 2, arXiv:2006.11239, with the posterior variance
    "ancestral": Method(multistep_sde(1), 1, stochastic=True),
    # The same with the variance β of the chain's step, or one that the network learned
    "ddpm": Method(ddpm, 1, stochastic=True),
    # Lu et al. (2022), appendix B, arXiv:2211.01095:
    # x_s = (σ_s/σ_t) e⁻ʰ x + α_s (1 − e⁻²ʰ) [(1 + 1/2r) D_0 − 1/2r D_1] + σ_s √(1 − e⁻²ʰ) ξ
    "dpmpp_2m_sde": Method(multistep_sde(2, midpoint), 2, stochastic=True),
    "dpmpp_2m_sde_heun": Method(multistep_sde(2), 2, stochastic=True),
    "dpmpp_3m_sde": Method(multistep_sde(3), 2, stochastic=True),
    "dpmpp_sde": Method(singlestep_sde((0.5,), (0, 1), midpoint), 2, stochastic=True),
    # Gonzalez et al. (2023), SEEDS, arXiv:2305.14267
    "seeds_2": Method(singlestep_sde((0.5,), (0, 1)), 2, stochastic=True),
    "sde_then_ode": Method(sde_then_ode, 2, stochastic=True),
    # Xue et al. (2023), SA-Solver, arXiv:2309.05019
    "sa_solver": Method(sa_solver, 2, stochastic=True),
    "wiener_2m_sde": Method(multistep_sde(2, eta=0.5, frame=True), 2, stochastic=True),
    # Bao et al. (2022), arXiv:2201.06503; Ou et al. (2024), arXiv:2406.10808: mean κ z + (1 − κ) D, exact covariance
    "matched": Method(matched, 1, stochastic=True),
    "matched_iso": Method(matched_iso, 1, stochastic=True),
    "matched_average": Method(matched_average, 1, stochastic=True),
    # Karras et al. (2022), algorithm 2; Xu et al. (2023), algorithm 1, arXiv:2306.14878
    "edm_churn": Method(edm_churn, 2, stochastic=True, grid="karras"),
    "restart": Method(edm_restart, 2, stochastic=True, grid="karras"),
    # Song et al. (2021), algorithms 1, 4 and 5; Song and Ermon (2019), algorithm 1, arXiv:1907.05600
    "predictor_corrector": Method(predictor_corrector, 1, stochastic=True, grid="time", gaussian=False),
    "annealed_langevin": Method(annealed_langevin, 0, stochastic=True),
    # Jolicoeur-Martineau et al. (2021), algorithm 1, arXiv:2105.14080
    "adaptive_sde": Method(adaptive_sde, 1, stochastic=True, gaussian=False, adaptive=True, path_noise=True),
}
"""All samplers: the default tables take theirs from here, and tests and benchmarks run all of them."""

DISTILLED: dict[str, Method] = {
    # Luo et al. (2023), algorithm 3, arXiv:2310.04378: α_s D + σ_s ξ
    "consistency": Method(consistency, 0, stochastic=True, grid="time", steps=3),
}
"""Samplers of networks whose D is not E[x_0 | x_t] but the end of a trajectory; the first is their default."""

METHODS: dict[str, Method] = {name: ALL[name] for name in (
    "euler", "midpoint", "heun", "rk4", "rk4_log_snr", "ode45", "ddim", "dpm_solver_2m", "dpmpp_2m", "dpmpp_3m",
    "unipc", "deis_3", "euler_maruyama", "reverse_diffusion", "ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde",
    "sde_then_ode", "matched", "edm_churn", "restart", "predictor_corrector", "annealed_langevin", "adaptive_sde")}
"""The samplers with public names; all others are passed as a `Method`, from `multistep` or from `ALL`."""


def as_method(method: str | Method) -> str | Method:
    """The `Method` in `ALL` with that name; other values unchanged."""
    return ALL.get(method, method) if isinstance(method, str) else method
