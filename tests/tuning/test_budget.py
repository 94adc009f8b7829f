"""The cost of a tuning before it starts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.tuning.budget import plan, rows_of, seconds_of

LAW = ud.Mixture(torch.ones(2), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), 0.2)


@pytest.mark.parametrize("text, seconds", [("90", 90), ("90s", 90), ("1.5min", 90), ("2h", 7200), (None, float("inf")),
                                           (3.0, 3)])
def test_budgets_are_times(text: Any, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-3s", "0", "3 weeks", ""])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="10min"):
        seconds_of(text)


@pytest.mark.slow
@pytest.mark.parametrize("evaluations, n, rounds", [([4], 4, 0), ([5], 8, 2), ([4, 6], 4, 1)])
def test_the_estimate_is_what_a_tuning_costs(evaluations: list[int], n: int, rounds: int) -> None:
    model = LAW.denoiser(ud.VP())
    said: list[str] = []
    tuned = ud.tune(model, evaluations=evaluations, trajectories=n, rounds=rounds, say=said.append)
    spent = sum(row["calls"] for row in tuned.tuning.rows)
    assert 0.75 * spent < rows_of(evaluations, n, rounds, 128) < 1.6 * spent
    assert said[0].startswith(f"tuning with {n} trajectories and {rounds} rounds: at most about ")


def test_a_budget_chooses_the_largest_tuning_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undiffuse.tuning.budget._seconds_per_row", lambda counter: 1e-3)
    model = LAW.denoiser(ud.VP())
    conditions: list[dict[str, object]] = [{}]
    whole = plan(model, [5, 8], conditions, None, None, None)
    assert (whole.trajectories, whole.rounds) == (32, 4) and whole.seconds > 0
    small = plan(model, [5, 8], conditions, None, None, 0.2 * whole.seconds)
    assert (small.trajectories, small.rounds) < (32, 4) and small.evaluations < 0.5 * whole.evaluations
    assert plan(model, [5], conditions, 6, 1, None).evaluations == pytest.approx(
        rows_of([5], 6, 1, 128) + 20 * 512 * (model.moments is None))
    with pytest.raises(InputError, match="expected at least"):
        plan(model, [5, 8], conditions, None, None, 1e-6)
    with pytest.raises(InputError, match="expected at least"):
        ud.tune(model, evaluations=[5], budget=1e-6)


LARGE = """
import resource, torch, undiffuse as ud
torch.set_num_threads(1)

class Noise(torch.nn.Module):
    def forward(self, x, c):
        alpha, sigma = (v.float()[:, None, None, None] for v in (ud.VP().alpha(c.double()), ud.VP().sigma(c.double())))
        D = alpha / (4 * alpha**2 * 0.25 + 4 * sigma**2) * x
        return (x - alpha * (D + 0.3 * torch.tanh(4 * D))) / sigma

model = ud.foreign(Noise(), process=ud.VP(), predict="noise", shape=(1, 256, 256))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tuned = ud.tune(model, evaluations=[4], rounds=0)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(row,) = tuned.tuning.rows
print((after - before) / 2**20, row["after"]["rmse"], row["before"]["rmse"])
"""


@pytest.mark.slow
def test_the_memory_of_a_tuning_of_large_states_is_below_one_and_a_half_gib() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    memory, after, before = map(float, done.stdout.split())
    assert memory < 1.5 and after < before
