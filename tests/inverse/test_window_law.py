"""The law of windows on an Ornstein-Uhlenbeck series, whose autocovariance, likelihood and posteriors are known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from undiffuse.inverse.series_imputer import SeriesImputer, _of_trace, pieces_of
from undiffuse.inverse.window_correction import Correction, GapNet, Pairs, hide, network_inputs, normal_crps
from undiffuse.inverse.window_law import WindowLaw, blocks, fill, fit_law, interpolate
from undiffuse.mixture import Gaussian
from undiffuse.nets import initialize
from undiffuse.processes import VP
from undiffuse.random import Purpose, normal, uniform
from undiffuse.samplers import sample

RATE, T = 0.3, 24  # dx = −0.3 x dt + √0.6 dw at whole times: Cov(x_s, x_t) = e^{−0.3 |t − s|}
LAGS = torch.arange(T, dtype=torch.float64)
COV = torch.exp(-RATE * (LAGS[:, None] - LAGS).abs())


def ou(steps: int, seed: int = 0) -> torch.Tensor:
    """An exact Ornstein-Uhlenbeck series (1, steps)."""
    eps, a = normal(seed, Purpose.DATA, 7, 0, steps, (), torch.float64), math.exp(-RATE)
    x = [eps[0]]
    for e in eps[1:]:
        x.append(a * x[-1] + math.sqrt(1 - a * a) * e)
    return torch.stack(x)[None]


def law() -> WindowLaw:
    return WindowLaw.gaussian(torch.zeros(T), COV, (1, T))


def test_gap_posteriors_are_the_closed_form() -> None:
    """Between two observed values an OU process is a bridge: mean (sinh(rb) x_a + sinh(ra) x_b)/sinh(r(a + b))."""
    x = torch.full((1, 1, T), math.nan, dtype=torch.float64)
    x[0, 0, [0, 4, 10, 23]] = torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=torch.float64)
    posterior = law().posterior(x.flatten(1).nan_to_num(), x.isnan().flatten(), 0)
    at = x.isnan().flatten().nonzero()[:, 0]
    a, b = torch.tensor(3.0), torch.tensor(3.0)  # step 7, between the steps 4 and 10
    weights = torch.sinh(RATE * b) / torch.sinh(RATE * (a + b)), torch.sinh(RATE * a) / torch.sinh(RATE * (a + b))
    k = int((at == 7).nonzero())
    assert float(posterior.mean[0, k]) == pytest.approx(float(-0.5 * weights[0] + 2.0 * weights[1]), abs=1e-6)
    variance = 2 * math.sinh(3 * RATE) ** 2 / math.sinh(6 * RATE)
    assert float(posterior.std[k]) ** 2 == pytest.approx(variance, abs=1e-6)


def test_draws_over_a_long_series_have_the_posterior_of_the_whole_series() -> None:
    """OU is Markov, so windows that are drawn in turn give the exact posterior where a gap is a quarter of one."""
    n, steps = 4000, 120
    x = ou(steps)
    gone = uniform(1, Purpose.DATA, 8, 0, steps) < 0.3
    gone[60:66] = True
    x[0, gone] = math.nan
    t = torch.arange(steps, dtype=torch.float64)
    C = torch.exp(-RATE * (t[:, None] - t).abs())
    gain = torch.linalg.solve(C[~gone][:, ~gone], C[~gone][:, gone]).T
    mean, cov = gain @ x[0, ~gone], C[gone][:, gone] - gain @ C[~gone][:, gone]
    draws = fill(law(), x, 0, n, seed=3)[:, 0]
    assert torch.equal(draws[:, ~gone], x[:, ~gone].expand(n, -1))
    d = draws[:, gone]
    assert float(((d.mean(0) - mean) / (cov.diag() / n).sqrt()).abs().max()) < 4.5
    error = (torch.cov(d.T) - cov) / ((torch.outer(cov.diag(), cov.diag()) + cov**2) / n).sqrt()
    assert float(error.square().mean()) == pytest.approx(1.0, abs=0.35)


def test_a_forecast_by_parts_has_the_law_of_the_whole() -> None:
    """x_h given x_0 is N(e^{−rh} x_0, 1 − e^{−2rh}), also where the horizon is longer than a window."""
    n, x = 4000, torch.cat([ou(40), torch.full((1, 40), math.nan, dtype=torch.float64)], 1)
    ahead = fill(law(), x, 0, n, seed=2, future=40)[:, 0, 40:]
    h = torch.arange(1, 41, dtype=torch.float64)
    mean, var = torch.exp(-RATE * h) * x[0, 39], 1 - torch.exp(-2 * RATE * h)
    assert float(((ahead.mean(0) - mean) / (var / n).sqrt()).abs().max()) < 4
    assert float((ahead.var(0) / var - 1).abs().max()) < 4 * math.sqrt(2 / n)
    lag = ((ahead[:, :-1] - mean[:-1]) * (ahead[:, 1:] - mean[1:])).mean(0)
    assert torch.allclose(lag, math.exp(-RATE) * var[:-1], atol=4 * math.sqrt(2 / n))


def test_samples_of_the_exact_denoiser_have_the_autocovariance_and_the_likelihood() -> None:
    """The diffusion model of OU windows: samples within three standard errors of the autocovariance, on average."""
    model, n = Gaussian(torch.zeros(T), COV).denoiser(VP()), 2000
    x = sample(model, n, "auto", 12, seed=5).x.double()
    cov = x.T @ x / n
    for lag in (0, 1, 5, 12):
        empirical = torch.diagonal(cov, lag).mean()
        assert float(empirical) == pytest.approx(math.exp(-RATE * lag), abs=3 * math.sqrt(2 / n))


def test_the_scores_of_steps_sum_to_the_log_density_of_what_is_observed() -> None:
    """Of two channels with gaps; the log-density of an OU window is Σ log N(x_t; e^{−r} x_{t−1}, 1 − e^{−2r})."""
    x = ou(T)
    log_prob, _, count = law().step_scores(x, 0)
    a = math.exp(-RATE)
    u = torch.cat([x[0, :1], (x[0, 1:] - a * x[0, :-1]) / math.sqrt(1 - a * a)])
    expected = -u.square() / 2 - math.log(2 * math.pi) / 2
    expected[1:] -= math.log(1 - a * a) / 2
    assert torch.allclose(log_prob, expected, atol=1e-9) and count.tolist() == [1.0] * T
    C = torch.kron(torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=torch.float64), COV)
    two = WindowLaw.gaussian(torch.arange(2.0 * T, dtype=torch.float64) / 9, C, (2, T))
    y = normal(3, Purpose.DATA, 4, 0, 1, (2, T), torch.float64)[0]
    y[0, 3:7], y[1, 5] = math.nan, math.nan
    filled = ~y.flatten().isnan()
    mean, cov = two.moments(0)
    exact = torch.distributions.MultivariateNormal(mean[filled], cov[filled][:, filled]).log_prob(y.flatten()[filled])
    log_prob, surprise, count = two.step_scores(y, 0)
    assert float(log_prob.sum()) == pytest.approx(float(exact), abs=1e-8)
    assert count[3:7].tolist() == [1, 1, 0, 1] and float(surprise[5]) == 0.0


def test_the_fit_recovers_the_law_of_a_series_with_gaps() -> None:
    """From 6,000 steps of which 40 % are missing, autocovariances within three standard errors."""
    x = ou(6000, seed=4)
    x[0, uniform(2, Purpose.DATA, 9, 0, 6000) < 0.4] = math.nan
    fitted, filled = fit_law([x], [0], T, 0, 1e-6)
    _, cov = fitted.moments(0)
    assert not filled[0].isnan().any()
    # Var of the mean of x_t x_{t+l} over n steps is (1/n) Σ_k (ρ_k² + ρ_{k−l} ρ_{k+l}); gaps at most double it
    for lag in (0, 1, 4, 12):
        k = torch.arange(-200, 201, dtype=torch.float64)
        rho = torch.exp(-RATE * k.abs())
        around = torch.exp(-RATE * ((k - lag).abs() + (k + lag).abs()))
        stderr = math.sqrt(2 * float((rho**2 + around).sum()) / 6000)
        assert float(torch.diagonal(cov, lag).mean()) == pytest.approx(math.exp(-RATE * lag), abs=3 * stderr)


def test_the_law_follows_the_phase_of_a_period() -> None:
    """A cosine of period 8 with noise: the mean follows the phase, as the first harmonic does exactly."""
    t = torch.arange(4000, dtype=torch.float64)
    x = (torch.cos(2 * math.pi * t / 8) + 0.1 * normal(1, Purpose.DATA, 3, 0, 4000, (), torch.float64))[None]
    law, _ = fit_law([x], [0], 8, 8, 1e-6)
    for begin in (0, 3, 11):
        mean, _ = law.moments(begin)
        # the weights 1 + cos(φ_i − φ) halve a first harmonic
        assert torch.allclose(mean, 0.5 * torch.cos(2 * math.pi * (begin + torch.arange(8.0).double()) / 8), atol=0.02)


def test_a_memory_multiplies_covariances_by_an_exponential_of_the_lag() -> None:
    C = torch.kron(torch.tensor([[1.0, 0.6], [0.6, 2.0]]).double(), COV)
    two = WindowLaw.gaussian(torch.zeros(2 * T), C, (2, T))
    taper = torch.exp(-(LAGS[:, None] - LAGS).abs() / 50).repeat(2, 2)
    _, cov = replace(two, memory=50).moments(0)
    assert torch.allclose(cov, two.moments(0)[1] * taper) and float(torch.linalg.eigvalsh(cov).min()) > 0


def test_weights_by_distance_leave_a_gaussian_law_and_forget_restless_times() -> None:
    """An OU series whose amplitude is 8 times as large in a tenth of the time: the correlations stay those of OU, while
    without weights a value observed in calm times hardly counts."""
    x, calm = ou(6000, seed=5), ou(6000, seed=6)
    x[0, 3000:3600] = 8 * x[0, 3000:3600] + 20 * normal(1, Purpose.DATA, 2, 0, 600, (), torch.float64)
    plain = WindowLaw.measure([x], [0], T, 0, 1e-6)
    weighted = _of_trace(WindowLaw.measure([x], [0], T, 0, 1e-6, plain), plain)
    again = WindowLaw.measure([calm], [0], T, 0, 1e-6, law())
    correlations = [cov[0, 1] / cov[0, 0] for cov in (law.moments(0)[1] for law in (plain, weighted, again))]
    assert float(correlations[0]) < 0.2 and float(correlations[1]) > 0.8 * math.exp(-RATE)
    assert float(correlations[2]) == pytest.approx(math.exp(-RATE), abs=0.03)
    assert float(weighted.moments(0)[1].trace()) == pytest.approx(float(plain.moments(0)[1].trace()), rel=1e-6)


def test_a_draw_does_not_depend_on_the_number_of_draws() -> None:
    x = ou(50)
    x[0, 10:40] = math.nan
    assert torch.equal(fill(law(), x, 0, 7, seed=1)[:3], fill(law(), x, 0, 3, seed=1))
    assert torch.equal(fill(law(), x, 0, 7, seed=1)[3:], fill(law(), x, 0, 4, seed=1, first=3))


@pytest.mark.parametrize(("steps", "future"), [(24, 0), (25, 0), (100, 0), (100, 30), (48, 24), (30, 6), (40, 16)])
def test_blocks_cover_every_step_in_order(steps: int, future: int) -> None:
    done = 0
    for start, end in blocks(steps, T, future):
        assert 0 <= start <= done < end <= min(steps, start + T)
        done = end
    assert done == steps


def test_without_outputs_the_correction_is_the_law() -> None:
    """A network of zeros and q(z) = z leave the draws of the law unchanged."""
    net = initialize(GapNet(1), 0)
    assert isinstance(net, GapNet)
    x = ou(60)
    x[0, 5:30] = math.nan
    plain = Correction(net, torch.linspace(0, 2.6, 27, dtype=torch.float64), (1, T), 0)
    assert torch.allclose(fill(law(), x, 0, 5, 1, correct=plain), fill(law(), x, 0, 5, 1), atol=1e-9)


def test_the_normal_crps_is_its_integral() -> None:
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    cdf = torch.special.ndtr(z / 1.7)
    integral = torch.trapezoid((cdf - (z >= 0.6).double()).square(), z)
    value = normal_crps(torch.tensor(0.6, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64))
    assert float(value) == pytest.approx(float(integral), abs=1e-4)


def test_pieces_are_the_series_that_windows_cover() -> None:
    x = ou(40)
    begins = torch.tensor([[0, 0], [0, 8], [0, 16], [0, 30], [1, 5]])
    windows = torch.stack([x[:, k:k + 8] for k in (0, 8, 16, 30, 5)])
    pieces = pieces_of(windows, begins)
    assert pieces.starts == [0, 30, 5] and [p.shape[1] for p in pieces.series] == [24, 8, 8]
    assert torch.equal(pieces.series[0], x[:, :24])
    for window, (k, at) in zip(windows, pieces.places.tolist(), strict=True):
        assert torch.equal(pieces.series[k][:, at:at + 8], window)


def test_interpolation_is_linear_and_constant_beyond_the_ends() -> None:
    nan = math.nan
    row = torch.tensor([[nan, 1.0, nan, nan, 4.0, nan]], dtype=torch.float64)
    assert interpolate(row)[0].tolist() == [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]


def test_only_observed_values_are_hidden() -> None:
    x = ou(300).unfold(1, T, 1).transpose(0, 1).clone()
    x[uniform(1, Purpose.DATA, 5, 0, len(x), (1, T)) < 0.2] = math.nan
    hidden = hide(x[:100], x, 0)
    assert not (hidden & x[:100].isnan()).any() and 0.05 < float(hidden.double().mean()) < 0.6
    pairs = Pairs.make(law(), x, torch.arange(len(x)), 50, 0)
    assert ((pairs.std > 0) >= pairs.hidden).all()
    assert network_inputs(pairs.mean, pairs.std, pairs.begins, 0).isfinite().all()


@pytest.mark.slow
def test_the_imputer_of_a_gaussian_series_stays_the_law_and_comes_back_from_its_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """On Gaussian data no correction gains more than its standard error; the file gives equal draws."""
    x = ou(3000, seed=8).unfold(1, T, 1).transpose(0, 1)
    begins = torch.stack([torch.zeros(len(x)), torch.arange(len(x))], 1).long()
    imputer = SeriesImputer.fit(x[:2000], begins[:2000], x[2100:], begins[2100:])
    assert imputer.scores is not None
    assert imputer.scores.get("corrected", imputer.scores["law"]) > 0.97 * imputer.scores["law"]
    imputer.save(tmp_path / "imputer.safetensors")
    again = SeriesImputer.load(tmp_path / "imputer.safetensors")
    series = ou(60)
    series[0, 20:50] = math.nan
    assert torch.equal(again.series(series, 0, 3, 1), imputer.series(series, 0, 3, 1))
    other = replace(again, correction=None)
    assert torch.equal(other.series(series, 0, 3, 1), again.series(series, 0, 3, 1, corrected=False))
