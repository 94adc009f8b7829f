"""Problems with a known answer: laws whose score is exact, starts, and the ends of their paths to 1e−8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from undiffuse.data import open_data
from undiffuse.mixture import ExactDenoiser, Mixture
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal, uniform
from undiffuse.samplers import Method
from undiffuse.samplers.driver import sample
from undiffuse.samplers.registry import as_method
from undiffuse.sde import GaussianSDE

T_END = 1e-3


def modes(seed: int = 0, scale: float = 1.0) -> Mixture:
    """16 anisotropic unequal modes near the points of a 4 × 4 lattice in the plane, of root mean variance `scale`."""
    place = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double() - 1.5
    means = 2 * place + 0.2 * normal(seed, Purpose.DATA, 10, 0, 16, (2,), torch.float64)
    u = uniform(seed, Purpose.DATA, 11, 0, 16, (4,))
    turn = math.pi * u[:, 0]
    basis = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).reshape(16, 2, 2)
    widths = torch.stack([0.05 + 0.07 * u[:, 1], 0.2 + 0.2 * u[:, 2]], 1)
    law = Mixture(0.3 + 1.4 * u[:, 3], means, basis * widths[:, None] ** 2 @ basis.mT)
    return rescaled(law, scale)


def clusters(seed: int = 0, scale: float = 1.0, dim: int = 16, count: int = 10) -> Mixture:
    """`count` components in `dim` dimensions, turned at random, deviations 0.05 to 0.5 before it is rescaled."""
    means = normal(seed, Purpose.DATA, 20, 0, count, (dim,), torch.float64)
    basis = torch.linalg.qr(normal(seed, Purpose.DATA, 21, 0, count, (dim, dim), torch.float64))[0]
    u = uniform(seed, Purpose.DATA, 22, 0, count, (1 + dim,))
    spectrum = (0.05 + 0.45 * u[:, 1:]) ** 2
    return rescaled(Mixture(0.5 + u[:, 0], means, basis * spectrum[:, None] @ basis.mT), scale)


def digits(seed: int = 0, scale: float = 1.0) -> Mixture:
    """10 components with full covariances fitted to the bundled 8 × 8 digits, of root mean variance `scale`."""
    x = open_data("digits").x.double().flatten(1)
    return rescaled(Mixture.fit(x / 8 - 1, 10, seed=seed), scale)


def rescaled(law: Mixture, scale: float) -> Mixture:
    """The law stretched to the root mean variance `scale`."""
    factor = scale / float(law.covariance.diagonal().mean()) ** 0.5
    return Mixture(law.weights, factor * law.means, factor**2 * law.covariances)


@dataclass(frozen=True)
class Problem:
    """A law, a process, and n starts at T whose paths end, at t = 1e−3, in `truth`."""

    law: Mixture
    n: int = 128
    sde: GaussianSDE = VP()  # noqa: RUF009 (frozen)

    @cached_property
    def model(self) -> ExactDenoiser:
        """The exact denoiser."""
        return self.law.denoiser(self.sde)

    @cached_property
    def start(self) -> Tensor:
        """The states at T."""
        return self.sde.prior_std() * normal(7, Purpose.INIT, 0, 0, self.n, self.law.shape, torch.float64)

    @cached_property
    def truth(self) -> Tensor:
        """Where the probability-flow ODE leads, by 600 classical Runge-Kutta steps in log-SNR."""
        return self.end("rk4_log_snr", 600)[0]

    def end(self, method: str | Method, steps: int, grid: str | Tensor | None = None, **options: Any
            ) -> tuple[Tensor, int]:
        """Where a sampler leads in that many steps, and how many evaluations it took."""
        out = sample(self.model, method=as_method(method), steps=steps, grid=grid, x_T=self.start, t_end=T_END,
                     denoise_last=False, block=self.n, options=options)
        return out.x, out.nfe

    def error(self, method: str | Method, steps: int, grid: str | Tensor | None = None, **options: Any
              ) -> tuple[float, int]:
        """The median over samples and coordinates of |x − truth|, and the evaluations."""
        x, nfe = self.end(method, steps, grid, **options)
        return float((x - self.truth).abs().median()), nfe
