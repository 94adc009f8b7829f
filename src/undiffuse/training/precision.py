"""Precision and compilation of the layers in training.

With bf16 only the layers compute in bf16: weights, averages, optimizer, loss, noise levels and their embedding stay
float32, and so do sampling and measurements. bf16 has 8 significant bits, which hides noise below about 0.4 % of the
data: enough for images, perhaps not for points and tables.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import torch

from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.model import Denoiser

BACKEND = "inductor"
COMPILE_STEPS = 20_000  # updates on a GPU from which compilation probably pays; not measured
_AMPERE = (8, 0)


def precision(experiment: Experiment, device: torch.device) -> str:
    """The precision of the layers, "fp32" or "bf16"; "auto" is bf16 for a U-Net or DiT on a GPU with bf16 units."""
    if experiment.precision != "auto":
        if experiment.precision == "bf16" and experiment.dtype != "float32":
            raise InputError(f"got precision=bf16 with dtype={experiment.dtype}; leave one of them out")
        return experiment.precision
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE
    return "bf16" if able and experiment.net != "mlp" and experiment.dtype == "float32" else "fp32"


def configure(model: Denoiser, experiment: Experiment, layers: str) -> str:
    """Sets the precision of a network in training and compiles it where that pays.

    Args:
        model: The model.
        experiment: Its `compile` and `steps` count.
        layers: "fp32" or "bf16".

    Returns:
        A phrase that names both choices and their reasons.

    Raises:
        MachineError: If compilation is requested and there is no compiler.
    """
    model.bf16 = layers == "bf16"
    on, why = _compiled(experiment, model.device)
    if on:
        model.net.compile(backend=BACKEND, dynamic=False)
    text = f"{'bf16' if model.bf16 else experiment.dtype} layers ({_why(experiment, model)})"
    return f"{text}, {'compiled' if on else 'not compiled'} ({why})"


def is_compiled(model: Denoiser) -> bool:
    """Whether the network of a model is compiled."""
    return model.net._compiled_call_impl is not None


def _why(experiment: Experiment, model: Denoiser) -> str:
    if experiment.precision != "auto":
        return "as set"
    if model.bf16:
        return "the GPU has bf16 units"
    return "bf16 did not pay on a CPU" if model.device.type == "cpu" else "no bf16 for this GPU or network"


def _compiled(experiment: Experiment, device: torch.device) -> tuple[bool, str]:
    """Whether to compile, and why; no clock decides, so that a resumed run decides the same."""
    able = find_spec("triton") if device.type == "cuda" else shutil.which("g++") or shutil.which("clang++")
    if experiment.compile == "on" and BACKEND == "inductor" and not able:
        raise MachineError("got compile=on; expected a compiler (g++ for a CPU, triton for a GPU), which is missing; "
                           "install it or leave --compile out")
    if experiment.compile != "auto":
        return experiment.compile == "on", "as set"
    if device.type != "cuda" or not able:
        return False, "it did not pay on a CPU" if device.type == "cpu" else "no compiler for this GPU"
    return experiment.steps >= COMPILE_STEPS, f"it probably pays from {COMPILE_STEPS:,} updates on"
