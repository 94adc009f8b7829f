"""Weightings in a training: stopped and continued they give the same bits, and what they lack is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from training.small_runs import experiment, final, measured, points, same

from undiffuse import training

ASKED = {"whitened": {"prediction_type": "wiener", "weighting": "whitened"}, "learned": {"weighting": "learned"}}


@pytest.mark.parametrize("name", ASKED)
def test_a_run_stopped_at_any_save_or_between_continues_to_the_same_bits(tmp_path: Path, name: str) -> None:
    e, data = experiment(held_out=10, **ASKED[name]), points()
    training.train(e, tmp_path / "whole", progress=False, data=data)
    for at in (1, 4, 7):
        training.train(e, tmp_path / "parts", progress=False, data=data, stop=lambda step, at=at: step == at)
    training.train(e, tmp_path / "parts", progress=False, data=data)
    assert same(final(tmp_path / "whole"), final(tmp_path / "parts"))
    whole, parts = ([line for line in measured(tmp_path / run) if "held_out" in line] for run in ("whole", "parts"))
    assert whole == parts and len(whole) == 3


@pytest.mark.parametrize("name", ASKED)
def test_another_weighting_gives_other_bits(tmp_path: Path, name: str) -> None:
    for run, weighting in (("edm", "edm"), ("own", ASKED[name]["weighting"])):
        e = experiment(**{**ASKED[name], "weighting": weighting})
        training.train(e, tmp_path / run, progress=False, data=points())
    assert not same(final(tmp_path / "edm"), final(tmp_path / "own"))
