"""The anatomy of a pipeline: printed to a depth, and built offline from the real classes where they are installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from torch import nn

from undiffuse.cli import main
from undiffuse.course.pipeline_anatomy import recursive_print, show_parts, tiny_pipeline
from undiffuse.errors import InputError

installed = all(importlib.util.find_spec(name) for name in ("diffusers", "transformers"))


def test_parts_are_printed_to_the_depth_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 1)))
    recursive_print(net, "net", deepest=1)
    assert capsys.readouterr().out.splitlines() == [
        "net: Sequential, 13 parameters", "    0: Linear, 9 parameters", "    1: Sequential, 4 parameters"]
    recursive_print(net, "net", deepest=2)
    assert "        0: Linear, 4 parameters" in capsys.readouterr().out


def test_without_the_packages_there_is_no_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert tiny_pipeline() is None


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs diffusers and transformers")
def test_the_parts_are_those_of_the_model(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: Path) -> None:
    model = show_parts(tiny_pipeline(), "a red house", "a cat")
    printed = capsys.readouterr().out
    assert "unet: UNet2DConditionModel" in printed and "20 vectors of 16 numbers" in printed
    assert "prediction_type=epsilon" in printed and "an image (3, 16, 16)" in printed
    assert model.shape == (4, 8, 8) and [c.name for c in model.conditions] == ["prompt"]
    tiny_pipeline().save_pretrained(tmp_path / "mine")
    monkeypatch.setenv("UNDIFFUSE_SD", "")
    assert main(["learn", "run", "c11", "--model", str(tmp_path / "mine"), "--out", str(tmp_path / "figures")]) == 1
    assert "unet: UNet2DConditionModel" not in capsys.readouterr().err  # ran; its exercises are still blank
    assert main(["learn", "list", "--model", str(tmp_path)]) == 2


@pytest.mark.slow
@pytest.mark.skipif(not installed, reason="needs diffusers and transformers")
def test_a_tiny_pipeline_draws_offline_and_takes_another_solver(tmp_path: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    image = pipe("a seven", num_inference_steps=2, height=16, width=16, output_type="np").images
    assert image.shape == (1, 16, 16, 3) and image.std() > 0
    pipe.save_pretrained(tmp_path / "mine")
    assert type(tiny_pipeline(str(tmp_path / "mine")).unet) is type(pipe.unet)
    with pytest.raises(InputError, match="expected a folder"):
        tiny_pipeline(str(tmp_path / "none"))
