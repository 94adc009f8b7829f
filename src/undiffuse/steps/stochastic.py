"""Stochastic steps: Euler-Maruyama, reverse diffusion, and the rows of the exponential family with ℓ > 0.

The reverse SDE dx = [f − ½ (1 + η²) g² s] dt + η g dw has the marginals p_t for every η; ℓ of the exponential family is
this η. All their options are keywords of `sample(..., options={...})`.
"""

from __future__ import annotations

from collections.abc import Callable

from undiffuse.sde import bcast
from undiffuse.steps.exponential import Multistep, Singlestep
from undiffuse.steps.flow import leap
from undiffuse.steps.kernel import Data
from undiffuse.steps.method import Plan
from undiffuse.steps.rows import Rule, exact
from undiffuse.steps.state import Node, State, Step

Make = Callable[..., Step]


def euler_maruyama(plan: Plan, *, eta: float = 1.0) -> Step:
    """The reverse SDE with noise η g by Euler and Maruyama: x + drift (s − t) + η g √|s − t| ξ.

    From α = 0, where g is infinite, one exponential step.

    Reference: Song et al. (2021), eq. 6. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node.t
        if eta and state.node.alpha == 0:
            return state.moved(leap(state, s, state.normal(s)), s)
        x = state.x + state.model.drift(state.x, t, eta) * (s.t - t)
        if not eta:
            return state.moved(x, s)
        g = state.model.model.process().diffusion(state.x, t)
        return state.moved(x + bcast(eta * g, x) * (t - s.t).sqrt() * state.normal(s), s)

    return step


def reverse_diffusion(plan: Plan) -> Step:
    """The chain run backwards as it was run forwards: x + (1 − a) x + G² ∇log p_t + G ξ.

    Forwards x_t = a x_s + G ε with a = α_t/α_s and G² = σ_t² − a² σ_s².

    Reference: Song et al. (2021), eq. 46. arXiv:2011.13456
    """

    def step(state: State, s: Node) -> State:
        t = state.node
        a = t.alpha / s.alpha
        G2 = t.sigma**2 - a**2 * s.sigma**2
        score = (t.alpha * state.model.denoise(state.x, t) - state.x) / t.sigma**2
        return state.moved((2 - a) * state.x + G2 * score + G2**0.5 * state.normal(s), s)

    return step


def multistep_sde(order: int, rule: Rule = exact, eta: float = 1.0, frame: bool = False) -> Make:
    """A multistep row with ℓ = η: DDPM's ancestral step (order 1), DPM-Solver++(2M) and (3M) for the SDE.

    eta, frame: the defaults of its options; frame integrates the linear part that the data's moments give exactly,
    so that Gaussian data are sampled exactly by steps of any size.

    Reference: Lu et al. (2022), arXiv:2211.01095, appendix B.
    """

    def make(plan: Plan, *, eta: float = eta, frame: bool = frame) -> Step:
        return Multistep(Data(eta, plan.frame if frame else None), order, plan.nodes, plan.like, rule=rule)

    return make


def singlestep_sde(stages: tuple[float, ...], final: tuple[int, ...], rule: Rule = exact) -> Make:
    """An exponential stochastic Runge-Kutta method with ℓ = η, whose stages see one Brownian path.

    Reference: Gonzalez et al. (2023), "SEEDS", arXiv:2305.14267; Lu et al. (2022), arXiv:2211.01095.
    """

    def make(plan: Plan, *, eta: float = 1.0, frame: bool = False) -> Step:
        return Singlestep(Data(eta, plan.frame if frame else None), stages, final, plan.sde, plan.like, rule)

    return make


def window(sigma_hat: float) -> float:
    """SA-Solver's τ: 1 for 0.05 ≤ σ̂ ≤ 1, where the noise corrects errors, else 0."""
    return float(0.05 <= sigma_hat <= 1)


def sa_solver(plan: Plan, *, order: int = 3, corrector: bool = True,
              tau: float | Callable[[float], float] = window) -> Step:
    """SA-Solver: the multistep row with ℓ = τ(σ̂) and a corrector that reuses the step's noise; τ = 0 is UniPC.

    Reference: Xue et al. (2023), arXiv:2309.05019
    """
    return Multistep(Data(tau), order, plan.nodes, plan.like, corrector)
