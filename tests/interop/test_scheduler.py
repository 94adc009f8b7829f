"""Our samplers inside unchanged pipelines: equal to `ud.sample` on the same nodes, for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import (
    LATENT,
    ZERO_SNR,
    diffusers,
    embeddings,
    error,
    flux,
    model_of,
    sd3,
    slow_but,
    stable_diffusion,
    start,
    unet,
)
from torch import Tensor

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.moments import Moments
from undiffuse.random import Purpose, normal
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.registry import ALL
from undiffuse.samplers.tuned import Tuned, TunedSampler, Tuning

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
METHODS = [name for name, method in ALL.items() if not method.adaptive]
PROMPTS = ["a cat", "a red house"]


def nodes_of(pipe: Any) -> Tensor:
    return torch.stack([node.t for node in pipe.scheduler.nodes])


def run(pipe: Any, steps: int = 8, **options: Any) -> Tensor:
    """Latents of a pipeline from our start."""
    options = {"latents": start(shape=LATENT), "guidance_scale": 7.5, **options}
    out: Tensor = pipe(PROMPTS, num_inference_steps=steps, output_type="latent", **options).images
    return out


@pytest.fixture(scope="module")
def pipes() -> dict[bool, Any]:
    return {zero: stable_diffusion(**(ZERO_SNR if zero else {})) for zero in (False, True)}


@pytest.mark.parametrize("zero_snr", slow_but([False], [False, True]))
@pytest.mark.parametrize("method", slow_but(["dpmpp_2s"], METHODS))
def test_every_method_in_stable_diffusion_is_sample(pipes: dict[bool, Any], method: str, zero_snr: bool) -> None:
    pipe = pipes[zero_snr]
    model = ud.classifier_free(ud.from_diffusers(pipe, block=2, latents=True), 7.5)
    calls: list[int] = []
    hook = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    pipe.scheduler, before = ud.scheduler(pipe, method, seed=5), pipe.scheduler
    try:
        if method == "annealed_langevin" and zero_snr:
            pytest.skip("it needs a score at pure noise")
        latents, evaluations, grid = run(pipe), len(calls), nodes_of(pipe)
        assert evaluations == len(pipe.scheduler.timesteps)
    finally:
        pipe.scheduler = before
        hook.remove()
    ours = ud.sample(model, 2, ALL[method], grid=grid, x_T=start(shape=LATENT), seed=5, prompt=PROMPTS)
    assert ours.nfe == evaluations
    if method == "annealed_langevin":  # 36 evaluations of α D − x at small noise amplify the rounding
        assert error(latents, ours.x) < 0.1
    else:
        assert error(latents, ours.x) < (5e-4 if zero_snr else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpmpp_2m", "dpmpp_2s", "restart"])
def test_the_progress_bar_has_the_number_of_steps(pipes: dict[bool, Any], method: str) -> None:
    pipe, updates, totals = pipes[False], list[int](), list[int]()

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int = 1) -> None:
            updates.append(n)

    before, old = pipe.scheduler, pipe.progress_bar
    pipe.scheduler, pipe.progress_bar = ud.scheduler(pipe, method), lambda total: totals.append(total) or Bar()
    run(pipe)
    pipe.scheduler, pipe.progress_bar = before, old
    assert totals == [8] and sum(updates) == 8


@pytest.mark.slow
def test_a_saved_pipeline_reloads_with_our_scheduler(tmp_path: Path, pipes: dict[bool, Any]) -> None:
    pipe = pipes[False]
    before, pipe.scheduler = pipe.scheduler, ud.scheduler(pipe, "unipc", "karras", seed=3)
    pipe.save_pretrained(tmp_path)
    expected, pipe.scheduler = run(pipe), before
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler).__name__ == "UndiffuseScheduler" and torch.equal(run(again), expected)
    alone = type(again.scheduler).from_pretrained(tmp_path, subfolder="scheduler")
    assert alone.config.method == "unipc" and alone.config.source_config["beta_schedule"] == "scaled_linear"
    again.scheduler = ud.scheduler(again, "ddim")  # from our own scheduler, back to its source
    assert again.scheduler.config.source == "DDIMScheduler"


@pytest.mark.parametrize("method", slow_but(["ancestral"], ["dpmpp_2m", "dpmpp_2s", "ancestral"]))
@pytest.mark.parametrize("strength", slow_but([0.5], [0.3, 0.5, 0.8]))
def test_image_to_image_is_sample(pipes: dict[bool, Any], method: str, strength: float) -> None:
    pipe = pipes[False]
    img2img = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    img2img.set_progress_bar_config(disable=True)
    img2img.scheduler = ud.scheduler(pipe, method, seed=5)
    z0, noise = start(2, LATENT, 1), start(2, LATENT, 5)
    with pytest.MonkeyPatch.context() as patch:
        home = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"
        patch.setattr(f"{home}.randn_tensor", lambda shape, **_: noise)
        latents = img2img(PROMPTS, image=z0, strength=strength, num_inference_steps=10, guidance_scale=1.0,
                          output_type="latent").images
    node = img2img.scheduler._node_of(img2img.scheduler.begin_index)
    grid = nodes_of(img2img)[node:]
    model = ud.from_diffusers(pipe, block=2, latents=True)
    x_T = model.sde.perturb(z0, grid[0], noise)
    assert error(latents, ud.sample(model, 2, ALL[method], grid=grid, x_T=x_T, seed=5, prompt=PROMPTS).x) < 1e-4
    if method != "dpmpp_2s":  # one evaluation a step: the part of the grid is the same
        whole = ud.sample(model, x0=z0, strength=strength, method=ALL[method], grid=nodes_of(img2img), seed=5,
                          prompt=PROMPTS)
        assert error(latents, whole.x) < 1e-4


@pytest.mark.slow
def test_inpainting_keeps_the_image_outside_of_the_mask(pipes: dict[bool, Any]) -> None:
    pipe = pipes[False]
    inpaint = diffusers.StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    inpaint.set_progress_bar_config(disable=True)
    image, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    for method in ("dpmpp_2m", "dpmpp_2s"):
        ours, theirs = (inpaint("a cat", image=image, mask_image=mask, height=16, width=16, num_inference_steps=6,
                                output_type="latent", generator=torch.Generator().manual_seed(0)).images
                        for inpaint.scheduler in (ud.scheduler(pipe, method, seed=0), pipe.scheduler))
        assert torch.equal(ours[..., :4], theirs[..., :4]) and error(ours, theirs) > 0.01


@pytest.mark.slow
def test_a_pipeline_in_half_precision_is_finite_and_close(pipes: dict[bool, Any]) -> None:
    pipe = stable_diffusion()
    single, pipe.scheduler = pipe.scheduler, ud.scheduler(pipe, "dpmpp_2m", seed=0)
    expected = run(pipe, guidance_scale=1.0)
    half = run(pipe.to(torch.bfloat16), guidance_scale=1.0, latents=start(shape=LATENT).bfloat16())
    assert half.isfinite().all() and error(half.float(), expected) < 2e-2 and single is not None


def test_noise_of_a_sample_depends_on_its_generator_only(pipes: dict[bool, Any]) -> None:
    pipe = pipes[False]
    before, pipe.scheduler = pipe.scheduler, ud.scheduler(pipe, "ancestral")
    drawn: list[Tensor] = []
    noise = type(pipe.scheduler)._noise

    def spy(self: Any, generator: Any, like: Tensor) -> Any:
        draw = noise(self, generator, like)
        return lambda *at: drawn.append(draw(*at)) or drawn[-1]

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(s) for s in seeds]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(pipe.scheduler), "_noise", spy)
        pipe(PROMPTS, num_inference_steps=4, output_type="latent", generator=generators(1, 2))
        both, drawn[:] = list(drawn), []
        pipe(PROMPTS[1], num_inference_steps=4, output_type="latent", generator=generators(2))
    pipe.scheduler = before
    assert len(both) == len(drawn) == 3
    assert all(torch.equal(a[1:], b) for a, b in zip(both, drawn, strict=True))
    assert not torch.equal(both[0][0], both[0][1])


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_stable_diffusion_at_8_steps_is_nearer_to_500_than_by_its_own_scheduler(guidance: float) -> None:
    """With times from T on: the first of 400 steps of its `leading` times is index 798."""
    pipe = stable_diffusion(timestep_spacing="trailing", steps_offset=0)
    fine, theirs = (run(pipe, n, guidance_scale=guidance) for n in (500, 8))
    for method, grid in (("unipc", None), ("dpmpp_2m", None), ("unipc", "karras"), ("auto", None)):
        pipe.scheduler = ud.scheduler(pipe, method, grid)
        assert error(run(pipe, 8, guidance_scale=guidance), fine) < 0.8 * error(theirs, fine), (method, grid)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m", "unipc"])
def test_flow_pipelines(method: str) -> None:
    pipe = flux()
    embedding, pooled = (torch.cat(v) for v in list(zip(*(embeddings(p, 7, 32) for p in PROMPTS), strict=True))[:2])
    options = {"prompt_embeds": embedding, "pooled_prompt_embeds": pooled, "height": 16, "width": 16,
               "latents": pipe._pack_latents(start(shape=LATENT), 2, 4, 8, 8), "output_type": "latent"}
    theirs, fine = (pipe(num_inference_steps=n, **options).images for n in (8, 400))
    pipe.scheduler = ud.scheduler(pipe, method)
    ours = pipe(num_inference_steps=8, **options).images
    if method == "ddim":
        assert error(ours, theirs) < 2e-6  # Euler's steps on the straight path
    else:
        assert error(ours, fine) < error(theirs, fine)
    model = ud.from_diffusers(pipe, size=16, block=2) if method == "ddim" else None
    assert model is None or model.reading.prediction_type == "velocity"


def test_stable_diffusion_3_takes_our_scheduler() -> None:
    pipe = sd3()
    embedding, pooled = (torch.cat(v) for v in list(zip(*(embeddings(p, 5, 16) for p in PROMPTS), strict=True))[:2])
    options = {"prompt_embeds": embedding, "pooled_prompt_embeds": pooled, "latents": start(shape=LATENT),
               "guidance_scale": 1.0, "output_type": "latent"}
    theirs = pipe(num_inference_steps=8, **options).images
    pipe.scheduler = ud.scheduler(pipe, "ddim")
    assert error(pipe(num_inference_steps=8, **options).images, theirs) < 2e-6
    pipe.scheduler = ud.scheduler(pipe, "unipc", "log_snr")
    assert pipe(num_inference_steps=8, **options).images.isfinite().all()


def test_pixels_take_a_tuned_model(tmp_path: Path) -> None:
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    model = model_of(pipe.scheduler, unet())
    moments = Moments.measure(0.5 * start(300), "dct")
    times = time_grid(model.sde, 4, "log_snr", None, model.t_end())
    theta = 0.02 * normal(0, Purpose.INIT, 1, 0, 4, (5,), torch.float64)
    tuned = Tuned(model, Tuning(moments, model.t_end(), {"": {4: TunedSampler(times, theta, False)}}))
    tuned_scheduler = ud.scheduler(pipe, tuned)
    tuned_scheduler.save_pretrained(tmp_path)
    pipe.scheduler = type(tuned_scheduler).from_pretrained(tmp_path)
    x = start(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", lambda shape, **_: x.clone())
        images = pipe(batch_size=2, num_inference_steps=4, output_type="np").images
    ours = ud.sample(tuned, 2, "tuned", 4, x_T=x, denoise_last=False).z
    assert error(torch.from_numpy(images).permute(0, 3, 1, 2), (ours / 2 + 0.5).clamp(0, 1)) < 1e-4
    with pytest.raises(InputError, match="tuned to 4"):
        pipe(batch_size=1, num_inference_steps=9)


@pytest.mark.parametrize("method, words", [("ode45", "adaptive"), ("uinpc", "did you mean 'unipc'"),
                                           ("dpm++", "expected")])
def test_methods_that_a_pipeline_cannot_run_are_refused(method: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ud.scheduler(diffusers.DDIMScheduler(), method)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="tune it first"):
        ud.scheduler(diffusers.DDIMScheduler(), model_of(diffusers.DDIMScheduler(), unet()))
    with pytest.raises(InputError, match="IPNDMScheduler"):
        ud.scheduler(diffusers.IPNDMScheduler())
    ours = ud.scheduler(diffusers.DDIMScheduler(clip_sample=False))
    ours.set_timesteps(timesteps=[999, 500, 20])
    assert ours.timesteps.tolist() == pytest.approx([999, 500, 20])
