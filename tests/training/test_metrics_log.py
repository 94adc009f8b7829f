"""Trackers hear what metrics.jsonl says, and a preview changes nothing but the pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import tracking
from PIL import Image
from training.small_runs import experiment, final, measured, points, same

from undiffuse.data import Dataset, save_samples
from undiffuse.errors import InputError, MachineError
from undiffuse.samplers.driver import sample
from undiffuse.training import load, train
from undiffuse.training.checkpoint import steps


class Heard(tracking.GeneralTracker):
    """A tracker of accelerate's kind that remembers."""

    name, requires_logging_directory, tracker = "heard", True, None
    calls: list[Any] = []  # noqa: RUF012

    def __init__(self, run_name: str, logging_dir: Path) -> None:
        super().__init__()
        self.calls.append(("made", run_name, logging_dir))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("about", values))

    def log(self, values: dict[str, Any], step: int | None, **kwargs: Any) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finished")


def test_a_tracker_is_told_every_number_of_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "heard", Heard)
    monkeypatch.setattr(tracking, "_available_trackers", ["heard"])
    monkeypatch.setattr(Heard, "calls", [])
    e = experiment(held_out=10)
    train(e, tmp_path / "run", progress=False, data=points(), track=["heard"])
    made, about, *heard, last = Heard.calls
    assert made == ("made", "run", tmp_path / "run") and last == "finished"
    assert about[1]["steps"] == 12 and all(isinstance(v, bool | int | float | str) for v in about[1].values())
    lines = measured(tmp_path / "run")
    assert [step for step, _ in heard] == [line["step"] for line in lines]
    for (_, values), line in zip(heard, lines, strict=True):
        plain = {k: v for k, v in line.items() if k not in ("step", "levels")}
        assert plain.items() <= values.items()
        assert all(re.fullmatch(r"[\w./: -]+", name) for name in values)  # what MLflow takes
        levels = [v for k, v in values.items() if k.startswith("loss_at/")]
        assert levels == [v for _, v in line.get("levels", [])]


def test_an_unknown_tracker_and_one_that_is_missing_are_one_sentence(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [])
    for name, kind in (("clipboard", InputError), ("wandb", MachineError)):
        with pytest.raises(kind, match=name):
            train(experiment(), tmp_path, progress=False, data=points(), track=[name])


def test_without_accelerate_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(InputError, match=r"got track='tensorboard'.*pip install 'undiffuse\[track\]'"):
        train(experiment(), tmp_path, progress=False, data=points(), track=["tensorboard"])


def test_a_preview_shows_the_average_at_every_save_and_changes_no_weight(tmp_path: Path) -> None:
    pixels = torch.arange(40 * 16).reshape(40, 1, 4, 4).mul(37).remainder(256).to(torch.uint8)
    data = Dataset(pixels, torch.arange(40) % 2, "image", "noise", ("a", "b"), levels=256)
    e = experiment(steps=4, save_every=2)
    for preview in (0, 4):
        train(e, tmp_path / str(preview), progress=False, data=data, preview=preview)
    assert same(final(tmp_path / "0"), final(tmp_path / "4")) and not (tmp_path / "0" / "previews").exists()
    assert sorted(path.name for path in (tmp_path / "4" / "previews").iterdir()) == ["2.png", "4.png"]
    assert steps(tmp_path / "4") == [2, 4]
    x = sample(load(tmp_path / "4", "running"), 4, label=torch.tensor([0, 1, 0, 1])).x
    save_samples(tmp_path / "expected.png", x, levels=256)
    shown, expected = (np.array(Image.open(p)) for p in (tmp_path / "4" / "previews" / "4.png",
                                                        tmp_path / "expected.png"))
    assert np.array_equal(shown, expected)
