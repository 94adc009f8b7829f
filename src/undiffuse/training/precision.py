"""How fast an update is computed: in what precision the layers are, and whether they are compiled.

In bf16 only the layers of the network in training are: their weights, the average, the optimiser, the loss, noise
levels and the embedding of a level stay float32, and so does everything that is sampled or measured. Such numbers have
8 bits, which hides noise below about 0.4 % of the data; images do not need it, points and tables may.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import torch

from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.model import Denoiser

BACKEND = "inductor"
MANY = 20_000  # updates on a GPU from which a compiler's minute or two are thought to be worth it; not measured
_AMPERE = (8, 0)


def precision(experiment: Experiment, device: torch.device) -> str:
    """"fp32" or "bf16": what is asked for, or of images on a GPU with bf16 units bf16; InputError with float64."""
    if experiment.precision != "auto":
        if experiment.precision == "bf16" and experiment.dtype != "float32":
            raise InputError(f"got precision=bf16 with dtype={experiment.dtype}; leave one of them out")
        return experiment.precision
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE
    return "bf16" if able and experiment.net != "mlp" and experiment.dtype == "float32" else "fp32"


def configure(model: Denoiser, experiment: Experiment, chosen: str) -> str:
    """Makes the network of a training compute in the `chosen` precision, compiled where that pays; says which and why.

    Raises MachineError where it cannot be compiled although it is asked for.
    """
    model.bf16 = chosen == "bf16"
    on, why = _compiled(experiment, model.device)
    if on:
        model.net.compile(backend=BACKEND, dynamic=False)
    layers = f"{'bf16' if model.bf16 else experiment.dtype} layers ({_why(experiment, model)})"
    return f"{layers}, {'compiled' if on else 'not compiled'} ({why})"


def is_compiled(model: Denoiser) -> bool:
    """Whether the network of a model is compiled."""
    return model.net._compiled_call_impl is not None


def _why(experiment: Experiment, model: Denoiser) -> str:
    if experiment.precision != "auto":
        return "as asked"
    if model.bf16:
        return "the GPU has units for them"
    return "bf16 did not pay on a CPU" if model.device.type == "cpu" else "no bf16 for this GPU or network"


def _compiled(experiment: Experiment, device: torch.device) -> tuple[bool, str]:
    """Whether to compile, and why; no clock decides, so that a run that goes on decides the same."""
    able = find_spec("triton") if device.type == "cuda" else shutil.which("g++") or shutil.which("clang++")
    if experiment.compile == "on" and BACKEND == "inductor" and not able:
        raise MachineError("got compile=on, but there is no compiler (g++ for a CPU, triton for a GPU); install it or "
                           "leave compile out")
    if experiment.compile != "auto":
        return experiment.compile == "on", "as asked"
    if device.type != "cuda" or not able:
        return False, "it did not pay on a CPU" if device.type == "cpu" else "there is no compiler for this GPU"
    return experiment.steps >= MANY, f"it is thought to pay from {MANY:,} updates on"
