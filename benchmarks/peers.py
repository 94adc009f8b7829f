"""Schedulers of diffusers and samplers of k-diffusion beside our defaults, on the same exact laws, call for call.

Needs the extra `diffusers` (torchsde for one row); `benchmarks.kdiffusion` says what the others need. A scheduler is
given the exact noise prediction at the noise level at which it really is, and scored at the level that it says it ends
at. Flows: the median over coordinates of the distance to the end of the same start's exact path. With noise: the
Kolmogorov-Smirnov distance of the radii inside the modes, and sliced W₂ to fresh draws.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks import kdiffusion
from benchmarks.ends import CLOCK, End, flow_error, judged, starts, steps_for
from benchmarks.measure.laws import digits, modes
from benchmarks.measure.solvers import BUDGETS
from benchmarks.measure.stochastic import FEW, Draws, Score
from undiffuse.errors import MachineError
from undiffuse.mixture import Mixture
from undiffuse.processes import VP
from undiffuse.samplers.driver import sample

SPACINGS: dict[str, dict[str, Any]] = {
    "": {}, "karras": {"use_karras_sigmas": True}, "exponential": {"use_exponential_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}
FLOWS: dict[str, list[dict[str, Any]]] = {
    "DDIMScheduler": [{}], "HeunDiscreteScheduler": [{}], "EulerDiscreteScheduler": [{}], "LMSDiscreteScheduler": [{}],
    "DPMSolverMultistepScheduler": [{"solver_order": 2}, {"solver_order": 3},
                                    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}],
    "DPMSolverSinglestepScheduler": [{"solver_order": 2}, {"solver_order": 3}],
    "UniPCMultistepScheduler": [{"solver_order": 2}, {"solver_order": 3}],
    "DEISMultistepScheduler": [{"solver_order": 2}, {"solver_order": 3}],
}
CHANCE: dict[str, list[dict[str, Any]]] = {
    "DDPMScheduler": [{}], "EulerAncestralDiscreteScheduler": [{}], "KDPM2AncestralDiscreteScheduler": [{}],
    "DPMSolverSDEScheduler": [{}], "SASolverScheduler": [{}],
    "DPMSolverMultistepScheduler": [{"algorithm_type": "sde-dpmsolver++", "solver_order": k} for k in (1, 2, 3)],
}
_CHAIN = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000,
          "timestep_spacing": "linspace"}
_TWO_CALLS = ("Heun", "KDPM2", "DPMSolverSDE")


Run = Callable[[Mixture, int, int], End]
"""(law, calls, n) -> where n samples end with at most so many model calls."""


def entries(table: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, Run]]:
    """Every scheduler of a table with every spacing that it takes: its name, and what runs it."""
    try:
        import diffusers
    except ImportError:
        raise MachineError("diffusers is not installed; pip install 'undiffuse[diffusers]' torchsde") from None
    for name, rows in table.items():
        kind = getattr(diffusers, name)
        taken = inspect.signature(kind.__init__).parameters
        for options in rows:
            for spacing, how in SPACINGS.items():
                if all(key in taken for key in how):
                    words = [name.removesuffix("Scheduler"), *map(str, options.values()), spacing]
                    chain = {key: value for key, value in _CHAIN.items() if key in taken}
                    yield " ".join(words).strip(), partial(run, kind, chain | options | how)


def run(kind: Any, options: dict[str, Any], law: Mixture, calls: int, n: int) -> End:
    """A scheduler from n starts, with at most so many model calls."""
    model, scheduler = law.denoiser(CLOCK), kind(**options)
    scheduler.set_timesteps(steps_for(calls, any(w in kind.__name__ for w in _TWO_CALLS)))
    eps = starts(law, n)
    x, used, start, first = eps * float(scheduler.init_noise_sigma), 0, eps, 0.0
    torch.manual_seed(0)
    for place, t in enumerate(scheduler.timesteps):
        level = _level(scheduler, place, t)
        z = scheduler.scale_model_input(x, t) * math.sqrt(1 + level**2)
        if place == 0:
            start, first = z, level
        noise = (z - model.denoise(z, level)) / level
        x, used = scheduler.step(noise, t, x).prev_sample.double(), used + 1
    last = float(scheduler.sigmas[-1]) if hasattr(scheduler, "sigmas") else 0.0
    in_z = float(scheduler.init_noise_sigma) > 1
    return End(x if in_z else x * math.sqrt(1 + last**2), last, start, first, used)


def _level(scheduler: Any, place: int, t: Any) -> float:
    """σ/α at a step: that of a timestep between those of the chain, the scheduler's own, or that of its chain."""
    chain = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().double().log()
    if torch.is_floating_point(torch.as_tensor(t)):
        low = min(int(t), len(chain) - 2)
        return math.exp(float(chain[low] + (float(t) - low) * (chain[low + 1] - chain[low])))
    return float(scheduler.sigmas[place]) if hasattr(scheduler, "sigmas") else math.exp(float(chain[int(t)]))


def our_flow(law: Mixture, calls: int, n: int) -> float:
    """The default's median distance, down to the same level and with its last evaluation there."""
    model = law.denoiser(VP())
    low = float(model.sde.time_of(torch.tensor(-math.log(0.01), dtype=torch.float64)))
    start = model.sde.prior_std() * starts(law, n)
    ends = [sample(model, method=method, steps=steps, x_T=start, t_end=low, block=n).x
            for method, steps in (("auto", calls - 1), ("rk4_log_snr", 300))]
    return float((ends[0] - ends[1]).abs().median())


def table(law: str = "plane", budgets: str = "", n: str = "128") -> Iterator[str]:
    """For each budget the best entry for flows and ours, then the four best with noise and ours."""
    here, many = {"plane": (modes(0), 10_000), "digits": (digits(0), 1_000)}[law]
    flows, chance = everybody()
    chosen = [int(b) for b in budgets.split(",") if b]
    for calls in chosen or BUDGETS:
        found = [(flow_error(here, go(here, calls, int(n))), label) for label, go in flows]
        error, label = min(pair for pair in found if math.isfinite(pair[0]))
        ours = our_flow(here, calls, int(n))
        yield f"{law:8}{calls:4}  best of {len(found)}: {error:.2e} {label:45} auto {ours:.2e}"
    for calls in chosen or FEW:
        yield f"{law:8}{calls:4}  {_words(Draws(here, many).score('sde', calls))} ours"
        rows = [(judged(here, go(here, calls, many)), label) for label, go in chance]
        for score, label in sorted(rows, key=lambda row: row[0].distance)[:4]:
            yield f"{law:8}{calls:4}  {_words(score)} {label}"
        score, label = min(rows, key=lambda row: row[0].radii)
        yield f"{law:8}{calls:4}  {_words(score)} {label} (the nearest radii)"


def everybody() -> tuple[list[tuple[str, Run]], list[tuple[str, Run]]]:
    """The flows and the samplers with noise of diffusers, and of k-diffusion where that is installed."""
    flows, chance = list(entries(FLOWS)), list(entries(CHANCE))
    if importlib.util.find_spec("k_diffusion") is not None:
        flows += kdiffusion.entries(kdiffusion.FLOWS)
        chance += kdiffusion.entries(kdiffusion.CHANCE)
    return flows, chance


def _words(score: Score) -> str:
    return f"radii {score.radii:.4f} sliced W2 {score.distance:.4f} in {score.evaluations} calls"
