"""Our samplers and those of diffusers on one model: the same starts, and the distance to its path of many steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from undiffuse.chains import Chain
from undiffuse.errors import InputError
from undiffuse.interop.diffusers_package import require_diffusers
from undiffuse.interop.schedules import dynamic_shift
from undiffuse.model import Denoiser, Model
from undiffuse.processes import EDM
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import conditions_of, sample
from undiffuse.samplers.method import innermost, require_denoiser
from undiffuse.samplers.registry import ALL
from undiffuse.samplers.tuned import find_tuned
from undiffuse.sde import bcast
from undiffuse.tuning.tuning_file import untuned

OURS = ("auto", "unipc", "dpmpp_2m", "deis_2")
_CHAIN = {"DDIM": "DDIMScheduler", "DPM++ 2M": "DPMSolverMultistepScheduler", "UniPC": "UniPCMultistepScheduler",
          "DEIS": "DEISMultistepScheduler", "Euler": "EulerDiscreteScheduler"}
_FLOW = {"DPM++ 2M": "DPMSolverMultistepScheduler", "UniPC": "UniPCMultistepScheduler"}
_EDM = {"Euler": "EDMEulerScheduler", "DPM++ 2M": "EDMDPMSolverMultistepScheduler"}
FINE = "unipc_4_noise"
"""The method of the path of many steps."""


@dataclass(frozen=True)
class ComparedSampler:
    """The samples of one sampler at one number of network evaluations.

    Args:
        name: the sampler, in words.
        ours: it is of this library.
        steps: the number of evaluations asked for.
        calls: the number of evaluations it made.
        z: samples in the network's units.
        distance: (n,), root mean square per entry of z − the fine path's end, in standard deviations of the latter.
    """

    name: str
    ours: bool
    steps: int
    calls: int
    z: Tensor
    distance: Tensor

    @property
    def label(self) -> str:
        """The name without the time grid."""
        return self.name.partition(" (")[0]

    @property
    def mean(self) -> float:
        """The mean distance."""
        return float(self.distance.mean())


def compare(model: Model, steps: Sequence[int] = (8, 12, 20), n: int = 4, *, fine: int = 200, seed: int = 0,
            **cond: Any) -> tuple[Tensor, list[ComparedSampler]]:
    """Every sampler from the same starts at the same numbers of evaluations.

    Args:
        model: a model of `from_diffusers`, or guidance of one.
        steps: numbers of network evaluations.
        n: number of samples.
        fine: number of steps of the path that distances are measured to.
        seed: seed of the starts.
        cond: conditions such as prompt.

    Returns:
        The ends of the fine path (n, *shape) in the network's units, and the samplers.

    Raises:
        InputError: for a model that is not one of diffusers, or that is distilled.
        MachineError: where diffusers is not installed.
    """
    net = _network(model)
    eps = normal(seed, Purpose.INIT, 0, 0, n, model.shape)
    x_T = float(net.sde.sigma(torch.tensor(model.t_start(), dtype=torch.float64))) * eps
    path = sample(model, n, ALL[FINE], fine, x_T=x_T, seed=seed, **cond).z
    rows = conditions_of(model, cond, n)

    def row(name: str, ours: bool, budget: int, calls: int, z: Tensor) -> ComparedSampler:
        return ComparedSampler(name, ours, budget, calls, z, (z - path).flatten(1).square().mean(1).sqrt() / path.std())

    out = []
    for budget in steps:
        for name, config in their_schedulers(net).items():
            z, calls = their_samples(model, *config, budget, eps, rows)
            out.append(row(name, False, budget, calls, z))
        tuned = find_tuned(model, budget, (None, None), rows) is not None
        for method in [*["tuned"] * tuned, *OURS]:
            last = method != "tuned"
            ours = sample(untuned(model) if last else model, n, ALL.get(method, method), max(1, budget - last),
                          x_T=x_T, seed=seed, denoise_last=last, **cond)
            out.append(row(method if method == "tuned" else f"{method} ({ours.grid})", True, budget, ours.nfe, ours.z))
    return path, out


def _network(model: Model) -> Denoiser:
    """The network inside of wrappers; raises InputError where it is not one of diffusers."""
    require_denoiser(model, "a comparison of samplers")
    net = innermost(model)
    if not isinstance(net, Denoiser) or net.scheduler is None:
        raise InputError(f"got a {type(net).__name__} that is not of diffusers; expected a model of "
                         "ud.from_diffusers, or the folder of a pipeline")
    return net


def their_schedulers(net: Denoiser) -> dict[str, tuple[str, dict[str, Any]]]:
    """The deterministic schedulers that fit the network, (class, configuration) by name; its own one first."""
    assert net.scheduler is not None
    name, config = net.scheduler
    extra: dict[str, Any] = {}
    if isinstance(net.sde, Chain):
        choices = _CHAIN
    elif isinstance(net.sde, EDM):
        choices = _EDM
    elif net.reading.prediction_type == "velocity":
        choices, extra = _FLOW, {"use_flow_sigmas": True, "prediction_type": "flow_prediction",
                                 "flow_shift": config.get("shift", 1.0)}
    else:
        raise InputError(f"got {name}, whose samplers this version does not run; choose another pipeline")
    own = {name.removesuffix("Scheduler"): (name, config)} if name.startswith("FlowMatch") else {}
    return own | {label: (kind, {**config, **extra}) for label, kind in choices.items()}


@torch.no_grad()
def their_samples(model: Model, name: str, config: dict[str, Any], steps: int, eps: Tensor, cond: dict[str, Any]
                  ) -> tuple[Tensor, int]:
    """The samples of a scheduler of diffusers and its number of evaluations; NaN where it fails.

    Args:
        model: the model, guided or not.
        name: class of the scheduler.
        config: its configuration.
        steps: number of steps.
        eps: standard normals (n, *shape).
        cond: conditions as `denoise` takes them.
    """
    diffusers = require_diffusers("a comparison with diffusers")
    net, scheduler = _network(model), getattr(diffusers, name).from_config(config)
    shift = dynamic_shift(config, model.shape) if name.startswith("FlowMatch") else None
    scheduler.set_timesteps(steps, **({} if shift is None else {"mu": shift}))
    x, times = eps * float(getattr(scheduler, "init_noise_sigma", 1.0)), list(_times(net, scheduler))
    try:
        for t, at in zip(scheduler.timesteps, times, strict=True):
            inner = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            state = x if isinstance(net.sde, EDM) else inner
            D = model.denoise(state.to(model.device), at, **cond).cpu()
            _, a, b = net.reading.coefficients(net.sde, at)
            x = scheduler.step((D - bcast(a, state) * state) / bcast(b, state), t, x).prev_sample
    except (IndexError, ValueError):
        return torch.full_like(eps, torch.nan), len(times)
    return x, len(times)


def _times(net: Denoiser, scheduler: Any) -> Iterator[Tensor]:
    """Our time of every evaluation."""
    for k, value in enumerate(scheduler.timesteps.double().cpu()):
        if isinstance(net.sde, Chain):
            yield (value + 1) / len(net.sde.alpha_bar)
        elif isinstance(net.sde, EDM):
            yield scheduler.sigmas[k].double().cpu().clamp_max(net.sde.T)
        else:
            yield scheduler.sigmas[k].double().cpu()


def lines(compared: Sequence[ComparedSampler]) -> Iterator[str]:
    """A table with a row for each sampler and a column for each number of evaluations."""
    budgets = list(dict.fromkeys(c.steps for c in compared))
    names = list(dict.fromkeys((c.ours, c.label) for c in compared))
    yield "distance to the fine path from the same noise, in standard deviations of its samples (evaluations if other)"
    yield f"{'':30}" + "".join(f"{budget:>14}" for budget in budgets)
    for ours, name in names:
        cells = [next((c for c in compared if (c.ours, c.label, c.steps) == (ours, name, budget)), None)
                 for budget in budgets]
        text = (f"{c.mean:.4f}" + f" ({c.calls})" * (c.calls != c.steps) if c else "" for c in cells)
        yield f"{('ours: ' if ours else 'diffusers: ') + name:30}" + "".join(f"{cell:>14}" for cell in text)
