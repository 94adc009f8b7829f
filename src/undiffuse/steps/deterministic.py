"""The deterministic part of the table: rows of the exponential family for the probability-flow ODE.

A row is a kernel (what is integrated exactly), an order or stages, a corrector, and a rule that makes weights of
moments. Options of every row: `frame` puts data prediction into the frame of the data's moments; of multistep rows,
`lower_final` lets the order fall to 1 towards the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from undiffuse.steps.exponential import Multistep, Singlestep
from undiffuse.steps.kernel import Data, Kernel, Noise
from undiffuse.steps.method import Method, Plan
from undiffuse.steps.rosenbrock import rosenbrock
from undiffuse.steps.rows import Rule, adams, exact, half_curvature, midpoint, square
from undiffuse.steps.start import after, first_order
from undiffuse.steps.state import Node, Step

Make = Callable[..., Step]
Choice = Callable[[Plan, bool], Kernel]


def data(plan: Plan, frame: bool = False) -> Kernel:
    """Data prediction."""
    return Data(frame=plan.frame if frame else None)


def noise(plan: Plan, frame: bool = False) -> Kernel:
    """Noise prediction; data prediction in a frame."""
    return data(plan, frame) if frame else Noise()


KERNELS: dict[str, Choice] = {"data": data, "noise": noise}


def multistep(order: int, prediction: Literal["data", "noise"] = "data", rule: Rule = exact, *,
              corrector: bool = False, frame: bool = False, claims: int | None = None) -> Method:
    """A multistep sampler: the remainder is a polynomial through its last `order` values, integrated exactly.

    Args:
        order: Number of values of the denoiser that a step combines.
        prediction: What is interpolated, the data D or the noise ε̂.
        rule: Weights from moments: `exact`, or that of a published method (`undiffuse.steps.rows`).
        corrector: Correct every step by the value at its end, without another evaluation (UniPC).
        frame: Integrate the Gaussian part that the data's moments give exactly; the default of the option `frame`.
        claims: Order of convergence; order, or order + 1 with a corrector, by default.

    Returns:
        A `Method` for `ud.sample(model, n, method)`.
    """
    framed, kernel = frame, KERNELS[prediction]

    def make(plan: Plan, *, lower_final: bool = False, frame: bool = framed) -> Step:
        def build(chosen: Kernel, nodes: list[Node]) -> Step:
            return Multistep(chosen, order, nodes, plan.like, corrector, rule, lower_final)

        return _begun(build, kernel(plan, frame), plan)

    return Method(make, order + corrector if claims is None else claims)


def singlestep(stages: tuple[float, ...], final: tuple[int, ...], kernel: Choice = data, rule: Rule = exact) -> Make:
    """An exponential Runge-Kutta row with those stages."""

    def make(plan: Plan, *, frame: bool = False) -> Step:
        def build(chosen: Kernel, nodes: list[Node]) -> Step:
            return Singlestep(chosen, stages, final, plan.sde, plan.like, rule)

        return _begun(build, kernel(plan, frame), plan)

    return make


def _begun(build: Callable[[Kernel, list[Node]], Step], kernel: Kernel, plan: Plan) -> Step:
    """The method; from α(T) = 0, where ε says nothing of x_0, noise prediction begins after a first-order step."""
    if plan.nodes[0].alpha == 0 and isinstance(kernel, Noise):
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
