"""Samplers with noise that are fitted to a model: the law is right by construction, the path by least squares."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from affine import LAW, errors, lambda_grid
from tiny import THREE, small

from undiffuse.bench.laws import T_END, clusters
from undiffuse.bench.stochastic import Draws
from undiffuse.exact import Gaussian, Mixture
from undiffuse.metrics import frechet
from undiffuse.model import Model
from undiffuse.noise import normal
from undiffuse.processes import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from undiffuse.sampling import sample
from undiffuse.sde import GaussianSDE
from undiffuse.steps.calibrated import VALUES
from undiffuse.steps.renoised import Noisy
from undiffuse.steps.state import nodes_of
from undiffuse.tuning import NAME, load, noisy, noisy_lines, save, tune
from undiffuse.tuning.coupled import couple
from undiffuse.tuning.likeness import Likeness
from undiffuse.tuning.noisy import Recipe, Trial, searched
from undiffuse.tuning.reference import SEED, Meter

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow()]
IMAGES = Mixture([1, 1], [torch.full((1, 8, 8), -0.5).tolist(), torch.eye(8).expand(1, 8, 8).tolist()],
                 0.04 * torch.eye(64).expand(2, 64, 64))


def plain(times: torch.Tensor, eta: float, framed: bool, leap: bool = False) -> Noisy:
    return Noisy(times, torch.zeros(len(times) - 1 - leap, 1 + VALUES, dtype=torch.float64), eta, framed, leap)


@pytest.fixture(autouse=True)
def smaller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setattr(noisy, "_DRAWS", 512)
    monkeypatch.setattr(noisy, "_IMAGES", 128)
    monkeypatch.setattr(noisy, "_CHAINS", 64)
    monkeypatch.setattr(noisy, "_GRIDS", 1)
    monkeypatch.setattr(noisy, "ETAS", (0.25, 0.7))


@cache
def tuned() -> Model:
    return tune(THREE.denoiser(VP()), [4], noise=True, trajectories=16)


@cache
def flow() -> Model:
    return tune(THREE.denoiser(VP()), [4], rounds=0, trajectories=16)


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
@pytest.mark.parametrize("eta", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("leap", [False, True])
def test_gaussian_data_keep_their_covariance_at_steps_of_any_size(sde: GaussianSDE, eta: float, leap: bool) -> None:
    found = plain(lambda_grid(sde, 3), eta, True, leap)
    assert max(errors(found.method(LAW.denoiser(sde).moments), sde, found.times)) < 1e-10


def test_without_a_frame_it_is_the_second_order_sde_solver() -> None:
    model = THREE.denoiser(EDM())
    recipe = Recipe(eta=0.8).made(model, model.t_end(), 6)
    ours = Noisy(recipe.times[1:], recipe.theta, 0.8, framed=False, leap=False).method(model.moments)
    a, b = (sample(model, 8, method, grid=ours.grid, options=options, trajectory=True).trajectory[5][1]
            for method, options in ((ours, {}), ("dpmpp_2m_sde", {"eta": 0.8})))  # the last step goes without noise
    assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_no_corrections_and_no_frame_are_the_ancestral_step() -> None:
    model, times = THREE.denoiser(VP()), lambda_grid(VP(), 4)[:-1]
    ours = plain(torch.cat([times, times[-1:] / 2]), 1.0, False).method(model.moments)
    a, b = (sample(model, 8, method, grid=ours.grid, denoise_last=False, trajectory=True).trajectory[3][1]
            for method in (ours, "ancestral"))
    assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_what_is_fitted_is_what_the_driver_runs() -> None:
    model = THREE.denoiser(VP())
    nodes = nodes_of(VP(), torch.tensor([1.0, 0.6, 0.35, 0.15, 0.004], dtype=torch.float64))
    for leap in (False, True):
        found = couple(Meter(model, {}), model.moments, nodes, leap, 0.6, 16)
        out = sample(model, 16, found.noisy.method(model.moments), seed=SEED, denoise_last=False, block=16)
        assert torch.allclose(out.x, found.x, rtol=0, atol=1e-10) and out.nfe == 4 - leap
        again = couple(Meter(model, {}), model.moments, nodes, leap, 0.6, 16, found.noisy)
        assert torch.allclose(again.x, found.x, rtol=0, atol=1e-10)


def test_coefficients_bring_the_states_to_the_chain() -> None:
    model = THREE.denoiser(VP())
    nodes = nodes_of(VP(), torch.tensor([1.0, 0.5, 0.3, 0.15, 0.07, 0.004], dtype=torch.float64))
    fitted = couple(Meter(model, {}), model.moments, nodes, True, 0.5, 32)
    other = plain(fitted.noisy.times, 0.5, True, leap=True)
    after, before = (couple(Meter(model, {}), model.moments, nodes, True, 0.5, 64, known, 1 << 20).error.norm(dim=1)
                     for known in (fitted.noisy, other))
    assert after.median() < 0.4 * before.median()


@pytest.mark.slow
def test_the_law_is_nearer_than_untuned() -> None:
    draws = Draws(clusters(300), 4000)
    model = tune(draws.model, [4, 6], t_end=T_END, noise=True)
    for n, share in ((4, 0.6), (6, 0.85)):
        out = sample(model, draws.n, "sde", n, t_end=T_END, denoise_last=False, block=draws.n, seed=5)
        ours, theirs = draws.judged(out.x), draws.score("sde", n)
        assert out.nfe == n and "with noise" in out.method
        assert ours.distance < share * theirs.distance
    assert draws.judged(out.x).radii < 0.1


def test_a_sample_is_the_same_bytes_in_any_batch() -> None:
    whole = sample(tuned(), 9, "sde", 4, seed=3).x
    assert torch.equal(whole[4:6], sample(tuned(), 2, "sde", 4, seed=3, first_index=4).x)


def test_a_name_says_which_is_taken() -> None:
    only = tuned()
    assert ["with noise" in sample(only, 1, name, 4).method for name in ("auto", "sde", "tuned")] == [True] * 3
    assert "tuned" not in sample(flow(), 1, "sde", 4).method and "tuned" not in sample(only, 1, "sde", 5).method
    assert not torch.equal(sample(only, 2, "sde", 4, label=1).x, sample(only, 2, "sde", 4).x)


def test_what_is_loaded_samples_the_same(tmp_path: Path) -> None:
    model = THREE.denoiser(VP())
    again = load(model, save(tuned(), tmp_path / NAME))
    for given in ({}, {"label": 1}):
        assert torch.equal(sample(again, 5, "sde", 4, **given).x, sample(tuned(), 5, "sde", 4, **given).x)
    assert again.tuning.noisy_rows == tuned().tuning.noisy_rows
    assert [line.split()[0] for line in noisy_lines(again.tuning)][2:] == ["-", "label", "cost:"]


@pytest.mark.parametrize("noise_first", [False, True])
def test_the_other_kind_is_kept(noise_first: bool, tmp_path: Path) -> None:
    model = load(THREE.denoiser(VP()), save((tuned if noise_first else flow)(), tmp_path / NAME))
    both = tune(model, [4], rounds=0, trajectories=16, noise=not noise_first)
    kept = "noisy" if noise_first else "table"
    assert getattr(both.tuning, kept) == getattr(model.tuning, kept)
    assert both.tuning.table.keys() == both.tuning.noisy.keys() == {"", "label"}
    again = load(THREE.denoiser(VP()), save(both, tmp_path / NAME))
    found = ["with noise" in sample(again, 1, name, 4).method for name in ("auto", "sde", "tuned")]
    assert found == [True, True, False]
    for name, source in (("sde", tuned()), ("tuned", flow())):
        assert torch.equal(sample(again, 3, name, 4).x, sample(source, 3, name, 4).x)


def test_data_with_missing_cells_are_completed() -> None:
    """Of two normal columns of correlation .9, half of the second missing: as near to them as to the whole ones."""
    law = Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]])
    model = law.denoiser(VP())
    whole = law.sample(4000, 5)
    gaps = torch.stack([whole[:, 0], torch.where(torch.arange(4000) % 2 == 0, whole[:, 1], torch.nan)], 1)
    rows = [tune(model, [4], noise=True, trajectories=16, data=x).tuning.noisy_rows[0] for x in (whole, gaps)]
    assert rows[1]["after"] == pytest.approx(rows[0]["after"], abs=0.05)


def test_nothing_is_kept_of_a_model_that_has_changed() -> None:
    model = tune(small(), [4], noise=True, trajectories=16)
    model.net.weight.add_(0.1)
    assert not tune(model, [4], rounds=0, trajectories=16).tuning.noisy


def test_both_kinds_stay_where_the_model_has_no_moments() -> None:
    model = tune(tune(small(), [4], noise=True, trajectories=16), [4], rounds=0, trajectories=16)
    assert model.tuning.noisy and model.tuning.rows


def test_what_does_not_gain_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    poor = plain(torch.tensor([1.0, 0.98, 0.96, 0.94, 0.004], dtype=torch.float64), 1.0, False)
    monkeypatch.setattr(noisy, "coupled", lambda *_: poor)
    model = tune(THREE.given(1).denoiser(VP()), [4], noise=True, trajectories=8)
    assert not model.tuning.noisy_rows[0]["kept"] and model.tuning.noisy[""] == {}
    assert "tuned" not in sample(model, 1, "sde", 4).method


def test_a_search_finds_what_is_nearer_than_the_usual_recipe() -> None:
    model = IMAGES.denoiser(EDM())
    trial = Trial(model, model.moments, model.t_end(), False, IMAGES.sample(1024, 3))
    usual = Recipe().made(model, model.t_end(), 4)
    found = searched(trial, 4)
    assert trial.distance(found) < trial.distance(usual) and found.evaluations == 4
    assert trial.distance(found, 1 << 23) < trial.distance(usual, 1 << 23)  # and on noises that were not searched on


@pytest.mark.parametrize("sde", [EDM(sigma_max=1.0), RectifiedFlow()], ids=lambda sde: sde.name)
def test_a_process_of_any_end_has_a_recipe(sde: GaussianSDE) -> None:
    model = IMAGES.denoiser(sde)
    made = Recipe().made(model, model.t_end(), 4)
    assert made.leap == (sde.name != "edm") and made.evaluations == 4
    ends = sde.T, model.t_end()
    assert made.times[[0, -1]].tolist() == pytest.approx(ends) and bool((made.times.diff() < 0).all())
    x = sample(model, 256, made.method(model.moments), denoise_last=False).x
    assert Likeness(IMAGES.sample(1024, 3))(x) < 0.2 * Likeness(IMAGES.sample(1024, 3))(torch.zeros_like(x) + 0.3)


def test_a_network_without_data_is_measured_against_itself() -> None:
    row = tune(small(), [4], noise=True, trajectories=16).tuning.noisy_rows[0]
    assert row["kept"] and row["after"] < 0.6 * row["before"]


def test_the_frechet_distance_of_scaled_and_shifted_features() -> None:
    x = normal(0, 0, 0, 0, 500, (3,), torch.float64)
    scale, shift = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([0.0, 3.0, -1.0])
    centred = x - x.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.mT))).mT  # covariance 1 exactly
    assert abs(frechet(white, scale * white + shift) - (1 + 0.25 + 9 + 1)) < 1e-9


def test_random_features_tell_blurred_images_from_sharp_ones() -> None:
    x = IMAGES.sample(600, 1).float()
    likeness = Likeness(IMAGES.sample(600, 2).float())
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert likeness(blurred) > 20 * likeness(x) > 0
