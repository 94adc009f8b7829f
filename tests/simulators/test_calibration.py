"""The check of calibration on posteriors that are exact, too narrow, too wide or displaced."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from undiffuse.errors import InputError
from undiffuse.simulators.calibration import LEVELS, Calibration, calibration_of

M, L = 300, 99


def calibration(scale: float = 1.0, shift: float = 0.0, seed: int = 0, simulate: bool = False) -> Calibration:
    """θ ~ N(0, I), x = θ + noise: θ | x ~ N(x/2, ½ I), with draws of another deviation or mean."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(M, 2))
    x = theta + rng.normal(size=(M, 2))
    drawn = x[:, None] / 2 + shift * math.sqrt(0.5) + scale * math.sqrt(0.5) * rng.normal(size=(M, L, 2))
    return calibration_of(("a", "b"), theta, drawn, x, seed,
                          (lambda draws: draws + rng.normal(size=draws.shape)) if simulate else None)


@pytest.mark.parametrize("seed", range(5))
def test_an_exact_posterior_shows_no_deviation(seed: int) -> None:
    result = calibration(seed=seed, simulate=True)
    assert result.calibrated, result.verdict
    for values in (result.expected_coverage, *result.coverage.values()):
        for value, level, error in zip(values, LEVELS, result.stderr, strict=True):
            assert abs(value - level) < 4 * error
    assert abs(result.c2st - 0.5) < 4 * result.c2st_stderr
    assert abs(result.ranks.mean() / L - 0.5) < 4 * math.sqrt(1 / 12 / (2 * M))


@pytest.mark.parametrize(("change", "word"), [
    ({"scale": 0.6}, "too narrow"), ({"scale": 1.7}, "too wide"), ({"shift": 0.6}, "uneven")])
def test_wrong_posteriors_are_named(change: dict[str, float], word: str) -> None:
    result = calibration(**change)
    assert not result.calibrated and word in result.verdict


def test_the_coverage_of_a_narrow_posterior_is_the_one_of_its_quantiles() -> None:
    # The true value has the deviation 1 about a centre of draws with deviation s: P(|z| < s q) for the normal z.
    from scipy.stats import norm

    result = calibration(scale=0.6)
    for value, level in zip(result.coverage["a"], LEVELS, strict=True):
        expected = 2 * norm.cdf(0.6 * norm.ppf(0.5 + level / 2)) - 1
        assert abs(value - expected) < 4 * math.sqrt(expected * (1 - expected) / M) + 1 / (L + 1)


def test_outputs_that_the_draws_do_not_predict_are_named() -> None:
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(M, 1))
    drawn = theta[:, None] + rng.normal(size=(M, L, 1))
    result = calibration_of(("a",), theta, drawn, 3 + theta, 0, lambda draws: draws)
    assert "lie outside of the 95% intervals" in result.verdict


def test_the_numbers_are_json_and_few_simulations_are_refused() -> None:
    numbers = json.loads(json.dumps(calibration(scale=0.6, simulate=True).to_dict()))
    assert numbers["simulations"] == M and numbers["predictive_outside"] < 0.1 and numbers["levels"] == list(LEVELS)
    with pytest.raises(InputError, match="expected at least 20 of both"):
        calibration_of(("a",), np.zeros((10, 1)), np.zeros((10, L, 1)), np.zeros((10, 1)))
    with pytest.raises(InputError, match="outputs of 1 numbers; expected 2"):
        rng = np.random.default_rng(0)
        calibration_of(("a",), rng.normal(size=(30, 1)), rng.normal(size=(30, L, 1)), rng.normal(size=(30, 2)), 0,
                       lambda draws: draws)
