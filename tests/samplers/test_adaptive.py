"""Steps of each sample's own: the tolerance is kept, the cost is counted, and no sample sees another one."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from oracles import random_mixture

from benchmarks.measure.laws import modes
from undiffuse.errors import InputError
from undiffuse.ode import BOGACKI_SHAMPINE, DORMAND_PRINCE, RK4, Field, Step, rk_step, solve
from undiffuse.processes import EDM, VE, VP, RectifiedFlow
from undiffuse.random import normal
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.score_model import ScoreModel
from undiffuse.sde import NonlinearSDE


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("tableau", [BOGACKI_SHAMPINE, DORMAND_PRINCE])
def test_the_tableaux_have_their_order_and_their_error_weights_see_constants(tableau: object) -> None:
    for row, c in zip(tableau.a, tableau.c, strict=True):
        assert sum(row) == pytest.approx(c)
    assert tableau.a[-1] == tableau.b[:-1] and sum(tableau.error) == pytest.approx(0, abs=1e-15)
    fine = walked(RK4, 800)
    error = [float((walked(tableau, n) - fine).norm()) for n in (16, 32)]
    assert tableau.order - 0.15 < math.log2(error[0] / error[1]) < tableau.order + 0.75


def walked(tableau: object, steps: int) -> torch.Tensor:
    """The end of a non-linear system of two equations after equal steps."""

    def field(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return torch.stack([u.cos() - x[0] * x[1], x[0] - x[1] * (2 * u).sin() + x[1] ** 2 / 4])

    x = f64(1.0, -0.5)
    for a, b in pairwise(torch.linspace(0, 2, steps + 1, dtype=torch.float64)):
        x = rk_step(tableau, field, x, a, b)
    return x


@pytest.mark.parametrize("tableau", [BOGACKI_SHAMPINE, DORMAND_PRINCE])
@pytest.mark.parametrize("t, s", [(0.0, 3.0), (3.0, 0.0)])
def test_a_solution_keeps_its_tolerance_in_either_direction(tableau: object, t: float, s: float) -> None:
    rate, start = f64(-1.0, 0.5, -4.0), torch.ones(3, 2, dtype=torch.float64)
    for tol in (1e-3, 1e-6):
        found = solve(tableau, lambda x, u: rate[:, None] * x, start, f64(t)[0], f64(s)[0], tol, tol)
        truth = torch.exp(rate * (s - t))[:, None].expand(3, 2)
        assert ((found.x - truth).abs() < 30 * tol * (1 + truth.max())).all()


def test_every_sample_has_the_steps_that_it_needs() -> None:
    """A fast and a slow one: the slow one costs the same beside the fast one as alone, and is the same bits."""

    def field(rate: torch.Tensor) -> object:
        return lambda x, u: torch.cos(rate * u)[:, None] * rate[:, None]

    start, ends = torch.zeros(2, 1, dtype=torch.float64), (f64(0.0)[0], f64(2.0)[0])
    both = solve(DORMAND_PRINCE, field(f64(1.0, 40.0)), start, *ends)
    slow = solve(DORMAND_PRINCE, field(f64(1.0, 1.0)), start, *ends)
    assert torch.equal(both.x[0], slow.x[0]) and both.evaluations[0] == slow.evaluations[0]
    assert both.evaluations[1] > 3 * both.evaluations[0]


def test_a_field_that_explodes_ends_and_a_tolerance_of_nothing_is_refused() -> None:
    found = solve(DORMAND_PRINCE, lambda x, u: x**2, torch.ones(1, 1), f64(0.0)[0], f64(2.0)[0])
    assert found.x.isnan().all()
    with pytest.raises(InputError, match="atol"):
        solve(DORMAND_PRINCE, lambda x, u: x, torch.ones(1, 1), f64(0.0)[0], f64(1.0)[0], atol=0.0)


@pytest.mark.parametrize("name, sde", [("ode45", VP()), ("ode45", RectifiedFlow()), ("ode45", EDM()), ("ode23", VP())])
def test_a_sample_is_the_same_bits_and_costs_the_same_alone_and_in_a_batch(name: str, sde: VP) -> None:
    model = random_mixture().denoiser(sde)
    together = sample(model, 7, as_method(name), seed=5, block=4)
    for i in (0, 3, 6):
        alone = sample(model, 1, as_method(name), seed=5, first_index=i, block=4)
        assert torch.equal(alone.x[0], together.x[i]) and alone.nfe == together.nfe_per_sample[i]
    assert together.nfe == int(together.nfe_per_sample.median())


def test_the_error_and_the_cost_of_the_default_tolerance() -> None:
    """Median error per coordinate at most 2e-5 with at most 86 evaluations for the median sample: VP from 1 to 1e-3."""
    law, sde, n = modes(), VP(), 64
    model, start = law.denoiser(sde), float(sde.sigma(1.0)) * normal(7, 0, 0, 0, n, (2,), torch.float64)
    common = {"x_T": start, "t_end": 1e-3, "denoise_last": False, "block": n}
    truth = sample(model, method="rk4_log_snr", steps=200, grid="log_snr", **common).x
    found = sample(model, method="ode45", **common)
    assert float((found.x - truth).abs().median()) < 2e-5 and found.nfe <= 86


def test_a_finer_tolerance_costs_more_and_errs_less() -> None:
    model = random_mixture().denoiser(VE())
    runs = [sample(model, 32, "ode45", options={"rtol": tol, "atol": tol}, block=32) for tol in (1e-3, 1e-5, 1e-8)]
    errors = [float((run.x - runs[2].x).abs().median()) for run in runs[:2]]
    assert runs[0].nfe < runs[1].nfe < runs[2].nfe and errors[1] < errors[0] / 10


def test_a_process_that_is_not_gaussian_is_solved_in_time() -> None:
    """OU as a non-linear process: the flow of N(0, 1) under its own stationary law stands still."""
    sde = NonlinearSDE(lambda x, t: -x, lambda x, t: math.sqrt(2), T=2.0)
    model = ScoreModel(lambda x, t: -x, sde, shape=(2,))
    start = normal(0, 0, 0, 0, 5, (2,))
    for name in ("ode45", "ode23"):
        torch.testing.assert_close(sample(model, method=as_method(name), x_T=start).x, start)


def test_the_stochastic_one_is_the_same_alone_and_in_a_batch() -> None:
    model = random_mixture().denoiser(VP())
    options = {"rtol": 0.2, "atol": 0.1}
    together = sample(model, 3, "adaptive_sde", seed=2, block=3, options=options)
    alone = sample(model, 1, "adaptive_sde", seed=2, first_index=2, block=3, options=options)
    assert torch.equal(alone.x[0], together.x[2]) and alone.nfe == together.nfe_per_sample[2]


@pytest.mark.slow
def test_the_stochastic_one_follows_the_path_that_fixed_steps_follow() -> None:
    """On one Brownian path its distance to Euler-Maruyama with very many steps falls with the tolerance."""
    law, sde, n = random_mixture(spread=1.0), VP(), 8
    model = law.denoiser(sde)
    common = {"x_T": law.sample(n), "t_start": 0.6, "t_end": 0.1, "denoise_last": False, "block": n}
    truth = sample(model, method="euler_maruyama", steps=512, grid="time", noise="path", **common).x
    runs = [sample(model, method="adaptive_sde", options={"rtol": tol, "atol": tol}, **common) for tol in (0.3, 0.03)]
    far, near = (float((run.x - truth).square().mean().sqrt()) for run in runs)
    assert near < far / 2 and near < 0.05 and runs[0].nfe < runs[1].nfe


def test_the_interpolant_of_a_step_is_exact_for_quartics_and_of_fourth_order() -> None:
    def step(field: Field, x: torch.Tensor, t: float, s: float) -> Step:
        """The first step that is kept."""
        found: list[Step] = []
        solve(DORMAND_PRINCE, field, x, f64(t)[0], f64(s)[0], 1.0, 1.0, first=1.0,
              on_step=lambda step, kept: found.append(step) or torch.zeros(len(x), dtype=torch.float64))
        return found[0]

    places = (0.0, 0.3, 0.5, 0.9, 1.0)
    quartic = step(lambda x, t: (4 * t**3 - 6 * t).reshape(-1, 1), f64(0.7)[:, None], 0.0, 2.0)
    for c in places:
        assert float(quartic.at(c)) == pytest.approx(0.7 + (2 * c) ** 4 - 3 * (2 * c) ** 2, abs=1e-10)
    errors = []
    for h in (0.4, 0.2):
        one = step(lambda x, t: x * t.cos().reshape(-1, 1), f64(1.0)[:, None], 0.0, h)
        errors.append(max(abs(float(one.at(c)) - math.exp(math.sin(c * h))) for c in places))
    assert errors[0] / errors[1] > 0.75 * 2**5
