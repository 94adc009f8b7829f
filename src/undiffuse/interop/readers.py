"""Checkpoints of other libraries: weights by safetensors or by `weights_only`, and what their networks mean.

A file holds weights, not the network and not its schedule: the network and the family are arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from undiffuse.chains import Chain
from undiffuse.errors import InputError, did_you_mean
from undiffuse.interop.networks import Plain, block_size
from undiffuse.interop.schedules import alpha_bar_of
from undiffuse.model import Denoiser
from undiffuse.predictions import Clip, Reading
from undiffuse.processes import EDM, VE, VP, SubVP
from undiffuse.sde import GaussianSDE
from undiffuse.transforms.base import Transform


@dataclass(frozen=True)
class CheckpointFamily:
    """How the checkpoints of a library are read.

    Args:
        process: the process, by the options of the family.
        reading: the reading, by the process and the options.
        weights: the state dict of the network in the file's content.
        options: the options with their defaults.
    """

    process: Callable[[Mapping[str, Any]], GaussianSDE]
    reading: Callable[[GaussianSDE, Mapping[str, Any]], Reading]
    weights: Callable[[Any, nn.Module], Mapping[str, Tensor]]
    options: Mapping[str, Any]


def from_checkpoint(path: str | Path, net: nn.Module, family: str, *, shape: tuple[int, ...], sigma_data: float = 0.5,
                    classes: int = 0, transform: Transform | None = None, block: int | None = None,
                    **options: Any) -> Denoiser:
    """The model of a checkpoint of another library.

    Args:
        path: .safetensors, or a .pt or .pth that holds tensors only.
        net: the network, whose weights are overwritten: net(x, c), or net(x, c, label) with classes.
        family: one of `FAMILIES`: guided_diffusion (ADM), score_sde_vp, score_sde_subvp, score_sde_ve, k_diffusion
            (Karras' preconditioning), v_diffusion.
        shape: shape of a state.
        sigma_data: standard deviation of the data in model units.
        classes: number of classes.
        transform: map between data units and model units; None: the identity.
        block: rows per call; None: by the size of network and state.
        options: options of the family, such as beta_schedule="squaredcos_cap_v2" for guided_diffusion.

    Raises:
        InputError: for a file that holds code, weights of another network, and an unknown family or option.
    """
    if family not in FAMILIES:
        raise InputError(f"got family={family!r}; expected one of {', '.join(FAMILIES)}"
                         f"{did_you_mean(family, FAMILIES)}")
    read = FAMILIES[family]
    if unknown := [name for name in options if name not in read.options]:
        raise InputError(f"got the option {unknown[0]} for {family}; expected {', '.join(read.options)}")
    content = read_weights(Path(path))
    weights = read.weights(content, net)
    try:
        net.load_state_dict(dict(weights))
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = shorten(str(error), 200, placeholder=" ...")
        raise InputError(f"got {path}, whose weights are not of this network: {reason}") from None
    values = {**read.options, **options}
    process = read.process(values)
    model = Denoiser(Plain(net.eval().requires_grad_(False)), process, read.reading(process, values), shape=shape,
                     sigma_data=sigma_data, classes=classes, transform=transform, block=block or block_size(net, shape))
    model.splits_blocks, model.source = block is None, f"{path}: {family}, {values}"
    return model


def read_weights(path: Path) -> Any:
    """The content of a file of weights; a pickle with code is refused and nothing of it runs.

    Args:
        path: .safetensors, .pt, .pth, .ckpt or .bin.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"cannot read {path}: {error}") from None
    if path.suffix not in (".pt", ".pth", ".ckpt", ".bin"):
        raise InputError(f"got {path}, which may hold code; expected .safetensors, or a .pt of tensors. Convert it "
                         "where you trust its source: "
                         "torch.save(pickle.load(open(...))['ema'].state_dict(), 'weights.pt')")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"got {path}, which does not exist; expected a file of weights") from None
    except Exception as error:  # any error of the unpickler, which is not documented
        reason = shorten(str(error), 150, placeholder=" ...")
        raise InputError(f"got {path}, which is not a file of tensors or holds code, none of which was run: {reason}; "
                         "save its state dict alone: torch.save(model.state_dict(), 'weights.pt')") from None


def metadata(path: Path) -> dict[str, Any]:
    """The configuration that k-diffusion writes into the metadata of a .safetensors file; empty without one."""
    with safe_open(path, "pt") as file:
        return dict(json.loads((file.metadata() or {}).get("config", "{}")))


def _plain_weights(content: Any, net: nn.Module) -> Mapping[str, Tensor]:
    """The state dict itself, or the one under `model_ema`, `ema` or `model`."""
    for name in ("model_ema", "ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise InputError(f"got a file of {type(content).__name__}; expected tensors by name")
    return {str(name).removeprefix("module.").removeprefix("inner_model."): v for name, v in content.items()}


def _averaged_weights(content: Any, net: nn.Module) -> Mapping[str, Tensor]:
    """score_sde's file: the model's state dict, and the averages of the parameters as a list in their order."""
    weights = dict(_plain_weights({"model": content["model"]} if isinstance(content, Mapping) and "model" in content
                                  else content, net))
    shadow = content.get("ema", {}).get("shadow_params", []) if isinstance(content, Mapping) else []
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    if len(shadow) not in (0, len(names)):
        raise InputError(f"got {len(shadow)} averages for {len(names)} parameters; expected as many")
    return {**weights, **dict(zip(names, shadow, strict=False))}


def _chain(options: Mapping[str, Any]) -> Chain:
    values = {"trained_betas": None, "rescale_betas_zero_snr": False, **options}
    return Chain(tuple(alpha_bar_of(values, "DDPM").tolist()))


def _chain_reading(process: GaussianSDE, options: Mapping[str, Any]) -> Reading:
    levels = torch.exp(-process.log_snr(torch.tensor([1 / options["num_train_timesteps"], 1.0]).double())).tolist()
    return Reading("noise", 1.0, "time", float(options["num_train_timesteps"]), -1.0, scaled_input=False,
                   levels=(levels[0], levels[1]), clip=Clip(1.0) if options["clip"] else None)


FAMILIES: dict[str, CheckpointFamily] = {
    # Dhariwal and Nichol (2021): ε, or its first half of the channels, at integer indices of a chain
    "guided_diffusion": CheckpointFamily(_chain, _chain_reading, _plain_weights, {
        "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000, "clip": True}),
    # Song et al. (2021): −σ·score at 999 t, or the score at σ
    "score_sde_vp": CheckpointFamily(lambda o: VP(o["beta_min"], o["beta_max"]), lambda sde, o: Reading(
        "noise", 1.0, "time", 999.0, scaled_input=False), _averaged_weights, {"beta_min": 0.1, "beta_max": 20.0}),
    "score_sde_subvp": CheckpointFamily(lambda o: SubVP(o["beta_min"], o["beta_max"]), lambda sde, o: Reading(
        "noise", 1.0, "time", 999.0, scaled_input=False), _averaged_weights, {"beta_min": 0.1, "beta_max": 20.0}),
    "score_sde_ve": CheckpointFamily(lambda o: VE(o["sigma_min"], o["sigma_max"]), lambda sde, o: Reading(
        "gradient", 1.0, "sigma", scaled_input=False), _averaged_weights, {"sigma_min": 0.01, "sigma_max": 50.0}),
    # Karras et al. (2022), table 1; k-diffusion's Denoiser
    "k_diffusion": CheckpointFamily(lambda o: EDM(o["sigma_max"]), lambda sde, o: Reading(
        "edm", o["sigma_data"], "quarter_log", levels=(o["sigma_min"], o["sigma_max"])), _plain_weights,
        {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}),
    # k-diffusion's VDenoiser
    "v_diffusion": CheckpointFamily(lambda o: EDM(o["sigma_max"]), lambda sde, o: Reading(
        "edm_v", 1.0, "arctan", levels=(o["sigma_min"], o["sigma_max"])), _plain_weights,
        {"sigma_min": 0.002, "sigma_max": 80.0}),
}
"""The families that `from_checkpoint` reads."""
