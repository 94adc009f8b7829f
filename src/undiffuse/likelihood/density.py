"""The log-density of model units by one solution of the probability-flow ODE, sample by sample, with its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from undiffuse.likelihood.frame import Frame
from undiffuse.likelihood.integral import MANY, Apart, Joint

_EXACT_UP_TO = 64


@dataclass(frozen=True)
class Settings:
    """How a density is computed: see `log_likelihood`."""

    divergence: str = "auto"
    probes: int = 16
    rtol: float = 1e-5
    atol: float = 1e-5
    seed: int = 0
    truncation: bool = True

    def exact(self, dim: int) -> bool:
        """Whether the divergence is the whole trace."""
        return self.divergence == "exact" or (self.divergence == "auto" and dim <= _EXACT_UP_TO)

    def problem(self, frame: Frame, z: Tensor, first_index: int, keep: int | None, cond: dict[str, Any] | None
                ) -> Joint | Apart:
        """The flow of z with its trace: in one system, or apart where a trace takes many products."""
        given = (frame, z, self.exact(frame.dim), self.probes, self.seed, first_index, keep, cond)
        joint = Joint(*given)
        return Apart(*given) if joint.products > MANY else joint


class Density(NamedTuple):
    """log p (B,) of z, and what it is made of, each (B,): see `Likelihood`."""

    log_prob: Tensor
    stderr: Tensor
    solver: Tensor
    truncation: Tensor
    truncation_error: Tensor
    prior: Tensor
    nfe: Tensor


def density(frame: Frame, z: Tensor, settings: Settings, first_index: int = 0, keep: int | None = None,
            cond: dict[str, Any] | None = None) -> Density:
    """log p(z) for z (B, *event) in model units, z = x_0, of which the first `keep` rows matter."""
    problem = settings.problem(frame, z, first_index, keep, cond)
    end, zero = problem.path(settings.rtol, settings.atol), problem.z.new_zeros(len(z))
    gap, doubt = problem.gap() if settings.truncation else (zero[:, None], zero)
    each = (frame.log_prior(end.u) - frame.log_volume(frame.start))[:, None] + end.b + gap
    tail = (end.rate.mean(1) - (end.u * end.pace).sum(1)).abs() / (1 if frame.model.moments is None else 3)
    found = Density(each.mean(1), problem.spread(each), end.seen, gap.mean(1), doubt, tail,
                    end.spent + (2 if settings.truncation else 0))
    return Density(*(part[: problem.keep].cpu() for part in found))
