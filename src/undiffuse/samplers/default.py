"""The default samplers: which method and grid for a number of model evaluations.

The tables were chosen by a search over samplers, grids and starts on 10 mixtures: 7 in the plane (several kinds and
scales), 3 fitted to digits in 64 dimensions; one with the data's moments, where no evaluation is spent above
`start_level`, and one without. `python -m benchmarks auto` compares the defaults with published samplers on
distributions outside the search: there they are not the best in every cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from undiffuse.chains import LevelTable
from undiffuse.errors import InputError
from undiffuse.model import Denoiser, Model, ReverseModel
from undiffuse.moments import SPECTRAL
from undiffuse.predictions import UNDEFINED_AT_ZERO
from undiffuse.samplers.exponential import after, from_noise, gaussian_flow_step, scale_noise
from undiffuse.samplers.method import Method, SamplerContext, Step, innermost
from undiffuse.samplers.registry import ALL
from undiffuse.sde import as_time
from undiffuse.transforms.base import GreyLevels
from undiffuse.transforms.codec import Codec

EndTimes = tuple[float | None, float | None]
"""t_start and t_end of a request; None: the model's defaults."""


@dataclass(frozen=True)
class DefaultSampler:
    """An entry of the tables.

    Args:
        method: name in `ALL`.
        grid: name of the time grid.
        start_level: noise level σ̂ / sigma_data to which the first step leads; None: an even grid from T.
        from_moments: the first step is the Gaussian flow of the data's moments, without a model evaluation.
        options: options of the method.
        from_noise: the first step scales noise to the start level, and the second is that of `from_noise`.
        ends_early: where the denoised state follows, the last node is the one before the end of the grid.
    """

    method: str
    grid: str
    start_level: float | None = None
    from_moments: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    from_noise: bool = False
    ends_early: bool = False

    def __str__(self) -> str:
        return describe(self.method, self.grid, self.start_level)

    def build(self) -> Method:
        """The sampler of this entry."""
        method, options = ALL[self.method], dict(self.options)

        def make(context: SamplerContext) -> Step:
            if self.from_noise:
                return after(scale_noise, from_noise(method.step(replace(context, nodes=context.nodes[1:]), options)))
            if not self.from_moments:
                return method.step(context, options)
            if context.moments is None:
                raise InputError("got a model without the data's moments for a sampler that starts from them")
            rest = method.step(replace(context, nodes=context.nodes[1:]), options)
            return after(gaussian_flow_step(context.moments), rest)

        return replace(method, make=make, grid=self.grid, start_level=self.start_level,
                       first_step_free=self.from_moments or self.from_noise, ends_early=self.ends_early)


def describe(method: str, grid: str, start_level: float | None) -> str:
    """A sampler in one line.

    Args:
        method: name of the method.
        grid: name of the time grid.
        start_level: noise level in standard deviations of the data to which the first step leads; None: not named.
    """
    return f"{method} on {grid}" + ("" if start_level is None else f" from {start_level:g} data std")


LOWER = (("lower_final", True),)
WITH_MOMENTS = {
    1: DefaultSampler("dpm_solver_2m", "karras", 3, from_moments=True),
    6: DefaultSampler("dpm_solver_2m", "karras(9)", 4, from_moments=True),
    7: DefaultSampler("deis_3", "karras(9)", 7, from_moments=True),
    8: DefaultSampler("deis_3", "karras(12)", 14, from_moments=True),
    10: DefaultSampler("deis_3", "karras", 10, from_moments=True),
    13: DefaultSampler("deis_3", "karras(9)", 14, from_moments=True),
    18: DefaultSampler("unipc_4_noise", "karras(12)", 12, from_moments=True, options=LOWER),
    24: DefaultSampler("unipc_4_noise", "karras(20)", 20, from_moments=True),
    45: DefaultSampler("unipc_4_noise", "log_snr", 35, from_moments=True),
    60: DefaultSampler("unipc_4_noise", "log_snr"),
    90: DefaultSampler("unipc_5_noise", "log_snr"),
}
PLAIN = {
    1: DefaultSampler("unipc", "time_quadratic", options=LOWER),
    8: DefaultSampler("deis_3", "karras(12)", 12),
    10: DefaultSampler("deis_3", "karras", 12),
    15: DefaultSampler("deis_3", "karras(20)", 35),
    18: DefaultSampler("unipc_4_noise", "karras(20)", options=LOWER),
    30: DefaultSampler("unipc_4_noise", "log_snr", options=LOWER),
    45: DefaultSampler("unipc_4_noise", "log_snr"),
    90: DefaultSampler("unipc_5_noise", "log_snr"),
}
"""Least number of evaluations -> the sampler of method="auto" from there on."""


def _sde_then_ode(eta: float, start_level: float | None = None, from_moments: bool = False) -> DefaultSampler:
    return DefaultSampler("sde_then_ode", "log_snr", start_level, from_moments, (("eta", eta),))


SDE_WITH_MOMENTS = {
    1: _sde_then_ode(0.25, 4, True), 6: _sde_then_ode(0.35, 4, True), 10: _sde_then_ode(0.7, 4, True),
    45: _sde_then_ode(1.0), 80: DefaultSampler("dpmpp_2m_sde", "log_snr"),
}
SDE_PLAIN = {1: _sde_then_ode(0.5, 12), 45: _sde_then_ode(1.0), 80: DefaultSampler("dpmpp_2m_sde", "log_snr")}
"""The tables of method="sde", the default stochastic sampler: smallest distances of `python -m benchmarks stochastic`
on four distributions among η from ¼ to 1, noise that ends at .07 to .2 standard deviations of the data, and starts from
3 to 10 of them."""
TABLES = {"auto": (WITH_MOMENTS, PLAIN), "sde": (SDE_WITH_MOMENTS, SDE_PLAIN)}

_FRAME = (("frame", True),)
ARRAYS = {"auto": DefaultSampler("dpmpp_2m", "log_snr", options=_FRAME),
          "sde": DefaultSampler("dpmpp_2m_sde", "log_snr", options=_FRAME)}
"""For arrays: methods that integrate the Gaussian part of the data exactly. On fields tanh(2 g) of 16 x 16 with a U-Net
the power in every band is within 3 % of the data's at 10 evaluations; that of the samplers for images is 31 % above it,
and 4 % at 20."""

IMAGES = {
    "auto": {1: DefaultSampler("dpmpp_2m", "karras"), 7: DefaultSampler("dpmpp_2m_sde", "karras"),
             19: DefaultSampler("dpmpp_2m_sde", "log_snr")},
    "sde": {1: DefaultSampler("dpmpp_2m_sde", "karras"), 19: DefaultSampler("dpmpp_2m_sde", "log_snr")}}
"""For networks trained on images, whose own errors outweigh the solver's: the Fréchet distances of
`python -m benchmarks few RUN` on MNIST and Fashion-MNIST. With enough steps noise corrects some of those errors."""
LATENTS = DefaultSampler("dpmpp_2m", "karras", ends_early=True)
FLOWS = DefaultSampler("unipc", "cosine_log_snr")
PIXELS = DefaultSampler("deis_3", "karras", ends_early=True)
"""For pretrained networks, whose path is the standard: without noise. PIXELS and the rule for its start were chosen on
a U-Net trained on digits with another seed than that of `python -m benchmarks pretrained`."""
DRIFT_ONLY = {"auto": "heun", "sde": "euler_maruyama"}
"""For models that are not denoisers."""


def default_sampler(model: Model, steps: int, end_times: EndTimes = (None, None), conditional: bool = False,
                    kind: str = "auto", images: bool | None = None, from_noise: bool = True) -> DefaultSampler:
    """The default sampler for a number of model evaluations.

    Args:
        model: the denoiser.
        steps: number of evaluations.
        end_times: t_start and t_end of the request.
        conditional: there are conditions; the moments describe the unconditional data only.
        kind: "auto", or "sde" for a stochastic sampler.
        images: use the table for image networks; None: if the model is one.
        from_noise: the states at the start are noise.
    """
    network = innermost(model)
    if kind == "auto" and isinstance(network, Denoiser) and network.source and len(model.shape) == 3:
        return _pretrained(network, steps, end_times if from_noise else None)
    if images is None and _has_waves(model):
        return ARRAYS[kind]
    if is_image_network(model) if images is None else images:
        return _entry(IMAGES[kind], steps)
    with_moments, plain = TABLES[kind]
    entry = _entry(with_moments, steps)
    usable = not entry.from_moments or (not conditional and _can_start_from_moments(model, entry, end_times))
    return entry if usable else _entry(plain, steps)


def _has_waves(model: Model) -> bool:
    """Whether the model is one of arrays whose moments can be integrated."""
    return model.moments is not None and (model.array is not None or model.moments.kind in SPECTRAL)


def is_image_network(model: ReverseModel) -> bool:
    """Whether the model, or the one that it wraps, is a network for images."""
    return isinstance(innermost(model), Denoiser) and len(model.shape) == 3


def _pretrained(net: Denoiser, steps: int, end_times: EndTimes | None) -> DefaultSampler:
    """The default of a pretrained network.

    A noise prediction of pixels starts where the noise of the mean over an image is that of the data, σ̂/√pixels =
    2 sigma_data, or at 4 sigma_data times the number of evaluations if that is higher.
    """
    if net.prediction_type == "velocity":
        return FLOWS
    if isinstance(net.transform, Codec) or (net.scheduler is not None and not isinstance(net.transform, GreyLevels)):
        return LATENTS
    level = 2 * max(math.sqrt(math.prod(net.shape[1:])), 2 * (steps + 1))
    low = end_times is not None and -math.log(level * net.sigma_data) > float(net.sde.log_snr(
        as_time(net.t_start() if end_times[0] is None else end_times[0]))) + 1e-6
    if low and isinstance(net.sde, LevelTable) and net.prediction_type in UNDEFINED_AT_ZERO:
        return replace(PIXELS, start_level=level, from_noise=True)
    return PIXELS


def _entry(table: dict[int, DefaultSampler], steps: int) -> DefaultSampler:
    return table[max((n for n in table if n <= steps), default=1)]


def _can_start_from_moments(model: Model, entry: DefaultSampler, end_times: EndTimes) -> bool:
    """Whether the moments describe the distribution of the model, and the start level lies between the end times."""
    moments, sde, level = model.moments, model.sde, entry.start_level
    if moments is None or not model.moments_are_exact or moments.kind == "dct" or not moments.complete or level is None:
        return False
    high, low = (float(sde.log_snr(as_time(default if t is None else t)))
                 for t, default in zip(end_times, (model.t_start(), model.t_end()), strict=True))
    return high + 1e-6 < -math.log(level * model.sigma_data) < low - 1e-6
