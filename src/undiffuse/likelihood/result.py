"""What a likelihood is worth: the number with each part of its error."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Likelihood:
    """log p(x) in nats of the user's own units, with its budget; every tensor is (B,), float64.

    stderr: the standard error of the random probes and, of several draws of dequantisation, of those. solver: what the
    errors seen by the embedded method do to log p. truncation: what was added for the noise levels below the model's
    smallest one, and truncation_error: how far that can be trusted. prior: how far the prior at T may be from the law
    of x_T there. log_det: the log-determinant of the transform to model units. nfe: evaluations of the network.
    bound: the log-probability is a lower bound (discrete data); discrete: it is that of a level, not a density.
    """

    log_prob: Tensor
    stderr: Tensor
    solver: Tensor
    truncation: Tensor
    truncation_error: Tensor
    prior: Tensor
    log_det: Tensor
    nfe: Tensor
    dim: int
    discrete: bool = False

    @property
    def bits_per_dim(self) -> Tensor:
        """−log₂ p/d, with d the number of entries of an event of the model."""
        return -self.log_prob / (self.dim * math.log(2))

    @property
    def error(self) -> Tensor:
        """All that is not certain, in nats: the root of the sum of the squares of the four errors."""
        return torch.stack([self.stderr, self.solver, self.truncation_error, self.prior]).square().sum(0).sqrt()

    def budget(self) -> dict[str, Tensor]:
        """Every number of every sample by name, for a table."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
