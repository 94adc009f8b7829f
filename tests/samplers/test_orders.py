"""Every sampler of the table has the order that it claims, on every process; one that drops fails here.

A sampler is tested by being in `ALL`. The methods that choose their own steps have no order in the step.
"""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.measure.orders import (
    PROCESSES,
    Order,
    end_error,
    growing_grid,
    measurable,
    orders,
    strong_errors,
    weak_errors,
)
from undiffuse.mixture import Gaussian
from undiffuse.processes import VE
from undiffuse.random import normal
from undiffuse.samplers import ALL
from undiffuse.samplers.driver import sample

DETERMINISTIC = [name for name in measurable() if not ALL[name].stochastic]
STOCHASTIC = [name for name in measurable() if ALL[name].stochastic]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_sampler_has_its_order_on_vp(name: str) -> None:
    (found,) = orders([name], ["vp"])
    assert found.measured == pytest.approx(ALL[name].order, abs=0.15), found


@pytest.mark.slow
@pytest.mark.parametrize("process", [name for name in PROCESSES if name != "vp"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_sampler_has_its_order_on_every_process(name: str, process: str) -> None:
    (found,) = orders([name], [process])
    assert found.measured == pytest.approx(ALL[name].order, abs=0.15), found


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_sampler_has_at_least_its_weak_order(name: str, process: str) -> None:
    (found,) = orders([name], [process])
    assert found.measured > ALL[name].order - 0.15, found


def test_the_measure_sees_a_first_order_start() -> None:
    """Without the growing steps a third-order multistep method is of second order: the start is what remains."""
    sde = PROCESSES["vp"]
    even = [growing_grid(sde, n, 1) for n in (64, 128)]
    late = [growing_grid(sde, n, 3) for n in (64, 128)]
    assert math.log2(end_error("dpmpp_3m", sde, even[0]) / end_error("dpmpp_3m", sde, even[1])) < 2.5
    assert math.log2(end_error("dpmpp_3m", sde, late[0]) / end_error("dpmpp_3m", sde, late[1])) > 2.85


def test_the_published_3m_is_of_second_order_and_ours_is_not() -> None:
    assert Order("classic", "vp", 2, strong_errors("dpmpp_3m_classic", PROCESSES["vp"])).measured < 2.3
    assert Order("consistent", "vp", 3, strong_errors("dpmpp_3m", PROCESSES["vp"])).measured > 2.85


def test_ancestral_sampling_is_of_weak_order_one() -> None:
    assert Order("ancestral", "ve", 1, weak_errors("ancestral", PROCESSES["ve"])).measured == pytest.approx(1, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name, options, bias", [
    ("predictor_corrector", {"r": 0.16}, 0.16**2),
    ("predictor_corrector", {"r": 0.0}, 0.0),
    ("annealed_langevin", {"size": 0.1}, 1 / (1 - 0.1 * 0.16 / (2 * 0.41)) - 1),
])
def test_langevin_steps_are_of_first_order_up_to_the_bias_of_their_size(name: str, options: dict[str, float],
                                                                        bias: float) -> None:
    """In many dimensions every norm is its mean. On N(0, v I) a step of ε takes the variance q v to
    (1 − ε/v)² q v + 2 ε, which rests at q = 1/(1 − ε/2v) for a fixed ε, and at q = 1 + r² for ε = 2 r² v/q."""
    sde, d = VE(), 2**18
    model = Gaussian([0.0], 0.25).denoiser(sde)
    model.shape = (d,)
    model.denoise = lambda x, t: x * 0.25 / (0.25 + float(sde.variance(t)))
    found = []
    for steps in (32, 64):
        grid = growing_grid(sde, steps, 1)
        start = math.sqrt(0.25 + 4) * normal(1, 0, 0, 0, 1, (d,), torch.float64)
        x = sample(model, method=name, grid=grid, x_T=start, denoise_last=False, options=options, block=1).x
        found.append(float(x.square().mean()) / 0.41 - 1 - bias)
    noise = 2 * math.sqrt(2 / d)
    assert found[0] / 2 == pytest.approx(found[1], abs=2 * noise + 0.15 * found[1])
