"""The deterministic part of the table: rows of the exponential family for the probability-flow ODE.

A row is a kernel (what is integrated exactly), an order or stages, a corrector, and a rule that makes weights of
moments. Options of every row: `frame` puts data prediction into the frame of the data's moments; of multistep rows,
`lower_final` lets the order fall to 1 towards the end.
"""

from __future__ import annotations

from collections.abc import Callable

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


def multistep(order: int, kernel: Choice = data, rule: Rule = exact, *, corrector: bool = False) -> Make:
    """A multistep row: the remainder is a polynomial through its last `order` values."""

    def make(plan: Plan, *, lower_final: bool = False, frame: bool = False) -> Step:
        def build(chosen: Kernel, nodes: list[Node]) -> Step:
            return Multistep(chosen, order, nodes, plan.like, corrector, rule, lower_final)

        return _begun(build, kernel(plan, frame), plan)

    return make


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


def framed(order: int) -> Make:
    """A multistep row in the frame of the data's moments, where the model has them."""
    return multistep(order, lambda plan, frame: data(plan, True))


_HALF, _THIRDS = ((0.5,), (0, 1)), ((1 / 3, 2 / 3), (0, 2))

DETERMINISTIC: dict[str, Method] = {
    "ddim": Method(multistep(1), 1),
    "dpm_solver_1": Method(multistep(1, noise), 1),
    "dpm_solver_2s": Method(singlestep(*_HALF, noise, midpoint), 2),
    "dpm_solver_3s": Method(singlestep(*_THIRDS, noise), 3),
    "dpm_solver_2m": Method(multistep(2, noise, midpoint), 2),
    "dpmpp_2s": Method(singlestep(*_HALF, data, midpoint), 2),
    "dpmpp_3s": Method(singlestep(*_THIRDS), 3),
    "dpmpp_2m": Method(multistep(2, data, midpoint), 2),
    "dpmpp_2m_heun": Method(multistep(2), 2),
    "dpmpp_3m": Method(multistep(3), 3),
    "dpmpp_3m_classic": Method(multistep(3, data, half_curvature), 2),
    "dpmpp_4m": Method(multistep(4), 4),
    "unipc": Method(multistep(2, data, midpoint, corrector=True), 3),
    "unipc_bh1": Method(multistep(2, data, square, corrector=True), 3),
    "unipc_3": Method(multistep(3, data, midpoint, corrector=True), 4),
    "unipc_3_bh1": Method(multistep(3, data, square, corrector=True), 4),
    "unipc_3_noise": Method(multistep(3, noise, corrector=True), 4),
    "unipc_4_noise": Method(multistep(4, noise, corrector=True), 5),
    "unipc_5_noise": Method(multistep(5, noise, corrector=True), 6),
    "deis_2": Method(multistep(2, noise), 2),
    "deis_3": Method(multistep(3, noise), 3),
    "deis_4": Method(multistep(4, noise), 4),
    "ipndm": Method(multistep(4, noise, adams), 2),
    "rosenbrock": Method(rosenbrock, 2),
    "wiener_1": Method(framed(1), 1),
    "wiener_2m": Method(framed(2), 2),
    "wiener_3m": Method(framed(3), 3),
    "wiener_4m": Method(framed(4), 4),
}
"""`dpmpp_3m` has the correct second derivative, `dpmpp_3m_classic` half of it, as published. `deis` interpolates in λ
(exponential Adams-Bashforth); `ipndm` has the numbers of equal steps whatever the grid: order 4 on a grid even in σ̂,
order 2 on any other smooth one. UniPC's two functions B(h) differ only where it has two values."""
