"""The log-likelihood against closed forms: its value, and every part of its error budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from oracles import PROCESSES, correlated_gaussian, f64, random_mixture
from scipy import stats
from torch import Tensor, nn

from benchmarks.measure.laws import digits, modes
from undiffuse.data.transforms import Levels, Standardise
from undiffuse.errors import InputError
from undiffuse.exact import Mixture
from undiffuse.inverse import observe
from undiffuse.likelihood import (
    Likelihood,
    decode,
    density,
    elbo,
    encode,
    integral,
    interpolate,
    kl_bound,
    log_likelihood,
    path_log_likelihood,
)
from undiffuse.likelihood.frame import Frame
from undiffuse.likelihood.truncation import lanczos
from undiffuse.model import PREDICTIONS, Denoiser, Model, ScoreModel, Wrapper
from undiffuse.nets import build
from undiffuse.processes import OU, VP
from undiffuse.sde import GaussianSDE, bcast

FAMILIES = ("vp", "subvp", "ve", "power_ve", "edm", "cosine", "rectified_flow")
PLANE = random_mixture(3, 2)
CASES = [*product(["vp"], sorted(PREDICTIONS), [torch.float64, torch.float32]),
         *((name, predict, torch.float32) for name, predict in (
             ("subvp", "noise"), ("ve", "score"), ("power_ve", "v"), ("edm", "data"), ("cosine", "edm"),
             ("rectified_flow", "velocity"), ("ddpm", "noise")))]


class Opaque(Wrapper):
    """A model whose divergence has to be found by differentiation."""

    def denoise(self, x: Tensor, t: Tensor, **cond: object) -> Tensor:
        return self.inner.denoise(x, t, **cond)


class Scripted(nn.Module):
    """The network that makes a `Denoiser` the exact one of a law, whatever it predicts."""

    def __init__(self, law: Mixture, sde: GaussianSDE, predict: str, sigma_data: float) -> None:
        super().__init__()
        self.exact, self.sde, self.predict, self.sd = law.denoiser(sde), sde, predict, sigma_data
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        t = self.sde.time_of(-torch.log(2 * self.sd * torch.exp(4 * c.double())))
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        x = x.double() * bcast((alpha**2 * self.sd**2 + sigma**2).sqrt(), x.double())
        skip, out = PREDICTIONS[self.predict](self.sde, t, alpha, sigma, self.sd)
        return ((self.exact.denoise(x, t) - bcast(skip, x) * x) / bcast(out, x)).to(c.dtype) + self.zero


def error(ll: Likelihood, truth: Tensor) -> Tensor:
    return (ll.log_prob - truth).abs()


@pytest.mark.parametrize("name", FAMILIES)
def test_gaussian_data_stand_still_in_their_frame_and_have_no_error(name: str) -> None:
    law = correlated_gaussian()
    x = law.sample(20, seed=2)
    ll = log_likelihood(law.denoiser(PROCESSES[name]), x)
    assert float(error(ll, law.log_prob(x)).max()) < 1e-6
    assert float(ll.error.max()) < 1e-6 and float(ll.nfe.median()) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_mixture_through_every_process_and_within_its_own_budget(name: str) -> None:
    x = PLANE.sample(100, seed=1)
    ll = log_likelihood(PLANE.denoiser(PROCESSES[name]), x)
    wrong = error(ll, PLANE.log_prob(x))
    assert float(wrong.mean()) < 1e-4 + 2 * float(ll.prior.mean())
    assert float((wrong < 1e-4 + 6 * ll.error).double().mean()) > 0.95


def test_separated_modes_in_the_plane_to_a_ten_thousandth_of_a_nat() -> None:
    law = modes()
    x = law.sample(256, seed=5)
    ll = log_likelihood(law.denoiser(VP()), x)
    wrong = error(ll, law.log_prob(x))
    assert float(wrong.mean()) <= 1e-4 and float(wrong.max()) <= 0.01 and float(ll.nfe.median()) <= 110


@pytest.mark.slow
@pytest.mark.parametrize("wrap, n", [(lambda model: model, 64), (Opaque, 16)], ids=["closed form", "products"])
def test_ten_full_covariances_in_64_dimensions(wrap: Callable[[Model], Model], n: int) -> None:
    law = digits()
    x = law.sample(n, seed=5)
    ll = log_likelihood(wrap(law.denoiser(VP())), x, rtol=1e-4, atol=1e-4)
    assert float(error(ll, law.log_prob(x)).mean()) <= 0.02 and float(ll.nfe.median()) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("many", [-1, integral.MANY])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-5])
def test_the_solvers_error_is_the_one_it_claims(tolerance: float, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density, "MANY", many)
    x = PLANE.sample(200, seed=3)
    ll = log_likelihood(PLANE.denoiser(VP()), x, rtol=tolerance, atol=tolerance)
    ratio = error(ll, PLANE.log_prob(x)) / (ll.solver + ll.truncation_error)
    assert 0.1 < float(ratio.median()) < 3 and float(ratio.quantile(0.9)) < 8


@pytest.mark.slow
@pytest.mark.parametrize("probes", [8, 16])
def test_the_error_bar_of_probes_follows_students_law(probes: int) -> None:
    law = random_mixture(4, 16, spread=1.0)
    x = law.sample(1000, seed=4)
    ll = log_likelihood(law.denoiser(VP()), x, "hutchinson", probes, 1e-3, 1e-3, seed=1)
    t = (ll.log_prob - law.log_prob(x)) / ll.stderr
    assert stats.kstest(t.numpy(), stats.t(probes - 1).cdf).pvalue > 0.01


def test_one_probe_has_no_error_bar_and_the_whole_trace_needs_none() -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(3, seed=1)
    assert bool(log_likelihood(model, x, "hutchinson", 1).stderr.isnan().all())
    assert bool((log_likelihood(model, x, "exact").stderr == 0).all())


def test_products_with_the_jacobian_give_the_closed_form() -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(10, seed=1)
    known, found = log_likelihood(model, x), log_likelihood(Opaque(model), x)
    assert float((known.log_prob - found.log_prob).abs().max()) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_narrow_data_are_corrected_below_the_smallest_level(divergence: str) -> None:
    law = Mixture([1, 2, 1], [[-1.0, 0.3], [0.2, -0.6], [0.9, 0.8]], 0.02**2)
    model, x = law.denoiser(VP()), law.sample(200, seed=6)
    truth = law.log_prob(x)
    bits = 2 * math.log(2)
    ll = log_likelihood(model, x, divergence, t_end=1e-3)
    bare = log_likelihood(model, x, divergence, t_end=1e-3, truncation=False)
    chance = 3 * float(ll.stderr.square().mean().sqrt()) / math.sqrt(200)
    assert abs(float((ll.log_prob - truth).mean())) / bits < 0.005 + chance
    assert float(error(bare, truth).max()) / bits > 0.2 and float(error(bare, truth).mean()) / bits > 0.01
    if divergence == "exact":
        assert float(error(ll, truth).mean()) / bits < 0.001


@pytest.mark.parametrize("sigma", [0.002, 0.004])
def test_the_doubt_about_the_correction_is_where_the_data_are_not_locally_gaussian(sigma: float) -> None:
    law = Mixture([1, 1], [[-0.02], [0.02]], 0.01**2)
    x = law.sample(300, seed=1)
    ll = log_likelihood(law.denoiser(VP()), x, t_end=float(VP().time_of(-math.log(sigma))))
    wrong = error(ll, law.log_prob(x))
    assert 0.2 < float(wrong.mean() / ll.truncation_error.mean()) < 4
    between = x[:, 0].abs() < 0.008
    assert float(ll.truncation_error[between].mean()) > 10 * float(ll.truncation_error[~between].mean())


def test_lanczos_integrates_polynomials_of_its_degree_exactly() -> None:
    values = torch.linspace(0.2, 0.9, 7, dtype=torch.float64)
    v = torch.linspace(-1, 1.5, 14, dtype=torch.float64).reshape(1, 2, 7)
    found = lanczos(lambda u: u * values, v, steps=3)
    for power in range(6):
        assert torch.allclose((found.weights * found.nodes**power).sum(-1), (v**2 * values**power).sum(-1))


@pytest.mark.slow
@pytest.mark.parametrize("theta", [0.15, 0.3])
def test_a_prior_that_does_not_fit_is_reported(theta: float) -> None:
    x = PLANE.sample(100, seed=7)
    ll = log_likelihood(PLANE.denoiser(OU(theta=theta, scale=1.0, T=3.0)), x)
    wrong = error(ll, PLANE.log_prob(x))
    assert 0.3 < float(wrong.mean() / ll.prior.mean()) < 3


def test_without_moments_the_prior_is_the_models_own() -> None:
    model = PLANE.denoiser(VP())
    model.moments = None
    x = PLANE.sample(50, seed=8)
    ll = log_likelihood(model, x)
    wrong = error(ll, PLANE.log_prob(x))
    assert 1e-4 < float(wrong.mean()) < 3 * float(ll.prior.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name, predict, dtype", CASES)
def test_every_process_in_every_parameterisation_and_precision(name: str, predict: str, dtype: torch.dtype) -> None:
    """Within six times its own budget, and in float32 what rounding does to the residual r = z − D at the data.

    D is off by ε (|z| + |D|) a coordinate, and log p by the product with r/σ̂₀², |r| ~ σ̂₀ √d: 2 ε |z| √d/σ̂₀ at most, of
    which each coefficient and the noise level that the network is told has a share: ten of them.
    """
    sde = PROCESSES[name]
    law = Mixture([1, 2], [[-1.0, 0.5], [0.8, -0.3]], [[[0.3, 0.1], [0.1, 0.2]], [[0.2, -0.05], [-0.05, 0.4]]])
    model = Denoiser(Scripted(law, sde, predict, 1.0), sde, predict, shape=(2,), sigma_data=1.0).to(dtype)
    model.moments, x = law.denoiser(sde).moments, law.sample(4, seed=9)
    ll = log_likelihood(model, x, rtol=1e-4, atol=1e-4)
    rounding = 10 * 2 * torch.finfo(dtype).eps * x.abs().sum(1) * math.sqrt(2) * math.exp(float(Frame(model).start))
    assert bool((error(ll, law.log_prob(x)) < 6 * ll.error + rounding + 1e-6).all())
    assert float(ll.error.max()) < 0.02


def _network(shape: tuple[int, ...], classes: int = 0) -> Model:
    kind = {"net": "mlp", "args": {"width": 16, "depth": 1}} if len(shape) == 1 else \
        {"net": "unet", "args": {"widths": [8, 8], "stem": 1, "attention": [1]}}
    net = build(kind["net"], shape, classes, **kind["args"])
    return Denoiser(net, VP(), shape=shape, classes=classes).eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize("divergence, probes", [("exact", 1), ("hutchinson", 4), ("hutchinson", integral.MANY + 1)])
def test_a_number_is_the_same_bytes_alone_and_in_a_batch(divergence: str, probes: int) -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(260, seed=1)
    many = log_likelihood(Opaque(model), x, divergence, probes, 1e-3, 1e-3)
    for i in (3, 258):
        one = log_likelihood(Opaque(model), x[i : i + 1], divergence, probes, 1e-3, 1e-3, first_index=i)
        assert all(torch.equal(a, b[i : i + 1]) for a, b in zip(one.budget().values(), many.budget().values(),
                                                                strict=True))


@pytest.mark.parametrize("divergence, probes", [("exact", 1), ("hutchinson", 3)])
def test_both_ways_to_integrate_the_trace_agree_within_what_they_claim(
        divergence: str, probes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same probes on the same paths, so that only the integration differs."""
    model, x = Opaque(PLANE.denoiser(VP())), PLANE.sample(20, seed=1)
    joint = log_likelihood(model, x, divergence, probes)
    monkeypatch.setattr(density, "MANY", 0)
    apart = log_likelihood(model, x, divergence, probes)
    gap = (joint.log_prob - apart.log_prob).abs()
    assert 0 < float(gap.mean()) < 1e-3 and bool((gap < 4 * (joint.solver + apart.solver)).all())
    assert bool((apart.nfe != joint.nfe).any())


def test_lobattos_rule_and_what_it_claims_to_miss() -> None:
    """Degree 5 is exact; of c₀ Σ ρⁿ P_n with the first six coefficients of 1 at most, the claim is 0.44 c₀ ρ⁶."""
    x = 2 * torch.tensor(integral._PLACES, dtype=torch.float64) - 1
    for power in range(6):
        found = integral._weighted(integral._WEIGHTS, tuple(x**power))
        assert float(found) == pytest.approx(0 if power % 2 else 1 / (power + 1), abs=1e-12)
    sixth = (231 * x**6 - 315 * x**4 + 105 * x**2 - 5) / 16
    assert float(integral._weighted(integral._WEIGHTS, tuple(sixth))) == pytest.approx(integral._MISSED)
    third = (5 * x**3 - 3 * x) / 2
    for other in (torch.ones_like(x), x, (3 * x**2 - 1) / 2):
        rates = tuple((other + 0.01 * third)[:, None])
        size = float((other + 0.01 * third).abs().max())
        assert float(integral._missed(rates)) == pytest.approx(integral._MISSED * 1e-4 / size)


def test_data_units_add_the_transforms_determinant() -> None:
    model = PLANE.denoiser(VP())
    model.transform = Standardise((3.0, -1.0), (2.0, 0.5))
    z = PLANE.sample(20, seed=3)
    ll = log_likelihood(model, model.transform.inverse(z))
    assert torch.allclose(ll.log_prob, PLANE.log_prob(z) - math.log(2.0 * 0.5), atol=1e-3)
    assert torch.allclose(ll.bits_per_dim, -ll.log_prob / (2 * math.log(2)))


@pytest.mark.slow
def test_the_density_of_a_wrong_denoiser_is_one_too() -> None:
    class Off(Wrapper):
        def denoise(self, x: Tensor, t: Tensor, **cond: object) -> Tensor:
            D = self.inner.denoise(x, t, **cond)
            return D + 0.2 * torch.sin(3 * D)

    law = Mixture([1, 2], [[-1.0], [0.7]], 0.2)
    x = torch.linspace(-4, 4, 601, dtype=torch.float64)[:, None]
    density = log_likelihood(Off(law.denoiser(VP())), x, truncation=False).log_prob.exp()
    assert abs(float(torch.trapezoid(density, x[:, 0])) - 1) < 1e-3
    assert float((density - law.log_prob(x).exp()).abs().max()) > 0.01


def _mass(law: Mixture, low: Tensor, high: Tensor, variance: float) -> Tensor:
    """log of the probability of an interval under a mixture on the line that is blurred by N(0, variance)."""
    spread = (law.covariances[:, 0, 0] + variance).sqrt()
    edges = torch.stack([low, high])[..., None]
    cdf = torch.special.ndtr((edges - law.means[:, 0]) / spread)
    return ((cdf[1] - cdf[0]) * law.weights).sum(-1).log()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_draws_of_dequantisation_approach_the_mass_of_a_level_from_below(kind: str) -> None:
    law, levels = Mixture([1, 2], [[-0.5], [0.4]], 0.1), torch.arange(5.0, dtype=torch.float64)[:, None]
    model = law.denoiser(VP())
    model.transform = Levels(5)
    sigma = 0.125 if kind == "normal" else 0.0
    z = model.transform.forward(levels)[:, 0]
    truth = _mass(law, z - 0.25, z + 0.25, sigma**2)
    rows = levels.repeat(50, 1)
    one = log_likelihood(model, rows, rtol=1e-3, atol=1e-4, dequantise=kind).log_prob.reshape(50, 5)
    many = log_likelihood(model, rows, rtol=1e-3, atol=1e-4, dequantise=kind, draws=8)
    mean = many.log_prob.reshape(50, 5).mean(0)
    assert bool((one.mean(0) < truth + 3 * one.std(0) / math.sqrt(50)).all())
    assert bool((mean > one.mean(0)).any()) and bool(((mean - truth).abs() < 0.15).all())
    weights = many.log_prob.reshape(50, 5).exp()
    assert bool(((weights.mean(0) - truth.exp()).abs() < 4 * weights.std(0) / math.sqrt(50) + 1e-3).all())
    assert many.discrete and bool((many.stderr > 0).all())


@pytest.mark.slow
def test_an_images_likelihood_of_a_network_with_labels() -> None:
    model = _network((1, 8, 8), classes=3)
    model.transform = Levels(17)
    x = torch.arange(3 * 64, dtype=torch.float64).reshape(3, 1, 8, 8) % 17
    ll = log_likelihood(model, x, "hutchinson", 2, 1e-2, 1e-2, label=torch.tensor([0, 1, 2]))
    one = log_likelihood(model, x[1:2], "hutchinson", 2, 1e-2, 1e-2, label=1, first_index=1)
    assert torch.equal(ll.log_prob[1:2], one.log_prob) and ll.dim == 64 and ll.discrete


def test_nothing_gives_nothing() -> None:
    assert len(log_likelihood(PLANE.denoiser(VP()), torch.zeros(0, 2)).log_prob) == 0


@pytest.mark.parametrize("x, options, words", [
    (f64(0.0, 1.0), {}, "single point"),
    (torch.zeros(2, 3), {}, "expected"),
    (torch.full((1, 2), math.nan), {}, "finite"),
    (torch.zeros(1, 2), {"divergence": "magic"}, "hutchinson"),
    (torch.zeros(1, 2), {"probes": 0}, "at least 1"),
    (torch.zeros(1, 2), {"dequantise": "uniform"}, "no grey levels"),
    (torch.zeros(1, 2), {"t_end": 1.5}, "t_end"),
    (torch.zeros(1, 2), {"t_end": 0.0}, "t_end"),
    (torch.zeros(1, 2), {"rtol": -1.0}, "rtol"),
])
def test_a_mistake_is_one_sentence(x: Tensor, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        log_likelihood(PLANE.denoiser(VP()), x, **options)


def test_a_model_without_a_denoiser_is_refused() -> None:
    score = ScoreModel(lambda x, t: -x, VP(), shape=(2,))
    with pytest.raises(InputError, match="denoiser"):
        log_likelihood(score, torch.zeros(1, 2))


def test_a_posterior_that_no_denoiser_describes_is_refused() -> None:
    x, model = torch.zeros(1, 2), PLANE.denoiser(VP())
    drawn = observe(model, torch.eye(2)[:1], [0.3], 0.1, "gibbs")
    for call in (log_likelihood, elbo, path_log_likelihood, encode, decode, partial(interpolate, y=x),
                 lambda model, x: kl_bound(model, PLANE)):
        with pytest.raises(InputError, match="way of its own"):
            call(drawn, x)
    guided = observe(model, torch.eye(2)[:1], [0.3], 0.1)
    assert bool(log_likelihood(guided, x, rtol=1e-2, atol=1e-2).log_prob.isfinite())
