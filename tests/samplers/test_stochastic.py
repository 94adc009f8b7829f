"""Stochastic steps: weak orders without chance, what they become without noise, and paths that are refined."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from affine import LAW, errors, few_steps_are_worse, lambda_grid
from oracles import PROCESSES, random_mixture

from undiffuse.errors import InputError
from undiffuse.mixture import Gaussian
from undiffuse.processes import EDM, VE, VP, RectifiedFlow
from undiffuse.random import BrownianPath
from undiffuse.samplers import ALL, Method, Node, SamplerContext, State
from undiffuse.samplers.coefficients import DataPrediction
from undiffuse.samplers.driver import sample
from undiffuse.samplers.exponential import Multistep
from undiffuse.samplers.method import CountingModel, nodes_of
from undiffuse.samplers.registry import as_method
from undiffuse.samplers.stochastic import corrector, langevin

FAMILIES = ("vp", "subvp", "ve", "power_ve", "edm", "cosine", "rectified_flow")
STOCHASTIC = [name for name, method in ALL.items() if method.stochastic and not method.adaptive]
WEAK = {
    ("euler_maruyama", ()): 1, ("euler_maruyama", (("eta", 0.5),)): 1, ("euler_maruyama", (("eta", 1.5),)): 1,
    ("reverse_diffusion", ()): 1, ("ancestral", ()): 1, ("ancestral", (("eta", 0.6),)): 1, ("dpmpp_2m_sde", ()): 2,
    ("dpmpp_2m_sde_heun", ()): 2, ("dpmpp_2m_sde_heun", (("eta", 0.6),)): 2, ("dpmpp_3m_sde", ()): 2,
    ("dpmpp_sde", ()): 2, ("seeds_2", ()): 2, ("sde_then_ode", (("low", 1.0),)): 2, ("sa_solver", ()): 2,
    ("sa_solver", (("order", 1), ("tau", 1.0), ("corrector", False))): 1,
    ("sa_solver", (("order", 2), ("tau", 1.0), ("corrector", False))): 2,
    ("sa_solver", (("order", 1), ("tau", 1.0))): 2,
    ("edm_churn", (("churn_total", 2.0),)): 2, ("matched_iso", ()): 1,
}


@pytest.mark.parametrize("sde", [VP(), RectifiedFlow()], ids=lambda sde: sde.name)
@pytest.mark.parametrize("name, options, order", [(*key, order) for key, order in WEAK.items()])
def test_weak_order(name: str, options: tuple[tuple[str, float], ...], order: int, sde: VP) -> None:
    found = [errors(name, sde, lambda_grid(sde, n), **dict(options)) for n in (32, 64)]
    for error in zip(*found, strict=True):
        assert max(error) < 1e-12 or math.log2(error[0] / error[1]) > order - 0.15, (name, found)


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde", "seeds_2", "wiener_2m_sde"])
def test_in_the_frame_of_the_moments_gaussian_data_are_exact_at_any_step_size(name: str) -> None:
    for steps in (1, 3):
        assert max(errors(name, VP(), lambda_grid(VP(), steps, 20.0, 0.01), frame=True)) < 1e-12


def test_stages_that_do_not_share_their_noise_lose_an_order() -> None:
    """The fault: the second stage sees new noise on the first half of the step too."""

    def apart(context: SamplerContext) -> object:
        good = ALL["seeds_2"].make(context)
        growth = good._build

        def forget(node: Node, s: Node) -> list[object]:
            first, last = growth(node, s)
            return [first, last._replace(growth=good._coefficients(node, s, [0.0])._replace(decay=0.0))]

        good._build = forget
        return good

    found = [errors(Method(apart, 2), VP(), lambda_grid(VP(), n))[1] for n in (32, 64)]
    assert math.log2(found[0] / found[1]) < 1.3


@pytest.mark.parametrize("name, options, same", [
    ("euler_maruyama", {"eta": 0.0}, "euler"), ("ancestral", {"eta": 0.0}, "ddim"),
    ("dpmpp_2m_sde", {"eta": 0.0}, "dpmpp_2m"), ("dpmpp_3m_sde", {"eta": 0.0}, "dpmpp_3m"),
    ("dpmpp_sde", {"eta": 0.0}, "dpmpp_2s"), ("edm_churn", {"churn_total": 0.0}, "heun_sigma"),
    ("restart", {"times": 0}, "heun_sigma"),
    ("sde_then_ode", {"low": 1e9}, "deis_3"),
])
def test_without_noise_it_is_the_deterministic_row(name: str, options: dict[str, float], same: str) -> None:
    model = random_mixture().denoiser(VP())
    a, b = (sample(model, 4, as_method(m), 7, grid="log_snr", options=o).x for m, o in ((name, options), (same, {})))
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_with_noise_to_the_end_it_is_the_row_with_noise() -> None:
    model = random_mixture().denoiser(VP())
    cases = (("sde_then_ode", {"low": 0.0, "eta": 1.0}), ("dpmpp_2m_sde", {}))
    a, b = (sample(model, 4, as_method(m), 9, options=o).x for m, o in cases)
    assert torch.equal(a, b)


def test_below_its_level_it_follows_the_flow() -> None:
    """From a state at that level it converges to the end of the probability-flow ODE, with order 2."""
    law = random_mixture()
    model = law.denoiser(VP())
    level = VP().time_of(torch.tensor(-math.log(0.09 * model.sigma_data), dtype=torch.float64))
    start = {"x_T": law.sample(8), "t_start": float(level)}
    truth = sample(model, method="rk4_log_snr", steps=300, **start).x
    apart = [float((sample(model, method="sde_then_ode", steps=n, **start).x - truth).abs().max()) for n in (30, 60)]
    assert apart[1] < 1e-4 and math.log2(apart[0] / apart[1]) > 1.85


def test_sa_solver_without_noise_is_predictor_and_corrector_of_the_ode() -> None:
    model = random_mixture().denoiser(VP())
    plain = Method(lambda context: Multistep(DataPrediction(), 3, context.nodes, context.template, corrector=True), 4)
    a, b = (sample(model, 4, as_method(m), 9, options=o).x for m, o in (("sa_solver", {"tau": 0.0}), (plain, {})))
    assert torch.equal(a, b)


def test_tau_holds_on_its_window_only() -> None:
    """Where τ = 0 throughout the steps taken, the default SA-Solver draws no noise."""
    model = LAW.denoiser(VE())
    t_end = float(VE().time_of(-math.log(2.0)))
    a, b = (sample(model, 3, ALL["sa_solver"], 5, t_start=1.0, t_end=t_end, options=o).x for o in ({}, {"tau": 0.0}))
    assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_stochastic_sampler_nears_a_gaussian_from_its_first_steps_on(family: str) -> None:
    """On its default grid, by the exact mean and covariance of its samples."""
    assert [name for name in STOCHASTIC if not few_steps_are_worse(name, PROCESSES[family])] == []


def test_a_path_adds_up_and_has_the_covariance_of_brownian_motion() -> None:
    motion = BrownianPath(0, 0, 4000, (), torch.float64, 0.0, 2.0)
    t = torch.tensor([2.0, 1.25, 0.5, 0.0], dtype=torch.float64)
    part = [motion.increment(a, b) * (a - b).sqrt() for a, b in pairwise(t)]
    torch.testing.assert_close(sum(part), motion.increment(t[0], t[3]) * math.sqrt(2), rtol=0, atol=1e-12)
    z = torch.stack([p / (a - b).sqrt() for p, a, b in zip(part, t[:-1], t[1:], strict=True)])
    assert ((z @ z.T / 4000 - torch.eye(3)).abs() < 5 * math.sqrt(2 / 4000)).all()  # s.e. of a variance


def test_a_path_does_not_depend_on_its_batch_or_on_what_was_asked_before() -> None:
    t = torch.linspace(0.9, 0.2, 5, dtype=torch.float64)
    motion = BrownianPath(1, 0, 5, (2,), torch.float64, 0.0, 1.0)
    each = motion.increment(t, t - 0.1)
    for i in range(5):
        alone = BrownianPath(1, i, 1, (2,), torch.float64, 0.0, 1.0)
        assert torch.equal(alone.increment(t[i], t[i] - 0.1)[0], each[i])


@pytest.mark.parametrize("name, grid", [
    ("euler_maruyama", "time"), ("ancestral", "log_snr"), pytest.param("seeds_2", "log_snr", marks=pytest.mark.slow),
    pytest.param("dpmpp_2m_sde", "log_snr", marks=pytest.mark.slow),
])
@pytest.mark.slow
def test_finer_steps_refine_the_same_path(name: str, grid: str) -> None:
    """Strong convergence: every halving brings the samples nearer to the finest grid's; on a new path it would not."""
    sde, law = VP(), random_mixture(spread=1.0)
    model, n = law.denoiser(sde), 16
    ends = {"t_start": 0.6, "t_end": 0.1, "x_T": law.sample(n), "block": n, "noise": "path", "denoise_last": False}
    x = {steps: sample(model, method=as_method(name), steps=steps, grid=grid, **ends).x for steps in (10, 20, 40, 160)}
    apart = [float((x[k] - x[160]).square().mean().sqrt()) for k in (10, 20, 40)]
    assert apart[0] / apart[2] > 2.5 and apart[0] > apart[1] > apart[2]


def test_langevin_keeps_a_gaussian_up_to_its_step() -> None:
    """x ← (1 − ε/v) x + √(2ε) ξ has the stationary variance v/(1 − ε/(2v))."""
    sde, size = VE(), 0.05
    t = sde.time_of(torch.tensor([0.0], dtype=torch.float64))
    (node,), v = nodes_of(sde, t), 0.25 + float(sde.variance(t)[0])
    model, x = Gaussian([0.0], 0.25).denoiser(sde), torch.zeros(401, 1, dtype=torch.float64)
    state = State(
        x, node, 0, CountingModel(model, {}), lambda i, k, a, b: torch.eye(401, dtype=torch.float64)[:, k : k + 1]
    )
    for k in range(400):
        state = State(langevin(state, node, size, k), node, 0, state.model, state.noise)
    assert float(state.x.square().sum()) == pytest.approx(v / (1 - size / (2 * v)), rel=1e-9)


def test_the_step_of_a_correction_is_the_published_one_sample_by_sample() -> None:
    sde, law = EDM(), random_mixture(d=16)
    model, times = law.denoiser(sde), torch.tensor([2.0, 1.0], dtype=torch.float64)
    x, nodes = law.diffused(sde, 1.0).sample(6), nodes_of(sde, times)
    xi = law.sample(6, seed=9)
    state = State(x, nodes[1], 0, CountingModel(model, {}), lambda *address: xi)
    moved = corrector(SamplerContext(model, nodes, x), 0.16)(state, nodes[1]).x
    score = model.score(x, times[1])
    for i in range(6):
        size = 2 * (0.16 * xi[i].norm() / score[i].norm()) ** 2
        torch.testing.assert_close(moved[i], x[i] + size * score[i] + (2 * size).sqrt() * xi[i])


def test_a_request_that_makes_no_sense_is_a_sentence() -> None:
    model = LAW.denoiser(VP())
    for bad in ({"options": {"tau": 1}}, {"noise": "white"}, {"t_start": 2.0}, {"t_end": 0.0, "grid": "time"}):
        with pytest.raises(InputError, match=r"got .*; |got "):
            sample(model, 2, "dpmpp_2m_sde", 5, **bad)
