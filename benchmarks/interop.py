"""Our samplers beside diffusers' schedulers on the same network, start and noise: the table of docs/pipelines.md."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.interop import networks
from undiffuse.interop.schedules import Schedule, times_of
from undiffuse.model import Denoiser
from undiffuse.random import Purpose, normal
from undiffuse.samplers.registry import ALL, DISTILLED

SHAPE = (3, 8, 8)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
BEGIN, END = "<!-- parity: python -m benchmarks interop docs/pipelines.md -->", "<!-- end of parity -->"
PIN = 2.0**-24
"""ᾱ(T) of Euler, DPM++ and UniPC, where the network's is 0."""
KARRAS, FLOW = {"use_karras_sigmas": True}, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@dataclass(frozen=True)
class Case:
    """One scheduler beside one method of ours.

    Args:
        scheduler: name of the class, without "Scheduler".
        config: its configuration.
        method: ours.
        steps: number of steps.
        options: options of the method.
        reading: changes of the reading, such as their rounding of times.
        noise: module whose noise is replaced by ours.
        step: arguments of their step.
        timesteps: arguments of their `set_timesteps`.
        scaled: their states are x/α.
        pin: ᾱ(T) of their table.
        channels: of the network's output.
        tolerance: largest relative error.
    """

    scheduler: str
    config: dict[str, Any]
    method: str
    steps: int = 10
    options: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    noise: str = ""
    step: dict[str, Any] = field(default_factory=dict)
    timesteps: dict[str, Any] = field(default_factory=dict)
    scaled: bool = False
    pin: float | None = None
    channels: int = 3
    tolerance: float = 1e-5

    def __str__(self) -> str:
        values = {k: v for k, v in {**self.config, **self.timesteps}.items() if SD.get(k) != v}
        text = ", ".join(f"{k}={v}" for k, v in values.items())
        return f"{self.scheduler}({text}) = {self.method}"


def _cases() -> Iterator[Case]:
    config: dict[str, Any]
    plain, trailing = {"clip_sample": False}, {"timestep_spacing": "trailing"}
    leading = {"timestep_spacing": "leading", "steps_offset": 1}
    for beta_schedule in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        for prediction in ("epsilon", "v_prediction", "sample"):
            for spacing in ("leading", "trailing"):
                yield Case("DDIM", {**plain, "beta_schedule": beta_schedule, "prediction_type": prediction,
                                    "timestep_spacing": spacing}, "ddim")
    yield Case("DDIM", {**plain, **SD, "set_alpha_to_one": False, "steps_offset": 1}, "ddim")
    yield Case("DDIM", {**plain, **ZERO_SNR}, "ddim")
    yield Case("DDIM", {**plain, **ZERO_SNR}, "ddim", 25)
    for limits in ({"clip_sample": True}, {**plain, "thresholding": True, "sample_max_value": 1.5}):
        yield Case("DDIM", limits, "ddim", step={"use_clipped_model_output": True}, tolerance=1e-4)
    for config in (plain, {"clip_sample": True}, {**plain, "prediction_type": "v_prediction"},
                   {**plain, "prediction_type": "sample"}, {**plain, "beta_schedule": "sigmoid"},
                   {**plain, **ZERO_SNR}):
        yield Case("DDPM", config, "ancestral", 20, noise="scheduling_ddpm", tolerance=2e-5)
    for variance, spread, channels in (("fixed_large", 1.0, 3), ("learned_range", "learned", 6)):
        yield Case("DDPM", {**plain, "variance_type": variance}, "ddpm", 20, {"spread": spread}, channels=channels,
                   noise="scheduling_ddpm")
    yield Case("PNDM", {**SD, "set_alpha_to_one": False, "steps_offset": 1, "skip_prk_steps": True}, "plms")
    yield Case("LCM", {}, "consistency", 4, noise="scheduling_lcm")
    yield Case("TCD", {}, "consistency", 4, {"gamma": 0.3}, noise="scheduling_tcd")
    dpm = "DPMSolverMultistep"
    for config, method, options in (
            ({}, "dpmpp_2m", {}), ({"solver_type": "heun"}, "dpmpp_2m_heun", {}), ({"solver_order": 1}, "ddim", {}),
            ({"prediction_type": "v_prediction"}, "dpmpp_2m", {}), (leading, "dpmpp_2m", {}),
            ({"final_sigmas_type": "sigma_min"}, "dpmpp_2m", {"lower_final": True}),
            ({"solver_order": 3, "solver_type": "heun", "lower_order_final": False, "final_sigmas_type": "sigma_min"},
             "dpmpp_3m_classic", {})):
        yield Case(dpm, {**SD, **config}, method, options=options)
    for config in (KARRAS, {"use_lu_lambdas": True}):
        yield Case(dpm, {**SD, **config}, "dpmpp_2m", reading={"rounding": "round"})
    for order, method in ((2, "dpmpp_2m_sde"), (1, "ancestral")):
        yield Case(dpm, {**SD, "algorithm_type": "sde-dpmsolver++", "solver_order": order}, method,
                   noise="scheduling_dpmsolver_multistep")
    for prediction in ("epsilon", "v_prediction"):
        yield Case("UniPCMultistep", {**SD, "prediction_type": prediction}, "unipc")
    yield Case("DEISMultistep", SD, "deis_2", options={"lower_final": True})
    yield Case("DEISMultistep", {**SD, "solver_order": 3, "lower_order_final": False}, "deis_3")
    for name, method in ((dpm, "dpmpp_2m"), ("UniPCMultistep", "unipc"), ("EulerDiscrete", "ddim")):
        yield Case(name, ZERO_SNR, method, pin=PIN, scaled=name == "EulerDiscrete")
    for config in (leading, trailing, KARRAS, {**trailing, "prediction_type": "v_prediction"}):
        yield Case("EulerDiscrete", {**SD, **config}, "ddim", scaled=True)
    yield Case("EulerAncestralDiscrete", {**SD, **leading}, "ancestral", scaled=True,
               noise="scheduling_euler_ancestral_discrete")
    yield Case("HeunDiscrete", {**SD, **leading}, "heun_sigma", scaled=True)
    for name, method in (("EDMEuler", "ddim"), ("EDMDPMSolverMultistep", "dpmpp_2m")):
        for prediction in ("epsilon", "v_prediction"):
            yield Case(name, {"prediction_type": prediction}, method)
    dynamic = {"use_dynamic_shifting": True}
    for config, timesteps in (({}, {}), ({"shift": 3.0}, {}), (dynamic, {"mu": 1.15}),
                              ({**dynamic, "time_shift_type": "linear"}, {"mu": 1.15}),
                              ({**dynamic, "shift_terminal": 0.1}, {"mu": 1.15}), (KARRAS, {}),
                              ({"use_beta_sigmas": True}, {}), ({"use_exponential_sigmas": True}, {})):
        yield Case("FlowMatchEulerDiscrete", config, "ddim", timesteps=timesteps, tolerance=1e-6)
    for name, method in ((dpm, "dpmpp_2m"), ("UniPCMultistep", "unipc")):
        yield Case(name, {**FLOW, "flow_shift": 3.0}, method, reading={"rounding": "floor"}, tolerance=1e-6)


CASES = tuple(_cases())
"""Every scheduler that one of our methods reproduces."""


def table(page: str = "") -> Iterator[str]:
    """The largest relative difference max |a − b|/max |b| by scheduler and method, and the version of diffusers.

    Args:
        page: a page whose table is replaced; "all": every case; "": the table is printed.
    """
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    measured = [(case, difference(case)) for case in CASES]
    groups: dict[tuple[str, str], list[float]] = {}
    for case, value in measured:
        groups.setdefault((case.scheduler, case.method), []).append(value)
    versions = f"diffusers {diffusers.__version__} and torch {torch.__version__}"
    lines = [f"Measured with {versions}: {len(CASES)} configurations.", "",
             "| their scheduler | ours | configurations | largest difference |", "|---|---|---|---|",
             *(f"| {theirs} | `{ours}` | {len(values)} | {max(values):.1e} |"
               for (theirs, ours), values in sorted(groups.items()))]
    if page == "all":
        yield from (f"{value:9.1e}  {case}" for case, value in measured)
    elif page:
        file = Path(page)
        before, _, after = file.read_text("utf-8").partition(BEGIN)
        file.write_text("\n".join([before + BEGIN, *lines, END + after.partition(END)[2]]), "utf-8")
    yield from lines


def difference(case: Case, net: Any = None) -> float:
    """The relative difference of our sampler from theirs; the numbers of calls must be equal.

    Args:
        case: the scheduler and the method.
        net: the network; None: a random U-Net.
    """
    import diffusers

    net, x = net or unet(case.channels), start()
    scheduler = getattr(diffusers, f"{case.scheduler}Scheduler")(**case.config)
    scheduler.set_timesteps(case.steps, **case.timesteps)
    model = model_of(scheduler, net, **case.reading)
    if case.pin is not None:
        assert isinstance(model.sde, ud.Chain)
        model.sde = ud.Chain((*model.sde.alpha_bar[:-1], case.pin))
    times, to_zero = times_of(Schedule(model.sde, model.reading, ""), scheduler)
    x = x * float(model.sde.sigma(times[0])) if model.sde.T != 1 else x
    ours = ud.sample(model, 2, {**ALL, **DISTILLED}[case.method], grid=times, x_T=x, denoise_last=to_zero,
                     options=case.options)
    scale = 1 / float(model.sde.alpha(times[0])) if case.scaled else 1.0
    with noise_of(case.noise) if case.noise else nullcontext():
        expected, calls = theirs(net, scheduler, x * scale, **case.step)
    if ours.nfe != calls:
        raise RuntimeError(f"{case}: {ours.nfe} evaluations of ours and {calls} of theirs")
    return error(ours.x, expected)


@torch.no_grad()
def theirs(net: Any, scheduler: Any, x: Tensor, **step: Any) -> tuple[Tensor, int]:
    """The result of their loop, after `set_timesteps`, and its number of calls."""
    for t in scheduler.timesteps:
        F = net(scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x, t).sample
        x = scheduler.step(F, t, x, **step).prev_sample
    return x, len(scheduler.timesteps)


@contextmanager
def noise_of(module: str, seed: int = 0) -> Iterator[None]:
    """Their k-th draw replaced by our noise of step k."""
    home, k = importlib.import_module(f"diffusers.schedulers.{module}"), iter(range(1 << 20))
    before = vars(home)["randn_tensor"]

    def draw(shape: Any, **_: Any) -> Tensor:
        return normal(seed, Purpose.STEP, next(k) << 34, 0, shape[0], tuple(shape[1:]))

    vars(home)["randn_tensor"] = draw
    try:
        yield
    finally:
        vars(home)["randn_tensor"] = before


def error(a: Tensor, b: Tensor) -> float:
    """max |a − b| / max |b|."""
    return float((a - b).abs().max() / b.abs().max())


def start(n: int = 2, shape: tuple[int, ...] = SHAPE, seed: int = 3) -> Tensor:
    """Standard normals (n, *shape)."""
    return normal(seed, Purpose.INIT, 0, 0, n, shape)


def model_of(scheduler: Any, net: nn.Module, shape: tuple[int, ...] = SHAPE, **changes: Any) -> Denoiser:
    """The model of a network that was trained with a scheduler."""
    schedule = Schedule.from_config(type(scheduler).__name__, dict(scheduler.config))
    reading = type(schedule.reading)(**{**vars(schedule.reading), **changes})
    return Denoiser(networks.UNet2D(net), schedule.process, reading, shape=shape, block=2)


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """A module with random weights that do not depend on what was drawn before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval().requires_grad_(False)


@cache
def unet(out_channels: int = 3, **options: Any) -> Any:
    """A small random `UNet2DModel`."""
    import diffusers

    net = seeded(lambda: diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=out_channels, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=8, **options))
    net.conv_out.weight.mul_(6.0)
    return net
