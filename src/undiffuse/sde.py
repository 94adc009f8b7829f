"""Processes: dx = drift(x, t) dt + diffusion(x, t) dw on [0, T], with t = 0 the data and t = T the noise.

A Gaussian process is defined by two formulas, the mean coefficient α(t) and the variance σ²(t) of its kernel
p(x_t | x_0) = N(α x_0, σ² I). Everything else is derived from them, so that it stays consistent:
f = α'/α, g² = (σ²)' − 2 f σ², λ = log(α/σ), and the inverse t(λ).

Reference: Song et al. (2021), "Score-based generative modeling through SDEs", section 3 and appendix B.
arXiv:2011.13456. Särkkä and Solin (2019), "Applied stochastic differential equations", section 6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal
from undiffuse.tensors import ArrayLike, as_tensor

Time = Tensor | float


def as_time(t: Time) -> Tensor:
    """A time as a tensor: tensors as they are, numbers as float64; InputError for anything else."""
    if isinstance(t, Tensor):
        return t
    return torch.tensor(t, dtype=torch.float64) if isinstance(t, float | int) else as_tensor(t, "a time", torch.float64)


def bcast(c: Tensor, x: Tensor) -> Tensor:
    """A coefficient () or (B,) reshaped to multiply x (B, *event), with the dtype and device of x."""
    if c.ndim == 0:
        return c
    if c.shape != x.shape[:1]:
        raise InputError(f"got a coefficient of shape {tuple(c.shape)} for x of shape {tuple(x.shape)}; expected () "
                         f"or ({x.shape[0]},)")
    return cast_like(c, x).reshape(-1, *[1] * (x.ndim - 1))


def cast_like(c: Tensor, x: Tensor) -> Tensor:
    """c with the dtype and on the device of x; copies to a GPU are asynchronous."""
    return c.to(x.device, x.dtype, non_blocking=c.device.type == "cpu")


def derivative(fn: Callable[[Tensor], Tensor], t: Time) -> Tensor:
    """d fn / dt for an elementwise function of time, exact by automatic differentiation."""
    with torch.enable_grad():
        s = as_time(t).detach().requires_grad_(True)
        value = fn(s)
        if not value.requires_grad:
            return torch.zeros_like(value)
        (gradient,) = torch.autograd.grad(value.sum(), s)
    return gradient


class SDE(ABC):
    """A diffusion dx = drift(x, t) dt + diffusion(x, t) dw on [0, T], with independent noise per coordinate."""

    T: float = 1.0

    @abstractmethod
    def drift(self, x: Tensor, t: Time) -> Tensor:
        """The drift, shaped like x."""

    @abstractmethod
    def diffusion(self, x: Tensor, t: Time) -> Tensor:
        """The diffusion coefficient (standard deviation per √time), broadcastable with x."""


@dataclass(frozen=True)
class NonlinearSDE(SDE):
    """A process without a closed-form kernel, given by its drift and diffusion.

    Args:
        drift_fn: Function (x, t) -> drift, shaped like x.
        diffusion_fn: Function (x, t) -> diffusion; depends on t, or on x coordinate by coordinate.
        T: End time.
    """

    drift_fn: Callable[[Tensor, Time], Tensor]
    diffusion_fn: Callable[[Tensor, Time], Tensor | float]
    T: float = 1.0

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """drift_fn(x, t)."""
        return self.drift_fn(x, t)

    def diffusion(self, x: Tensor, t: Time) -> Tensor:
        """diffusion_fn(x, t) as a tensor."""
        return torch.as_tensor(self.diffusion_fn(x, t), dtype=x.dtype, device=x.device)


class GaussianSDE(SDE):
    """A process with kernel p(x_t | x_0) = N(α(t) x_0, σ²(t) I): dx = f x dt + g dw."""

    name = ""

    @abstractmethod
    def alpha(self, t: Time) -> Tensor:
        """The mean coefficient α(t)."""

    @abstractmethod
    def variance(self, t: Time) -> Tensor:
        """The variance σ²(t) of the kernel."""

    def sigma(self, t: Time) -> Tensor:
        """The standard deviation σ(t) of the kernel."""
        return self.variance(as_time(t)).sqrt()

    def log_snr(self, t: Time) -> Tensor:
        """λ(t) = log(α/σ), strictly decreasing."""
        t = as_time(t)
        return self.alpha(t).log() - 0.5 * self.variance(t).log()

    def f(self, t: Time) -> Tensor:
        """The drift rate f = α'/α."""
        return derivative(self.alpha, t) / self.alpha(as_time(t))

    def g2(self, t: Time) -> Tensor:
        """The squared diffusion g² = (σ²)' − 2 f σ²."""
        return derivative(self.variance, t) - 2 * self.f(t) * self.variance(as_time(t))

    def rates(self, t: Time) -> tuple[Tensor, Tensor]:
        """The derivatives (α', σ'), with σ' = (σ²)'/(2σ)."""
        return derivative(self.alpha, t), derivative(self.variance, t) / (2 * self.sigma(t))

    def drift(self, x: Tensor, t: Time) -> Tensor:
        """f(t) x."""
        return bcast(self.f(t), x) * x

    def diffusion(self, x: Tensor, t: Time) -> Tensor:
        """g(t)."""
        return bcast(self.g2(t).sqrt(), x)

    def time_of(self, log_snr: Time) -> Tensor:
        """The time t with log(α/σ) = log_snr, by bisection to the last bit, clipped to [0, T]."""
        target = as_time(log_snr).double()
        low, high = torch.zeros_like(target), torch.full_like(target, self.T)
        for _ in range(100):
            middle = (low + high) / 2
            above = self.log_snr(middle) > target
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return high

    def perturb(self, x0: Tensor, t: Time, eps: Tensor) -> Tensor:
        """A sample of the kernel, x_t = α x_0 + σ ε.

        Args:
            x0: the data in model units, (B, *event).
            t: the time, () or (B,).
            eps: standard normals ε like x0.
        """
        t = as_time(t)
        return bcast(self.alpha(t), x0) * x0 + bcast(self.sigma(t), x0) * eps

    def renoise(self, x: Tensor, s: Time, t: Time, eps: Tensor) -> Tensor:
        """A sample of x_t given x_s for s < t: N((α_t/α_s) x_s, σ_t² − (α_t/α_s)² σ_s²).

        Args:
            x: x_s, (B, *event) in model units.
            s: the time of x, () or (B,).
            t: the later time, () or (B,).
            eps: standard normals like x.
        """
        s, t = as_time(s), as_time(t)
        ratio = self.alpha(t) / self.alpha(s)
        spread = (self.variance(t) - ratio**2 * self.variance(s)).clamp_min(0).sqrt()
        return bcast(ratio, x) * x + bcast(spread, x) * eps

    def prior_std(self) -> float:
        """The standard deviation σ(T) of the prior N(0, σ(T)² I)."""
        return float(self.sigma(self.T))

    def config(self) -> dict[str, Any]:
        """The process as JSON: its name and its parameters."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


def euler_maruyama(sde: SDE, x: Tensor, t: Time, s: Time, z: Tensor) -> Tensor:
    """One Euler-Maruyama step from t to s: x + drift (s − t) + diffusion √|s − t| z.

    Args:
        sde: the process.
        x: the state at t, (B, *event) in model units.
        t: the time of x, () or (B,).
        s: the time to go to, () or (B,), later or earlier.
        z: standard normals like x.

    Reference: Kloeden and Platen (1992), eq. 10.2.4.
    """
    dt = bcast(as_time(s) - as_time(t), x)
    return x + sde.drift(x, t) * dt + sde.diffusion(x, t) * dt.abs().sqrt() * z


def simulate(sde: SDE, x0: ArrayLike, steps: int = 1000, *, t_end: float | None = None, seed: int = 0,
             first_index: int = 0, trajectory: bool = False) -> Tensor:
    """Simulate a process forward in time by Euler-Maruyama.

    Args:
        sde: The process.
        x0: Initial states (n, *event).
        steps: Number of equal steps.
        t_end: Final time; default T.
        seed: Seed of the noise.
        first_index: Index of the first sample; sample i has the same noise in every batch.
        trajectory: Whether to return all states.

    Returns:
        The states at t_end (n, *event), or with `trajectory` those at all times (steps + 1, n, *event).
    """
    x0 = as_tensor(x0, "x0")
    if x0.ndim == 0 or steps < 1:
        raise InputError(f"got x0 of shape {tuple(x0.shape)} and steps={steps}; expected rows (n, *event) and a step")
    times = torch.linspace(0, sde.T if t_end is None else t_end, steps + 1, dtype=torch.float64)
    states = [x0]
    for i in range(steps):
        z = normal(seed, Purpose.STEP, i, first_index, len(x0), tuple(x0.shape[1:]), x0.dtype).to(x0.device)
        states.append(euler_maruyama(sde, states[-1], times[i], times[i + 1], z))
        if not trajectory:
            del states[0]
    return torch.stack(states) if trajectory else states[-1]
