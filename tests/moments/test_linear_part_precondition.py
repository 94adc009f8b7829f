"""The Wiener parameterisation: exact on Gaussian data with a network that says 0, EDM's numbers for isotropic data, a
target of unit variance in every direction otherwise, an input half-way to that; and the loss in its units."""

from __future__ import annotations

import pytest
import torch
from oracles import correlated_gaussian, f64

from undiffuse.errors import InputError
from undiffuse.loss import denoising_loss, loss_floor
from undiffuse.model import Denoiser
from undiffuse.moments import Moments
from undiffuse.processes import EDM, VP, RectifiedFlow
from undiffuse.random import normal

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


def denoiser(net: Told, sde: VP, moments: Moments | None, sigma_data: float = 0.5,
             prediction_type: str = "wiener") -> Denoiser:
    model = Denoiser(net, sde, prediction_type, shape=(3,), sigma_data=sigma_data)
    model.moments = moments
    return model


@pytest.mark.parametrize("kind", ["wiener", "linear"])
@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_on_gaussian_data_a_network_that_says_nothing_is_exact(sde: VP, kind: str) -> None:
    law = correlated_gaussian(3)
    exact, t = law.denoiser(sde), sde.time_of(f64(-2.0, 0.3, 1.0, 2.5))
    x = normal(0, 0, 0, 0, 4, (3,), torch.float64)
    found = denoiser(Told(), sde, exact.moments, prediction_type=kind).denoise(x, t)
    torch.testing.assert_close(found, exact.denoise(x, t), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["wiener", "linear"])
@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_for_isotropic_data_it_is_edm(sde: VP, kind: str) -> None:
    F, x = (normal(k, 0, 0, 0, 4, (3,), torch.float64) for k in (1, 2))
    basis = torch.linalg.qr(normal(3, 0, 0, 0, 3, (3,), torch.float64))[0]
    even = Moments((3,), torch.zeros(3).double(), torch.full((3,), 0.49).double(), "pca", basis)
    t = sde.time_of(f64(-2.0, 0.3, 1.0, 2.5))
    nets = Told(F), Told(F)
    ours, edm = denoiser(nets[0], sde, even, 0.7, kind), denoiser(nets[1], sde, None, 0.7, "edm")
    torch.testing.assert_close(ours.denoise(x, t), edm.denoise(x, t), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(nets[0].seen, nets[1].seen, rtol=1e-6, atol=1e-6)


def test_the_target_has_unit_variance_in_every_direction_and_the_input_half_way() -> None:
    """On Gaussian data F* = σ⁻¹ C^{−½} S^{½} (x_0 − D) has covariance I, as Cov(x_0|x) = σ² C S⁻¹; the input has
    S^{½} d/tr S^{½}, for S^{−¼} S S^{−¼} = S^{½}: its trace is d."""
    sde, law, n = VP(), correlated_gaussian(3), 40_000
    frame = law.denoiser(sde).moments
    x0, eps, t = law.sample(n), normal(5, 0, 0, 0, n, (3,), torch.float64), f64(0.4)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    seen, made = frame.precondition(alpha * x0 + sigma * eps, alpha, sigma)
    bias = made(torch.zeros_like(x0))
    spread = (frame.spectrum / (alpha**2 * frame.spectrum + sigma**2)).sqrt() * sigma
    target = frame.rotate(x0 - bias) / spread
    root = (alpha**2 * frame.spectrum + sigma**2).sqrt()
    for z, variances in ((frame.rotate(seen), root / root.mean()), (target, torch.ones(3))):
        covariance = z.T @ z / n
        assert float((covariance - variances.diag()).abs().max()) < 5 * float(variances.max()) * (2 / n) ** 0.5


def test_with_one_scale_input_and_target_have_unit_variance_on_average() -> None:
    """tr Cov(input)/d = 1 for S/(tr S/d), and tr Cov(F*)/d = 1 for F* = (x_0 − D)/√(tr(σ² C S⁻¹)/d)."""
    sde, law, n = VP(), correlated_gaussian(3), 40_000
    frame = law.denoiser(sde).moments
    x0, eps, t = law.sample(n), normal(5, 0, 0, 0, n, (3,), torch.float64), f64(0.4)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    inputs, denoised = frame.precondition(alpha * x0 + sigma * eps, alpha, sigma, directions=False)
    scale = float((denoised(torch.ones_like(x0)) - denoised(torch.zeros_like(x0))).mean())
    target = (x0 - denoised(torch.zeros_like(x0))) / scale
    for z in (inputs, target):
        square = z.square().mean(1)
        assert abs(float(square.mean()) - 1) < 4 * float(square.std()) / n**0.5


@pytest.mark.parametrize("rank", [None, 2])
def test_the_loudness_of_directions_that_are_not_stored_counts_as_often_as_they_are(rank: int | None) -> None:
    """For x = U diag(S^{½}) U^T e over all d unit vectors e, ‖seen‖² adds up to tr S^{½} d/tr S^{½} = d."""
    rows = normal(1, 0, 0, 0, 300, (5,), torch.float64) * f64(3.0, 2.0, 1.0, 1.0, 1.0)
    frame = Moments.measure(rows, rank=rank)
    alpha, sigma = f64(0.8)[0], f64(0.4)[0]
    x = (alpha**2 * frame.spectrum + sigma**2).sqrt() * frame.rotate(torch.eye(5).double())
    inputs, _ = frame.precondition(frame.unrotate(x) + alpha * frame.mean, alpha, sigma)
    assert float(inputs.square().sum()) == pytest.approx(5, rel=1e-12)


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_without_noise_and_variance_a_direction_is_known(sde: VP) -> None:
    """At σ = 0 the denoiser is the identity on what the data can be, also where they have one value only."""
    frame = Moments((3,), f64(1.0, -2.0, 0.5), f64(2.0, 1.0, 0.0), "pca", torch.eye(3).double())
    x = f64(0.3, 4.0, 0.5)[None]
    for moments in (frame, Moments((3,), frame.mean, f64(0.0, 0.0, 0.0), "pca", torch.eye(3).double())):
        net = Told(torch.ones(1, 3).double())
        model = denoiser(net, sde, moments)
        at = x if moments is frame else moments.mean[None]
        found = model.denoise(float(sde.alpha(f64(0.0)[0])) * at, f64(0.0)[0])
        torch.testing.assert_close(found, at, rtol=1e-12, atol=1e-9)
        assert net.seen.isfinite().all()


def test_without_moments_it_says_so() -> None:
    with pytest.raises(InputError, match="without the data's moments"):
        denoiser(Told(), VP(), None).denoise(torch.zeros(1, 3), 0.5)


# ---------------------------------------------------------------- the whitened loss


def frames() -> list[Moments]:
    """Full principal directions, cosines, and the leading two of five directions."""
    law = correlated_gaussian(3)
    return [Moments.measure(law.sample(500)), Moments.measure(normal(0, 0, 0, 0, 300, (1, 4, 4), torch.float64), "dct"),
            Moments.measure(normal(1, 0, 0, 0, 300, (5,), torch.float64) * f64(3.0, 2.0, 1.0, 1.0, 1.0), rank=2)]


@pytest.mark.parametrize("frame", frames(), ids=["pca", "dct", "low rank"])
def test_whitened_errors_are_those_of_the_networks_output(frame: Moments) -> None:
    x, F, G = (normal(k, 0, 0, 0, 4, frame.shape, torch.float64) for k in (1, 2, 3))
    alpha, sigma = f64(0.9, 0.5, 0.1, 1.0), f64(0.1, 0.7, 1.0, 20.0)
    _, made = frame.precondition(x, alpha, sigma)
    found = frame.whitened(made(F) - made(G), alpha, sigma)
    torch.testing.assert_close(found, frame.rotate(F - G), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_for_isotropic_data_the_whitened_loss_is_edms(sde: VP) -> None:
    F, x0, eps = (normal(k, 0, 0, 0, 4, (3,), torch.float64) for k in (1, 2, 3))
    basis = torch.linalg.qr(normal(3, 0, 0, 0, 3, (3,), torch.float64))[0]
    model = denoiser(Told(F), sde, Moments((3,), f64(0.2, 0.0, 1.0), f64(0.49, 0.49, 0.49), "pca", basis), 0.7)
    t = sde.time_of(f64(-2.0, 0.3, 1.0, 2.5))
    whitened, edm = (denoising_loss(model, x0, t, eps, name) for name in ("whitened", "edm"))
    torch.testing.assert_close(whitened, edm, rtol=1e-9, atol=0)


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: sde.name)
def test_the_least_whitened_loss_of_a_gaussian_is_one_at_every_level(sde: VP) -> None:
    """Cov(x_0|x) = σ² C S⁻¹ = c_out², so the exact denoiser has loss 1; one that is off by c_out F has 1 + ‖F‖²/d."""
    law, n = correlated_gaussian(3), 20_000
    x0, eps, t = law.sample(n), normal(5, 0, 0, 0, n, (3,), torch.float64), sde.time_of(f64(0.3)[0])
    F = f64(0.5, -1.0, 0.3)
    for said, floor in ((None, 1.0), (F.expand(n, 3), 1 + float(F.square().mean()))):
        model = denoiser(Told(said), sde, law.denoiser(sde).moments)
        values = denoising_loss(model, x0, t, eps, "whitened")
        assert abs(float(values.mean()) - floor) < 4 * float(values.std()) / n**0.5


def test_directions_that_the_data_hardly_have_count_like_those_of_a_hundredth() -> None:
    """A variance of 0 would divide by 0; its errors are divided by .01 total deviations, where noise is large."""
    frame = Moments((2,), f64(0.0, 0.0), f64(2.0, 0.0), "pca", torch.eye(2).double())
    assert frame.total_std == 1.0
    found = frame.whitened(f64(1.0, 1.0)[None], f64(1.0)[0], f64(1e6)[0])
    torch.testing.assert_close(found, f64(2**-0.5, 100.0)[None], rtol=1e-9, atol=0)
    model = denoiser(Told(f64(1.0, 1.0, 1.0).expand(2, 3)), VP(), frames()[0])
    ends = denoising_loss(model, torch.zeros(2, 3), f64(0.0, 1.0), torch.ones(2, 3), "whitened")
    assert ends.isfinite().all() and float(ends[0]) < 1e-4  # at t = 0 it is shown the data


def test_a_whitened_loss_without_moments_is_refused() -> None:
    x, model = torch.zeros(1, 3), denoiser(Told(), VP(), None, prediction_type="edm")
    with pytest.raises(InputError, match="whitened"):
        denoising_loss(model, x, 0.5, x, "whitened")
    with pytest.raises(InputError, match="whitened"):
        loss_floor(correlated_gaussian(3), VP(), f64(0.5), "whitened")
