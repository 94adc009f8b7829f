"""The default: which sampler and which grid for how many evaluations.

Both tables were chosen by a search over samplers, grids and starts on 10 mixtures: 7 in the plane (several kinds and
scales), 3 fitted to digits in 64 dimensions; one with the data's moments, where no evaluation is spent above `first`
deviations of the data, and one without. `python -m benchmarks auto` compares the default with published samplers on
laws that the search has not seen: there it is not ahead in every cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from undiffuse.errors import InputError
from undiffuse.model import Model, ReverseModel, Wrapper
from undiffuse.samplers.exponential import after, gaussian_flow_step
from undiffuse.samplers.method import Method, SamplerContext, Step
from undiffuse.samplers.registry import ALL
from undiffuse.sde import as_time

Ends = tuple[float | None, float | None]
"""t_start and t_end as the user gave them."""


@dataclass(frozen=True)
class Choice:
    """A sampler, its grid, and the level σ̂ = first · sigma_data at which that begins after one step, a jump or not."""

    method: str
    grid: str
    first: float | None = None
    jump: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        level = "" if self.first is None else f" from {self.first:g} deviations of the data"
        return f"{self.method} on {self.grid}{level}"

    def made(self) -> Method:
        """The sampler of this choice."""
        method, options = ALL[self.method], dict(self.options)

        def make(plan: SamplerContext) -> Step:
            if not self.jump:
                return method.step(plan, options)
            if plan.frame is None:
                raise InputError("got a model without the data's moments for a sampler that starts from them")
            return after(gaussian_flow_step(plan.frame), method.step(replace(plan, nodes=plan.nodes[1:]), options))

        return replace(method, make=make, grid=self.grid, first=self.first, free=self.jump)


LOWER = (("lower_final", True),)
WITH_MOMENTS = {
    1: Choice("dpm_solver_2m", "karras", 3, jump=True),
    6: Choice("dpm_solver_2m", "karras(9)", 4, jump=True),
    7: Choice("deis_3", "karras(9)", 7, jump=True),
    8: Choice("deis_3", "karras(12)", 14, jump=True),
    10: Choice("deis_3", "karras", 10, jump=True),
    13: Choice("deis_3", "karras(9)", 14, jump=True),
    18: Choice("unipc_4_noise", "karras(12)", 12, jump=True, options=LOWER),
    24: Choice("unipc_4_noise", "karras(20)", 20, jump=True),
    45: Choice("unipc_4_noise", "log_snr", 35, jump=True),
    60: Choice("unipc_4_noise", "log_snr"),
    90: Choice("unipc_5_noise", "log_snr"),
}
PLAIN = {
    1: Choice("unipc", "time_quadratic", options=LOWER),
    8: Choice("deis_3", "karras(12)", 12),
    10: Choice("deis_3", "karras", 12),
    15: Choice("deis_3", "karras(20)", 35),
    18: Choice("unipc_4_noise", "karras(20)", options=LOWER),
    30: Choice("unipc_4_noise", "log_snr", options=LOWER),
    45: Choice("unipc_4_noise", "log_snr"),
    90: Choice("unipc_5_noise", "log_snr"),
}
"""Fewest evaluations -> what `auto` uses from there on."""


def _noisy(eta: float, first: float | None = None, jump: bool = False) -> Choice:
    return Choice("sde_then_ode", "log_snr", first, jump, (("eta", eta),))


SDE_WITH_MOMENTS = {1: _noisy(0.25, 4, True), 6: _noisy(0.35, 4, True), 10: _noisy(0.7, 4, True), 45: _noisy(1.0),
                    80: Choice("dpmpp_2m_sde", "log_snr")}
SDE_PLAIN = {1: _noisy(0.5, 12), 45: _noisy(1.0), 80: Choice("dpmpp_2m_sde", "log_snr")}
"""The same for `sde`, the default stochastic sampler: the least distances of `python -m benchmarks stochastic` on four
laws among η from ¼ to 1, levels where the noise ends from .07 to .2 deviations of the data, and starts from 3 to 10."""
TABLES = {"auto": (WITH_MOMENTS, PLAIN), "sde": (SDE_WITH_MOMENTS, SDE_PLAIN)}

IMAGES = {
    "auto": {1: Choice("dpmpp_2m", "karras"), 7: Choice("dpmpp_2m_sde", "karras"),
             19: Choice("dpmpp_2m_sde", "log_snr")},
    "sde": {1: Choice("dpmpp_2m_sde", "karras"), 19: Choice("dpmpp_2m_sde", "log_snr")}}
"""For networks that learned images, whose own errors outweigh the solver's: the Fréchet distances of
`python -m benchmarks few RUN` on MNIST and Fashion-MNIST. Noise undoes some of those errors, where there are steps
enough for it."""


def default_sampler(model: ReverseModel, steps: int, ends: Ends, given: bool, kind: str = "auto") -> tuple[str, Method]:
    """The name and the sampler for so many evaluations, of kind auto or sde (with noise).

    given: there are conditions, of which moments say nothing.
    """
    if not isinstance(model, Model):
        name = {"auto": "heun", "sde": "euler_maruyama"}[kind]
        return name, ALL[name]
    if model.learned_images:
        choice = _row(IMAGES[kind], steps)
        return str(choice), choice.made()
    jumping, plain = TABLES[kind]
    choice = _row(jumping, steps)
    if choice.jump and (given or not _jumps(model, choice.first, ends)):
        choice = _row(plain, steps)
    return str(choice), choice.made()


def _row(table: dict[int, Choice], steps: int) -> Choice:
    return table[max((n for n in table if n <= steps), default=1)]


def _jumps(model: Model, first: float | None, ends: Ends) -> bool:
    """Whether the moments are those of the model's law, and the level where a jump leads lies between the ends."""
    frame, sde = model.moments, model.sde
    if isinstance(model, Wrapper) or frame is None or frame.kind != "pca" or not frame.complete or first is None:
        return False
    high, low = (float(sde.log_snr(as_time(own if t is None else t)))
                 for t, own in zip(ends, (sde.T, model.t_end()), strict=True))
    return high + 1e-6 < -math.log(first * model.sigma_data) < low - 1e-6

