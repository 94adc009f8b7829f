"""Combinators: made of steps that are exact on Gaussian data they stay exact; and they call what they say they call."""

from __future__ import annotations

import math

import pytest
import torch
from affine import LAW, errors, lambda_grid
from oracles import random_mixture

from undiffuse.errors import InputError
from undiffuse.mixture import Gaussian
from undiffuse.ode import HEUN
from undiffuse.processes import EDM, VE, VP, RectifiedFlow
from undiffuse.samplers import ALL, Method, SamplerContext, State, Step
from undiffuse.samplers.combinators import chain, churn, impute, repeat, restart
from undiffuse.samplers.covariance_matched import matched
from undiffuse.samplers.driver import sample
from undiffuse.samplers.runge_kutta import runge_kutta_sigma


def custom(make: object) -> Method:
    return Method(make, 1)


EXACT = {
    "repeat": lambda context: repeat(matched(context), 3),
    "churn": lambda context: churn(matched(context), 0.3),
    "restart": lambda context: restart(matched(context), 1.0, 3.0, 2, 3),
    "churn in repeat": lambda context: repeat(churn(matched(context), 0.3), 2),
    "repeat in restart": lambda context: restart(repeat(matched(context), 2), 1.0, 3.0, 2, 2),
    "a chain of moves that stay": lambda context: chain(matched(context), stay, stay),
}
"""Every combinator adds noise so that the marginal stays p_t, so around an exact step it is exact. Two draws at one
address would be one draw, and the covariance would show it."""


def stay(state: State, s: object) -> State:
    """A corrector that keeps N(m, C) exactly: x ← m + c (x − m) + √(1 − c²) C^{1/2} ξ."""
    law = LAW.diffused(state.model.model.process(), s.t)
    new = state.normal(s, 0, s) @ torch.linalg.cholesky(law.covariance).T
    return state.advance(law.mean + 0.8 * (state.x - law.mean) + 0.6 * new, s)


@pytest.mark.parametrize("sde", [VP(), VE(), RectifiedFlow()], ids=lambda sde: sde.name)
@pytest.mark.parametrize("name", EXACT)
def test_around_an_exact_step_it_is_exact(name: str, sde: VP) -> None:
    for steps in (1, 4):
        assert max(errors(custom(EXACT[name]), sde, lambda_grid(sde, steps), extra=200)) < 1e-12


def restarted(steps: int) -> float:
    """The error of the covariance, the steps between restarts refined with the others."""
    options = {"low": 1.0, "high": 3.0, "steps": steps // 8}
    return errors("restart", VP(), lambda_grid(VP(), steps), extra=16, **options)[1]


def test_restart_around_heun_has_the_order_of_heun() -> None:
    found = [restarted(n) for n in (16, 32)]
    assert math.log2(found[0] / found[1]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("name, make", [
    ("chain", lambda step: chain(step)), ("repeat", lambda step: repeat(step, 1)),
    ("churn", lambda step: churn(step, 0.0)), ("churn outside its window", lambda step: churn(step, 0.4, 1e3, 1e4)),
    ("restart", lambda step: restart(step, 0.1, 0.5, 0)), ("impute", lambda step: impute(step, *nothing_known())),
])
@pytest.mark.parametrize("inner", [matched, runge_kutta_sigma(HEUN)])
def test_with_nothing_to_do_it_is_the_step_itself(name: str, make: object, inner: object) -> None:
    model = random_mixture().denoiser(VP())
    a, b = (sample(model, 5, custom(m), 6).x for m in (lambda context: make(inner(context)), inner))
    assert torch.equal(a, b)


def nothing_known() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(2), torch.zeros(2, dtype=torch.bool)


def test_what_a_combinator_costs() -> None:
    model, steps = random_mixture().denoiser(EDM()), 6

    def calls(make: object) -> int:
        return sample(model, 2, custom(make), steps, denoise_last=False).nfe

    assert calls(lambda context: chain(matched(context), stay_put, stay_put)) == steps
    assert calls(lambda context: repeat(matched(context), 3)) == 3 * steps
    assert calls(lambda context: churn(matched(context), 0.3)) == steps
    assert calls(lambda context: restart(matched(context), 0.1, 0.5, 2, 3)) == steps + 2 * 3
    assert sample(model, 2, "predictor_corrector", steps, denoise_last=False, t_end=0.01,
                  options={"corrections": 2}).nfe == 3 * steps
    assert sample(model, 2, "annealed_langevin", steps, denoise_last=False, options={"repeats": 4}).nfe == 4 * steps


def stay_put(state: State, s: object) -> State:
    return state.advance(state.x, s)


def test_churn_raises_the_noise_as_published_and_not_beyond_the_prior() -> None:
    """γ = min(amount, √2 − 1); the step is then taken from σ̂ (1 + γ), at most σ̂(T)."""
    seen: list[float] = []

    def spy(context: SamplerContext) -> Step:
        def step(state: State, s: object) -> State:
            seen.append(state.node.sigma / state.node.alpha)
            return state.advance(state.x, s)

        return churn(step, 5.0)

    sample(LAW.denoiser(EDM()), 1, custom(spy), 3, grid=torch.tensor([80.0, 20.0, 1.0, 0.1]), denoise_last=False)
    assert seen == pytest.approx([80.0, 20 * math.sqrt(2), math.sqrt(2)])


def test_impute_leaves_what_is_known_at_its_own_diffusion_and_what_is_unknown_to_the_model() -> None:
    """On independent coordinates the unknown ones are as without imputation, the known ones α y + σ ε."""
    model = random_mixture(1).denoiser(VP())
    known, mask = torch.tensor([5.0, 0.0], dtype=torch.float64), torch.tensor([True, False])
    model.mixture = type(model.mixture)([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 0.25]]])
    model.moments = None
    method = custom(lambda context: impute(matched(context), known, mask))
    a = sample(model, 400, method, 8, t_end=0.1, denoise_last=False).x
    b = sample(model, 400, custom(matched), 8, t_end=0.1, denoise_last=False).x
    assert torch.equal(a[:, 1], b[:, 1])
    z = (a[:, 0] - 5 * float(VP().alpha(torch.tensor(0.1)))) / float(VP().sigma(0.1))
    assert abs(float(z.mean())) < 5 / 20 and abs(float(z.var()) - 1) < 5 * math.sqrt(2 / 400)


@pytest.mark.slow
def test_repetition_with_imputation_reaches_the_conditional_law() -> None:
    """RePaint on a correlated Gaussian: with many repetitions x_2 | x_1 = y has the mean and variance of the truth."""
    law = Gaussian([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
    model, n = law.denoiser(VP()), 512
    known, mask = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([True, False])

    def drawn(times: int) -> torch.Tensor:
        method = custom(lambda context: repeat(impute(matched(context), known, mask), times))
        return sample(model, n, method, 12, block=n).x

    far, near = (abs(float(drawn(k)[:, 1].mean()) - 0.8) for k in (1, 20))
    assert near < 5 * 0.6 / math.sqrt(n) + 0.05 and near < far


def test_numbers_that_make_no_sense_are_refused() -> None:
    step = ALL["ddim"].make
    for call in (lambda: repeat(step, 0), lambda: restart(step, 0.1, 1, -1), lambda: restart(step, 0.1, 1, 99, 99)):
        with pytest.raises(InputError, match="expected"):
            call()
