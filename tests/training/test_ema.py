"""Power averages: their profiles, other lengths made of stored ones, and the run that is sampled with one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training.small_runs import experiment, final, points

from undiffuse.errors import InputError
from undiffuse.training import load, open_run, train
from undiffuse.training.ema import EXPONENTS, SIGMA_RELS, combined, exponent, power_rates
from undiffuse.training.ema_sweep import compare_ema


def power_average(path: torch.Tensor, gamma: float) -> torch.Tensor:
    """The averages after every update, by the definition: Σ_τ w_τ ∫_{τ−1}^{τ} p(u) du."""
    t = torch.arange(1, len(path) + 1, dtype=torch.float64)
    mass = t ** (gamma + 1) - (t - 1) ** (gamma + 1)
    return (mass * path).cumsum(0) / mass.cumsum(0)


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_gives_the_relative_deviation(length: float) -> None:
    """σ_rel² is the variance of τ/t under the density (γ+1) u^γ on [0, 1]."""
    gamma = exponent(length)
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert math.sqrt(square - mean**2) == pytest.approx(length, rel=1e-9)


def test_the_recursion_is_the_profile() -> None:
    path = torch.sin(torch.arange(1, 200, dtype=torch.float64) / 17)
    both = torch.zeros(2, 1, dtype=torch.float64)
    for k, w in enumerate(path):
        both.lerp_(w.reshape(1), power_rates(k, both))
    expected = [power_average(path, gamma)[-1] for gamma in EXPONENTS]
    torch.testing.assert_close(both[:, 0], torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [0.06, 0.08, 0.13, 0.2])
def test_an_average_of_another_length_is_made_of_stored_ones(length: float) -> None:
    """Paths of weights as a training has them, a trend and slow waves: eight stored pairs leave less than a fifth of
    the distance to the nearest stored length."""
    u = torch.arange(1, 4001, dtype=torch.float64) / 4000
    for path in (u.sqrt(), torch.exp(-4 * u), torch.cos(6 * u) + u):
        stored = [torch.stack([power_average(path, gamma)[s - 1] for gamma in EXPONENTS]).reshape(2, 1)
                  for s in range(500, 4001, 500)]
        made = float(combined(list(zip(range(500, 4001, 500), stored, strict=True)), length))
        truth = float(power_average(path, exponent(length))[-1])
        near = min((float(power_average(path, exponent(s))[-1]) for s in SIGMA_RELS), key=lambda v: abs(v - truth))
        assert abs(made - truth) < 0.2 * abs(near - truth), (made, truth, near)


def test_a_run_is_sampled_with_the_average_that_was_chosen(tmp_path: Path) -> None:
    data = points(80)
    train(experiment(held_out=20), tmp_path / "run", data=data, progress=False)
    run, running = open_run(tmp_path / "run"), load(tmp_path / "run")
    rows = compare_ema(tmp_path / "run", (0.05, 0.1), data)
    assert [row.sigma_rel for row in rows] == [None, 0.05, 0.1]
    assert len({row.held_out for row in rows}) == 3
    run.choose_ema(0.1)
    chosen, stored = load(tmp_path / "run"), load(tmp_path / "run", "running")
    weights = [torch.cat([p.flatten() for p in model.net.parameters()]) for model in (chosen, stored, running)]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    run.choose_ema(None)
    assert run.ema_choice() is None
    for wrong in (0.0, 0.3, -1.0):
        with pytest.raises(InputError, match="σ_rel ="):
            run.choose_ema(wrong)


def test_the_average_that_was_kept_is_made_again_from_the_files(tmp_path: Path) -> None:
    """At a stored length it is the stored average itself, up to half precision."""
    train(experiment(), tmp_path / "run", data=points(), progress=False)
    model, run = load(tmp_path / "run"), open_run(tmp_path / "run")
    run.load_average(model, SIGMA_RELS[1])
    made = torch.cat([p.flatten() for p in model.net.parameters()])
    stored = final(tmp_path / "run")["ema_profiles"][1]
    assert float((made - stored).abs().max()) < 4 * np.finfo(np.float16).eps * float(stored.abs().max())
    (tmp_path / "run" / "averages" / "checkpoint-8.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="damaged"):
        run.load_average(model, 0.1)
