"""What a network was trained on, by the configuration of its diffusers scheduler: the process and the `Reading`.

Of a configuration only some keys say what the network means; the others choose a sampler. Foreign index i = 0 ... N − 1
is t = (i + 1)/N. Nothing of diffusers is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from undiffuse.chains import Chain
from undiffuse.errors import InputError, did_you_mean
from undiffuse.predictions import Clip, Reading
from undiffuse.processes import EDM, VE, RectifiedFlow
from undiffuse.sde import GaussianSDE

_BETAS: dict[str, Any] = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
                          "trained_betas": None, "prediction_type": "epsilon"}
_LATENT = {**_BETAS, "beta_start": 0.00085, "beta_end": 0.012}
_ZERO = {"rescale_betas_zero_snr": False}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_NO_CLIP = {**_CLIP, "clip_sample": False}
_LIMITS = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_VARIANCE = {"variance_type": "fixed_small"}
_FLOW = {"use_flow_sigmas": False}
_EDM = {"prediction_type": "epsilon", "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
_CONSISTENT = {**_LATENT, "beta_schedule": "scaled_linear", **_ZERO, **_NO_CLIP, **_LIMITS}

CLASSES: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {**_BETAS, **_ZERO, **_CLIP, **_LIMITS},
    "DDIMParallelScheduler": {**_BETAS, **_ZERO, **_CLIP, **_LIMITS},
    "DDPMScheduler": {**_BETAS, **_ZERO, **_CLIP, **_LIMITS, **_VARIANCE},
    "DDPMParallelScheduler": {**_BETAS, **_ZERO, **_CLIP, **_LIMITS, **_VARIANCE},
    "DPMSolverMultistepScheduler": {**_BETAS, **_ZERO, **_LIMITS, **_FLOW},
    "DPMSolverSinglestepScheduler": {**_BETAS, **_LIMITS, **_FLOW},
    "DEISMultistepScheduler": {**_BETAS, **_LIMITS, **_FLOW},
    "UniPCMultistepScheduler": {**_BETAS, **_ZERO, **_LIMITS, **_FLOW},
    "SASolverScheduler": {**_BETAS, **_LIMITS, **_FLOW},
    "EulerDiscreteScheduler": {**_BETAS, **_ZERO, "timestep_type": "discrete"},
    "EulerAncestralDiscreteScheduler": {**_BETAS, **_ZERO},
    "HeunDiscreteScheduler": {**_LATENT, **_NO_CLIP},
    "KDPM2DiscreteScheduler": _LATENT,
    "KDPM2AncestralDiscreteScheduler": _LATENT,
    "LMSDiscreteScheduler": _BETAS,
    "PNDMScheduler": _BETAS,
    "LCMScheduler": _CONSISTENT,
    "TCDScheduler": _CONSISTENT,
    "EDMEulerScheduler": _EDM,
    "EDMDPMSolverMultistepScheduler": {**_EDM, **_LIMITS},
    "CosineDPMSolverMultistepScheduler": {"prediction_type": "v_prediction", "sigma_data": 1.0, "sigma_min": 0.3,
                                          "sigma_max": 500},
    "FlowMatchEulerDiscreteScheduler": {"num_train_timesteps": 1000, "invert_sigmas": False},
    "FlowMatchHeunDiscreteScheduler": {"num_train_timesteps": 1000},
    "ScoreSdeVeScheduler": {"sigma_min": 0.01, "sigma_max": 1348.0},
}
"""The keys of a configuration that say what a network means, with their defaults, by class of scheduler."""
_CHANGES_NETWORK = {**_ZERO, **_FLOW, "invert_sigmas": False, "timestep_type": "discrete", "snr_shift_scale": None}
"""The values of keys that a class may lack, for which its network is the same as without the key."""
_SAMPLER_KEYS = frozenset((*_BETAS, *_CLIP, *_LIMITS)) | {
    "algorithm_type", "base_image_seq_len", "base_shift", "clip_denoised", "correct_steps", "corrector_order",
    "disable_corrector", "euler_at_final", "eta", "final_sigmas_type", "flow_shift", "interpolation_type",
    "lambda_min_clipped", "lower_order_final", "max_image_seq_len", "max_shift", "n_grid", "noise_sampler_seed",
    "num_inference_steps", "original_inference_steps", "predict_x0", "predictor_order", "rho", "sampling_eps",
    "s_churn", "s_max", "s_min", "s_noise", "s_tmax", "s_tmin", "set_alpha_to_one", "shift", "shift_terminal",
    "sigma_data", "sigma_max", "sigma_min", "sigma_schedule", "skip_prk_steps", "snr", "solver_order",
    "solver_p", "solver_type", "steps_offset", "stochastic_sampling", "tau_func", "time_shift_type",
    "timestep_scaling", "timestep_spacing", "use_beta_sigmas", "use_dynamic_shifting", "use_exponential_sigmas",
    "use_karras_sigmas", "use_lu_lambdas", "variance_type",
}
PREDICTION_NAMES = {"epsilon": "noise", "sample": "data", "original_sample": "data", "v_prediction": "v",
                    "flow_prediction": "velocity"}


@dataclass(frozen=True)
class Schedule:
    """What a network was trained on: the process, the reading, and where each number came from.

    Args:
        process: the Gaussian process.
        reading: what the network takes and means.
        source: one line.
    """

    process: GaussianSDE
    reading: Reading
    source: str

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Schedule:
        """The schedule of a diffusers scheduler.

        Args:
            name: name of its class.
            config: its configuration, the content of scheduler_config.json.

        Raises:
            InputError: for an unknown class or key, and for values that do not say what the network means.
        """
        values = _network_values(name, config)
        if name == "ScoreSdeVeScheduler":
            process: GaussianSDE = VE(_number(values, "sigma_min", 0), _number(values, "sigma_max", 0))
            reading = Reading("gradient", clock="sigma", scaled_input=False)
        elif "sigma_data" in values:
            process, reading = _edm(name, values)
        elif name.startswith("FlowMatch") or values.get("use_flow_sigmas"):
            process, reading = _flow(name, values)
        else:
            process, reading = _chain(name, values)
        about = ", ".join(f"{k}={'...' if k == 'trained_betas' and v else v}" for k, v in values.items() if k in config)
        low, high = (math.exp(-float(process.log_snr(t))) for t in (process.time_of(-math.log(max(
            reading.levels[0], 1e-8))), process.T))
        clip = reading.clip
        limits = "off" if clip is None else f"to ±{clip.bound:g}" + f", by the quantile {clip.quantile:g}" * (
            clip.quantile < 1)
        return cls(process, reading, f"{name}: {about or 'its defaults'}; noise levels {low:.4g} to {high:.4g}; clip "
                                     f"{limits}")


def _network_values(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the keys that say what the network means."""
    if name not in CLASSES:
        raise InputError(f"got the scheduler {name[:60]!r}; expected one of {', '.join(CLASSES)}"
                         f"{did_you_mean(name, CLASSES)}; use ud.foreign(net, process=, predict=, clock=, shape=)")
    for key, value in config.items():
        if key in CLASSES[name] or key.startswith("_"):
            continue
        if key in _CHANGES_NETWORK and value not in (_CHANGES_NETWORK[key], None):
            raise InputError(f"got {key}={value!r} in the configuration of {name}, which has no such key; name the "
                             "scheduler that the network was trained with")
        if key not in _CHANGES_NETWORK and key not in _SAMPLER_KEYS:
            raise InputError(f"got the key {key[:60]!r} in the configuration of {name}, which this version does not "
                             "know; remove it if it does not change what the network predicts")
    return {key: config.get(key, default) for key, default in CLASSES[name].items()}


def _chain(name: str, values: Mapping[str, Any]) -> tuple[GaussianSDE, Reading]:
    """A chain of noise levels."""
    prediction = _choice(values, "prediction_type", [k for k in PREDICTION_NAMES if k != "flow_prediction"])
    chain = Chain(tuple(alpha_bar_of(values, name).tolist()))
    n, kind = len(chain.alpha_bar), "consistency" if name in ("LCMScheduler", "TCDScheduler") else "denoiser"
    clock: tuple[str, float, float] = ("time", float(n), -1.0)
    if values.get("timestep_type", "discrete") != "discrete":
        if _choice(values, "timestep_type", ["continuous"]) and prediction != "v_prediction":
            raise InputError("got timestep_type='continuous' without prediction_type='v_prediction'; expected both")
        clock = ("quarter_log", 1.0, 0.0)
    levels = torch.exp(-chain.levels[[0, -1]]).tolist()
    return chain, Reading(PREDICTION_NAMES[prediction], 1.0, *clock, scaled_input=False, levels=(levels[0], levels[1]),
                          clip=_clip(values), kind=kind)


def _flow(name: str, values: Mapping[str, Any]) -> tuple[GaussianSDE, Reading]:
    """A straight flow, whose time is σ."""
    if values.get("prediction_type", "flow_prediction") != "flow_prediction":
        raise InputError(f"got use_flow_sigmas with prediction_type={values['prediction_type']!r} for {name}; expected "
                         "flow_prediction")
    if values.get("invert_sigmas"):
        raise InputError("got invert_sigmas; expected sigmas that are the noise level")
    n = _whole(values, "num_train_timesteps")
    return RectifiedFlow(), Reading("velocity", 1.0, "time", float(n), scaled_input=False, levels=(1 / n, math.inf),
                                    clip=_clip(values))


def _edm(name: str, values: Mapping[str, Any]) -> tuple[GaussianSDE, Reading]:
    """EDM's preconditioning; the cosine form has another clock."""
    sigma_data, low, high = (_number(values, key, 0) for key in ("sigma_data", "sigma_min", "sigma_max"))
    prediction = {"epsilon": "edm", "v_prediction": "edm_v"}[_choice(values, "prediction_type",
                                                                     ["epsilon", "v_prediction"])]
    if not low < high:
        raise InputError(f"got sigma_min={low} and sigma_max={high}; expected sigma_min < sigma_max")
    clock = "arctan" if name.startswith("Cosine") else "quarter_log"
    return EDM(high), Reading(prediction, sigma_data, clock, levels=(low, high), clip=_clip(values))


def _clip(values: Mapping[str, Any]) -> Clip | None:
    """The limits of the denoised sample."""
    if _flag(values, "thresholding"):
        ratio = _number(values, "dynamic_thresholding_ratio", 0)
        if ratio > 1:
            raise InputError(f"got dynamic_thresholding_ratio={ratio}; expected a number from 0 to 1")
        return Clip(_number(values, "sample_max_value", 0), min(ratio, 1 - 1e-12))
    return Clip(_number(values, "clip_sample_range", 0)) if _flag(values, "clip_sample") else None


def alpha_bar_of(values: Mapping[str, Any], name: str = "") -> Tensor:
    """ᾱ (N,) float64, computed in float32 as diffusers does; the last one is 0 after rescaling.

    Args:
        values: beta_schedule, beta_start, beta_end, trained_betas, num_train_timesteps, rescale_betas_zero_snr.
        name: class of the scheduler, because some schedules belong to one class.
    """
    betas = _betas(values, name)
    if not bool(((betas > 0) & (betas <= 1)).all()) or bool((betas[:-1] == 1).any()):  # 1: ends in pure noise
        raise InputError("got a schedule with β outside (0, 1); expected 0 < beta_start, beta_end < 1")
    bar = torch.cumprod(1 - betas, 0)
    if _flag(values, "rescale_betas_zero_snr"):
        root = bar.sqrt()
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        bar = root**2
        bar = torch.cumprod(1 - (1 - torch.cat([bar[:1], bar[1:] / bar[:-1]])), 0)
    return bar.double()


def _betas(values: Mapping[str, Any], name: str) -> Tensor:
    """β (N,), float32."""
    if values["trained_betas"] is not None:
        try:
            betas = torch.tensor(values["trained_betas"], dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise InputError("got trained_betas that are not a list of numbers") from None
        if betas.ndim != 1 or not len(betas):
            raise InputError(f"got trained_betas of shape {tuple(betas.shape)}; expected a list of numbers")
        return betas
    n, low, high = _whole(values, "num_train_timesteps"), *(_number(values, k, 0) for k in ("beta_start", "beta_end"))
    formulas: dict[str, Callable[[], Tensor]] = {
        "linear": lambda: torch.linspace(low, high, n, dtype=torch.float32),
        "scaled_linear": lambda: torch.linspace(low**0.5, high**0.5, n, dtype=torch.float32) ** 2,
        "squaredcos_cap_v2": lambda: _capped(n, lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2)}
    if name.startswith("DDPM"):
        formulas |= {"sigmoid": lambda: torch.sigmoid(torch.linspace(-6, 6, n)) * (high - low) + low,
                     "laplace": lambda: _capped(n, _laplace)}
    if name.startswith("Heun"):
        formulas["exp"] = lambda: _capped(n, lambda t: math.exp(-12 * t))
    return formulas[_choice(values, "beta_schedule", list(formulas))]()


def _capped(n: int, bar: Callable[[float], float]) -> Tensor:
    """β_i = min(1 − ᾱ((i+1)/n)/ᾱ(i/n), 0.999)."""
    return torch.tensor([min(1 - bar((i + 1) / n) / bar(i / n), 0.999) for i in range(n)], dtype=torch.float32)


def _laplace(t: float) -> float:
    """√(snr/(1 + snr)), log snr = −½ sgn(½ − t) log(1 − 2|½ − t| + 1e−6)."""
    snr = math.exp(-0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * math.fabs(0.5 - t) + 1e-6))
    return math.sqrt(snr / (1 + snr))


def _number(values: Mapping[str, Any], key: str, above: float) -> float:
    """The number of a key, above a limit."""
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise InputError(f"got {key}={value!r}; expected a number above {above:g}")
    return float(value)


def _whole(values: Mapping[str, Any], key: str) -> int:
    """The whole number ≥ 2 of a key."""
    value = values[key]
    if type(value) is not int or not 2 <= value <= 1_000_000:
        raise InputError(f"got {key}={value!r}; expected a whole number of at least 2")
    return value


def _flag(values: Mapping[str, Any], key: str) -> bool:
    """True or False; False for a key that the class lacks."""
    value = values.get(key, False)
    if not isinstance(value, bool) and value is not None:
        raise InputError(f"got {key}={value!r}; expected true or false")
    return bool(value)


def _choice(values: Mapping[str, Any], key: str, allowed: list[str]) -> str:
    """The name of a key, one of a few."""
    value = values[key]
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"got {key}={value!r}; expected one of {', '.join(allowed)}")
    return value


def dynamic_shift(config: Mapping[str, Any], shape: tuple[int, ...]) -> float | None:
    """The shift μ of a flow by the size of its images, linear in the number of patches of 2x2; None without one.

    Args:
        config: the configuration of its scheduler.
        shape: shape of a state.
    """
    if not config.get("use_dynamic_shifting"):
        return None
    low, high = (float(config.get(f"{name}_image_seq_len", n)) for name, n in (("base", 256), ("max", 4096)))
    base, top = float(config.get("base_shift", 0.5)), float(config.get("max_shift", 1.15))
    return base + (top - base) * (math.prod(shape[1:]) / 4 - low) / (high - low)


def times_of(schedule: Schedule, scheduler: Any) -> tuple[Tensor, bool]:
    """The times of a diffusers scheduler after `set_timesteps`, and whether it ends at zero noise.

    Args:
        schedule: the `Schedule` of its configuration.
        scheduler: the scheduler object.
    """
    config, process = dict(scheduler.config), schedule.process
    sigmas = getattr(scheduler, "sigmas", None)
    fitted = any(config.get(f"use_{k}") for k in ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas"))
    if isinstance(process, Chain) and not fitted:
        times = (scheduler.timesteps.double() + 1) / len(process.alpha_bar)
    else:
        times = process.time_of(-torch.as_tensor(sigmas)[:-1].double().log()) if not isinstance(
            process, RectifiedFlow) else torch.as_tensor(sigmas)[:-1].double()
    times = torch.unique(times.cpu()).flip(0)
    ends = getattr(scheduler, "final_alpha_cumprod", None)
    if type(scheduler).__name__ == "TCDScheduler":
        ends = 0.0  # its last step leads to index 0
    to_zero = float(ends) == 1 if ends is not None else sigmas is None or float(sigmas[-1]) == 0
    return (times, True) if to_zero else (torch.cat([times, times.new_tensor([1 / len(scheduler.alphas_cumprod)])]),
                                          False)
