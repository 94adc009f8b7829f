"""Encodings: inverses of one another, draws of the prior for draws of the data, and the same as the sampler's."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import PROCESSES, f64, random_mixture
from scipy import stats

from undiffuse.errors import InputError
from undiffuse.likelihood import decode, encode, interpolate
from undiffuse.likelihood.coordinates import WhitenedCoordinates
from undiffuse.likelihood.latents import slerp, whitened_from_code
from undiffuse.mixture import Mixture
from undiffuse.model import Denoiser
from undiffuse.nets import build
from undiffuse.processes import EDM, VP, RectifiedFlow
from undiffuse.samplers.driver import sample
from undiffuse.sde import GaussianSDE
from undiffuse.transforms.base import Standardise

PLANE = random_mixture(3, 2)


@pytest.mark.parametrize("name", ["vp", "ve", "edm", "rectified_flow"])
def test_encoding_and_decoding_are_inverse(name: str) -> None:
    model, x = PLANE.denoiser(PROCESSES[name]), PLANE.sample(200, seed=1)
    code = encode(model, x)
    assert float((decode(model, code) - x).square().mean().sqrt()) <= 1e-5
    assert torch.equal(encode(model, x[5:6]), code[5:6])


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_the_round_trip_of_a_network(dtype: torch.dtype, bound: float) -> None:
    net = build("mlp", (2,), 0, width=32, depth=2)
    for p in net.parameters():
        p.data = torch.sin(torch.arange(p.numel(), dtype=torch.float32)).reshape(p.shape) / math.sqrt(p.shape[-1])
    model = Denoiser(net, VP(), shape=(2,), transform=Standardise((1.0, 2.0), (2.0, 0.5))).to(dtype)
    x = 1 + PLANE.sample(50, seed=2)
    back = decode(model, encode(model, x))
    assert float((back - x).square().mean().sqrt()) <= bound


def test_on_a_line_the_code_is_the_quantile() -> None:
    law = Mixture([1, 2], [[-1.0], [0.8]], 0.1)
    x = law.sample(100, seed=3)
    cdf = torch.special.ndtr((x - law.means[:, 0]) / math.sqrt(0.1)) @ law.weights
    u = whitened_from_code(WhitenedCoordinates(law.denoiser(VP())), encode(law.denoiser(VP()), x))[:, 0]
    assert float((torch.special.ndtri(cdf) - u).abs().max()) < 1e-3


def test_codes_of_data_are_draws_of_the_prior() -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(1000, seed=4)
    u = whitened_from_code(WhitenedCoordinates(model), encode(model, x))
    assert min(stats.kstest(u[:, i].numpy(), "norm").pvalue for i in range(2)) > 0.01


def test_a_code_is_a_start_for_the_sampler() -> None:
    model, x = PLANE.denoiser(PROCESSES["edm"]), PLANE.sample(50, seed=5)
    out = sample(model, x_T=encode(model, x), method="ode45", options={"rtol": 1e-8, "atol": 1e-8}, denoise_last=False)
    assert float((out.x - x).abs().median()) < 1e-4


@pytest.mark.parametrize("sde", [VP(), RectifiedFlow()])
def test_ddim_inversion_is_exact_where_its_fixed_point_iteration_converges(sde) -> None:
    model, x = PLANE.denoiser(sde), PLANE.sample(100, seed=6)
    code = encode(model, x, "ddim", steps=40)
    assert float((decode(model, code, "ddim", steps=40) - x).abs().max()) < 1e-9
    rough = decode(model, encode(model, x, "ddim", steps=40, iterations=0), "ddim", steps=40)
    assert float((rough - x).square().mean().sqrt()) > 0.01
    assert torch.equal(encode(model, x[7:8], "ddim", steps=40), code[7:8])


@pytest.mark.parametrize("sde", [VP(), EDM(), RectifiedFlow()], ids=lambda sde: sde.name)
def test_ddim_steps_are_inverted_exactly_or_refused(sde: GaussianSDE) -> None:
    """Too large steps, where the fixed-point iteration diverges: no code that does not decode to the data."""
    law = random_mixture(3, 2)
    model, x, exact = law.denoiser(sde), law.sample(6), 0
    for steps in (1, 2, 4, 8, 16, 32, 64):
        try:
            code = encode(model, x, "ddim", steps=steps)
        except InputError as error:
            assert "too large to invert" in str(error)
        else:
            exact += 1
            assert float((decode(model, code, "ddim", steps=steps) - x).abs().max()) < 1e-6
    assert 1 <= exact < 7
    assert encode(model, x, "ddim", steps=4, iterations=0).isfinite().all()


def test_interpolations_begin_and_end_at_the_data_and_keep_to_the_arc() -> None:
    model, x = PLANE.denoiser(VP()), PLANE.sample(6, seed=7)
    between = interpolate(model, x[:3], x[3:], n=5)
    assert torch.allclose(between[:, 0], x[:3], atol=1e-4) and torch.allclose(between[:, -1], x[3:], atol=1e-4)
    u, v = f64(1.0, 0.0)[None], f64(0.0, 1.0)[None]
    assert torch.allclose(slerp(u, v, f64(1 / 3))[0, 0], f64(math.cos(math.pi / 6), math.sin(math.pi / 6)))
    assert torch.allclose(slerp(u, u, f64(0.3))[0, 0], u[0])


@pytest.mark.parametrize("call", [
    lambda m: encode(m, torch.zeros(2, 2), "euler"), lambda m: decode(m, torch.zeros(2, 3)),
    lambda m: interpolate(m, torch.zeros(2, 2), torch.zeros(1, 2)), lambda m: encode(m, torch.zeros(2)),
])
def test_a_mistake_is_one_sentence(call) -> None:
    with pytest.raises(InputError, match="expected"):
        call(PLANE.denoiser(VP()))
