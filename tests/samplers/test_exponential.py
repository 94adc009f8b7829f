"""One clock: the exponential family gives the same sample through every process, and what it reduces to."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from affine import few_steps_are_worse
from oracles import correlated_gaussian, f64, random_mixture
from torch import Tensor

from undiffuse.errors import InputError
from undiffuse.moments import Moments
from undiffuse.processes import EDM, VE, VP, RectifiedFlow, SubVP
from undiffuse.random import normal
from undiffuse.samplers import ALL, multistep
from undiffuse.samplers.coefficients import (
    DataPrediction,
    NoisePrediction,
    adams,
    batch_step_coefficients,
    exact,
    half_curvature,
    midpoint,
    square,
    step_coefficients,
)
from undiffuse.samplers.driver import sample
from undiffuse.samplers.method import nodes_of
from undiffuse.samplers.registry import DETERMINISTIC, as_method
from undiffuse.sde import GaussianSDE

CLOCKS = (VP(), SubVP(), VE(sigma_min=1e-3), EDM(), RectifiedFlow())
STOCHASTIC = ("ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "seeds_2")


def through(sde: GaussianSDE, name: str, z: Tensor, lam: Tensor, **options: object) -> Tensor:
    """z = x/α at the end of a grid in λ."""
    grid = sde.time_of(lam)
    ends = sde.alpha(grid[[0, -1]])
    model = random_mixture(4, 2).denoiser(sde)
    out = sample(model, method=as_method(name), x_T=ends[0] * z, grid=grid, denoise_last=False, options=options, seed=3,
                 block=16)
    return out.x / ends[1]


@pytest.mark.parametrize("name", [*DETERMINISTIC, *STOCHASTIC, "midpoint_log_snr", "rk4_log_snr"])
def test_the_same_start_and_grid_give_the_same_sample_through_every_process(name: str) -> None:
    z = 5 * normal(0, 0, 0, 0, 16, (2,), torch.float64)
    lam = torch.linspace(-math.log(5.0), math.log(20.0), 12, dtype=torch.float64)
    first, *others = (through(sde, name, z, lam) for sde in CLOCKS)
    for other in others:
        assert float((other - first).abs().max()) < 1e-10


@pytest.mark.parametrize("name", ["wiener_1", "wiener_2m", "wiener_3m", "wiener_4m"])
@pytest.mark.parametrize("sde", [*CLOCKS, RectifiedFlow()], ids=lambda sde: sde.name)
def test_the_wiener_frame_is_exact_in_one_step_on_gaussian_data(name: str, sde: GaussianSDE) -> None:
    """The flow of N(μ, C) is y' = (Ψ'/Ψ) y; ours, in one step and in seven, against that."""
    law = correlated_gaussian()
    model = law.denoiser(sde)
    x = sde.prior_std() * normal(1, 0, 0, 0, 8, (3,), torch.float64)
    t = f64(sde.T, 0.02 * sde.T)
    (a, b), (s, r) = sde.alpha(t), sde.sigma(t)
    spectrum, basis = torch.linalg.eigh(law.covariance)
    gain = ((b**2 * spectrum + r**2) / (a**2 * spectrum + s**2)).sqrt()
    truth = b * law.mean + (x - a * law.mean) @ basis * gain @ basis.T
    for steps in (1, 7):
        out = sample(model, method=as_method(name), steps=steps, x_T=x, t_end=float(t[1]), denoise_last=False)
        assert torch.allclose(out.x, truth, atol=1e-9)
        assert out.nfe == steps


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc", "dpmpp_3s", "dpmpp_2m_sde"])
def test_a_frame_without_variance_is_no_frame(name: str) -> None:
    model = random_mixture(3, 2).denoiser(VP())
    model.moments = Moments((2,), f64(0.3, -1.0), torch.zeros(2, dtype=torch.float64), "pca",
                            torch.eye(2, dtype=torch.float64))
    plain, framed = (sample(model, 6, as_method(name), 9, options={"frame": frame}).x for frame in (False, True))
    assert torch.allclose(plain, framed, atol=1e-9)


def test_ddim_is_the_closed_form_of_a_held_denoiser() -> None:
    model, sde = random_mixture().denoiser(VP()), VP()
    x, t = normal(0, 0, 0, 0, 5, (2,), torch.float64), f64(1.0, 0.3)
    (a, b), (s, r) = sde.alpha(t), sde.sigma(t)
    D = model.denoise(x, t[0])
    by_hand = b * D + r * (x - a * D) / s
    for method in ("ddim", multistep(1, "noise")):
        assert torch.allclose(sample(model, method=method, x_T=x, grid=t, denoise_last=False).x, by_hand, atol=1e-12)


def test_dpmpp_2m_is_the_published_formula() -> None:
    """x = (σ'/σ) x − α' (e^{−h} − 1) [(1 + 1/2r) D − D_before/2r], r = h_before/h (Lu et al. 2022, algorithm 2)."""
    model, sde = random_mixture().denoiser(VP()), VP()
    x, t = normal(0, 0, 0, 0, 5, (2,), torch.float64), f64(0.9, 0.6, 0.35)
    states = sample(model, method="dpmpp_2m", x_T=x, grid=t, denoise_last=False, trajectory=True, block=5).trajectory
    D = [model.denoise(y, s) for (_, y), s in zip(states, t, strict=True)]
    h = sde.log_snr(t).diff()
    r = h[0] / h[1]
    by_hand = (sde.sigma(t[2]) / sde.sigma(t[1]) * states[1][1]
               - sde.alpha(t[2]) * torch.expm1(-h[1]) * ((1 + 1 / (2 * r)) * D[1] - D[0] / (2 * r)))
    assert torch.allclose(states[2][1], by_hand, atol=1e-12)


@pytest.mark.parametrize(
    "kernel",
    [DataPrediction(), NoisePrediction(), DataPrediction(1.0), DataPrediction(0.5)],
    ids=["data", "noise", "sde", "half"],
)
def test_rows_integrate_polynomials_exactly(kernel: DataPrediction | NoisePrediction) -> None:
    """Σ w_j ν_jᵏ is ∫ kernel(u) uᵏ du, by a sum over 20,000 points."""
    node, s = nodes_of(EDM(), f64(2.0, 0.7))
    offsets = [0.0, -0.4, -1.1]
    weights = step_coefficients(kernel, node, s, offsets, template=f64(0.0)).weights
    h = node.step_to(s)
    u = (np.arange(20000) + 0.5) / 20000 * h
    c = 1 + kernel.level(node) ** 2 if isinstance(kernel, DataPrediction) else 0
    inside = c * np.exp(-c * (h - u)) if isinstance(kernel, DataPrediction) else -np.exp(-(node.log_snr + u))
    for k in range(3):
        assert sum(w * nu**k for w, nu in zip(weights, offsets, strict=True)) == pytest.approx(
            float((inside * u**k).mean() * h), rel=1e-7)


@pytest.mark.parametrize("rule", [exact, midpoint, square, half_curvature, adams])
def test_many_rows_at_once_are_the_rows_one_by_one(rule: object) -> None:
    nodes = nodes_of(VP(), torch.linspace(0.9, 0.1, 30, dtype=torch.float64))
    steps = list(pairwise(nodes))
    frame = Moments((2,), f64(0.0, 0.0), f64(2.0, 0.1), "pca", torch.eye(2, dtype=torch.float64))
    for kernel in (
        DataPrediction(),
        DataPrediction(1.0),
        NoisePrediction(),
        DataPrediction(frame=frame),
        DataPrediction(lambda level: float(level > 1)),
    ):
        offsets = [[0.0, -0.3, -0.7, -1.3][:1 + i % 4] for i in range(29)]
        together = batch_step_coefficients(kernel, steps, offsets, rule, template=f64(0.0))
        for (node, s), nu, found in zip(steps, offsets, together, strict=True):
            alone = step_coefficients(kernel, node, s, nu, rule, template=f64(0.0))
            for one, other in zip((alone.decay, *alone.weights, alone.noise_std),
                                  (found.decay, *found.weights, found.noise_std), strict=True):
                assert torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-12, atol=1e-15)


def test_published_rules_differ_from_the_exact_one_where_they_say() -> None:
    """UniPC's two functions B agree with each other through three values; iPNDM's numbers are those of equal steps."""
    node, s = nodes_of(EDM(), f64(2.0, 1.0))
    h = node.step_to(s)
    one, two = (
        step_coefficients(DataPrediction(), node, s, [0.0, -h, -2 * h], rule, template=f64(0.0))
        for rule in (midpoint, square)
    )
    assert one.weights == pytest.approx(two.weights)
    pair = step_coefficients(DataPrediction(), node, s, [0.0, -h], square, template=f64(0.0)).weights
    assert sum(w * nu for w, nu in zip(pair, (0.0, -h), strict=True)) == pytest.approx(h**2 / 2)
    numbers = step_coefficients(NoisePrediction(), node, s, [0.0, -h], adams, template=f64(0.0)).weights
    assert [w / sum(numbers) for w in numbers] == pytest.approx([1.5, -0.5])


def test_a_step_leaves_the_state_it_came_from_alone() -> None:
    """Steps write into buffers of their own; what the trajectory and the callback have seen does not change."""
    model, seen = random_mixture().denoiser(VP()), []
    out = sample(model, 4, "deis_3", 9, trajectory=True, block=4,
                 callback=lambda i, t, x: seen.append((x, x.clone())))
    assert all(torch.equal(x, copy) for x, copy in seen)
    assert all(torch.equal(x, copy) for (_, x), (_, copy) in zip(out.trajectory[1:], seen, strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VP(), EDM(), RectifiedFlow()], ids=lambda sde: sde.name)
def test_every_deterministic_sampler_nears_a_gaussian_from_its_first_steps_on(sde: GaussianSDE) -> None:
    """On its default grid, by the exact mean and covariance of its samples."""
    names = [name for name, method in ALL.items() if not method.stochastic and not method.adaptive]
    assert len(names) > 30 and [name for name in names if not few_steps_are_worse(name, sde)] == []


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(InputError, match="lower_final"):
        sample(random_mixture().denoiser(VP()), 1, "dpmpp_2m", options={"upper_final": True})


def test_lower_final_ends_with_a_first_order_step() -> None:
    """The last step is DDIM's from the state before it."""
    model, t = random_mixture().denoiser(VP()), f64(0.9, 0.6, 0.35, 0.1)
    out = sample(model, 4, "dpmpp_3m", grid=t, denoise_last=False, trajectory=True, block=4,
                 options={"lower_final": True}).trajectory
    last = sample(model, method="ddim", x_T=out[2][1], grid=t[2:], denoise_last=False, block=4).x
    assert torch.allclose(out[3][1], last, atol=1e-12)
