"""Guidance of every strength from tunings at a few."""

from __future__ import annotations

import pytest
import torch
from tiny import THREE

from undiffuse.errors import InputError
from undiffuse.guide import classifier_free
from undiffuse.model import Model
from undiffuse.processes import VP
from undiffuse.sampling import sample
from undiffuse.tuning import tune_family
from undiffuse.tuning.guided import between

MODEL = THREE.denoiser(VP())


def guided(strength: float) -> Model:
    return classifier_free(MODEL, strength)


@pytest.mark.slow
def test_between_two_strengths_it_is_nearer_than_untuned() -> None:
    family = tune_family(guided, [1.0, 2.0, 3.0], [6], trajectories=16, rounds=2)
    labels = torch.arange(64) % 2
    for strength in (1.5, 2.5):
        model = family.at(strength)
        exact = sample(guided(strength), 64, "unipc_4_noise", 200, label=labels).x
        tuned, plain = (sample(m, 64, steps=6, label=labels) for m in (model, guided(strength)))
        assert tuned.method.startswith("tuned")
        ours, theirs = ((out.x - exact).norm(dim=1).median() for out in (tuned, plain))
        assert ours < 0.5 * theirs


def test_the_ends_of_an_interval_are_what_was_fitted() -> None:
    family = tune_family(guided, [1.0, 2.0], [3], trajectories=8, rounds=0)
    a, b = family.tunings
    for share, end in ((0.0, a), (1.0, b)):
        assert torch.equal(between(a, b, share).table["label"][3].theta, end.table["label"][3].theta)
    assert torch.equal(a.table["label"][3].times, b.table["label"][3].times)
    with pytest.raises(InputError, match="from 1 to 2"):
        family.at(2.5)
    with pytest.raises(InputError, match="at least two"):
        tune_family(guided, [1.0], [3])
