"""Damaged files of a run, wrong names and odd environments: one line and exit code 2, nothing written, no bug."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from undiffuse import brownian
from undiffuse.cli import main
from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.random import normal
from undiffuse.report.formats import plain_text
from undiffuse.training import train
from undiffuse.training.metrics_log import read_metrics
from undiffuse.tuning.tuning_file import _is_close

Refusal = Callable[..., str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three updates on points."""
    folder = tmp_path_factory.mktemp("hostile") / "run"
    points = Dataset(normal(0, 0, 0, 0, 60, (2,)), None, "points", "cloud")
    experiment = Experiment(data="memory:cloud", steps=3, batch_size=8, save_every=3, net_args={"width": 8, "depth": 1})
    train(experiment, folder, progress=False, data=points)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """A command that ends with exit code 2, one line, and no file."""
    def check(*words: object, **expected: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("undiffuse: ") and sorted(tmp_path.rglob("*")) == before
        return error

    return check


@pytest.mark.parametrize("device", ["gpu", "", "meta", "vulkan", "cuda:x", "cuda:-1"])
def test_a_device_that_does_not_exist_by_name(run: Path, tmp_path: Path, refuses: Refusal, device: str) -> None:
    line = refuses("sample", run, "--n", 2, f"--device={device}", "--out", tmp_path / "x.csv")
    assert f"got device '{device}'; expected auto, cpu, cuda, cuda:N or mps" in line


@pytest.mark.parametrize("text", ["{}", '{"sigma_rel": null}', '{"sigma_rel": [1]}', '{"sigma_rel": 99}'])
def test_a_damaged_choice_of_the_average(run: Path, tmp_path: Path, refuses: Refusal, text: str) -> None:
    (run / "ema.json").write_text(text)
    assert "ema.json does not name an average" in refuses("sample", run, "--n", 2, "--out", tmp_path / "x.csv")


@pytest.mark.parametrize("change", [
    lambda c: c.pop("moments"), lambda c: c.update(data=[1]), lambda c: c.update(net=None), lambda c: c.update(sde=3),
    lambda c: c["sde"].update(x=1), lambda c: c.update(conditions=[{}]), lambda c: c.update(moments="cubic")])
def test_a_damaged_description_of_the_model(run: Path, tmp_path: Path, refuses: Refusal,
                                            change: Callable[[dict[str, object]], object]) -> None:
    config = json.loads((run / "model" / "config.json").read_text())
    change(config)
    (run / "model" / "config.json").write_text(json.dumps(config))
    refuses("sample", run, "--n", 2, "--out", tmp_path / "x.csv")


@pytest.mark.parametrize("line", ['{"step": 2, "loss": [1]}', "[" * 200_000, '{"step": 2, "levels": 3}', "7",
                                  '{"step": "2"}', '{"step": 2, "levels": [[1, "a"]]}'])
def test_metrics_end_before_a_line_that_is_no_entry(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "loss": 0.5, "levels": [[0.1, 2]], "lr": null}\n'
    path.write_text(f"{good}{line}\n{good}")
    assert read_metrics(path) == [json.loads(good)]


def test_an_unknown_tracker_leaves_nothing(tmp_path: Path, refuses: Refusal) -> None:
    pytest.importorskip("accelerate")
    line = refuses("train", "moons", "--out", tmp_path / "new", "--steps", 2, "--track", "nosuch")
    assert "track='nosuch'" in line


def test_a_probe_of_another_type_does_not_fit() -> None:
    x = torch.ones(2, dtype=torch.float64)
    assert _is_close(x, x) and not _is_close(x.float(), x)


def test_a_closed_stdout_and_stderr(run: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["show", str(run)]) == 0
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["show", str(run / "none")]) == 2
    monkeypatch.undo()
    assert capsys.readouterr().out == ""


def test_a_backend_of_figures_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    assert main(["--version"]) == 0 and os.environ["MPLBACKEND"] == "agg"


def test_a_long_value_is_cut_in_the_message(run: Path, refuses: Refusal) -> None:
    assert len(refuses("sample", run, "--n", 2, "--method", "x" * 3000)) < 1000


def test_a_brownian_motion_beyond_memory_is_refused() -> None:
    with pytest.raises(InputError, match="expected at most"):
        brownian(refine=64)
    assert brownian(1, 4, refine=2).w.shape[1] == 17


def test_names_of_the_data_are_no_formulas() -> None:
    from matplotlib.figure import Figure

    with plain_text():
        figure = Figure()
        text = figure.text(0, 0, r"a $\frac{$ b")
        figure.canvas.draw()
    assert text.get_text() == r"a $\frac{$ b" and not text.get_parse_math()
