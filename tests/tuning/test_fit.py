"""The parts of a tuning against what they should be: paths, coefficients, spacing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from undiffuse.mixture import Mixture
from undiffuse.processes import VP, RectifiedFlow
from undiffuse.random import normal
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import nodes_of
from undiffuse.sde import GaussianSDE
from undiffuse.tuning.fit import fit, robust
from undiffuse.tuning.grid_search import START_LEVELS, joint_refinement, loss, refined, search, slopes, spaced, starts
from undiffuse.tuning.reference import SEED, Reference, RowCounter

LAW = Mixture([1, 2, 1.5], [[-1.0, 0.4], [0.8, 0.9], [0.3, -1.0]], [0.02, 0.01, 0.03])


def reference(sde: GaussianSDE, n: int = 16) -> Reference:
    model = LAW.denoiser(sde)
    return Reference.follow(RowCounter(model, {}), model.moments, n, 0, model.t_end())


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VP(), RectifiedFlow()], ids=lambda sde: sde.name)
def test_paths_are_exact_at_their_levels_and_between_them(sde: GaussianSDE) -> None:
    ref = reference(sde)
    grid = sde.time_of(torch.linspace(-4.9, 4.3, 900, dtype=torch.float64))
    grid = torch.cat([torch.tensor([sde.T], dtype=torch.float64), grid])
    exact = sample(ref.counter.model, 16, "rk4_log_snr", grid=grid, seed=SEED, denoise_last=False, trajectory=True)
    for k in (400, 601, 777, -1):
        t, x = exact.trajectory[k]
        node = nodes_of(sde, torch.tensor([t], dtype=torch.float64))[0]
        assert (ref.kernel.from_coordinates(ref.at(node), node) - x).abs().median() < 2e-6


def test_every_evaluation_is_counted() -> None:
    ref = reference(VP(), 8)
    assert ref.counter.rows == 8 * (256 + 129)
    fit(ref, *next(iter(starts(ref, 5))))
    assert ref.counter.rows == 8 * (256 + 129 + 5)


def test_coefficients_are_found_in_spite_of_lost_paths() -> None:
    basis, theta = normal(0, 0, 0, 0, 3, (20, 4), torch.float64), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    target = torch.einsum("f,fmk->mk", theta, basis)
    target[:4] += 10 * normal(1, 0, 0, 0, 4, (4,), torch.float64)  # four of twenty went to another mode
    plain = torch.linalg.lstsq(basis.flatten(1).T, target.flatten()).solution
    assert (robust(basis, target) - theta).abs().max() < 0.02 < 0.2 < (plain - theta).abs().max()


def test_a_ridge_draws_to_zero_what_nothing_says() -> None:
    basis = normal(0, 0, 0, 0, 1, (20, 4), torch.float64).repeat(2, 1, 1)  # the same feature twice
    assert torch.allclose(robust(basis, 2 * basis[0]), torch.ones(2, dtype=torch.float64), atol=1e-3)
    assert torch.equal(robust(0 * basis, 0 * basis[0]), torch.zeros(2, dtype=torch.float64))


def test_grids_share_the_error_evenly() -> None:
    ref = reference(VP(), 16)
    lam, m = ref.curvature()
    even = torch.nn.functional.avg_pool1d(m[None, None], 5, 1, 2, count_include_pad=False)[0, 0]
    density = (even + 0.02 * even.max()) ** (1 / 3)
    fine = np.linspace(float(lam[0]), float(lam[-1]), 20001)
    found = spaced(ref, float(lam[0]), 8)
    parts = [np.interp(part, lam, density).mean() * float(b - a) for a, b in pairwise(found)
             for part in [fine[(fine >= float(a)) & (fine <= float(b))]]]
    assert max(parts) / min(parts) < 1.1


@pytest.mark.parametrize("sde", [VP(), RectifiedFlow()], ids=lambda sde: sde.name)
def test_every_start_has_the_budget_asked_for(sde: GaussianSDE) -> None:
    ref = reference(sde, 8)
    found = list(starts(ref, 5))
    assert len(found) > len(START_LEVELS) // 2
    for nodes, first_step_free in found:
        assert len(nodes) - 1 - first_step_free == 5
        assert nodes[0].t == sde.T and abs(float(nodes[-1].t) - ref.counter.model.t_end()) < 1e-12
        assert all(a.log_snr < b.log_snr for a, b in pairwise(nodes))


def test_what_is_known_before_a_node_need_not_be_done_again() -> None:
    ref = reference(VP(), 8)
    whole = fit(ref, *next(iter(starts(ref, 5))))
    before = ref.counter.rows
    again = fit(ref, whole.nodes, whole.first_step_free, whole.states[:3])
    assert torch.equal(again.error, whole.error) and ref.counter.rows - before == 8 * 3


def test_gates_of_zero_are_the_fit_without_them_and_gates_gain() -> None:
    ref = reference(VP(), 16)
    plain = fit(ref, *next(iter(starts(ref, 5))))
    theta = [torch.cat([row, 0 * row]) for row in plain.states[-1].theta]
    same = fit(ref, plain.nodes, plain.first_step_free, gated=True, theta=theta)
    assert torch.allclose(same.error, plain.error, rtol=0, atol=1e-13)
    model, grid = ref.counter.model, {"seed": SEED, "denoise_last": False}
    ours, theirs = (sample(model, 16, f.sampler.method(model.moments), **grid).x for f in (same, plain))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("gated", [False, True])
def test_the_solver_that_is_sampled_with_is_the_one_that_was_fitted(gated: bool) -> None:
    ref = reference(VP(), 16)
    fitted = fit(ref, *next(iter(starts(ref, 5))), gated=gated)
    out = sample(ref.counter.model, 16, fitted.sampler.method(ref.counter.model.moments), seed=SEED, denoise_last=False)
    end = fitted.nodes[-1]
    error = (ref.kernel.to_coordinates(out.x, end) - ref.at(end)) / (end.alpha * 2**0.5)
    assert torch.allclose(error, fitted.error, rtol=0, atol=1e-10)


def test_slopes_are_those_of_the_whole_solver() -> None:
    ref = reference(VP(), 8)
    fitted = fit(ref, *next(iter(starts(ref, 4))), gated=True)
    theta = [row.clone() for row in fitted.states[-1].theta]
    found, j = slopes(ref, fitted), 4 + 1  # the second coefficient of the second step, after 2 x 2 of the first
    ends = []
    for by in (1e-5, -1e-5):
        moved = [*theta]
        moved[1] = theta[1] + by * torch.eye(len(theta[1]), dtype=torch.float64)[1]
        ends.append(fit(ref, fitted.nodes, fitted.first_step_free, gated=True, theta=moved).error)
    exact = (ends[0] - ends[1]) / 2e-5
    assert (found[j] - exact).abs().max() < 0.02 * exact.abs().max()


def test_coefficients_fitted_together_end_nearer_than_step_by_step() -> None:
    ref = reference(VP(), 16)
    alone = fit(ref, *next(iter(starts(ref, 6))))
    *_, best = joint_refinement(ref, alone, 3)
    assert best.nodes == alone.nodes and loss(best.error) < 0.85 * loss(alone.error)


def test_a_finer_grid_has_the_density_of_a_coarser_one() -> None:
    ref = reference(VP(), 8)
    coarse = fit(ref, *next(iter(starts(ref, 4))))
    nodes, first_step_free = refined(ref, coarse, 8)
    lam, rough = (np.array([node.log_snr for node in part]) for part in (nodes, coarse.nodes))
    assert first_step_free == coarse.first_step_free and np.all(np.diff(lam) > 0)
    assert np.allclose(lam[first_step_free::2], rough[first_step_free:])


def test_moving_the_nodes_gains() -> None:
    ref = reference(VP(), 16)
    after, before = (min(search(ref, 6, rounds), key=lambda f: loss(f.error)) for rounds in (3, 0))
    assert loss(after.error) < 0.7 * loss(before.error)
