"""Scheduler configurations: the process and the reading against diffusers' own classes, and samplers against theirs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import random
import subprocess
import sys
import types
from functools import cache
from typing import Any

import pytest
import torch
from tiny_pipelines import SHAPE, diffusers, error, model_of, noise_of, slow_but, start, theirs, unet

import undiffuse as ud
from benchmarks.interop import CASES, PIN, ZERO_SNR, Case, difference
from undiffuse.chains import Chain
from undiffuse.errors import InputError
from undiffuse.interop.schedules import CLASSES, Schedule, times_of
from undiffuse.predictions import Clip
from undiffuse.random import Purpose, normal
from undiffuse.samplers.registry import ALL
from undiffuse.transforms.base import GreyLevels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers with this numpy
DDPM = diffusers.DDPMScheduler
COSINE = "CosineDPMSolverMultistepScheduler"
AVAILABLE = [name for name in CLASSES if name != COSINE or importlib.util.find_spec("torchsde")]


def test_the_table_of_defaults_is_that_of_the_installed_version() -> None:
    for name in AVAILABLE:
        parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
        assert {key: parameters[key].default for key in CLASSES[name]} == CLASSES[name], name


# ------------------------------------------------------------------------------------------- the process


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp",
                                      "trained"])
def test_alpha_bar_is_that_of_diffusers(schedule: str, n: int, zero: bool) -> None:
    config: dict[str, Any] = {"beta_schedule": schedule, "num_train_timesteps": n}
    if schedule == "trained":
        config = {"trained_betas": torch.linspace(1e-4, 0.03, n).tolist()}
    name = "HeunDiscreteScheduler" if schedule == "exp" else "DDPMScheduler"
    if zero and schedule == "exp":
        pytest.skip("HeunDiscreteScheduler has no rescale_betas_zero_snr")
    config |= {"rescale_betas_zero_snr": True} if zero else {}
    expected = getattr(diffusers, name)(**config).alphas_cumprod.double()
    sde = Schedule.from_config(name, config).process
    t = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert isinstance(sde, Chain)
    torch.testing.assert_close(sde.alpha(t) ** 2, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(sde.variance(t), 1 - expected, rtol=1e-6, atol=0)
    assert (float(sde.alpha(1.0)) == 0) == (float(expected[-1]) == 0) == zero


@pytest.mark.parametrize("name", ["EDMEulerScheduler", COSINE, "ScoreSdeVeScheduler"])
def test_noise_levels_of_exploding_processes(name: str) -> None:
    if name not in AVAILABLE:
        pytest.skip("torchsde is not installed")
    scheduler = getattr(diffusers, name)()
    schedule = Schedule.from_config(name, dict(scheduler.config))
    assert float(schedule.process.sigma(schedule.process.T)) == pytest.approx(scheduler.config.sigma_max)


# ------------------------------------------------------------------------------------------- samplers beside theirs


@pytest.mark.parametrize("case", slow_but(CASES[::13], CASES), ids=str)
def test_our_samplers_are_theirs(case: Case) -> None:
    assert difference(case) < case.tolerance


def test_ddim_on_linspace_steps_past_its_own_list() -> None:
    """Theirs goes to i − N//n, which is not the next index of the list (diffusers#12633); ours follows the list."""
    assert difference(Case("DDIM", {"timestep_spacing": "linspace", "clip_sample": False}, "ddim")) > 0.05


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_cosine_solver(prediction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our noise in place of its Brownian tree, for which torchsde need not be installed."""
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    module = importlib.import_module("diffusers.schedulers.scheduling_cosine_dpmsolver_multistep")
    scheduler, net, k = getattr(module, COSINE)(prediction_type=prediction), unet(), iter(range(99))
    scheduler.set_timesteps(10)
    scheduler.noise_sampler = lambda *_: normal(0, Purpose.STEP, next(k) << 34, 0, 2, SHAPE)
    model = model_of(scheduler, net)
    times, to_zero = times_of(Schedule(model.sde, model.reading, ""), scheduler)
    x = float(model.sde.sigma(times[0])) * start()
    ours = ud.sample(model, 2, ALL["dpmpp_2m_sde"], grid=times, x_T=x, denoise_last=to_zero)
    assert error(ours.x, theirs(net, scheduler, x)[0]) < 1e-5 and ours.nfe == 10


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 100])
def test_the_predictor_of_score_sde_ve(n: int) -> None:
    """Their corrector uses means of norms over the batch, and is not reproduced."""
    scheduler, net = diffusers.ScoreSdeVeScheduler(sigma_max=20.0), unet()
    scheduler.set_timesteps(n)
    scheduler.set_sigmas(n)
    model, sigmas = model_of(scheduler, net), scheduler.discrete_sigmas.flip(0)
    x = expected = float(model.sde.sigma(model.sde.T)) * start()
    with noise_of("scheduling_sde_ve"):
        for t, sigma in zip(scheduler.timesteps, sigmas, strict=True):
            out = scheduler.step_pred(net(expected, sigma).sample, t, expected)
            expected = out.prev_sample
    times = model.sde.time_of(-sigmas.double().log())
    ours = ud.sample(model, 2, "reverse_diffusion", grid=times, x_T=x)
    assert ours.nfe == n and error(ours.x, out.prev_sample_mean) < 1e-5


def test_a_network_of_six_channels_keeps_its_mean() -> None:
    net, scheduler = unet(6), DDPM(clip_sample=False)

    class Mean(torch.nn.Module):
        config = net.config

        def forward(self, x: Any, t: Any, class_labels: Any = None) -> Any:
            return type("Output", (), {"sample": net(x, t).sample[:, :3]})

    scheduler.set_timesteps(20)
    model, mean = model_of(scheduler, net), model_of(scheduler, Mean())
    assert torch.equal(ud.sample(model, 2, "ddim", 5).x, ud.sample(mean, 2, "ddim", 5).x)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name, config, words", [
    ("MyScheduler", {}, "expected one of DDIMScheduler"),
    ("DDIMScheduler", {"beta_schedule": "cosine"}, "beta_schedule"),
    ("DDIMScheduler", {"prediction_type": "eps"}, "prediction_type"), ("DDIMScheduler", {"new_key": 1}, "new_key"),
    ("PNDMScheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ("DDIMScheduler", {"beta_start": "low"}, "beta_start"), ("DDIMScheduler", {"beta_end": 2.0}, "β"),
    ("DDIMScheduler", {"trained_betas": "x"}, "trained_betas"),
    ("DDIMScheduler", {"num_train_timesteps": 0}, "num_train"),
    ("DDIMScheduler", {"clip_sample": "yes"}, "clip_sample"), ("EDMEulerScheduler", {"sigma_min": 90.0}, "sigma_min"),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas"),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True}, "flow_prediction"),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "v_prediction")])
def test_what_a_configuration_does_not_say_is_refused(name: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Schedule.from_config(name, config)


def test_noise_prediction_from_pure_noise_names_the_way_out() -> None:
    model = model_of(diffusers.DDIMScheduler(**{**ZERO_SNR, "prediction_type": "epsilon"}), unet())
    with pytest.raises(InputError, match=r"alpha is 0.*t_start < T"):
        ud.sample(model, 1, "ddim", 5, t_start=1.0)
    assert ud.sample(model, 1, "ddim", 5).x.isfinite().all()  # by default below T


MUTATIONS: dict[str, list[Any]] = {
    "num_train_timesteps": [10, 100, 999, 0, -5, 1.5, "many", None], "beta_start": [1e-5, 0.001, 0.0, -1.0, "a", None],
    "beta_end": [0.01, 0.05, 1.5, math.nan, None], "clip_sample": [True, False, 1, None], "thresholding": [True, "no"],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp", "cosine", "", 3],
    "prediction_type": ["epsilon", "v_prediction", "sample", "flow_prediction", "eps", None, 0],
    "rescale_betas_zero_snr": [True, False, "true", None],
    "trained_betas": [[0.1, 0.2, 0.3], [], "b", [0.5, 2.0], None], "sigma_data": [0.5, -1, "s"],
    "timestep_type": ["discrete", "continuous", "other"], "use_flow_sigmas": [True, False],
    "sigma_min": [0.01, 0.0, 100.0], "sigma_max": [10.0, -1.0, None], "invert_sigmas": [True, False], "shift": [3.0],
    "clip_sample_range": [2.0, -1.0], "steps_offset": [1], "unheard_of": [1], "use_karras_sigmas": [True],
    "sample_max_value": [3.0], "dynamic_thresholding_ratio": [0.9, 2.0], "_class_name": ["X"],
    "set_alpha_to_one": [False]}


ANYTHING: list[Any] = [None, True, False, 0, 1, -1, 2, 1e-9, 0.5, 1e9, math.inf, math.nan, "", "linear", "epsilon",
                       "sample", [], {}, [0.1], [0.1, "a"], [[0.1]], {"a": 1}, "1000", 10**30]
DENOISED = {"DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
            "EDMEulerScheduler", "LCMScheduler"}
"""Classes whose step gives their D."""


def few_values(chance: random.Random, name: str) -> dict[str, Any]:
    """A configuration with one to three values that somebody might write."""
    return {key: chance.choice(MUTATIONS[key]) for key in chance.sample(sorted(MUTATIONS), chance.randint(1, 3))}


@cache
def complete(name: str) -> dict[str, Any]:
    """The configuration of a class with all its keys."""
    return {k: v for k, v in dict(getattr(diffusers, name)().config).items() if not k.startswith("_")}


def changed_file(chance: random.Random, name: str) -> dict[str, Any]:
    """A complete configuration with keys removed, renamed, or with values of any type."""
    config = dict(complete(name))
    for key in chance.sample(sorted(config), chance.randint(1, 2)):
        value = config.pop(key)
        kind = chance.randrange(5)
        if kind == 1:
            config[key[:-1]] = value
        elif kind:
            config[key] = chance.choice(ANYTHING + MUTATIONS.get(key, []))
    return config


def same_numbers(schedule: Schedule, scheduler: Any) -> None:
    """The noise levels, the meaning of the output, the limits, and D where their step gives it."""
    config, reading = dict(scheduler.config), schedule.reading
    if isinstance(schedule.process, Chain):
        bar = scheduler.alphas_cumprod.double()
        t = torch.arange(1, len(bar) + 1, dtype=torch.float64) / len(bar)
        ours = schedule.process.alpha(t) ** 2
        if float(ours[-1]) == 0:
            assert float(bar[-1]) in (0.0, PIN)
            bar[-1] = 0
        torch.testing.assert_close(ours, bar, rtol=1e-6, atol=0)
        wanted = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}[config["prediction_type"]]
        assert reading.prediction_type == wanted
        if config.get("thresholding"):
            assert reading.clip == Clip(config["sample_max_value"], config["dynamic_thresholding_ratio"])
        else:
            assert (reading.clip is not None) == bool(config.get("clip_sample", False))
    elif isinstance(schedule.process, ud.RectifiedFlow):
        assert reading.prediction_type == "velocity" and reading.clock_scale == config["num_train_timesteps"]
    elif isinstance(schedule.process, ud.VE):
        times = schedule.process.time_of(-torch.tensor([config["sigma_min"], config["sigma_max"]]).double().log())
        torch.testing.assert_close(times, torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-5)
    else:
        assert config["sigma_max"] == schedule.process.T
        assert reading.sigma_data == config.get("sigma_data", reading.sigma_data)


def same_denoiser(schedule: Schedule, scheduler: Any, F: torch.Tensor) -> bool:
    """Whether their D could be had; it is that of the reading."""
    try:
        scheduler.set_timesteps(4)
        t, x = scheduler.timesteps[1], start()
        _ = scheduler.scale_model_input(x, scheduler.timesteps[0]), scheduler.step(F, scheduler.timesteps[0], x)
        inner = scheduler.scale_model_input(x, t)
        out = scheduler.step(F, t, x)
    except Exception:  # over a key of the sampler
        return False
    theirs = out.denoised if hasattr(out, "denoised") else out.pred_original_sample
    process = schedule.process
    at = (t.double() + 1) / len(process.alpha_bar) if isinstance(process, Chain) else scheduler.sigmas[1].double()
    state = x if isinstance(process, ud.EDM) else inner
    _, c_skip, c_out = schedule.reading.coefficients(process, at)
    D = c_skip * state + c_out * F
    clip, scale = schedule.reading.clip, float(theirs.abs().max())
    if not math.isfinite(scale):
        return False
    assert float(((D if clip is None else clip(D)) - theirs).abs().max()) < 2e-4 * max(1.0, scale)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [few_values, changed_file])
def test_500_mutated_configurations_are_refused_or_equal(mutate: Any) -> None:
    chance, read, compared, F = random.Random(0), 0, 0, start(seed=9)
    for _ in range(500):
        name = chance.choice(sorted(AVAILABLE))
        config = mutate(chance, name)
        try:
            schedule = Schedule.from_config(name, config)
        except InputError:
            continue
        parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
        try:
            scheduler = getattr(diffusers, name)(**{k: v for k, v in config.items() if k in parameters})
        except Exception:  # over a key of the sampler: there are no numbers
            continue
        read += 1
        same_numbers(schedule, scheduler)
        compared += name in DENOISED and same_denoiser(schedule, scheduler, F)
    assert read > 100 and compared > 10


@pytest.mark.slow
def test_reading_a_configuration_imports_nothing_of_diffusers() -> None:
    code = ("from undiffuse.interop.schedules import Schedule; import undiffuse, sys; undiffuse.from_diffusers; "
            "sys.exit(bool({'diffusers', 'transformers'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Point(torch.nn.Module):
    """The exact ε of the data 0.3, (x − 0.3 α)/σ at index c."""

    def __init__(self, sde: Chain) -> None:
        super().__init__()
        self.sde, self.config = sde, None

    def forward(self, x: Any, t: Any, class_labels: Any = None) -> Any:
        at = (torch.as_tensor(t).double().reshape(-1, 1, 1, 1) + 1) / 1000
        return type("Output", (), {"sample": ((x - 0.3 * self.sde.alpha(at)) / self.sde.sigma(at)).to(x.dtype)})


@pytest.mark.parametrize("schedule", ["linear", "squaredcos_cap_v2"])
def test_the_default_sampler_starts_from_noise_and_is_exact_for_a_point(schedule: str) -> None:
    scheduler = DDPM(beta_schedule=schedule, clip_sample=False)
    model = model_of(scheduler, Point(Schedule.from_config("DDPMScheduler", dict(scheduler.config)).process))
    model.source, model.transform = "a pipeline", GreyLevels(256)
    for steps in (1, 4, 19):
        out = ud.sample(model, 2, steps=steps)
        assert out.method == "deis_3" and out.nfe == steps + 1 and out.start_level == max(16, 4 * (steps + 1))
        torch.testing.assert_close(out.z, torch.full_like(out.z, 0.3), rtol=0, atol=1e-4)
    x0 = 255 * torch.rand(1, *SHAPE)  # from data, the state is not noise: no such first step
    assert ud.sample(model, x0=x0, strength=0.5, steps=8).nfe == 4
    assert ud.sample(model, 2, "deis_3", 4).nfe == 5 and not ud.sample(model, 2, grid="karras", steps=4).start_level


@pytest.mark.parametrize("method", ["auto", "consistency"])
def test_the_scheduler_takes_the_defaults(method: str) -> None:
    scheduler = DDPM(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    net = Point(Schedule.from_config("DDPMScheduler", dict(scheduler.config)).process)
    pipe = diffusers.DDPMPipeline(unet(), scheduler)
    ours = ud.scheduler(pipe, method)
    ours.set_timesteps(6)
    assert len(ours.timesteps) == 6
    x, _ = theirs(net, ours, start())
    torch.testing.assert_close(x, torch.full_like(x, 0.3), rtol=0, atol=2e-3)


@pytest.mark.slow
def test_the_default_sampler_of_a_noise_prediction_on_a_cosine_chain_is_finite() -> None:
    scheduler = DDPM(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    model = model_of(scheduler, unet())
    for steps in (1, 2, 5, 20, 50):
        assert ud.sample(model, 2, steps=steps).x.isfinite().all()
    scheduler.set_timesteps(10)
    assert theirs(unet(), scheduler, start())[0].isfinite().all() and "ddim" in ALL
