"""Tiny random pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.interop import SHAPE, error, model_of, noise_of, seeded, start, theirs, unet

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
diffusers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
__all__ = ["LATENT", "SD", "SHAPE", "ZERO_SNR", "diffusers", "dit", "embeddings", "error", "flux", "model_of",
           "noise_of", "sd3", "seeded", "slow_but", "stable_diffusion", "start", "theirs", "unet", "vae"]


def slow_but(fast: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """Parameters of which all but some are slow."""
    rows = [(v, v if isinstance(v, tuple) else (v,)) for v in values]
    return [v if v in fast else pytest.param(*row, marks=pytest.mark.slow) for v, row in rows]


# ------------------------------------------------------------------------------------------- pipelines

LATENT = (4, 8, 8)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
      "set_alpha_to_one": False, "steps_offset": 1}
ZERO_SNR = {**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def vae(**options: Any) -> Any:
    return seeded(lambda: diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, **options))


def stable_diffusion(**config: Any) -> Any:
    """Stable Diffusion with random weights, whose prompts matter."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from undiffuse.course.pipeline_anatomy import text_parts

    net = seeded(lambda: diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, cross_attention_dim=16,
        attention_head_dim=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")))
    net.conv_out.weight.mul_(3.0)
    for name, parameter in net.named_parameters():
        if "attn2.to_" in name:
            parameter.mul_(4.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        parts = text_parts()
    parts["text_encoder"].eval().requires_grad_(False)
    pipe = diffusers.StableDiffusionPipeline(
        unet=net, vae=vae(), scheduler=diffusers.DDIMScheduler(**{**SD, **config}), **parts, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def dit() -> Any:
    net = seeded(lambda: diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, attention_bias=True, num_embeds_ada_norm=1000, norm_type="ada_norm_zero",
        norm_elementwise_affine=False))
    pipe = diffusers.DiTPipeline(net, vae(), diffusers.DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flux(guidance: bool = True) -> Any:
    """Flux without text encoders: prompts are the seeds of random embeddings."""
    net = seeded(lambda: diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guidance))
    pipe = diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae(shift_factor=0.1, scaling_factor=0.36, use_quant_conv=False, use_post_quant_conv=False), None, None, None,
        None, net)
    pipe.set_progress_bar_config(disable=True)

    def encode(prompt: Any, prompt_embeds: Any = None, pooled_prompt_embeds: Any = None, **_: Any) -> Any:
        if prompt_embeds is not None:
            return prompt_embeds, pooled_prompt_embeds, torch.zeros(prompt_embeds.shape[1], 3)
        return embeddings(prompt, 7, 32)

    pipe.encode_prompt = encode
    return pipe


def sd3() -> Any:
    """Stable Diffusion 3 without text encoders."""
    net = seeded(lambda: diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=16, out_channels=4,
        pos_embed_max_size=8))
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=net, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06, scaling_factor=1.53, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)

    def encode(prompt: Any, *_: Any, prompt_embeds: Any = None, pooled_prompt_embeds: Any = None, **__: Any) -> Any:
        if prompt_embeds is None:
            prompt_embeds, pooled_prompt_embeds, _ = embeddings(prompt, 5, 16)
        return prompt_embeds, None, pooled_prompt_embeds, None

    pipe.encode_prompt = encode
    return pipe


def embeddings(text: str, tokens: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random embeddings that depend on the text: (1, tokens, width), (1, width), and the places of the tokens."""
    key = sum((i + 1) * ord(c) for i, c in enumerate(text))
    return start(1, (tokens, width), key), start(1, (width,), key + 1), torch.zeros(tokens, 3)
