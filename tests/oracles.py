"""What several tests share: one process of every family, and laws whose answers are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from undiffuse.chains import DDPM, linear_betas
from undiffuse.likelihood import Likelihood
from undiffuse.mixture import Gaussian, Mixture
from undiffuse.model import Wrapper
from undiffuse.processes import (
    EDM,
    OU,
    VE,
    VP,
    Cosine,
    Linear,
    PowerVE,
    RectifiedFlow,
    SubVP,
)
from undiffuse.random import normal
from undiffuse.sde import GaussianSDE, Time

PROCESSES: dict[str, GaussianSDE] = {
    "vp": VP(),
    "vp_long": VP(beta_min=0.2, beta_max=3.0, T=2.0),
    "subvp": SubVP(),
    "ve": VE(),
    "ve_from_data": VE(sigma_min=0.02, sigma_max=20.0, from_data=True),
    "power_ve": PowerVE(),
    "brownian": PowerVE(rate=1.0),
    "edm": EDM(),
    "cosine": Cosine(),
    "rectified_flow": RectifiedFlow(),
    "ou": OU(theta=0.7, scale=1.3, T=3.0),
    "ddpm": DDPM(linear_betas(100)),
    "linear": Linear(lambda t: -0.5 - t, lambda t: 0.3 + t**2),
}
ENDS_IN_ZERO = ("cosine", "rectified_flow")  # α(T) = 0


def f64(*values: float) -> Tensor:
    """Numbers as a float64 tensor."""
    return torch.tensor(values, dtype=torch.float64)


def inner_times(sde: GaussianSDE, n: int = 9) -> Tensor:
    """Times strictly inside (0, T), from 1e-6 T on, away from T where α may be 0."""
    return sde.T * torch.cat([f64(1e-6, 1e-4), torch.linspace(0.013, 0.97, n, dtype=torch.float64)])


def random_mixture(K: int = 3, d: int = 2, *, labels: bool = False, seed: int = 0, spread: float = 2.0) -> Mixture:
    """A mixture with correlated components of different sizes; two classes in turn with `labels`."""
    means = spread * normal(seed, 0, 0, 0, K, (d,), torch.float64)
    A = normal(seed, 0, 1, 0, K, (d, d), torch.float64)
    cov = A @ A.mT / d + 0.05 * torch.eye(d, dtype=torch.float64)
    weights = torch.arange(1, K + 1, dtype=torch.float64)
    return Mixture(weights, means, cov, labels=torch.arange(K) % 2 if labels else None)


def ridge() -> Mixture:
    """Two narrow modes at ±2 on a line: the score is 0 on the ridge between them (course, D11)."""
    return Mixture([1, 1], [[-2.0], [2.0]], 0.25)


def correlated_gaussian(d: int = 3) -> Gaussian:
    """A Gaussian with the covariance ρ^{|i−j|} and a mean off the origin."""
    i = torch.arange(d, dtype=torch.float64)
    return Gaussian(0.5 + i, 0.6 ** (i[:, None] - i).abs() + 0.1 * torch.diag(i))


def moments_of_steps(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean coefficient and variance after the affine steps x → a_i x + b_i z, exactly and without chance."""
    mean, var = 1.0, 0.0
    for a_i, b_i in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True):
        mean, var = a_i * mean, a_i**2 * var + b_i**2
    return mean, var


def order(errors: list[float]) -> float:
    """The measured order of convergence: minus the mean slope of log₂ error over successive halvings of the step."""
    logs = torch.tensor(errors, dtype=torch.float64).log2()
    return float((logs[0] - logs[-1]) / (len(errors) - 1))


def class_posterior(law: Mixture, sde: GaussianSDE, x: Tensor, t: Time) -> Tensor:
    """p(class | x_t = x) of a mixture with labels, (B, C); t is () or (B,)."""
    members = torch.nn.functional.one_hot(law.labels, law.classes).double()
    return law._components(x, sde, t).log_joint.softmax(1) @ members
class Opaque(Wrapper):
    """A model whose divergence has to be computed by differentiation."""

    def denoise(self, x: Tensor, t: Tensor, **cond: object) -> Tensor:
        return self.inner.denoise(x, t, **cond)


def absolute_error(ll: Likelihood, truth: Tensor) -> Tensor:
    """|log p − truth| per sample."""
    return (ll.log_prob - truth).abs()


def assert_moments(x: Tensor, truth: Mixture, slack: float = 0.0) -> None:
    """Check mean and covariance within 4.5 standard errors plus a fraction `slack` of the standard deviations."""
    sd = truth.covariance.diagonal().sqrt()
    assert ((x.mean(0) - truth.mean).abs() < (4.5 / math.sqrt(len(x)) + slack) * sd).all()
    apart = (x.mT.cov() - truth.covariance).abs() / (sd[:, None] * sd)
    assert (apart < 4.5 * math.sqrt(2 / len(x)) + 2 * slack).all()
