"""`from_diffusers` and `foreign`: pretrained networks as models."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse.errors import InputError, MachineError
from undiffuse.interop import networks
from undiffuse.interop.autoencoder import Autoencoder
from undiffuse.interop.prompts import Prompt, PromptStore
from undiffuse.interop.scheduler import configuration
from undiffuse.interop.schedules import Schedule
from undiffuse.model import Denoiser
from undiffuse.predictions import Reading
from undiffuse.sde import GaussianSDE
from undiffuse.transforms.base import GreyLevels, Identity, Transform
from undiffuse.transforms.conditions import Condition

_INSTALL = "install it with: pip install 'undiffuse[diffusers]'"


def foreign(net: nn.Module, *, process: GaussianSDE, predict: str | Reading,
            clock: str | Callable[[Tensor], Tensor] = "time", shape: tuple[int, ...], sigma_data: float = 0.5,
            classes: int = 0, transform: Transform | None = None, block: int | None = None) -> Denoiser:
    """Any network as a model; see `Reading` for what it may predict.

    Args:
        net: module net(x, c), or net(x, c, label) with classes; x (B, *shape), c (B,).
        process: the Gaussian process that it was trained on.
        predict: what it predicts: data, noise, v, velocity, score (σ times the score), gradient (the score), or a
            `Reading`, which also holds the clock.
        clock: function of t (B,) in [0, T], or a name in `predictions.CLOCKS`: the number that the network takes.
        shape: shape of a state.
        sigma_data: standard deviation of the data in model units.
        classes: number of classes; the label `classes` is the null label.
        transform: map between data units and model units; None: the identity.
        block: rows per call; None: by the size of network and state.

    Raises:
        InputError: for an unknown parameterisation or clock.
    """
    reading = predict if isinstance(predict, Reading) else Reading(predict, 1.0, clock, scaled_input=False)
    model = Denoiser(networks.Plain(net), process, reading, shape=shape, sigma_data=sigma_data, classes=classes,
                     transform=transform, block=block or networks.block_size(net, shape))
    model.splits_blocks, model.source, model.joins_conditions = block is None, "the arguments of ud.foreign", True
    return model


def from_diffusers(source: Any, *, device: str | None = None, dtype: torch.dtype | None = None,
                   block: int | None = None, revision: str | None = None, size: int | tuple[int, int] | None = None,
                   latents: bool = False) -> Denoiser:
    """A pretrained diffusers pipeline as a model; `model.source` says where each number came from.

    Images are in grey levels 0 ... 255. Text-to-image models have the condition `prompt`; negative prompts and guidance
    are `ud.classifier_free(model, 7.5, negative={"prompt": "blurry"})`. The pipeline is called and not changed.

    Args:
        source: folder of a pipeline, OWNER/NAME of the Hugging Face Hub, or a pipeline object.
        device: where the parts are placed; None: where they are.
        dtype: precision of the weights; None: as stored. States are float32.
        block: rows per call; None: by the size of network and state.
        revision: revision of the hub.
        size: side of the images in pixels, or (height, width), for models of latents; None: the network's.
        latents: data units are latents; no decoder.

    Raises:
        InputError: for a pipeline whose network or scheduler is not supported, and for weights that are pickles.
        MachineError: where diffusers is not installed, or the hub cannot be reached.
    """
    pipe, where = (source, type(source).__name__) if not isinstance(source, str | os.PathLike) else (
        load_pipeline(source, dtype, revision), os.fspath(source))
    if device is not None:
        pipe = pipe.to(device)
    net, kind = _network(pipe)
    scheduler = configuration(pipe.scheduler)
    schedule = Schedule.from_config(*scheduler)
    shape, vae = _shape(pipe, net, size), getattr(pipe, "vae", None)
    store = PromptStore(_encoder(pipe, kind, shape)) if kind in _ENCODERS else None
    transform: Transform = Identity() if latents else GreyLevels(256) if vae is None else Autoencoder(vae, shape)
    model = Denoiser(kind(net, store), schedule.process, schedule.reading, shape=shape,
                     sigma_data=0.5 if vae is None else 1.0, transform=transform, classes=_classes(net, kind),
                     block=block or networks.block_size(net, shape), conditions=_conditions(net, store))
    model.splits_blocks, model.scheduler, model.joins_conditions = block is None, scheduler, True
    scale = "" if vae is None else f"; autoencoder: scale {vae.config.scaling_factor:g}"
    model.source = f"{where}: {type(net).__name__} {tuple(shape)}; {schedule.source}{scale}"
    return model


def load_pipeline(source: str | os.PathLike[str], dtype: torch.dtype | None = None, revision: str | None = None) -> Any:
    """The pipeline in a folder or on the hub, from safetensors only.

    Args:
        source: folder, or OWNER/NAME.
        dtype: precision of the weights; None: as stored.
        revision: revision of the hub.
    """
    name = os.fspath(source)
    local = Path(name).is_dir()
    if local and not (Path(name) / "model_index.json").is_file():
        raise InputError(f"got {name}, a folder without model_index.json; expected the folder of a diffusers pipeline")
    with _errors_of(name) as diffusers:
        options = {"use_safetensors": True, "local_files_only": local, "revision": revision, "torch_dtype": dtype}
        pipe = diffusers.DiffusionPipeline.from_pretrained(name, **{k: v for k, v in options.items() if v is not None})
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextmanager
def _errors_of(name: str) -> Iterator[Any]:
    """The package diffusers; its errors as one line."""
    try:
        import diffusers
    except ImportError:
        raise MachineError(f"got {name}, which needs diffusers and transformers; {_INSTALL}") from None
    logging = diffusers.utils.logging
    logging.set_verbosity_error()
    bars = getattr(logging, "_tqdm_active", True)  # of loading; there is no public question
    logging.disable_progress_bar()
    try:
        yield diffusers
    except (OSError, ValueError, AttributeError, TypeError, KeyError, ImportError) as error:
        reason = shorten(str(error), 200, placeholder=" ...")
        if not Path(name).is_dir():
            raise MachineError(f"cannot load {name} of the Hugging Face Hub: {reason}; check the name and the "
                               "connection, or pass a folder") from None
        raise InputError(f"cannot load the pipeline in {name}: {reason}; expected the parts of model_index.json with "
                         "weights in .safetensors (convert pickles: pipe.save_pretrained(..., "
                         "safe_serialization=True))") from None
    finally:
        if bars:
            logging.enable_progress_bar()


_KINDS: dict[str, type[networks.Adapter]] = {
    "UNet2DModel": networks.UNet2D, "DiTTransformer2DModel": networks.Transformer2D,
    "UNet2DConditionModel": networks.ConditionalUNet, "SD3Transformer2DModel": networks.JointTransformer,
    "FluxTransformer2DModel": networks.PackedTransformer}


def _network(pipe: Any) -> tuple[Any, type[networks.Adapter]]:
    """The network of a pipeline, and how it is called."""
    net = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    name = type(net).__name__
    if name not in _KINDS:
        raise InputError(f"got a pipeline with the network {name}; expected one of {', '.join(_KINDS)}, or "
                         "ud.foreign(net, process=, predict=, clock=, shape=)")
    return net, _KINDS[name]


def _shape(pipe: Any, net: Any, size: int | tuple[int, int] | None) -> tuple[int, ...]:
    """The shape of a state."""
    config, vae = net.config, getattr(pipe, "vae", None)
    channels = config.in_channels
    if _KINDS[type(net).__name__] is networks.PackedTransformer:
        channels //= 4
    if vae is not None and channels != vae.config.latent_channels:
        raise InputError(f"got a network with {channels} input channels for latents of {vae.config.latent_channels}; "
                         "expected a text-to-image network (inpainting: ud.observe)")
    side = getattr(config, "sample_size", None) or getattr(pipe, "default_sample_size", None)
    if size is not None:
        factor = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
        pixels = (size, size) if isinstance(size, int) else tuple(size)
        if any(v < 1 or v % (2 * factor) for v in pixels):
            raise InputError(f"got size={size}; expected multiples of {2 * factor} pixels")
        side = [v // factor for v in pixels]
    if side is None:
        raise InputError("got a network without sample_size; expected size=, the side of the images in pixels")
    return (channels, side, side) if isinstance(side, int) else (channels, *side)


def _classes(net: Any, kind: type[networks.Adapter]) -> int:
    """The number of classes."""
    config = net.config
    if kind is networks.Transformer2D:
        return int(config.num_embeds_ada_norm)
    return int(getattr(config, "num_class_embeds", None) or 0) if kind is networks.UNet2D else 0


def _conditions(net: Any, store: PromptStore | None) -> list[Condition]:
    """The conditions: the prompt, and the guidance that a distilled network takes as an input."""
    if store is None:
        return []
    guided = getattr(net.config, "guidance_embeds", False)
    return [Prompt(store), *([Condition("guidance", "number")] if guided else [])]


def _encoder(pipe: Any, kind: type[networks.Adapter], shape: tuple[int, ...]) -> Callable[[str | None],
                                                                                          dict[str, Tensor]]:
    """The function from a text to the tensors that the network takes, by the pipeline's own encoders."""
    return lambda text: _ENCODERS[kind](pipe, text, shape)


def _sd(pipe: Any, text: str | None, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Stable Diffusion 1 and 2, and XL with its pooled embedding and size numbers."""
    if getattr(pipe, "text_encoder_2", None) is None:
        return {"encoder_hidden_states": pipe.encode_prompt(text or "", pipe.device, 1, False)[0]}
    embedding, _, pooled, _ = pipe.encode_prompt(text or "", device=pipe.device, num_images_per_prompt=1,
                                                 do_classifier_free_guidance=False)
    if text is None and pipe.config.force_zeros_for_empty_prompt:
        embedding, pooled = torch.zeros_like(embedding), torch.zeros_like(pooled)
    pixels = tuple(side * pipe.vae_scale_factor for side in shape[1:])
    sizes = torch.tensor([[*pixels, 0, 0, *pixels]], dtype=embedding.dtype, device=embedding.device)
    return {"encoder_hidden_states": embedding, "text_embeds": pooled, "time_ids": sizes}


def _sd3(pipe: Any, text: str | None, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Stable Diffusion 3: three encoders and a pooled embedding."""
    embedding, _, pooled, _ = pipe.encode_prompt(text or "", None, None, device=pipe.device,
                                                 do_classifier_free_guidance=False)
    return {"encoder_hidden_states": embedding, "pooled_projections": pooled}


def _flux(pipe: Any, text: str | None, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Flux: tokens of one encoder, the pooled embedding of another."""
    embedding, pooled, _ = pipe.encode_prompt(text or "", device=pipe.device)
    return {"encoder_hidden_states": embedding, "pooled_projections": pooled}


_ENCODERS: dict[type[networks.Adapter], Callable[[Any, str | None, tuple[int, ...]], dict[str, Tensor]]] = {
    networks.ConditionalUNet: _sd, networks.JointTransformer: _sd3, networks.PackedTransformer: _flux}
