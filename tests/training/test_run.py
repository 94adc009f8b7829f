"""The folder of a run is all that is needed afterwards."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from training.small_runs import TINY, experiment, final, points

from undiffuse import progress as progress_module
from undiffuse.data import open_data
from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.loss import NoiseLevelDistribution, denoising_loss
from undiffuse.random import Purpose, normal
from undiffuse.samplers import sample
from undiffuse.training import load, load_data, open_run, pick_device, train
from undiffuse.training.checkpoint import path_of, steps
from undiffuse.training.loop import HELD_OUT_LOSS_ROWS
from undiffuse.training.model_config import deviation
from undiffuse.transforms import base


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "run"
    train(Experiment(data="digits", net="mlp", net_args=TINY, steps=20, batch_size=32, held_out=100, save_every=10,
                     eval_batch_size=7,
                     device="cpu", sde="edm"), folder, progress=False)
    return folder


def test_a_loaded_model_is_the_one_that_train_returned(tmp_path: Path) -> None:
    model = train(experiment(), tmp_path, progress=False, data=points(50, 3))
    found = load(tmp_path, device="cpu")
    x, t = normal(0, 0, 0, 0, 9, (2,)), torch.full((9,), 0.3)
    assert torch.equal(found(x, t, label=2), model(x, t, label=2))
    assert (found.shape, found.classes, found.block, found.prediction_type) == ((2,), 3, 64, "edm")
    assert found.transform == model.transform and found.sde == model.sde and found.sigma_data == model.sigma_data
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_the_average_and_the_weights_are_both_there(digits: Path) -> None:
    tensors = final(digits)
    for which in ("ema", "net"):
        state = load(digits, which).net.state_dict()
        assert all(torch.equal(t, tensors[f"{which}.{name}"]) for name, t in state.items())
    assert not torch.equal(tensors["ema.last.weight"], tensors["net.last.weight"])
    with pytest.raises(InputError, match="expected ema, running or net"):
        load(digits, "adam")


def test_a_model_needs_the_folder_of_its_run_only(tmp_path: Path, digits: Path) -> None:
    file = tmp_path / "points.npy"
    np.save(file, points(60).x.numpy())
    train(experiment(data=str(file)), tmp_path / "run", progress=False)
    file.unlink()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    before = sample(load(tmp_path / "run"), 5, steps=3).x
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert torch.equal(sample(load(tmp_path / "moved"), 5, steps=3).x, before)
    with pytest.raises(InputError, match=r"points\.npy"):
        load_data(tmp_path / "moved")


def test_images_and_labels_come_back_through_the_stored_transform(digits: Path) -> None:
    model, whole = load(digits), open_data("digits")
    assert (model.shape, model.classes, model.block) == ((1, 8, 8), 10, 7)
    assert model.transform == base.GreyLevels(17)
    config = open_run(digits).config
    assert config["data"]["levels"] == 17 and config["data"]["rows"] == 1697
    assert config["data"]["fingerprint"] == whole.fingerprint()


def test_sigma_data_is_the_deviation_of_the_training_rows(digits: Path) -> None:
    train_rows, _ = load_data(digits)
    z = load(digits).transform.forward(train_rows.x).double()
    assert load(digits).sigma_data == pytest.approx(float(z.std(correction=0)), rel=1e-12)
    assert deviation(torch.full((5, 2), 3.0), base.Identity()) == 0


def test_the_moments_stored_with_the_model_are_those_of_the_training_rows(digits: Path) -> None:
    model, (rows, _) = load(digits, device="cpu"), load_data(digits)
    z = model.transform.forward(rows.x).flatten(1).double().numpy()
    frame = model.moments
    assert frame is not None and frame.basis is not None
    np.testing.assert_allclose(frame.mean, z.mean(0), atol=1e-12)
    basis = frame.basis.numpy()
    np.testing.assert_allclose(basis * frame.variances.numpy() @ basis.T, np.cov(z.T, bias=True), atol=1e-12)


def test_held_out_rows_are_the_rest_and_the_same_for_every_seed(digits: Path, tmp_path: Path) -> None:
    rows, held = load_data(digits)
    whole = open_data("digits")
    assert held is not None and (len(rows), len(held)) == (1697, 100)
    both = torch.cat([rows.x, held.x]).flatten(1)
    assert torch.equal(both.sum(0), whole.x.flatten(1).sum(0))
    train(open_run(digits).experiment.replace(seed=5, steps=1), tmp_path / "run", progress=False)
    _, again = load_data(tmp_path / "run")
    assert again is not None and torch.equal(again.x, held.x)


def test_no_rows_are_held_out_unless_asked(tmp_path: Path) -> None:
    train(experiment(), tmp_path, progress=False, data=points())
    rows, held = load_data(tmp_path, points())
    assert len(rows) == 50 and held is None
    with pytest.raises(InputError, match="trained on other data"):
        load_data(tmp_path, points(49))


def test_the_metrics_are_what_they_say(digits: Path) -> None:
    entries = open_run(digits).metrics()
    updates = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in updates] == list(range(1, 21))
    assert all(set(entry) == {"step", "loss", "lr", "grad_norm", "rate", "seconds"} for entry in updates)
    assert [entry["lr"] for entry in updates] == pytest.approx([1e-5 * k for k in range(1, 21)])
    assert [entry["step"] for entry in entries if "held_out" in entry] == [10, 20]


def test_the_held_out_loss_is_that_of_the_average_on_the_rows_never_trained(digits: Path) -> None:
    model, (_, held) = load(digits), load_data(digits)
    entry = [entry for entry in open_run(digits).metrics() if "held_out" in entry][-1]
    t = NoiseLevelDistribution("lognormal", -1.2, 1.2, model.sigma_data).times(model.sde, 0, 20, 0, 100, 100)
    eps = normal(0, Purpose.NOISE, 20, 0, 100, (1, 8, 8))
    losses = denoising_loss(model, model.transform.forward(held.x), t, eps, label=held.y)
    assert entry["held_out"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert [loss for _, loss in entry["levels"]] == pytest.approx(
        [float(part.mean()) for part in losses.tensor_split(8)], rel=1e-5)
    levels = [level for level, _ in entry["levels"]]
    assert levels == sorted(levels) and len(levels) == 8


def test_at_most_1024_held_out_rows_are_measured_and_few_ones_work(tmp_path: Path) -> None:
    for held in (1, HELD_OUT_LOSS_ROWS + 5):
        folder = tmp_path / str(held)
        train(experiment(steps=1, held_out=held), folder, progress=False, data=points(HELD_OUT_LOSS_ROWS + 50))
        (entry,) = [entry for entry in open_run(folder).metrics() if "held_out" in entry]
        model, (_, rows), n = load(folder), points(HELD_OUT_LOSS_ROWS + 50).split(held), min(held, HELD_OUT_LOSS_ROWS)
        t = NoiseLevelDistribution("lognormal", -1.2, 1.2, model.sigma_data).times(model.sde, 0, 1, 0, n, n)
        eps = normal(0, Purpose.NOISE, 1, 0, n, (2,))
        losses = denoising_loss(model, model.transform.forward(rows.x[:n]), t, eps)
        assert [loss for _, loss in entry["levels"]] == pytest.approx(
            [float(part.mean()) for part in losses.tensor_split(8) if len(part)], rel=1e-4)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for use in (load, load_data, open_run):
        with pytest.raises(InputError, match="is not the folder of a run"):
            use(tmp_path / "nowhere")


def test_a_run_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    train(experiment(), tmp_path, progress=False, data=points())
    for step in steps(tmp_path):
        path_of(tmp_path, step).unlink()
    with pytest.raises(InputError, match="no checkpoint yet"):
        load(tmp_path)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    for name, changes in (("a", {}), ("b", {"net_args": {**TINY, "width": 9}}), ("c", {"lr": 0.5})):
        train(experiment(**changes), tmp_path / name, progress=False, data=points())
    shutil.copy(path_of(tmp_path / "b", 12), path_of(tmp_path / "a", 16).with_name("checkpoint-12.safetensors"))
    assert torch.equal(load(tmp_path / "a").net.last.weight, final_of(tmp_path / "a", 8, "ema.last.weight"))
    shutil.copy(path_of(tmp_path / "c", 12), path_of(tmp_path / "a", 12))
    with pytest.raises(InputError, match="is of another experiment than its run"):
        load(tmp_path / "a")


def final_of(folder: Path, step: int, name: str) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(path_of(folder, step))[name]


def test_devices_are_found_or_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "mps"):
        if not (name == "mps" and torch.backends.mps.is_available()):
            with pytest.raises(MachineError, match=f"got device={name}"):
                pick_device(name)


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                    capfd: pytest.CaptureFixture[str]) -> None:
    train(experiment(), tmp_path / "a", data=points())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("undiffuse: step 12 of 12, loss ") and lines[0].endswith("0:00 left")
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    train(experiment(), tmp_path / "b", data=points())
    assert len(capfd.readouterr().err.splitlines()) == 12
    train(experiment(), tmp_path / "c", data=points(), progress=False)
    assert capfd.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(progress_module, "Console", lambda stderr: console)
    monkeypatch.setattr(progress_module, "on_terminal", lambda: True)
    with progress_module.Progress(10, 100, visible=True) as bar:
        bar.update(11, float("nan"), 0.0)
        bar.update(60, 0.4321, 5678.0)
    assert "no loss yet" in screen.getvalue() and "nan" not in screen.getvalue()
    assert all(words in screen.getvalue() for words in ("training", "60/100", "loss 0.4321", "5678 rows/s", "-:--:--"))


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00")])
def test_the_clock(seconds: float, text: str) -> None:
    assert progress_module._clock(seconds) == text


@pytest.mark.slow
def test_python_m_undiffuse_continues_a_run_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    e = Experiment(data="moons", net_args=TINY, steps=8, batch_size=8, save_every=4, device="cpu")
    train(e, folder, progress=False, stop=lambda step: step == 4)
    done = subprocess.run([sys.executable, "-m", "undiffuse", "train", str(folder)], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0 and "resuming from step 4" in done.stderr
    assert steps(folder) == [4, 8]
    assert json.loads((folder / "experiment.json").read_text()) == e.to_dict()
