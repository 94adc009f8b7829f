"""Guidance of every strength from tunings at a few."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import THREE, small

from undiffuse.errors import InputError
from undiffuse.guidance import classifier_free
from undiffuse.model import Model
from undiffuse.processes import EDM, VP
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.samplers.samples import Samples
from undiffuse.samplers.tuned import interpolate_tuning
from undiffuse.tuning import NAME, Tuned, attach, guided_lines, load, save, tune, tune_family, tune_guided, tuning_of

MODEL = THREE.denoiser(VP())
LABELS = torch.arange(9) % 2


@cache
def tuned() -> Tuned:
    """Without noise first, then guidance."""
    return tune_guided(tune(MODEL, [4], rounds=0, trajectories=8), [1, 2, 4], [3, 4], rounds=0, trajectories=8)


def drawn(model: Model, scale: float, steps: int = 3, **request: Any) -> Samples:
    return sample(classifier_free(model, scale), 9, steps=steps, label=LABELS, **request)


def guided(strength: float) -> Model:
    return classifier_free(MODEL, strength)


@pytest.mark.slow
def test_between_two_strengths_it_is_nearer_than_untuned() -> None:
    family = tune_family(guided, [1.0, 2.0, 3.0], [6], trajectories=16, rounds=2)
    labels = torch.arange(64) % 2
    for strength in (1.5, 2.5):
        model = family.at(strength)
        exact = sample(guided(strength), 64, as_method("unipc_4_noise"), 200, label=labels).x
        tuned, plain = (sample(m, 64, steps=6, label=labels) for m in (model, guided(strength)))
        assert tuned.method == "tuned"
        ours, theirs = ((out.x - exact).norm(dim=1).median() for out in (tuned, plain))
        assert ours < 0.5 * theirs


@pytest.mark.slow
def test_the_ends_of_an_interval_are_what_was_fitted() -> None:
    family = tune_family(guided, [1.0, 2.0], [3], trajectories=8, rounds=0)
    a, b = (member for _, member in family.tuning.family)
    for share, scale, end in ((0.0, 1.0, a), (1.0, 2.0, b)):
        for found in (interpolate_tuning(a, b, share), family.at(scale).tuning):
            assert torch.equal(found.table["label"][3].theta, end.table["label"][3].theta)
    assert torch.equal(a.table["label"][3].times, b.table["label"][3].times)
    with pytest.raises(InputError, match="from 1 to 2"):
        family.at(2.5)
    with pytest.raises(InputError, match="at least two"):
        tune_family(guided, [1.0], [3])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2.5, 4])
def test_what_is_loaded_samples_the_same_at_any_scale(scale: float, tmp_path: Path) -> None:
    again = load(THREE.denoiser(VP()), save(tuned(), tmp_path / NAME))
    ours, theirs = drawn(again, scale), drawn(tuned(), scale)
    assert torch.equal(ours.x, theirs.x) and ours.tuned_for == theirs.tuned_for
    assert ours.tuned_for.startswith(f"3 evaluations at scale {scale:g}")
    assert ("between 2 and 4" in ours.tuned_for) is (scale == 2.5)
    assert again.tuning.family[1][1].rows == tuned().tuning.family[1][1].rows


@pytest.mark.slow
def test_it_is_what_the_family_in_memory_gives() -> None:
    family = tune_family(guided, [1, 2, 4], [3], rounds=0, trajectories=8)
    for scale in (1.0, 2.5):
        assert torch.equal(drawn(tuned(), scale).x, sample(family.at(scale), 9, steps=3, label=LABELS).x)


@pytest.mark.slow
def test_the_model_itself_is_sampled_as_before_and_both_kinds_stay() -> None:
    plain = tune(MODEL, [4], rounds=0, trajectories=8)
    for model in (tuned(), tune(tuned(), [4], rounds=0, trajectories=8)):
        assert model.tuning.table.keys() == {"", "label"} and [w for w, _ in model.tuning.family] == [1, 2, 4]
        for cond in ({}, {"label": LABELS}):
            assert torch.equal(sample(model, 9, steps=4, **cond).x, sample(plain, 9, steps=4, **cond).x)


@pytest.mark.slow
def test_a_guided_sample_is_the_same_bytes_in_any_batch() -> None:
    few = sample(classifier_free(tuned(), 2.5), 2, steps=3, first_index=4, label=LABELS[4:6])
    assert torch.equal(drawn(tuned(), 2.5).x[4:6], few.x)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"interval": (0.1, 1.0)}, {"negative": {"label": 0}}, {"rescale": 0.5},
                                    {"projected": True}])
def test_guidance_of_another_kind_is_not_tuned(change: dict[str, Any]) -> None:
    assert tuning_of(classifier_free(tuned(), 2.5)) and tuning_of(classifier_free(tuned(), 2.5, **change)) is None
    ours, untuned = (sample(classifier_free(model, 2.5, **change), 9, steps=3, label=LABELS)
                     for model in (tuned(), MODEL))
    assert torch.equal(ours.x, untuned.x) and not ours.tuned_for


def test_outside_of_what_was_fitted_the_untuned_sampler_is_taken_or_the_request_refused() -> None:
    assert torch.equal(drawn(tuned(), 9).x, drawn(MODEL, 9).x) and not drawn(tuned(), 9).tuned_for
    with pytest.raises(InputError, match="none at scale 9, outside of 1 to 4"):
        drawn(tuned(), 9, method="tuned")
    with pytest.raises(InputError, match="has one for 3, 4 steps"):
        drawn(tuned(), 2.5, 5, method="tuned")


def test_it_is_refused_for_other_models(tmp_path: Path) -> None:
    save(tuned(), tmp_path / NAME)
    said: list[str] = []
    assert tuning_of(attach(THREE.denoiser(EDM()), tmp_path, said.append)) is None and "another model" in said[0]
    with pytest.raises(InputError, match="without labels"):
        tune_guided(small(), [1, 2], [3])
    two = tune(guided(2.0), [3], rounds=0, trajectories=8)
    assert load(guided(2.0), save(two, tmp_path / NAME)).tuning.table
    with pytest.raises(InputError, match="another model"):
        load(guided(3.0), tmp_path / NAME)


def test_every_scale_has_its_table() -> None:
    text = list(guided_lines(tuned().tuning))
    assert [line for line in text if line.startswith("at ")] == [f"at guidance scale {w}" for w in (1, 2, 4)]
    assert [line.split()[:2] for line in text if line.startswith("label")] == [["label", "3"], ["label", "4"]] * 3
