"""Runs of ours in stock pipelines: equal to `ud.sample`, for every process and parameterisation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_pipelines import diffusers, error, slow_but, start

import undiffuse as ud
from undiffuse import interop, training
from undiffuse.cli import main
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.interop.export import card, export_run, stock_times
from undiffuse.samplers.registry import ALL
from undiffuse.samplers.tuned import Tuned, TunedSampler, Tuning

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*Expected types.*")
RUN = Experiment(data="digits", net="unet", net_args={"widths": [8, 8]}, steps=2, save_every=2, warmup=1, batch_size=8,
                 held_out=100, sde="vp")
CASES = [("vp", "v"), ("vp", "wiener"), ("vp", "noise"), ("subvp", "data"), ("edm", "edm"), ("cosine", "v"),
         ("rectified_flow", "velocity"), ("vp", "score"), ("vp", "linear")]


def stock(folder: Path, **options: object) -> object:
    pipe = diffusers.DDPMPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("sde, prediction", slow_but([], CASES))
def test_a_stock_pipeline_is_sample(sde: str, prediction: str, tmp_path: Path) -> None:
    training.train(replace(RUN, sde=sde, prediction_type=prediction), tmp_path / "run")
    pipe = stock(export_run(tmp_path / "run", tmp_path / "out"))
    model, x = training.load(tmp_path / "run", device="cpu"), start(2, (1, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", lambda shape, **_: x.clone())
        images = pipe(batch_size=2, num_inference_steps=20, output_type="pt").images
    t = (pipe.scheduler.timesteps.double() + 1) / 1000 * model.sde.T
    norm = float((model.sde.alpha(t[0]) ** 2 + model.sde.variance(t[0])).sqrt())
    ours = ud.sample(model, 2, ALL["ddim"], grid=t, x_T=norm * x)
    assert error(torch.as_tensor(images), (ours.z / 2 + 0.5).clamp(0, 1)) < 1e-5


@pytest.mark.slow
def test_code_beside_the_weights_needs_trust(tmp_path: Path) -> None:
    training.train(RUN, tmp_path / "run")
    folder = export_run(tmp_path / "run", tmp_path / "out", standalone=True)
    code = ("from diffusers import DDPMPipeline; p = DDPMPipeline.from_pretrained({!r}, trust_remote_code={}); "
            "p(num_inference_steps=2, output_type='np')")
    for trust, status in ((False, 1), (True, 0)):
        done = subprocess.run([sys.executable, "-c", code.format(str(folder), trust)], capture_output=True, text=True,
                              check=False, cwd=tmp_path)
        assert done.returncode == status, done.stderr[-500:]
        assert trust or "trust_remote_code" in done.stderr


def test_the_command_writes_a_card_and_lists_what_it_would_upload(tmp_path: Path, capsys) -> None:
    training.train(RUN, tmp_path / "run")
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    assert main(["export", run, "--out", out, "--push", "me/digits", "--license", "mit", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "README.md" in printed and "unet/diffusion_pytorch_model.safetensors" in printed
    text = (tmp_path / "out" / "README.md").read_text()
    assert "license: mit" in text and "library_name: undiffuse" in text and "Process vp" in text
    assert main(["export", run, "--out", str(tmp_path / "b"), "--push", "me/digits"]) == 2
    assert "--license" in capsys.readouterr().err
    assert main(["export", run, "--out", out]) == 2  # not empty


def test_the_times_of_a_tuned_sampler_are_those_of_stock_schedulers(tmp_path: Path) -> None:
    training.train(RUN, tmp_path / "run")
    opened = interop.open_model(tmp_path / "run", "cpu")
    times = torch.tensor([1.0, 0.5, 0.2, 0.02], dtype=torch.float64)
    model = opened.model
    tuned = Tuned(model, Tuning(model.moments, 0.02, {"": {3: TunedSampler(times, torch.zeros(3, 5), False)}}))
    values = stock_times(replace(opened, model=tuned), 3)
    assert values["timesteps"] == [999, 499, 199]
    assert values["sigmas"] == pytest.approx(torch.exp(-model.sde.log_snr(times[:-1])).tolist())
    scheduler = diffusers.DPMSolverMultistepScheduler()
    scheduler.set_timesteps(timesteps=values["timesteps"])
    assert scheduler.timesteps.tolist() == [999, 499, 199]
    with pytest.raises(InputError, match="tuned to 3"):
        stock_times(replace(opened, model=tuned), 4)
    assert "| evaluations |" in card(replace(opened, model=tuned), "mit")


def test_a_run_on_points_is_refused(tmp_path: Path) -> None:
    training.train(Experiment(data="moons", steps=2, save_every=2, warmup=1, batch_size=8,
                              net_args={"width": 8, "depth": 1}), tmp_path / "run")
    with pytest.raises(InputError, match="images"):
        export_run(tmp_path / "run", tmp_path / "out")
