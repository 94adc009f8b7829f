"""Samplers on one page: every row is what the sampler itself gives, from the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_pipelines import LATENT, diffusers, error, flux, sd3, stable_diffusion, start, theirs, unet

import undiffuse as ud
from undiffuse.cli import main
from undiffuse.errors import InputError
from undiffuse.interop.comparison import compare, lines, their_samples, their_schedulers
from undiffuse.interop.schedules import dynamic_shift, times_of
from undiffuse.samplers.registry import ALL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def pipeline(**config: Any) -> Any:
    return diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(**{"clip_sample": False, **config}))


def swapped(pipe: Any, kind: str) -> Any:
    """A scheduler of another class with all values of the pipeline's own, as in a pipeline that was saved."""
    config = {k: v for k, v in dict(pipe.scheduler.config).items() if not k.startswith("_")}
    return getattr(diffusers, kind).from_config(config)


@pytest.mark.slow
def test_the_rows_are_the_samplers_themselves() -> None:
    pipe = pipeline()
    model, eps = ud.from_diffusers(pipe, block=2), start(2, seed=0)
    path, rows = compare(model, [4, 6], 2, fine=30)
    assert torch.equal(path, ud.sample(model, 2, ALL["unipc_4_noise"], 30).z)
    by_name = {(row.ours, row.name.partition(" (")[0], row.steps): row for row in rows}
    for label, kind in (("DDIM", "DDIMScheduler"), ("DPM++ 2M", "DPMSolverMultistepScheduler")):
        scheduler = swapped(pipe, kind)
        scheduler.set_timesteps(4)
        row = by_name[False, label, 4]
        assert error(row.z, theirs(pipe.unet, scheduler, eps)[0]) < 1e-5 and row.calls == 4
        expected = (row.z - path).flatten(1).square().mean(1).sqrt() / path.std()
        torch.testing.assert_close(row.distance, expected)
    assert error(by_name[False, "Euler", 4].z, by_name[False, "DDIM", 4].z) < 1e-4  # one formula, two states
    assert torch.equal(by_name[True, "auto", 6].z, ud.sample(model, 2, steps=5, x_T=float(model.sde.sigma(
        torch.tensor(model.t_start()).double())) * eps).z)
    text = list(lines(rows))
    assert "diffusers: DDIM" in text[2] and sum("ours: " in line for line in text) == 4


@pytest.mark.slow
def test_guidance_and_prompts_are_those_of_the_pipeline() -> None:
    pipe, prompts = stable_diffusion(), ["a cat", "a red house"]
    model = ud.classifier_free(ud.from_diffusers(pipe, block=2, latents=True), 7.5, negative={"prompt": "blurry"})
    _, rows = compare(model, [5], 2, fine=6, prompt=prompts)
    for label, kind in (("DDIM", "DDIMScheduler"), ("UniPC", "UniPCMultistepScheduler"),
                        ("Euler", "EulerDiscreteScheduler")):
        pipe.scheduler = swapped(pipe, kind)
        latents = start(2, LATENT, 0)
        expected = pipe(prompts, num_inference_steps=5, guidance_scale=7.5, latents=latents, output_type="latent",
                        negative_prompt=["blurry"] * 2).images
        assert error(next(r.z for r in rows if r.name == label and not r.ours), expected) < 1e-4, label


@pytest.mark.slow
@pytest.mark.parametrize("make", [sd3, flux])
def test_flows_run_on_their_own_times(make: Any) -> None:
    pipe = make()
    model = ud.from_diffusers(pipe, size=16, block=2, latents=True)
    assert next(iter(their_schedulers(model))) == "FlowMatchEulerDiscrete"
    eps, rows = start(2, LATENT, 0), ud.sample(model, 2, "ddim", 2, prompt="a")
    assert rows.x.isfinite().all()
    cond = model.encode_conditions({"prompt": "a"}, 2)
    z, calls = their_samples(model, *their_schedulers(model)["FlowMatchEulerDiscrete"], 6, eps, cond)
    mu = dynamic_shift(dict(pipe.scheduler.config), model.shape)
    pipe.scheduler.set_timesteps(6, **({} if mu is None else {"mu": mu}))
    grid = times_of(type("Schedule", (), {"process": model.sde, "reading": model.reading}), pipe.scheduler)[0]
    assert calls == 6 and error(ud.sample(model, 2, "ddim", grid=grid, x_T=eps, prompt="a").z, z) < 2e-6
    if make is flux:  # 16 patches: (16 − 256)/(4096 − 256) of the way from .5 to 1.15
        assert mu == pytest.approx(0.5 + 0.65 * (16 - 256) / 3840)


@pytest.mark.slow
def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(beta_schedule="squaredcos_cap_v2").save_pretrained(tmp_path / "ddpm")
    flags = ["--steps", "3,4", "--n", "2", "--fine", "6"]
    assert main(["compare", str(tmp_path / "ddpm"), *flags]) == 0
    printed = capsys.readouterr().out
    assert "diffusers: DPM++ 2M" in printed and "ours: auto" in printed and "compare.png" in printed
    assert Image.open(tmp_path / "ddpm" / "compare.png").width > 500
    assert main(["compare", str(tmp_path / "ddpm"), "--prompt", "a"]) == 2


def test_models_without_their_samplers_are_refused() -> None:
    law = ud.Mixture.fit(torch.randn(50, 2), 1).denoiser(ud.VP())
    with pytest.raises(InputError, match="not of diffusers"):
        compare(law, [4])
    pipe = pipeline()
    pipe.scheduler = diffusers.LCMScheduler()
    with pytest.raises(InputError, match="consistency"):
        compare(ud.from_diffusers(pipe), [4])
    pipe.scheduler = diffusers.ScoreSdeVeScheduler()
    with pytest.raises(InputError, match="ScoreSdeVe"):
        their_schedulers(ud.from_diffusers(pipe))
