"""A step is a pure function that asks: a run by questions and answers is the run by calls, for every method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oracles import random_mixture
from torch import Tensor

from undiffuse.processes import VP, RectifiedFlow
from undiffuse.random import Purpose, normal
from undiffuse.samplers.asking import StepwiseRun
from undiffuse.samplers.driver import sample
from undiffuse.samplers.grid import time_grid
from undiffuse.samplers.method import CountingModel, SamplerContext, State, nodes_of
from undiffuse.samplers.registry import ALL
from undiffuse.sde import GaussianSDE

METHODS = [name for name, method in ALL.items() if not method.adaptive]
LAW = random_mixture()


def noise(index: int, stage: int, t: Tensor, s: Tensor) -> Tensor:
    return normal(0, Purpose.STEP, (index << 34) + stage, 0, 5, (2,), torch.float64)


@pytest.mark.parametrize("sde", [VP(), RectifiedFlow()], ids=["vp", "rectified_flow"])
@pytest.mark.parametrize("name", METHODS)
def test_a_run_by_asking_is_the_run_by_calling(name: str, sde: GaussianSDE) -> None:
    model, method = LAW.denoiser(sde), ALL[name]
    grid = time_grid(sde, 6, "log_snr", 0.95, 0.01)
    called = sample(model, 5, method, grid=grid, block=5)
    nodes, x = nodes_of(sde, grid), model.prior_sample(5, 0, 0, float(grid[0]))
    run = StepwiseRun(model, method.step(SamplerContext(model, nodes, x), {}), nodes, x, noise)
    questions, result = 0, x
    while run.need is not None:
        result, questions = run.answer(model.denoise(run.need.x, run.need.t)), questions + 1
    assert questions == called.nfe and torch.equal(result, called.x)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_a_pure_function(name: str) -> None:
    """Taken twice from one state, it gives the same bytes and changes nothing."""
    model, method = LAW.denoiser(VP()), ALL[name]
    nodes = nodes_of(VP(), time_grid(VP(), 5, "log_snr", None, 0.01))
    x = model.prior_sample(5, 0, 0)
    step = method.step(SamplerContext(model, nodes, x), {})
    state = State(x, nodes[0], 0, CountingModel(model, {}), noise)
    for node in nodes[1:]:
        before = (state.x.clone(), state.index, state.node)
        first, second = step(state, node), step(replace(state, model=CountingModel(model, {})), node)
        assert torch.equal(first.x, second.x) and torch.equal(state.x, before[0])
        assert (state.index, state.node) == before[1:] and first.index == state.index + 1
        state = first


def test_a_state_that_is_moved_asks_again() -> None:
    model = LAW.denoiser(VP())
    nodes = nodes_of(VP(), time_grid(VP(), 3, "log_snr", None, 0.01))
    x = model.prior_sample(5, 0, 0)
    run = StepwiseRun(model, ALL["dpmpp_2s"].step(SamplerContext(model, nodes, x), {}), nodes, x, noise)
    assert run.at_state
    run.move(2 * x)
    assert run.need is not None and torch.equal(run.need.x, 2 * x)
    run.answer(x)
    assert not run.at_state  # between two evaluations of one step
    while run.need is not None:
        run.answer(x)
    with pytest.raises(IndexError, match="ended"):
        run.answer(x)
