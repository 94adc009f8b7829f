"""The parts of a text-to-image pipeline: the classes of diffusers, tiny, with random weights, built offline."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from undiffuse.errors import InputError
from undiffuse.interop.pretrained import from_diffusers
from undiffuse.model import Denoiser
from undiffuse.random import Purpose, normal


def recursive_print(module: nn.Module, name: str = "", deepest: int = 2, depth: int = 0) -> None:
    """Print a module and its children with their numbers of parameters.

    Args:
        module: the module.
        name: its name in the output.
        deepest: depth of the last level printed.
        depth: depth of `module`.
    """
    size = sum(p.numel() for p in module.parameters())
    print(f"{'    ' * depth}{name}: {type(module).__name__}, {size:,} parameters")
    if depth < deepest:
        for key, child in module.named_children():
            recursive_print(child, key, deepest, depth + 1)


def show_parts(pipe: Any, prompt: str, other: str) -> Denoiser:
    """Print the parts of a text-to-image pipeline and what each computes; returns the pipeline as a model.

    Args:
        pipe: the pipeline.
        prompt: a text.
        other: another text, whose denoised latent differs.
    """
    for name in ("text_encoder", "unet", "vae"):
        recursive_print(getattr(pipe, name), name, deepest=1)
    model = from_diffusers(pipe)
    print(f"noise levels and prediction: {model.source}")
    net: Any = model.net
    with torch.no_grad():
        embedding = net.store.encode(prompt)["encoder_hidden_states"]
    print(f"text: {prompt!r} becomes {embedding.shape[1]} vectors of {embedding.shape[2]} numbers")
    x, t = normal(0, Purpose.INIT, 0, 0, 1, model.shape), torch.tensor(0.5, dtype=torch.float64)
    a, b = (model.denoise(x, t, prompt=text).detach() for text in (prompt, other))
    print(f"score model: a latent {tuple(model.shape)} to its mean before noise; {other!r} changes it by "
          f"{float((a - b).std() / a.std()):.2g} of its deviation")
    print(f"map to pixels: a latent {tuple(model.shape)} to an image {tuple(model.transform.inverse(a).shape[1:])}")
    return model


def tiny_pipeline(path: str | None = None) -> Any:
    """A Stable Diffusion pipeline, or None if diffusers or transformers is not installed; nothing is downloaded.

    Args:
        path: folder of a pipeline; None: the folder in the variable UNDIFFUSE_SD, else a tiny pipeline with random
            weights.

    Raises:
        InputError: if `path` is not a folder.
    """
    if not all(importlib.util.find_spec(name) for name in ("diffusers", "transformers")):
        return None
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    path = path or os.environ.get("UNDIFFUSE_SD")
    from diffusers import StableDiffusionPipeline

    if path is not None:
        if not Path(path).is_dir():
            raise InputError(f"got {path!r}; expected a folder with a pipeline (model_index.json)")
        return StableDiffusionPipeline.from_pretrained(path, local_files_only=True)
    return StableDiffusionPipeline(**_networks(), **text_parts(), safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)


def _networks() -> dict[str, Any]:
    """Score model, autoencoder and solver."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=2, cross_attention_dim=16,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"))
    vae = AutoencoderKL(block_out_channels=[8, 16], norm_num_groups=2, layers_per_block=1,
                        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)
    return {"unet": unet, "vae": vae, "scheduler": scheduler}


def text_parts() -> dict[str, Any]:
    """Text encoder, and a tokenizer of single characters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(i) for i in range(33, 127)]
    names = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({name: i for i, name in enumerate(names)}), "utf-8")
        merges.write_text("#version: 0.2\n", "utf-8")
        tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=20)
    config = CLIPTextConfig(vocab_size=len(names), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                            num_attention_heads=2, max_position_embeddings=20, bos_token_id=len(names) - 2,
                            eos_token_id=len(names) - 1, pad_token_id=len(names) - 1)
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config)}
