"""Pretrained models by name: folders, `undiffuse import`, and the commands on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipelines import diffusers, seeded, stable_diffusion, start, unet
from torch import nn

import undiffuse as ud
from undiffuse import interop, training
from undiffuse.cli import main
from undiffuse.errors import InputError, MachineError
from undiffuse.interop.imported import NAME
from undiffuse.model import Denoiser
from undiffuse.predictions import Reading

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels") / "ddpm"
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "sd"
    stable_diffusion().save_pretrained(folder)
    return folder


def test_load_takes_folders_and_pipelines(pixels: Path, tmp_path: Path) -> None:
    interop.import_model(str(pixels), tmp_path / "run")
    expected = ud.sample(ud.from_diffusers(pixels), 2, steps=3).x
    for source in (pixels, str(pixels), tmp_path / "run", diffusers.DDPMPipeline.from_pretrained(pixels)):
        assert torch.equal(ud.sample(ud.load(source, device="cpu"), 2, steps=3).x, expected)


def test_an_imported_folder_holds_no_weights_and_notices_changed_ones(pixels: Path, tmp_path: Path) -> None:
    lines = interop.import_model(str(pixels), tmp_path / "run")
    assert "UNet2DModel (3, 8, 8)" in lines[0] and "denoising error" in lines[1]
    assert [file.name for file in (tmp_path / "run").iterdir()] == [NAME]
    assert (tmp_path / "run" / NAME).stat().st_size < 10_000
    weights = pixels / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(InputError, match=r"diffusion_pytorch_model\.safetensors.*changed"):
            ud.load(tmp_path / "run")
    finally:
        weights.write_bytes(content)
    ud.load(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(InputError, match="other files"):
        interop.import_model(str(pixels), tmp_path / "other")


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    for name in ("weights.pt", "weights.safetensors", "net.pkl"):
        (tmp_path / name).write_bytes(b"0")
        with pytest.raises(InputError, match="from_checkpoint"):
            ud.load(tmp_path / name)
    with pytest.raises(InputError, match="not the folder of a run"):
        ud.load(tmp_path)
    with pytest.raises(MachineError, match="nobody/nothing of the Hugging Face Hub"):
        ud.load("nobody/nothing")
    with pytest.raises(MachineError, match="nobody/nothing of the Hugging Face Hub"):
        ud.load("hf:nobody/nothing")


# ------------------------------------------------------------------------------------------- commands


@pytest.mark.slow
def test_sample_writes_the_images_of_a_folder(pixels: Path, tmp_path: Path) -> None:
    assert main(["sample", str(pixels), "--n", "3", "--steps", "3", "--out", str(tmp_path / "x.npy")]) == 0
    x = ud.sample(ud.load(pixels, device="cpu"), 3, steps=3).x
    assert np.abs(np.load(tmp_path / "x.npy").astype(float) - x.clamp(0, 255).round().numpy()).max() == 0


@pytest.mark.slow
def test_prompts_on_the_command_line(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    flags = ["--n", "3", "--steps", "3", "--out", str(out), "--prompt", "a cat", "--prompt", "a dog"]
    assert main(["sample", str(text), *flags, "--guidance-scale", "3", "--negative", "blurry"]) == 0
    model = ud.classifier_free(ud.load(text, device="cpu"), 3.0, negative={"prompt": "blurry"})
    x = ud.sample(model, 3, steps=3, prompt=["a cat", "a dog", "a cat"]).x
    assert np.load(out).shape == (3, 3, 16, 16)
    assert np.abs(np.load(out).astype(float) - x.round().numpy()).max() <= 1


@pytest.mark.parametrize("flags, words", [
    (["--prompt", "a cat"], "takes no text"), (["--negative", "x"], "takes no text"), (["--label", "3"], "labels")])
def test_flags_that_a_model_lacks_are_one_line(pixels: Path, flags: list[str], words: str, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(pixels), "--out", str(tmp_path / "x.npy"), *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_hub_that_cannot_be_reached_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sample", "hf:nobody/nothing", "--out", str(tmp_path / "x.png")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Hugging Face Hub" in error and "Traceback" not in error


@pytest.mark.slow
def test_import_tune_and_sample(pixels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["import", str(pixels), "--out", str(run)]) == 0
    assert main(["tune", str(run), "--evaluations", "4", "--trajectories", "4", "--rounds", "0"]) == 0
    assert {file.name for file in run.iterdir()} >= {NAME, "tuning.safetensors", "tuning.png"}
    about = json.loads((run / NAME).read_text())
    assert set(about["files"]) == {"unet/diffusion_pytorch_model.safetensors"}
    model = ud.load(run, device="cpu")
    assert isinstance(model, ud.tuning.Tuned) and "made for another" not in capsys.readouterr().err
    assert main(["sample", str(run), "--n", "2", "--steps", "4", "--out", str(tmp_path / "x.png")]) == 0
    direct = ud.load(pixels, device="cpu")  # the pipeline's folder has no tuning, but takes that of RUN
    assert not isinstance(direct, ud.tuning.Tuned)
    assert isinstance(ud.tuning.load(direct, run / ud.tuning.NAME), ud.tuning.Tuned)
    assert main(["tune", "hf:somebody/model", "--evaluations", "4"]) == 2
    assert "undiffuse import hf:somebody/model --out RUN" in capsys.readouterr().err


@pytest.mark.slow
def test_text_to_image_is_tuned_to_prompts_and_says_where_that_does_not_apply(
        text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, prompts = tmp_path / "run", tmp_path / "prompts.txt"
    prompts.write_text("a cat\n\na red house\n")
    assert main(["import", str(text), "--out", str(run)]) == 0
    flags = ["--evaluations", "4", "--trajectories", "4", "--rounds", "0"]
    assert main(["tune", str(run), *flags]) == 2 and "prompts" in capsys.readouterr().err
    assert main(["tune", str(run), *flags, "--prompt-file", str(prompts), "--budget", "10min"]) == 0
    assert "at most about" in capsys.readouterr().err
    model = ud.load(run, device="cpu")
    tuned = ud.tuning.tuning_of(model).table
    assert set(tuned) == {"prompt"} and set(tuned["prompt"]) <= {4}
    sampled = ["sample", str(run), "--n", "1", "--steps", "4", "--out", str(tmp_path / "x.png")]
    assert main([*sampled, "--prompt", "a dog"]) == 0
    assert "the untuned one is used" not in capsys.readouterr().err
    assert main(sampled) == 0
    assert not tuned["prompt"] or "tuned to the conditions prompt; the untuned one is used" in capsys.readouterr().err
    assert main([*sampled, "--prompt", "a dog", "--guidance-scale", "3", "--negative", "x"]) == 0
    assert "no sampler is tuned to this guidance" in capsys.readouterr().err
    assert main(["tune", str(run), "--prompt-file", str(tmp_path / "none.txt")]) == 2
    assert main(["tune", str(run), "--prompt", "a", "--budget", "soon"]) == 2


@pytest.mark.slow
def test_likelihood_and_restore_take_an_imported_model(pixels: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npy"
    np.save(images, (255 * torch.rand(2, 3, 8, 8)).byte().numpy())
    flags = ["--probes", "1", "--tolerance", "0.1", "--dequantise", "none"]
    assert main(["likelihood", str(pixels), str(images), "--out", str(tmp_path / "s.csv"), *flags]) == 0
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3


# ------------------------------------------------------------------------------------------- a configuration that lies


class Truth(nn.Module):
    """The exact ε, or v, of N(0, 0.25)."""

    def __init__(self, sde: ud.VP, form: str) -> None:
        super().__init__()
        self.sde, self.form, self.net = sde, form, seeded(lambda: nn.Linear(1, 1))

    def forward(self, x: torch.Tensor, c: torch.Tensor, label: object = None) -> torch.Tensor:
        alpha, sigma = (v.to(x)[:, None] for v in (self.sde.alpha(c.double()), self.sde.sigma(c.double())))
        D = 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * x
        eps = (x - alpha * D) / sigma
        return eps if self.form == "noise" else alpha * eps - sigma * D


@pytest.mark.parametrize("said", ["noise", "v"])
@pytest.mark.parametrize("true", ["noise", "v"])
def test_a_wrong_prediction_type_is_noticed(true: str, said: str) -> None:
    sde = ud.VP()
    model = Denoiser(Truth(sde, true), sde, Reading(said, 1.0, "time", scaled_input=False), shape=(4,))
    lines = interop.check_reading(model, 0.5 * start(64, (4,)))
    assert any(f"read as {true}" in line for line in lines) == (said != true)


def test_runs_are_loaded_as_before(tmp_path: Path) -> None:
    recipe = ud.Experiment(data="moons", steps=2, save_every=2, warmup=1, batch_size=8,
                           net_args={"width": 8, "depth": 1})
    training.train(recipe, tmp_path / "run")
    assert torch.equal(ud.sample(ud.load(tmp_path / "run", device="cpu"), 2, steps=3).x,
                       ud.sample(training.load(tmp_path / "run", device="cpu"), 2, steps=3).x)
    with pytest.raises(InputError, match="no options"):
        ud.load(tmp_path / "run", size=8)
