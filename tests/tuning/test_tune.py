"""Tuned sampling: nearer to the exact path than any published entry, at no further evaluation, or else not used."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from tiny import THREE, small

from benchmarks.measure.laws import modes
from benchmarks.measure.tuned import Trial, cells, of_law
from undiffuse.errors import InputError
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.moments import Moments
from undiffuse.processes import EDM, VE, VP, Cosine, RectifiedFlow, SubVP
from undiffuse.random import normal
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.samplers.tuned import VALUES, Tuned, TunedSampler
from undiffuse.score_model import ScoreModel
from undiffuse.sde import GaussianSDE
from undiffuse.tuning import NAME, load, save, tune
from undiffuse.tuning.tune import better

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow()]


@cache
def trial(n: int = 64) -> Trial:
    return of_law("plane", 300, n)


@cache
def tuned() -> Tuned:
    return tune(trial().model, [5], t_end=trial().t_end, rounds=2)


@pytest.mark.slow
def test_it_is_nearer_than_every_published_sampler_on_every_grid() -> None:
    cell = next(cells(trial(), (5,), tuned()))
    assert cell.tuned.median < 0.25 * cell.published.median
    assert cell.tuned.rmse < 0.6 * cell.published.rmse
    assert cell.tuned.median < cell.ours.median


@pytest.mark.slow
@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_it_gains_on_every_process(sde: GaussianSDE) -> None:
    row = tune(THREE.given(1).denoiser(sde), [4], rounds=1).tuning.rows[0]
    assert row["kept"] and row["after"]["median"] < 0.4 * row["before"]["median"]


def test_no_corrections_on_the_same_nodes_are_the_second_order_row_of_the_frame() -> None:
    model = THREE.denoiser(VP())
    times = torch.tensor([1.0, 0.6, 0.3, 0.1, 0.01], dtype=torch.float64)
    plain = TunedSampler(times, torch.zeros(4, 1 + VALUES, dtype=torch.float64), first_step_free=False)
    ours = sample(model, 16, plain.method(model.moments))
    theirs = sample(model, 16, as_method("wiener_2m"), grid=times)
    assert torch.allclose(ours.x, theirs.x, rtol=0, atol=1e-13)


def test_gaussian_data_are_exact_at_two_evaluations() -> None:
    law = Gaussian([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]])
    row = tune(law.denoiser(VP()), [2], rounds=0, trajectories=8).tuning.rows[0]
    assert row["after"]["rmse"] < 1e-6


@pytest.mark.slow
def test_a_step_costs_one_evaluation_and_the_last_one_more() -> None:
    out = sample(tuned(), 3, steps=5, t_end=trial().t_end)
    assert out.nfe == 6 and (out.method, out.grid, out.tuned_for) == ("tuned", "tuned", "5 evaluations")
    assert sample(tuned(), 3, steps=5, t_end=trial().t_end, denoise_last=False).nfe == 5


@pytest.mark.slow
def test_a_sample_is_the_same_bytes_in_any_batch() -> None:
    whole = sample(tuned(), 9, steps=5, t_end=trial().t_end, seed=3).x
    part = sample(tuned(), 2, steps=5, t_end=trial().t_end, seed=3, first_index=4).x
    assert torch.equal(whole[4:6], part)


@pytest.mark.parametrize("request_", [{"steps": 7}, {"t_end": 0.02}, {"t_start": 0.5}, {"grid": "log_snr"}],
                         ids=lambda request: next(iter(request)))
def test_any_other_request_is_untuned(request_: dict[str, object]) -> None:
    asked = {"steps": 5, "t_end": trial().t_end} | request_
    ours, theirs = (sample(model, 4, **asked) for model in (tuned(), trial().model))  # type: ignore[arg-type]
    assert torch.equal(ours.x, theirs.x) and not ours.tuned_for


def test_what_does_not_gain_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from undiffuse.tuning import grid_search
    from undiffuse.tuning.fit import fit

    def poor(reference: object, steps: int, rounds: int, coarser: object) -> object:
        lam = torch.linspace(-4.9, -4.0, steps, dtype=torch.float64)
        far = torch.cat([reference.log_snr[:1], lam, reference.log_snr[-1:]])  # type: ignore[attr-defined]
        return [fit(reference, grid_search._nodes(reference, far), first_step_free=True)]  # type: ignore[arg-type]

    monkeypatch.setitem(tune.__globals__, "search", poor)
    model = tune(trial().model, [5], t_end=trial().t_end, rounds=0)
    assert not model.tuning.rows[0]["kept"] and model.tuning.table[""] == {}
    assert not sample(model, 1, steps=5, t_end=trial().t_end).tuned_for


def test_the_tuned_model_is_the_model_in_a_wrapper() -> None:
    """What is set on the model holds for the tuned one, and everything else passes through."""
    model = small()
    tuned = tune(model, [4], rounds=0, trajectories=8)
    assert tuned.inner is model and tune(tuned, [4], rounds=0, trajectories=8).inner is model
    model.sigma_data, model.block = 0.6, 3
    assert (tuned.sigma_data, tuned.block, tuned.net, tuned.dtype) == (0.6, 3, model.net, torch.float32)
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        tuned.nothing_of_that_name  # noqa: B018
    x = normal(0, 0, 0, 0, 3, model.shape)
    assert torch.equal(tuned.denoise(x, 0.5), model.denoise(x, 0.5))
    law = THREE.denoiser(VP())
    y, exact = x[:, :2].double(), Tuned(law, tuned.tuning)
    assert torch.equal(exact.divergence(y, 0.5), law.divergence(y, 0.5))
    assert torch.equal(exact.covariance(y, 0.5), law.covariance(y, 0.5))
    assert sample(exact, 2, steps=8).start == "moments"  # the default of the model itself


@pytest.mark.slow
def test_labels_have_a_table_of_their_own() -> None:
    model = tune(THREE.denoiser(VP()), [4], rounds=0)
    assert set(model.tuning.table) == {"", "label"}
    given = sample(model, 2, steps=4, label=1)
    assert given.method == "tuned"
    assert not torch.equal(given.x, sample(model, 2, steps=4).x)


def test_a_model_without_moments_gets_those_of_its_samples() -> None:
    model = modes().denoiser(VP())
    known, model.moments = model.moments, None
    found = tune(model, [5], rounds=0)
    ours, truth = (frame.spectrum.sort().values for frame in (found.tuning.moments, known))
    assert torch.allclose(ours, truth, rtol=0.25)  # 512 samples: ± 3 × 6 %
    assert found.tuning.rows[0]["after"]["median"] < 0.5 * found.tuning.rows[0]["before"]["median"]


@pytest.mark.slow
def test_float32_networks_are_tuned() -> None:
    row = tune(small(), [4], rounds=1, trajectories=16).tuning.rows[0]
    assert row["after"]["median"] < 0.5 * row["before"]["median"]


def test_one_lost_path_does_not_refuse_a_tuning_and_many_do() -> None:
    before = torch.full((128, 2), 0.01, dtype=torch.float64)
    after = before / 10
    assert better(after, before)
    after[0] = 1.0
    assert better(after, before)
    after[:12] = 1.0
    assert not better(after, before) and not better(before, before)


@pytest.mark.slow
def test_low_rank_moments_are_tuned_and_come_back_from_a_file(tmp_path: Path) -> None:
    Q = torch.linalg.qr(normal(0, 0, 0, 0, 40, (3,), torch.float64))[0]
    cov = [0.01 * torch.eye(40, dtype=torch.float64) + 0.2 * q[:, None] * q for q in Q.T[1:]]
    model = Mixture([1, 1], torch.stack([Q[:, 0], -Q[:, 0]]), torch.stack(cov)).denoiser(VP())
    model.moments = Moments.measure(model.mixture.sample(400), "pca", 3)
    found = tune(model, [4], rounds=1, trajectories=8)
    row = found.tuning.rows[0]
    assert not found.tuning.moments.complete and row["after"]["median"] < 0.3 * row["before"]["median"]
    model.moments = None  # as of a model with more than 1,024 entries, which stores none
    again = load(model, save(found, tmp_path / NAME))
    assert torch.equal(sample(again, 3, steps=4).x, sample(found, 3, steps=4).x)


@pytest.mark.parametrize("change, words", [
    ({"evaluations": [1, 5]}, "from 2 to 100"), ({"evaluations": []}, "from 2 to 100"),
    ({"trajectories": 2}, "least 4"), ({"rounds": -1}, "least 4 and 0"),
])
def test_nonsense_is_a_sentence(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tune(small(), **change)  # type: ignore[arg-type]


def test_a_score_alone_is_refused_and_so_is_what_is_not_there() -> None:
    with pytest.raises(InputError, match="no denoiser"):
        tune(ScoreModel(lambda x, t: -x, VP(), shape=(2,)), [5])
    with pytest.raises(InputError, match="has none"):
        sample(small(), 1, "tuned", 5)
    with pytest.raises(InputError, match="has one for 5 steps"):
        sample(tuned(), 1, "tuned", 6, t_end=trial().t_end)
