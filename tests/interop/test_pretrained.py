"""Pretrained pipelines as models, against the pipelines themselves."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import (
    LATENT,
    ZERO_SNR,
    diffusers,
    dit,
    embeddings,
    error,
    flux,
    noise_of,
    sd3,
    seeded,
    slow_but,
    stable_diffusion,
    start,
    unet,
)
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.errors import InputError, MachineError
from undiffuse.interop.schedules import Schedule, times_of
from undiffuse.samplers.registry import ALL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPTS = ["a cat", "a red house"]
SOLVERS = {"DDIMScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp_2m", "UniPCMultistepScheduler": "unipc",
           "DDPMScheduler": "ancestral"}


def images_of(pipe: Any, latents: Tensor) -> Tensor:
    """Their images of latents, in grey levels."""
    z = latents / pipe.vae.config.scaling_factor + (getattr(pipe.vae.config, "shift_factor", None) or 0.0)
    return 255 * pipe.image_processor.postprocess(pipe.vae.decode(z, return_dict=False)[0].detach(), output_type="pt")


def grid_of(model: ud.Model, scheduler: Any) -> tuple[Tensor, bool]:
    return times_of(Schedule(model.sde, model.reading, ""), scheduler)


# ------------------------------------------------------------------------------------------- text to image


@pytest.mark.parametrize("negative", slow_but(["blurry"], [None, "blurry"]))
@pytest.mark.parametrize("solver", slow_but(["UniPCMultistepScheduler"], SOLVERS))
@pytest.mark.parametrize("zero_snr", slow_but([False], [False, True]))
def test_stable_diffusion_is_its_pipeline(zero_snr: bool, solver: str, negative: str | None) -> None:
    pipe, z = stable_diffusion(**(ZERO_SNR if zero_snr else {})), start(shape=LATENT)
    pipe.scheduler = getattr(diffusers, solver).from_config(pipe.scheduler.config)
    with noise_of("scheduling_ddpm") if solver == "DDPMScheduler" else nullcontext():
        expected = pipe(PROMPTS, num_inference_steps=10, guidance_scale=7.5, latents=z.clone(), output_type="latent",
                        negative_prompt=None if negative is None else [negative] * 2).images
    model = ud.from_diffusers(pipe, block=2)
    if zero_snr and solver in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        model.sde = ud.Chain((*model.sde.alpha_bar[:-1], 2.0**-24))  # as they do
    times, to_zero = grid_of(model, pipe.scheduler)
    guided = ud.classifier_free(model, 7.5, negative=None if negative is None else {"prompt": negative})
    out = ud.sample(guided, 2, ALL[SOLVERS[solver]], grid=times, x_T=z, denoise_last=to_zero, prompt=PROMPTS)
    assert error(out.z, expected) < (2e-4 if zero_snr else 2e-5)
    if not zero_snr:
        assert float((out.x - images_of(pipe, expected)).abs().max()) < 1e-4 * 255


@pytest.mark.slow
@pytest.mark.parametrize("zero_snr", [False, True])
def test_rescaled_guidance_is_its_pipeline(zero_snr: bool) -> None:
    pipe, z = stable_diffusion(**(ZERO_SNR if zero_snr else {})), start(shape=LATENT)
    expected = pipe(PROMPTS, num_inference_steps=5, guidance_scale=7.5, guidance_rescale=0.7, latents=z.clone(),
                    output_type="latent").images
    model = ud.from_diffusers(pipe, block=2)
    times, to_zero = grid_of(model, pipe.scheduler)
    by_output, by_data = (ud.sample(ud.classifier_free(model, 7.5, rescale=0.7, rescale_of=name), 2, ALL["ddim"],
                                    grid=times, x_T=z, denoise_last=to_zero, prompt=PROMPTS).z
                          for name in ("output", "denoised"))
    assert error(by_output, expected) < 1e-4 < error(by_data, expected)
    with pytest.raises(InputError, match="rescale_of"):
        ud.classifier_free(model, 7.5, rescale_of="noise")


@pytest.mark.parametrize("scale", [3.0, {"prompt": 3.0}])
def test_guidance_calls_the_network_once_for_both_conditions(scale: Any) -> None:
    """The rows of a call of 2B rows are those of two calls of B but for the rounding of another batch size."""
    model, rows = ud.from_diffusers(stable_diffusion(), block=2, latents=True), list[int]()
    model.net.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    guided = ud.classifier_free(model, scale)
    joined = ud.sample(guided, 2, "ddim", 4, prompt=PROMPTS)
    assert rows == [4] * joined.nfe
    assert torch.equal(ud.sample(guided, 1, "ddim", 4, first_index=1, prompt=PROMPTS[1]).x, joined.x[1:])
    model.joins_conditions, rows[:] = False, []
    apart = ud.sample(guided, 2, "ddim", 4, prompt=PROMPTS)
    assert rows == [2] * (2 * apart.nfe) and error(joined.x, apart.x) < 1e-5


class PerEntry(nn.Module):
    """ε for each entry by itself: no result depends on the other rows of a batch."""

    def forward(self, x: Tensor, c: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(x * (1 + c[:, None]) + label[:, None])


def test_one_call_for_both_conditions_has_the_bits_of_two_where_rows_do_not_meet() -> None:
    model = ud.foreign(PerEntry(), process=ud.VP(), predict="noise", shape=(3,), classes=4)
    x, t, labels = start(5, (3,)), torch.linspace(0.1, 0.9, 5).double(), torch.arange(5) % 5
    guided = [ud.classifier_free(model, 3.0), ud.classifier_free(model, 3.0, negative={"label": 2}),
              ud.classifier_free(model, {"label": 3.0}), ud.classifier_free(model, 3.0, interval=(0.5, 2.0))]
    joined = [g.denoise(x, at, label=labels) for g in guided for at in (t, t[2])]
    model.joins_conditions = False
    assert all(torch.equal(a, g.denoise(x, at, label=labels)) for a, (g, at) in zip(
        joined, ((g, at) for g in guided for at in (t, t[2])), strict=True))
    model.joins_conditions = True
    with pytest.raises(InputError, match="lable"):
        ud.classifier_free(model, 3.0).denoise(x, t, lable=1)


def test_prompts_matter_and_are_encoded_once() -> None:
    pipe, calls = stable_diffusion(), list[str]()
    encode = pipe.encode_prompt
    pipe.encode_prompt = lambda text, *args: calls.append(text) or encode(text, *args)
    model = ud.from_diffusers(pipe, latents=True)
    a, b = (ud.sample(model, 1, "ddim", 4, prompt=p).x for p in PROMPTS)
    assert not torch.allclose(a, b, atol=1e-3)
    assert torch.equal(ud.sample(model, 1, "ddim", 4).x, ud.sample(model, 1, "ddim", 4, prompt="").x)  # none is ""
    assert sorted(calls) == ["", "", *PROMPTS]                                                   # "" and no prompt
    with pytest.raises(InputError, match="3 prompts"):
        ud.sample(model, 2, prompt=["a", "b", "c"])
    with pytest.raises(InputError, match="text"):
        ud.sample(model, 2, prompt=torch.tensor([7.0, 99.0]))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m_sde"])
def test_a_sample_has_the_same_bytes_in_any_batch(method: str) -> None:
    model = ud.classifier_free(ud.from_diffusers(stable_diffusion(), block=1, latents=True), 3.0)
    prompts = ["a", "b", "c", "d", "e"]
    whole = ud.sample(model, 5, method, 4, seed=4, prompt=prompts).x
    assert torch.equal(ud.sample(model, 2, method, 4, seed=4, first_index=1, prompt=prompts[1:3]).x, whole[1:3])
    assert torch.equal(ud.sample(model, 1, method, 4, seed=4, first_index=3, prompt="d").x, whole[3:4])


def test_an_automatic_block_does_not_compute_an_image_many_times() -> None:
    model = ud.from_diffusers(stable_diffusion(), latents=True)
    sizes: list[int] = []
    model.net.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    assert model.block > 8
    ud.sample(model, 7, "ddim", 1, denoise_last=False)
    assert sizes == [4, 2, 1]


def test_a_trajectory_of_latents_is_decoded_when_it_is_read() -> None:
    pipe = stable_diffusion()
    model, decoded = ud.from_diffusers(pipe), list[int]()
    pipe.vae.decoder.register_forward_hook(lambda module, args, output: decoded.append(len(args[0])))
    out = ud.sample(model, 1, "ddim", 4, trajectory=True)
    assert sum(decoded) == 1 and len(out.trajectory) == 6
    assert out.trajectory[2][1].shape == out.x.shape == (1, 3, 16, 16) and sum(decoded) == 2
    torch.testing.assert_close(out.trajectory[-1][1], out.x)


@pytest.mark.slow
def test_image_to_image_is_its_pipeline() -> None:
    pipe = stable_diffusion(set_alpha_to_one=True, timestep_spacing="trailing")
    img2img = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    img2img.set_progress_bar_config(disable=True)
    model, image = ud.from_diffusers(pipe, block=1), 255 * torch.rand(1, 3, 16, 16).clamp(0, 1)
    noise, z0 = start(1, LATENT, 0), model.transform.forward(image)
    for strength in (0.3, 0.5, 0.8):
        with pytest.MonkeyPatch.context() as patch:
            home = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img"
            patch.setattr(f"{home}.randn_tensor", lambda shape, **_: noise)
            expected = img2img("a cat", image=z0, strength=strength, num_inference_steps=10,
                               guidance_scale=1.0, output_type="latent").images
        pipe.scheduler.set_timesteps(10)
        out = ud.sample(model, x0=image, strength=strength, method="ddim", grid=grid_of(model, pipe.scheduler)[0],
                        prompt="a cat")
        assert out.nfe == round(10 * strength) and error(out.z, expected) < 1e-4


# ------------------------------------------------------------------------------------------- other networks


def test_a_class_conditional_transformer_is_its_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, z = dit(), start(shape=LATENT)
    monkeypatch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda shape, **_: z.clone())
    for solver in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        pipe.scheduler = getattr(diffusers, solver).from_config(pipe.scheduler.config)
        expected = pipe(class_labels=[3, 7], num_inference_steps=10, guidance_scale=4.0, output_type="pt").images
        model = ud.from_diffusers(pipe, block=2)
        times, to_zero = grid_of(model, pipe.scheduler)
        out = ud.sample(ud.classifier_free(model, 4.0), 2, SOLVERS[solver], grid=times, x_T=z, denoise_last=to_zero,
                        label=[3, 7])
        assert float((out.x / 255 - expected).abs().max()) < 1e-4


def test_stable_diffusion_3_is_its_pipeline() -> None:
    pipe, z = sd3(), start(shape=LATENT)
    embedding, pooled = (torch.cat(v) for v in list(zip(*(embeddings(p, 5, 16) for p in PROMPTS), strict=True))[:2])
    sigmas = torch.linspace(1, 0.1, 10).tolist()
    expected = pipe(prompt_embeds=embedding, pooled_prompt_embeds=pooled, latents=z.clone(), guidance_scale=1.0,
                    sigmas=sigmas, output_type="latent").images
    model = ud.from_diffusers(pipe, block=2)
    pipe.scheduler.set_timesteps(sigmas=sigmas)
    out = ud.sample(model, 2, "ddim", grid=grid_of(model, pipe.scheduler)[0], x_T=z, prompt=PROMPTS)
    assert error(out.z, expected) < 1e-6
    assert float((out.x - images_of(pipe, expected)).abs().max()) < 1e-4 * 255


def test_flux_is_its_pipeline() -> None:
    pipe, z = flux(), start(shape=LATENT)
    embedding, pooled = (torch.cat(v) for v in list(zip(*(embeddings(p, 7, 32) for p in PROMPTS), strict=True))[:2])
    packed = pipe._pack_latents(z, 2, 4, 8, 8)
    expected = pipe(prompt_embeds=embedding, pooled_prompt_embeds=pooled, height=16, width=16, num_inference_steps=8,
                    guidance_scale=2.0, latents=packed, output_type="latent").images
    model = ud.from_diffusers(pipe, size=16, block=2)
    out = ud.sample(model, 2, "ddim", grid=grid_of(model, pipe.scheduler)[0], x_T=z, prompt=PROMPTS, guidance=2.0)
    assert error(out.z, pipe._unpack_latents(expected, 16, 16, 2)) < 1e-6
    other = ud.sample(model, 2, "ddim", grid=grid_of(model, pipe.scheduler)[0], x_T=z, prompt=PROMPTS)  # guidance 3.5
    assert error(other.z, out.z) > 1e-5


# ------------------------------------------------------------------------------------------- folders, refusals


def test_a_folder_is_the_pipeline_that_was_saved(tmp_path: Path) -> None:
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(clip_sample=False))
    pipe.save_pretrained(tmp_path / "ddpm")
    model, before = ud.from_diffusers(tmp_path / "ddpm"), ud.from_diffusers(pipe)
    assert torch.equal(ud.sample(model, 2, "ddim", 4).x, ud.sample(before, 2, "ddim", 4).x)
    assert "UNet2DModel (3, 8, 8)" in model.source and "prediction_type=epsilon" in model.source
    assert model.shape == (3, 8, 8) and float(model.level(model.t_end())) == pytest.approx(0, abs=1e-6)


def test_the_pipeline_is_not_changed() -> None:
    pipe = stable_diffusion()
    scheduler, state = pipe.scheduler, {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    pipe.unet.train().requires_grad_(True)
    ud.sample(ud.from_diffusers(pipe), 1, steps=2, prompt="a")
    assert pipe.scheduler is scheduler and pipe.unet.training and next(pipe.unet.parameters()).requires_grad
    assert all(torch.equal(v, state[k]) for k, v in pipe.unet.state_dict().items())


def test_half_precision_weights_keep_float32_states() -> None:
    pipe = stable_diffusion()
    single = ud.sample(ud.from_diffusers(pipe, latents=True), 1, "ddim", 4, prompt="a").x
    half = ud.sample(ud.from_diffusers(pipe.to(torch.bfloat16), latents=True), 1, "ddim", 4, prompt="a").x
    assert half.dtype == torch.float32 and error(half, single) < 5e-2


@pytest.mark.parametrize("change, words", [
    (lambda p: setattr(p, "unet", nn.Linear(2, 2)), "network Linear"),
    (lambda p: setattr(p, "scheduler", diffusers.IPNDMScheduler()), "IPNDMScheduler"),
    (lambda p: p.unet.register_to_config(in_channels=9), "9 input channels"),
    (lambda p: p.unet.register_to_config(sample_size=None), "sample_size")])
def test_what_is_not_supported_is_refused(change: Any, words: str) -> None:
    pipe = stable_diffusion()
    change(pipe)
    with pytest.raises(InputError, match=words):
        ud.from_diffusers(pipe)


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model_index\.json"):
        ud.from_diffusers(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(InputError, match="cannot load the pipeline"):
        ud.from_diffusers(tmp_path)
    with pytest.raises(MachineError, match="Hub"):
        ud.from_diffusers("nobody/nothing")  # the tests work without a network
    with pytest.raises(InputError, match="multiples of 4 pixels"):
        ud.from_diffusers(stable_diffusion(), size=18)


def test_weights_that_are_pickles_are_not_read(tmp_path: Path) -> None:
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()).save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(InputError, match="safetensors"):
        ud.from_diffusers(tmp_path)


def test_a_network_without_a_null_class_needs_a_label() -> None:
    net = unet(num_class_embeds=10)
    model = ud.from_diffusers(diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()))
    assert ud.sample(model, 1, "ddim", 2, label=3).x.isfinite().all()
    with pytest.raises(InputError, match="label"):
        ud.sample(model, 1, "ddim", 2)


# ------------------------------------------------------------------------------------------- any network


def test_a_foreign_network_is_what_its_arguments_say() -> None:
    """ε of N(0, s²) under VP is σ x/(α² s² + σ²): D is the Wiener filter."""
    sde, s = ud.VP(), 0.7

    class Noise(nn.Module):
        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            t = (c / 999).double()
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            return (sigma / (alpha**2 * s**2 + sigma**2)).to(x)[:, None] * x

    model = ud.foreign(Noise(), process=sde, predict="noise", clock=lambda t: 999 * t, shape=(3,))
    x, t = start(4, (3,)).double(), torch.tensor([0.1, 0.4, 0.7, 1.0]).double()
    alpha, variance = sde.alpha(t), sde.variance(t)
    torch.testing.assert_close(model.denoise(x, t), (alpha * s**2 / (alpha**2 * s**2 + variance))[:, None] * x,
                               rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="prediction_type"):
        ud.foreign(Noise(), process=sde, predict="epsilon", shape=(3,))
    with pytest.raises(InputError, match="clock"):
        ud.foreign(Noise(), process=sde, predict="noise", clock="watch", shape=(3,))


def test_an_output_of_the_wrong_shape_is_reported() -> None:
    net = seeded(lambda: nn.Linear(3, 5))

    class Wide(nn.Module):
        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            return net(x)

    model = ud.foreign(Wide(), process=ud.VP(), predict="noise", shape=(3,))
    with pytest.raises(InputError, match="shape"):
        model.denoise(torch.zeros(1, 3), 0.5)
