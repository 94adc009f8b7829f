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

from undiffuse.errors import InputError
from undiffuse.model import Denoiser, Model, ReverseModel, Wrapper
from undiffuse.samplers.exponential import after, gaussian_flow_step
from undiffuse.samplers.method import Method, SamplerContext, Step
from undiffuse.samplers.registry import ALL
from undiffuse.sde import as_time

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
    """

    method: str
    grid: str
    start_level: float | None = None
    from_moments: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return describe(self.method, self.grid, self.start_level)

    def build(self) -> Method:
        """The sampler of this entry."""
        method, options = ALL[self.method], dict(self.options)

        def make(context: SamplerContext) -> Step:
            if not self.from_moments:
                return method.step(context, options)
            if context.moments is None:
                raise InputError("got a model without the data's moments for a sampler that starts from them")
            rest = method.step(replace(context, nodes=context.nodes[1:]), options)
            return after(gaussian_flow_step(context.moments), rest)

        return replace(method, make=make, grid=self.grid, start_level=self.start_level,
                       first_step_free=self.from_moments)


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

IMAGES = {
    "auto": {1: DefaultSampler("dpmpp_2m", "karras"), 7: DefaultSampler("dpmpp_2m_sde", "karras"),
             19: DefaultSampler("dpmpp_2m_sde", "log_snr")},
    "sde": {1: DefaultSampler("dpmpp_2m_sde", "karras"), 19: DefaultSampler("dpmpp_2m_sde", "log_snr")}}
"""For networks trained on images, whose own errors outweigh the solver's: the Fréchet distances of
`python -m benchmarks few RUN` on MNIST and Fashion-MNIST. With enough steps noise corrects some of those errors."""
DRIFT_ONLY = {"auto": "heun", "sde": "euler_maruyama"}
"""For models that are not denoisers."""


def default_sampler(model: Model, steps: int, end_times: EndTimes = (None, None), conditional: bool = False,
                    kind: str = "auto", images: bool | None = None) -> DefaultSampler:
    """The default sampler for a number of model evaluations.

    Args:
        model: the denoiser.
        steps: number of evaluations.
        end_times: t_start and t_end of the request.
        conditional: there are conditions; the moments describe the unconditional data only.
        kind: "auto", or "sde" for a stochastic sampler.
        images: use the table for image networks; None: if the model is one.
    """
    if is_image_network(model) if images is None else images:
        return _entry(IMAGES[kind], steps)
    with_moments, plain = TABLES[kind]
    entry = _entry(with_moments, steps)
    usable = not entry.from_moments or (not conditional and _can_start_from_moments(model, entry, end_times))
    return entry if usable else _entry(plain, steps)


def is_image_network(model: ReverseModel) -> bool:
    """Whether the model, or the one that it wraps, is a network for images."""
    while isinstance(model, Wrapper):
        model = model.inner
    return isinstance(model, Denoiser) and len(model.shape) == 3


def _entry(table: dict[int, DefaultSampler], steps: int) -> DefaultSampler:
    return table[max((n for n in table if n <= steps), default=1)]


def _can_start_from_moments(model: Model, entry: DefaultSampler, end_times: EndTimes) -> bool:
    """Whether the moments describe the distribution of the model, and the start level lies between the end times."""
    moments, sde, level = model.moments, model.sde, entry.start_level
    if moments is None or not model.moments_are_exact or moments.kind != "pca" or not moments.complete or level is None:
        return False
    high, low = (float(sde.log_snr(as_time(default if t is None else t)))
                 for t, default in zip(end_times, (model.t_start(), model.t_end()), strict=True))
    return high + 1e-6 < -math.log(level * model.sigma_data) < low - 1e-6
