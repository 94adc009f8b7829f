"""The Wiener parameterisation: exact on Gaussian data with a network that says 0, EDM's numbers for isotropic data, a
target of unit variance in every direction otherwise."""

from __future__ import annotations

import pytest
import torch
from oracles import correlated_gaussian, f64

from undiffuse.errors import InputError
from undiffuse.gaussian import Moments
from undiffuse.model import Denoiser
from undiffuse.noise import normal
from undiffuse.processes import EDM, VP, RectifiedFlow

PROCESSES = [VP(), EDM(), RectifiedFlow()]


class Told(torch.nn.Module):
    """A network that says F whatever it sees, and keeps what it saw."""

    def __init__(self, F: torch.Tensor | None = None) -> None:
        super().__init__()
        self.F = F

    def forward(self, x: torch.Tensor, c: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """F, or 0."""
        self.seen = x
        return torch.zeros_like(x) if self.F is None else self.F


def denoiser(net: Told, sde: VP, moments: Moments | None, sigma_data: float = 0.5, predict: str = "wiener") -> Denoiser:
    model = Denoiser(net, sde, predict, shape=(3,), sigma_data=sigma_data)
    model.moments = moments
    return model


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_on_gaussian_data_a_network_that_says_nothing_is_exact(sde: VP) -> None:
    law = correlated_gaussian(3)
    exact, t = law.denoiser(sde), sde.time_of(f64(-2.0, 0.3, 1.0, 2.5))
    x = normal(0, 0, 0, 0, 4, (3,), torch.float64)
    found = denoiser(Told(), sde, exact.moments).denoise(x, t)
    torch.testing.assert_close(found, exact.denoise(x, t), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_for_isotropic_data_it_is_edm(sde: VP) -> None:
    F, x = (normal(k, 0, 0, 0, 4, (3,), torch.float64) for k in (1, 2))
    basis = torch.linalg.qr(normal(3, 0, 0, 0, 3, (3,), torch.float64))[0]
    even = Moments((3,), torch.zeros(3).double(), torch.full((3,), 0.49).double(), "pca", basis)
    t = sde.time_of(f64(-2.0, 0.3, 1.0, 2.5))
    nets = Told(F), Told(F)
    ours, edm = denoiser(nets[0], sde, even, 0.7), denoiser(nets[1], sde, None, 0.7, "edm")
    torch.testing.assert_close(ours.denoise(x, t), edm.denoise(x, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(nets[0].seen, nets[1].seen, rtol=1e-6, atol=1e-6)


def test_input_and_target_have_unit_variance_in_every_direction() -> None:
    """On Gaussian data F* = σ⁻¹ C^{−½} S^{½} (x_0 − D) has covariance I, as Cov(x_0|x) = σ² C S⁻¹; so has the input."""
    sde, law, n = VP(), correlated_gaussian(3), 40_000
    frame = law.denoiser(sde).moments
    x0, eps, t = law.sample(n), normal(5, 0, 0, 0, n, (3,), torch.float64), f64(0.4)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    seen, made = frame.precondition(alpha * x0 + sigma * eps, alpha, sigma)
    bias = made(torch.zeros_like(x0))
    spread = (frame.spectrum / (alpha**2 * frame.spectrum + sigma**2)).sqrt() * sigma
    target = frame.back(frame.rotate(x0 - bias) / spread)
    for z in (seen, target):
        covariance = z.T @ z / n
        assert float((covariance - torch.eye(3)).abs().max()) < 5 * (2 / n) ** 0.5


def test_without_moments_it_says_so() -> None:
    with pytest.raises(InputError, match="without the data's moments"):
        denoiser(Told(), VP(), None).denoise(torch.zeros(1, 3), 0.5)
