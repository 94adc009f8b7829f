"""Lower precision and compilation change what they may, and no update waits for its device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training.small_runs import experiment, final, measured, points, same

from undiffuse.data import Dataset
from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.nets import ConditionEmbedding
from undiffuse.random import Purpose, normal
from undiffuse.training import load, loop, precision, replay, train
from undiffuse.training.batches import Feed, batch_gradient, batch_losses
from undiffuse.training.loop import held_out_loss
from undiffuse.training.model_config import describe, initialized
from undiffuse.training.run import open_or_create, split_held_out
from undiffuse.training.state import TrainingState

PIXELS = torch.arange(40 * 64).reshape(40, 1, 8, 8).mul(37).remainder(256).to(torch.uint8)
IMAGES = Dataset(PIXELS, torch.arange(40) % 2, "image", "noise", ("a", "b"), levels=256)
UNET = {"net": "unet", "net_args": {"widths": [8, 16], "attention": [1]}, "batch_size": 8}
LOW = {"steps": 8, "save_every": 4, "held_out": 10, "precision": "bf16"}


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: blocking copies to it, and numbers read from it."""

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        options, name = dict(kwargs or {}), func._schema.name
        there = torch.device(options.get("device") or args[0].device) if name == "aten::_to_copy" else None
        if there is not None and there.type != args[0].device.type:
            assert args[0].device.type == "cpu" and options.get("non_blocking"), (args[0].shape, options)
        assert name != "aten::_local_scalar_dense" or args[0].device.type == "cpu"
        return func(*args, **options)


@pytest.mark.parametrize("changes", [
    {**UNET, "flip": True, "shift": 1}, {"prediction_type": "wiener"}, {"weighting": "whitened"},
    {"noise_distribution": "importance", "weighting": "likelihood"}, {"sde": "cosine", "weighting": "min_snr"}])
def test_no_update_waits_for_the_device(changes: dict[str, Any]) -> None:
    """Of the device "meta", which has no numbers, nothing can be read; the first update fills what is kept there."""
    e = experiment(**{"batch_size": 8, **changes})
    model = initialized(describe(e, IMAGES, ""), 0, IMAGES).to("meta")
    state, feed = TrainingState(e, model), Feed(e, IMAGES, model)
    state.update(batch_gradient(state, feed, 0, 8))
    with NoWaiting():
        state.update(batch_gradient(state, feed, 0, 8))
    with pytest.raises(AssertionError), NoWaiting():
        torch.zeros(3).to("meta")


@pytest.mark.parametrize("changes, data", [(UNET, IMAGES), ({"net_args": {"width": 64}}, points(50))])
def test_bf16_is_near_float32_and_everything_that_is_kept_stays_float32(changes: dict[str, Any], data: Dataset) -> None:
    """Layers err by 2⁻⁹ of their values each; half a dozen of them, and a loss of the square, by less than 5 %."""
    e = experiment(**changes)
    model = initialized(describe(e, data, ""), 0, data)
    state, feed = TrainingState(e, model), Feed(e, data, model)
    for p, z in ((p, normal(3, Purpose.WEIGHTS, i, 0, 1, tuple(p.shape))[0])
                 for i, p in enumerate(state.parameters.values())):
        p.data.add_(0.1 * z)  # no layer is silent
    plain, gradient = batch_losses(feed, feed.batch(0)), batch_gradient(state, feed, 0, 8).clone()
    precision.configure(model, e, "bf16")
    low, rough = batch_losses(feed, feed.batch(0)), batch_gradient(state, feed, 0, 8)
    assert low.dtype == rough.dtype == state.weights.dtype == torch.float32 and not state.ema_model.bf16
    assert 0 < float(((low - plain).abs().max() / plain.abs().max()).detach()) < 0.05
    assert 0 < float((rough - gradient).norm() / gradient.norm()) < 0.05


def test_the_embedding_of_a_noise_level_is_never_lowered() -> None:
    net, c = ConditionEmbedding(16), torch.linspace(-2.5, 2.5, 9)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(c, None)
    assert torch.equal(low, net(c, None))


def test_a_run_in_bf16_is_exact_measured_in_float32_and_no_other(tmp_path: Path) -> None:
    e, data = experiment(**LOW), points()
    train(e, tmp_path / "whole", progress=False, data=data)
    train(e, tmp_path / "cut", progress=False, data=data, stop=lambda step: step == 6)
    train(e, tmp_path / "cut", progress=False, data=data)
    assert same(final(tmp_path / "whole"), final(tmp_path / "cut"))
    assert replay(tmp_path / "whole", 7, data).agreement == (3, 3)
    model, held_out = load(tmp_path / "whole", device="cpu"), split_held_out(data, 10)[1]
    assert held_out is not None
    assert measured(tmp_path / "whole")[-1]["held_out"] == held_out_loss(Feed(e, held_out, model), 8)["held_out"]
    with pytest.raises(InputError, match=r"precision is 'bf16' there and 'fp32' here"):
        train(e.replace(precision="fp32"), tmp_path / "cut", progress=False, data=data)
    train(e.replace(precision="fp32"), tmp_path / "plain", progress=False, data=data)
    assert not same(final(tmp_path / "plain"), final(tmp_path / "whole"))


def test_a_row_that_is_not_finite_is_named_in_bf16_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Described as if it were finite, since it would be refused before the first update else."""
    bad = points()
    bad.x[17] = torch.inf
    monkeypatch.setattr(loop, "open_or_create", lambda folder, recipe, data, rows: open_or_create(
        folder, recipe, points(), points()))
    with pytest.raises(InputError, match="row 17"):
        train(experiment(**{**LOW, "held_out": 0}), tmp_path, progress=False, data=bad)


@pytest.mark.slow
def test_compiled_layers_have_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    """To rounding; and a run may go on compiled, and says so."""
    monkeypatch.setattr(precision, "BACKEND", "aot_eager")
    e = experiment(steps=4, save_every=2)
    for name, change in (("plain", {}), ("compiled", {"compile": "on"})):
        train(e.replace(**change), tmp_path / name, progress=False, data=IMAGES)
    for key, value in final(tmp_path / "plain").items():
        assert torch.allclose(value, final(tmp_path / "compiled")[key], rtol=1e-4, atol=1e-6), key
    train(e, tmp_path / "mixed", progress=False, data=IMAGES, stop=lambda step: step == 2)
    train(e.replace(compile="on"), tmp_path / "mixed", progress=False, data=IMAGES)
    assert "differ in the last bits (compiled False -> True)" in capsys.readouterr().err
    assert not precision.is_compiled(load(tmp_path / "mixed", device="cpu"))


def test_what_is_chosen_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(experiment(steps=1, precision="auto", compile="auto"), tmp_path, data=points())
    said = "undiffuse: float32 layers (bf16 did not pay on a CPU), not compiled (it did not pay on a CPU)\n"
    assert capsys.readouterr().err.startswith(said)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["precision"] == "fp32"


@pytest.mark.parametrize("net, capability, expected", [
    ("unet", (8, 0), "bf16"), ("unet", (9, 0), "bf16"), ("unet", (7, 5), "fp32"), ("mlp", (9, 0), "fp32")])
def test_bf16_is_chosen_for_images_on_a_gpu_that_has_it(net: str, capability: tuple[int, int], expected: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    e = Experiment(data="memory", net=net, precision="auto")
    assert precision.precision(e, torch.device("cuda")) == expected
    assert (
        precision.precision(e, torch.device("cpu"))
        == precision.precision(e.replace(dtype="float64"), torch.device("cuda"))
        == "fp32"
    )
    with pytest.raises(InputError, match="bf16 with dtype=float64"):
        precision.precision(e.replace(precision="bf16", dtype="float64"), torch.device("cpu"))


@pytest.mark.parametrize("device, steps, expected", [("cuda", 19_999, False), ("cuda", 20_000, True),
                                                      ("cpu", 10**9, False), ("mps", 10**9, False)])
def test_long_trainings_on_gpus_are_compiled(device: str, steps: int, expected: bool,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda name: name)
    e = Experiment(data="memory", compile="auto", steps=steps)
    assert precision._compiled(e, torch.device(device))[0] is expected
    assert precision._compiled(e.replace(compile="off"), torch.device(device)) == (False, "as set")


def test_what_cannot_be_compiled_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    e = Experiment(data="memory", compile="on", steps=10**9)
    for device in ("cpu", "cuda"):
        with pytest.raises(MachineError, match="expected a compiler"):
            precision._compiled(e, torch.device(device))
    assert not precision._compiled(e.replace(compile="auto"), torch.device("cuda"))[0]
