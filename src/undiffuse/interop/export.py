"""A run of ours as a folder that stock diffusers pipelines load.

Whatever the process and the parameterisation, from outside it is a variance-preserving chain with v-prediction:
x_vp = x/√(α² + σ²), v = α ε − σ x_0 at t_k = kT/N, so that every stock scheduler samples it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from undiffuse import training
from undiffuse.chains import chain_of
from undiffuse.errors import InputError, MachineError
from undiffuse.interop.diffusers_package import as_diffusers_class, require_diffusers
from undiffuse.interop.imported import OpenedModel
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.samplers.tuned import tuning_of
from undiffuse.sde import bcast
from undiffuse.training.model_config import rebuild
from undiffuse.transforms.base import GreyLevels
from undiffuse.tuning.tuning_file import untuned

STEPS = 1000
_SHIM = '''"""The network of this folder, by the package undiffuse: pip install undiffuse"""

from undiffuse.interop.export import network_class

UndiffuseUNet = network_class()
'''


class ExportedNetwork(nn.Module):
    """A model of ours with the call of `UNet2DModel`."""

    config: Any

    def __init__(self, sample_size: Any = 8, in_channels: int = 1, out_channels: int = 1,
                 run: dict[str, Any] | None = None, num_train_timesteps: int = STEPS,
                 num_class_embeds: int | None = None) -> None:
        super().__init__()
        self.model: Denoiser = rebuild(run or {})
        moments = {} if self.model.moments is None else self.model.moments.tensors()
        for name, value in moments.items():
            self.register_buffer(f"moments_{name}", value.float())

    def forward(self, sample: Tensor, timestep: Any, class_labels: Tensor | None = None, return_dict: bool = True
                ) -> Any:
        """v at the states x_vp and the index of the chain."""
        model, t = self._with_moments(), (torch.as_tensor(timestep).double().reshape(-1).cpu() + 1)
        t = (t * model.sde.T / self.config.num_train_timesteps).clamp_max(model.sde.T)
        t = t[0] if len(t) == 1 else t
        alpha, sigma = model.sde.alpha(t), model.sde.sigma(t)
        norm = (alpha**2 + sigma**2).sqrt()
        cond = {} if class_labels is None else {"label": class_labels}
        D = model.denoise(bcast(norm, sample) * sample.float(), t, **cond).to(sample)
        a, s = bcast(alpha / norm, sample), bcast(sigma / norm, sample)
        v = (a * sample - D) / s
        return _Output(v) if return_dict else (v,)

    def _with_moments(self) -> Denoiser:
        """The model, whose moments are the buffers."""
        if self.model.moments is not None:
            values = {name.removeprefix("moments_"): v.double() for name, v in self.named_buffers()
                      if name.startswith("moments_")}
            self.model.moments = Moments.from_config(self.model.moments.config(), values)
        return self.model


class _Output(dict[str, Tensor]):
    """An output with the attribute `sample`."""

    def __init__(self, sample: Tensor) -> None:
        super().__init__(sample=sample)
        self.sample = sample


@cache
def network_class() -> type[Any]:
    """`ExportedNetwork` as a model class of diffusers, which is imported here."""
    mixin = require_diffusers("export to diffusers").ModelMixin
    return as_diffusers_class("UndiffuseUNet", ExportedNetwork, mixin)


def __getattr__(name: str) -> Any:
    """`UndiffuseUNet`, made when an exported folder asks for it, and the class by which diffusers loads it."""
    if name == "UndiffuseUNet":
        return network_class()
    if name == "ModelMixin":
        return network_class().__mro__[2]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def export_run(run: str | Path, out: Path, *, standalone: bool = False) -> Path:
    """Write a run as the folder of a stock `DDPMPipeline`; returns it.

    Args:
        run: folder of a run on images.
        out: folder to write.
        standalone: write the code that names the network next to the weights, which then loads with
            trust_remote_code=True only.

    Raises:
        InputError: for a run on other data than images, and a folder that is not empty.
    """
    config, model = training.open_run(run).config, untuned(training.load(run, device="cpu"))
    assert isinstance(model, Denoiser)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"got {out}, which is not empty; choose another folder")
    if len(model.shape) != 3 or not isinstance(model.transform, GreyLevels):
        raise InputError(f"got a run on data of shape {tuple(model.shape)}; expected images, which pipelines sample")
    make = network_class()
    from diffusers import DDIMScheduler, DDPMPipeline

    channels, height, width = model.shape
    net = make(height if height == width else (height, width), channels, channels, run=config,
               num_class_embeds=model.classes or None)
    net.model.net.load_state_dict(model.net.state_dict())
    for name, value in ({} if model.moments is None else model.moments.tensors()).items():
        getattr(net, f"moments_{name}").copy_(value)
    scheduler = DDIMScheduler(trained_betas=list(chain_of(model.sde, STEPS)), prediction_type="v_prediction",
                              clip_sample=False, timestep_spacing="trailing")
    DDPMPipeline(net.eval(), scheduler).save_pretrained(out)
    if standalone:
        _write_shim(out)
    return out


def _write_shim(out: Path) -> None:
    """Code beside the weights, and the index that names it."""
    (out / "unet" / "undiffuse_unet.py").write_text(_SHIM, "utf-8")
    index = json.loads((out / "model_index.json").read_text("utf-8"))
    index["unet"][0] = "undiffuse_unet"
    (out / "model_index.json").write_text(json.dumps(index, indent=2), "utf-8")


def card(opened: OpenedModel, licence: str) -> str:
    """The model card of an exported run, of its measured figures.

    Args:
        opened: the run.
        licence: the licence of the weights, as the hub names it.
    """
    model, data = opened.model, opened.data
    lines = ["---", "library_name: undiffuse", f"license: {licence}", "pipeline_tag: unconditional-image-generation",
             "---", "", f"# {data.get('name', 'A diffusion model')}", "",
             f"Process {model.sde.name}, states {tuple(model.shape)}, classes {model.classes or 'none'}, data "
             f"{data.get('name', 'unknown')} ({data.get('rows', 'unknown')} rows).", "",
             f"Trained for {opened.experiment.steps:,} updates with batches of {opened.experiment.batch_size}.", ""]
    tuning = tuning_of(model)
    if tuning is not None:
        lines += ["| evaluations | error before tuning | after |", "|---|---|---|"]
        lines += [f"| {row['evaluations']} | {row['before']['rmse']:.4f} ({row['untuned']}) | "
                  f"{row['after']['rmse']:.4f} |" for row in tuning.rows]
        lines += ["", "Error: root mean square distance to the exact trajectory, in standard deviations of the data."]
    return "\n".join([*lines, ""])


def push(folder: Path, name: str, *, private: bool = True, dry_run: bool = False) -> list[str]:
    """Upload an exported folder to the Hugging Face Hub; returns lines that say what was uploaded.

    Args:
        folder: an exported folder with a model card.
        name: OWNER/NAME.
        private: make the repository private if it is new.
        dry_run: list the files only.

    Raises:
        InputError: for a name that is not OWNER/NAME, and a folder without a model card.
        MachineError: where the hub refuses or cannot be reached.
    """
    if len(name.split("/")) != 2 or not (folder / "README.md").is_file():
        raise InputError(f"got {name} for {folder}; expected OWNER/NAME and a folder with a model card")
    files = [f"{file.relative_to(folder)} ({file.stat().st_size:,} bytes)" for file in sorted(folder.rglob("*"))
             if file.is_file()]
    if dry_run:
        return files
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=name)
    except (OSError, ValueError) as error:
        reason = shorten(str(error), 200, placeholder=" ...")
        raise MachineError(f"cannot upload to {name}: {reason}; log in with `hf auth login` and check the connection"
                           ) from None
    return [*files, f"uploaded to {name}"]


def stock_times(opened: OpenedModel, evaluations: int) -> Mapping[str, list[float]]:
    """The nodes of a tuned sampler for stock schedulers: `timesteps` (indices of the chain) and `sigmas` (σ̂).

    Args:
        opened: a tuned model.
        evaluations: number of evaluations that it was tuned for.

    Raises:
        InputError: for a model without that sampler.
    """
    model, tuning = opened.model, tuning_of(opened.model)
    samplers = {} if tuning is None else tuning.table.get("") or next(iter(tuning.table.values()), {})
    if evaluations not in samplers:
        raise InputError(f"got {evaluations} evaluations for a model tuned to "
                         f"{', '.join(map(str, samplers)) or 'none'}; tune it first: undiffuse tune")
    sampler = samplers[evaluations]
    times = sampler.times[sampler.first_step_free:-1]
    indices = (times / model.sde.T * STEPS - 1).round().clamp(0, STEPS - 1)
    return {"timesteps": indices.long().tolist(), "sigmas": torch.exp(-model.sde.log_snr(times)).tolist()}

