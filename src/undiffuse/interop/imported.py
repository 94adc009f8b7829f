"""`load`: the model of a run, of a diffusers folder, of the Hugging Face Hub, or of a folder that `import` wrote.

`import` writes no weights: imported.json names the source, its revision and the SHA-256 of every file of weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, overload

import torch

from undiffuse import training, tuning
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.hashing import file_sha256
from undiffuse.interop.checks import check_reading
from undiffuse.interop.pretrained import from_diffusers
from undiffuse.model import Denoiser
from undiffuse.progress import say
from undiffuse.training.checkpoint import read_json, write_json

NAME, HUB = "imported.json", "hf:"
FORMAT = 1
_WEIGHTS = (".safetensors",)
_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl")


@dataclass(frozen=True)
class OpenedModel:
    """A model by its name, with what commands need to know of its data.

    Args:
        model: the model, with the tuned sampler in its folder.
        data: kind, levels, classes, columns and categories of the data, as in the configuration of a run.
        experiment: the settings of its run; of a pretrained model the size of its images only.
        folder: where commands write by default.
    """

    model: Denoiser | tuning.Tuned
    data: dict[str, Any]
    experiment: Experiment
    folder: Path


def open_model(source: str | Path, device: str = "auto", in_folder: bool = False) -> OpenedModel:
    """The model of a run, an imported folder, a diffusers folder, or the hub (hf:OWNER/NAME or OWNER/NAME).

    Args:
        source: its folder or name.
        device: where it is placed.
        in_folder: something is to be written next to it.

    Raises:
        InputError: as `load`, and for a name of the hub with `in_folder`.
    """
    if in_folder and _is_hub_name(str(source)):
        raise InputError(f"got {source}, which has no folder to write to; import it first: undiffuse import {source} "
                         "--out RUN")
    path, model = Path(source), load(source, device=device)
    if (path / "experiment.json").is_file():
        run = training.open_run(path)
        return OpenedModel(model, run.config["data"], run.experiment, path)
    data = {"kind": "image", "levels": 256, "classes": [str(c) for c in range(model.classes)], "counts": [],
            "columns": [], "categories": []}
    size = model.transform.inverse(torch.empty(0, *model.shape)).shape[-1]
    return OpenedModel(model, data, Experiment(data="pretrained", image_size=size), path if path.is_dir() else Path())


@overload
def load(source: Any, which: Literal["running", "net"], device: str = ..., **options: Any) -> Denoiser: ...


@overload
def load(source: Any, which: str = ..., device: str = ..., **options: Any) -> Denoiser | tuning.Tuned: ...


def load(source: Any, which: str = "ema", device: str = "auto", **options: Any) -> Denoiser | tuning.Tuned:
    """The model of a source, with the tuned sampler in its folder if it was fitted to these weights.

    Args:
        source: folder of a run, of a diffusers pipeline, or of `undiffuse import`; OWNER/NAME or hf:OWNER/NAME of the
            Hugging Face Hub; or a pipeline object.
        which: of a run: "ema", the average chosen by `undiffuse ema`; "running", the exponential average; "net", the
            weights without averaging.
        device: where the model is placed; auto is cuda if available, else mps, else cpu.
        options: arguments of `from_diffusers`, for pretrained models.

    Raises:
        InputError: for a source without a model, and for weights that have changed since they were imported.
        MachineError: where the device does not exist or the hub cannot be reached.
    """
    if not isinstance(source, str | os.PathLike):
        return from_diffusers(source, **options)
    name, path = os.fspath(source).removeprefix(HUB), Path(source)
    if (path / "model_index.json").is_file() or (path / NAME).is_file() or _is_hub_name(os.fspath(source)):
        place = str(training.pick_device(device))
        model = _imported(path, place, options) if (path / NAME).is_file() else _opened(name, place, options)
        return tuning.attach(model, path, say)
    if path.suffix.lower() in _CHECKPOINTS and path.is_file():
        raise InputError(f"got {path}, a file of weights without its network; expected ud.from_checkpoint(path, net, "
                         "family=...), or the folder of a pipeline")
    if options:
        raise InputError(f"got {', '.join(options)}= for the run {path}; expected no options")
    return training.load(path, which, device)


def import_model(source: str, out: Path, size: int | None = None, revision: str | None = None) -> list[str]:
    """Write a folder that every command takes as a model; returns lines that say what was read.

    Args:
        source: folder of a diffusers pipeline, or OWNER/NAME of the hub.
        out: the folder.
        size: side of the images in pixels; None: the network's.
        revision: revision of the hub.

    Raises:
        InputError: for a source that is not supported, and a folder that holds something else.
    """
    if out.exists() and (not out.is_dir() or any(file.name != NAME for file in out.iterdir())):
        raise InputError(f"got {out}, which holds other files; choose another folder")
    name = source.removeprefix(HUB)
    model = from_diffusers(name, size=size, revision=revision)
    folder = _local(name, revision)
    files = _hashes(folder)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / NAME, {"format": FORMAT, "source": str(folder.resolve()) if Path(name).is_dir() else name,
                            "revision": revision, "size": size, "files": files, "model": model.source})
    return [model.source, *check_reading(model), f"{out / NAME}: files of weights: {len(files)}, which stay where they "
            "are; `undiffuse sample`, tune, likelihood and restore take this folder"]


def _opened(name: str, device: str, options: dict[str, Any]) -> Denoiser:
    """The model of a pipeline by its folder or name, which tuning knows by its files like an imported one."""
    model = from_diffusers(name, device=device, **options)
    model.digest = cache(lambda: _joined(_hashes(_local(name, options.get("revision")))))
    return model


def _imported(folder: Path, device: str, options: dict[str, Any]) -> Denoiser:
    """The model of an imported folder; raises InputError for a file of weights that has changed."""
    about = read_json(folder / NAME)
    if about.get("format") != FORMAT:
        raise InputError(f"got {folder / NAME} of format {about.get('format')}; expected {FORMAT}; import it again")
    source = _local(about["source"], about["revision"])
    for name, digest in about["files"].items():
        if not (source / name).is_file() or file_sha256(source / name) != digest:
            raise InputError(f"{source / name} is missing or has changed since it was imported; import it again")
    model = from_diffusers(about["source"], device=device, revision=about["revision"],
                           **{"size": about["size"], **options})
    model.digest = partial(_joined, about["files"])
    return model


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of weights, by its path in the folder."""
    return {str(file.relative_to(folder)): file_sha256(file) for file in _weights(folder)}


def _joined(files: dict[str, str]) -> str:
    return "".join(digest for _, digest in sorted(files.items()))


def _local(source: str, revision: str | None) -> Path:
    """The folder of the files of a source."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(source, "model_index.json", revision=revision)
    if not isinstance(index, str):
        raise InputError(f"got {source}, which is neither a folder nor in the cache of the hub")
    return Path(index).parent


def _weights(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob("*")) if file.suffix in _WEIGHTS and file.is_file())


def _is_hub_name(source: str) -> bool:
    """Whether a text names a model of the hub: hf:OWNER/NAME, or OWNER/NAME where that is not a path."""
    if source.startswith(HUB):
        return True
    parts = source.split("/")
    return len(parts) == 2 and all(parts) and not parts[0].startswith((".", "~")) and not os.path.exists(
        source) and not os.path.isdir(parts[0]) and Path(source).suffix.lower() not in _CHECKPOINTS
