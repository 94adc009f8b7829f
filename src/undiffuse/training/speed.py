"""How fast an update is computed: in what precision the layers are, and whether they are compiled.

In bf16 only the layers of the network in training are: their weights, the average, the optimiser, the loss, noise
levels and the embedding of a level stay float32, and so does everything that is sampled or measured. Such numbers have
8 bits, which hides noise below about 0.4 % of the data; images do not need it, points and tables may.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import torch
from torch.utils.flop_counter import FlopCounterMode

from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.model import Denoiser

BACKEND = "inductor"
ENOUGH = 5e13  # multiply-adds of a training on a CPU from which a compiler's minute is worth a sixth of the time
MANY = 20_000  # updates on a GPU from which it is; not measured
_AMPERE = (8, 0)


def precision(experiment: Experiment, device: torch.device) -> str:
    """"fp32" or "bf16": what is asked for, or of images on a GPU with bf16 units bf16; InputError with float64."""
    if experiment.precision != "auto":
        if experiment.precision == "bf16" and experiment.dtype != "float32":
            raise InputError(f"got precision=bf16 with dtype={experiment.dtype}; leave one of them out")
        return experiment.precision
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE
    return "bf16" if able and experiment.net != "mlp" and experiment.dtype == "float32" else "fp32"


def prepare(model: Denoiser, experiment: Experiment, chosen: str) -> str:
    """Makes the network of a training compute in the `chosen` precision, compiled where that pays; says which and why.

    Raises MachineError where it cannot be compiled although it is asked for.
    """
    model.bf16 = chosen == "bf16"
    on, why = _compiled(experiment, model)
    if on:
        model.net.compile(backend=BACKEND, dynamic=False)
    layers = "bf16 layers" if model.bf16 else f"{experiment.dtype} layers"
    because = f" ({_why(experiment, model)})"
    return f"{layers}{because}, {'compiled' if on else 'not compiled'} ({why})"


def is_compiled(model: Denoiser) -> bool:
    """Whether the network of a model is compiled."""
    return model.net._compiled_call_impl is not None


def multiply_adds(model: Denoiser) -> int:
    """Those of the network for one row, forwards."""
    x = torch.zeros(1, *model.shape, dtype=model.dtype, device=model.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x, 0.5 * model.sde.T)
    return int(counter.get_total_flops()) // 2


def _why(experiment: Experiment, model: Denoiser) -> str:
    if experiment.precision != "auto":
        return "as asked"
    if model.bf16:
        return "the GPU has units for them"
    return "bf16 did not pay on a CPU" if model.device.type == "cpu" else "no bf16 for this GPU or network"


def _compiled(experiment: Experiment, model: Denoiser) -> tuple[bool, str]:
    """Whether to compile, and why; no clock decides, so that a run that goes on decides the same."""
    able = find_spec("triton") if model.device.type == "cuda" else shutil.which("g++") or shutil.which("clang++")
    if experiment.compile != "auto":
        if experiment.compile == "on" and BACKEND == "inductor" and not able:
            raise MachineError("got compile=on, but there is no compiler (g++ for a CPU, triton for a GPU); install it "
                               "or leave compile out")
        return experiment.compile == "on", "as asked"
    if not able or experiment.net == "mlp" or model.device.type not in ("cpu", "cuda"):
        return False, "no compiler is here" if not able else "it did not pay for this network"
    if model.device.type == "cuda":
        return experiment.steps >= MANY, f"which is thought to pay from {MANY:,} updates on"
    work = 3.0 * multiply_adds(model) * experiment.batch * experiment.steps
    return work >= ENOUGH, f"which pays from {ENOUGH:.0e} multiply-adds on, and here are {work:.0e}"
