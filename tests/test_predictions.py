"""Readings: the clock, the limits of D while sampling, and where a network says anything."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import f64
from torch import Tensor, nn

import undiffuse as ud
from undiffuse.errors import InputError
from undiffuse.predictions import Clip, Reading
from undiffuse.random import normal


class Constant(nn.Module):
    """A network whose output is the same everywhere, and which remembers its inputs."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.inputs = value, list[tuple[Tensor, Tensor]]()

    def forward(self, x: Tensor, c: Tensor, label: Tensor | None) -> Tensor:
        self.inputs.append((x, c))
        return torch.full_like(x, self.value)


def cosine_chain(n: int = 1000) -> ud.DDPM:
    """The capped cosine schedule, whose ᾱ(T)^½ is 5e−5."""
    bar = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return ud.DDPM(tuple(min(1 - bar[i + 1] / bar[i], 0.999) for i in range(n)))


@pytest.mark.parametrize("clock, expected", [
    ("time", lambda t: t / 80), ("sigma", lambda t: t), ("quarter_log", lambda t: 0.25 * t.log()),
    ("half_log", lambda t: (t / 2).log()), ("arctan", lambda t: 2 / math.pi * t.atan()),
    (lambda t: t**2, lambda t: t**2), ("log_snr", lambda t: (0.25 * t.log()).clamp(-2.5, 2.5))])
@pytest.mark.parametrize("rounding", ["", "round", "floor"])
def test_the_clock_is_scaled_shifted_and_rounded(clock, expected, rounding: str) -> None:
    t, turn = f64(1e-3, 0.3, 1.0, 17.0, 80.0), {"": lambda v: v, "round": torch.round, "floor": torch.floor}[rounding]
    reading = Reading("edm", 0.5, clock=clock, clock_scale=7.0, clock_shift=-1.0, rounding=rounding)
    torch.testing.assert_close(reading.time_input(ud.EDM(), t), turn(7 * expected(t) - 1))


def test_a_noise_prediction_starts_where_it_determines_the_data() -> None:
    chain = cosine_chain()
    level = math.exp(-float(chain.log_snr(Reading("noise").start(chain))))
    assert math.exp(-float(chain.log_snr(1.0))) > 1e4 and level == pytest.approx(math.exp(5.1))
    assert Reading("v").start(chain) == Reading("noise").start(ud.VP()) == 1.0
    assert Reading("v", levels=(0.01, 3.0)).start(ud.EDM()) == pytest.approx(3.0)


def test_sampling_starts_and_ends_where_the_network_was_trained() -> None:
    model = ud.Denoiser(Constant(0.0), ud.EDM(), Reading("data", clock="sigma", levels=(0.05, 3.0)), shape=(2,))
    ud.sample(model, 2, "ddim", 5)
    levels = torch.stack([c for _, c in model.net.inputs])
    assert float(levels.max()) == pytest.approx(3.0) and float(levels.min()) == pytest.approx(0.05)
    assert model.given().t_start() == model.t_start() and model.given().t_end() == model.t_end()


@pytest.mark.parametrize("prediction_type", ["noise", "score", "gradient"])
def test_a_chain_that_ends_in_noise_is_entered_below_its_end(prediction_type: str) -> None:
    chain = ud.Chain((0.9, 0.5, 0.1, 0.0))
    model = ud.Denoiser(Constant(0.1), chain, Reading(prediction_type), shape=(2,))
    assert ud.sample(model, 2, "ddim", 4).x.isfinite().all()
    with pytest.raises(InputError, match="alpha is 0"):
        model.denoise(torch.zeros(1, 2), 1.0)


def test_d_is_clipped_while_sampling_only() -> None:
    model = ud.Denoiser(Constant(3.0), ud.VP(), Reading("data", clip=Clip(1.5)), shape=(2,))
    assert torch.equal(ud.sample(model, 2, "ddim", 5).x, torch.full((2, 2), 1.5))
    for method in ("euler", "predictor_corrector"):  # through the drift, and through the score
        assert torch.equal(ud.sample(model, 2, method, 5, denoise_last=True).x, torch.full((2, 2), 1.5))
    assert torch.equal(model.denoise(torch.zeros(1, 2), 0.5), torch.full((1, 2), 3.0))
    assert torch.equal(ud.sample(ud.classifier_free(model, 2.0), 1, "ddim", 5).x, torch.full((1, 2), 1.5))


def test_dynamic_thresholding_is_imagens() -> None:
    D = 3 * normal(0, 0, 0, 0, 4, (3, 5, 5), torch.float64)
    for row, out in zip(D, Clip(2.0, 0.9)(D), strict=True):
        s = min(max(float(torch.quantile(row.abs().flatten(), 0.9)), 1.0), 2.0)
        torch.testing.assert_close(out, row.clamp(-s, s) / s)


@pytest.mark.parametrize("reading", [
    Reading(), Reading("v", 1.0, "time", 1000.0, -1.0, "round", False, (0.1, 14.0), Clip(2.0, 0.995), "consistency")])
def test_a_reading_is_its_own_configuration(reading: Reading) -> None:
    assert Reading.from_config(reading.config()) == reading


@pytest.mark.parametrize("change", [{"prediction_type": "epsilon"}, {"clock": "watch"}, {"rounding": "up"},
                                    {"kind": "other"}, {"sigma_data": 0.0}, {"levels": (2.0, 1.0)}])
def test_a_wrong_reading_is_refused(change: dict) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        Reading(**change)
    with pytest.raises(InputError, match="function"):
        Reading(clock=lambda t: t).config()
