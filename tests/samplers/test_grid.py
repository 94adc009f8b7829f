"""Grids: strictly decreasing, exact at both ends, and where their formulas put them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import ENDS_IN_ZERO, PROCESSES, f64

from undiffuse.errors import InputError
from undiffuse.processes import EDM, VP
from undiffuse.samplers.grid import GRIDS, time_grid
from undiffuse.sde import NonlinearSDE

FAMILIES = {name: sde for name, sde in PROCESSES.items() if name not in ("linear", "ddpm")}


@given(steps=st.integers(1, 1000), grid=st.sampled_from([*GRIDS, "karras(3)", "karras(20.5)"]),
       process=st.sampled_from(sorted(FAMILIES)), start=st.floats(0.3, 1), end=st.floats(1e-6, 0.2))
def test_strictly_decreasing_with_exact_ends(steps: int, grid: str, process: str, start: float, end: float) -> None:
    sde = FAMILIES[process]
    t = time_grid(sde, steps, grid, start * sde.T, end * sde.T)
    assert t.dtype == torch.float64 and len(t) == steps + 1
    assert (float(t[0]), float(t[-1])) == (start * sde.T, end * sde.T)
    assert bool((t.diff() < 0).all())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", PROCESSES)
def test_few_and_many_steps(process: str, grid: str) -> None:
    sde = PROCESSES[process]
    for steps in (1, 2, 3, 10, 1000):
        t = time_grid(sde, steps, grid, None, 1e-3 * sde.T)
        assert len(t) == steps + 1 and float(t[0]) == sde.T and float(t[-1]) == 1e-3 * sde.T
        assert bool((t.diff() < 0).all())


def test_the_formulas() -> None:
    sde = EDM(80.0)
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(time_grid(sde, 10, "time", 80, 0.1), 80 - 79.9 * u)
    assert torch.allclose(time_grid(sde, 10, "time_quadratic", 80, 0.1).sqrt().diff(), (f64(0.1).sqrt() - 80**0.5) / 10)
    assert torch.allclose(time_grid(sde, 10, "log_snr", 80, 0.1).log().diff(), torch.log(f64(0.1 / 80)) / 10)
    for rho, name in ((7, "karras"), (3, "karras(3)")):
        levels = time_grid(sde, 10, name, 80, 0.1)
        assert torch.allclose(levels, (80 ** (1 / rho) + u * (0.1 ** (1 / rho) - 80 ** (1 / rho))) ** rho)
    angles = time_grid(sde, 10, "cosine_log_snr", 80, 0.1).atan()
    assert torch.allclose(angles.diff(), (angles[-1] - angles[0]) / 10)


@pytest.mark.parametrize("process", ENDS_IN_ZERO)
def test_where_alpha_is_zero_a_grid_in_log_snr_begins_after_one_step(process: str) -> None:
    sde = PROCESSES[process]
    t = time_grid(sde, 8, "log_snr", None, 1e-3, sigma_data=0.5)
    lam = sde.log_snr(t)
    assert float(t[0]) == sde.T and torch.isinf(lam[0])
    assert float(lam[1]) == pytest.approx(-math.log(160 * 0.5), abs=1e-6)
    assert torch.allclose(lam[1:].diff(), (lam[-1] - lam[1]) / 7, rtol=1e-6)


def test_a_first_step_to_a_multiple_of_the_data() -> None:
    sde = VP()
    t = time_grid(sde, 6, "karras", None, 1e-3, sigma_data=2.0, start_level=3.5)
    lam = sde.log_snr(t)
    assert len(t) == 7 and float(t[0]) == 1.0 and float(lam[1]) == pytest.approx(-math.log(7.0), abs=1e-9)
    assert torch.allclose(t[1:], time_grid(sde, 5, "karras", float(t[1]), 1e-3))
    low = float(sde.time_of(f64(0.0)))  # already below that level: no such step
    assert torch.equal(time_grid(sde, 6, "karras", low, 1e-3, start_level=3.5), time_grid(sde, 6, "karras", low, 1e-3))


def test_a_users_own_grid_is_taken_as_it_is() -> None:
    own = f64(0.9, 0.5, 0.1)
    assert torch.equal(time_grid(VP(), 99, own), own)


@pytest.mark.parametrize("grid", [f64(0.5), f64(0.1, 0.5), f64(0.5, 0.5), f64(1.5, 0.5), f64(0.5, -0.1),
                                  f64(0.5, math.nan), f64(0.9, 0.5)[None]])
def test_a_grid_that_is_none_is_refused(grid: torch.Tensor) -> None:
    with pytest.raises(InputError, match="strictly decreasing"):
        time_grid(VP(), 5, grid)


@pytest.mark.parametrize("arguments", [
    (0, "time"), (-3, "time"), (5, "log_snr", None, 0.0), (5, "time", 0.2, 0.3), (5, "time", 1.5, 0.1), (5, "nope"),
    (5, "karras(0)"), (5, "time", None, -0.1),
])
def test_a_request_without_sense_is_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match=r"expected|choose"):
        time_grid(VP(), *arguments)  # type: ignore[arg-type]


def test_a_process_without_log_snr_has_grids_in_time_only() -> None:
    sde = NonlinearSDE(lambda x, t: -x, lambda x, t: 1.0, T=2.0)
    assert torch.equal(time_grid(sde, 4, "time"), torch.linspace(2, 0, 5, dtype=torch.float64))
    with pytest.raises(InputError, match="expected one of time, time_quadratic"):
        time_grid(sde, 4, "log_snr", None, 0.1)
