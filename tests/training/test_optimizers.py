"""The optimiser, its schedule and the average of the weights are their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from training.small_runs import experiment, points

from undiffuse.errors import InputError
from undiffuse.nets import initialize
from undiffuse.random import normal
from undiffuse.training.ema import average_, decay
from undiffuse.training.model_config import describe, rebuild
from undiffuse.training.optimizers import EPS, Adam, flatten, learning_rate, trainable, unflatten
from undiffuse.training.state import TrainingState, schema

ONE = torch.ones((), dtype=torch.float64)
B1, B2 = 0.8, 0.95


def gradients(n: int) -> list[Tensor]:
    return [normal(1, 0, k, 0, 5, (), torch.float64) for k in range(n)]


def moment(b: float, values: list[Tensor]) -> Tensor:
    """Σ b^{K−k} value_k / Σ b^{K−k}: the weighted mean that a bias-corrected moment is."""
    weights = [b ** (len(values) - 1 - k) for k in range(len(values))]
    return sum((w * value for w, value in zip(weights, values, strict=True)), torch.zeros(5)) / sum(weights)


def test_adam_is_the_ratio_of_two_weighted_means() -> None:
    weights, g = torch.zeros(5, dtype=torch.float64), gradients(12)
    adam, expected = Adam(weights, (B1, B2)), torch.zeros(5, dtype=torch.float64)
    for k, one in enumerate(g):
        adam.update(one.clone(), 0.1, k, ONE)
        past = g[: k + 1]
        expected -= 0.1 * moment(B1, past) / (moment(B2, [p * p for p in past]).sqrt() + EPS)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-13)


def test_decay_without_a_gradient_is_a_power_in_adamw_and_a_gradient_in_adam() -> None:
    start = normal(2, 0, 0, 0, 5, (), torch.float64)
    decoupled, coupled, plain = start.clone(), start.clone(), start.clone()
    adamw, adam = Adam(decoupled, (B1, B2), 0.3, True), Adam(coupled, (B1, B2), 0.3, False)
    reference = Adam(plain, (B1, B2))
    for k in range(10):
        adamw.update(torch.zeros_like(start), 0.1, k, ONE)
        adam.update(torch.zeros_like(start), 0.1, k, ONE)
        reference.update(0.3 * plain, 0.1, k, ONE)
    torch.testing.assert_close(decoupled, start * (1 - 0.03) ** 10, rtol=1e-12, atol=0)
    torch.testing.assert_close(coupled, plain, rtol=1e-12, atol=1e-14)


def test_the_first_update_of_adam_has_the_size_of_the_rate() -> None:
    weights, g = torch.zeros(5, dtype=torch.float64), gradients(1)[0]
    Adam(weights, (0.9, 0.999)).update(g.clone(), 0.01, 0, ONE)
    torch.testing.assert_close(weights, -0.01 * g / (g.abs() + EPS), rtol=1e-10, atol=0)


@pytest.mark.parametrize("schedule, shape", [
    ("constant", lambda u: 1.0), ("linear", lambda u: 1 - u), ("cosine", lambda u: math.cos(math.pi * u / 2) ** 2),
])
def test_the_schedules_are_their_closed_forms(schedule, shape) -> None:
    e = experiment(schedule=schedule, warmup=10, steps=110, lr=0.5)
    rates = [learning_rate(e, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)], rel=1e-12)
    assert rates[10:] == pytest.approx([0.5 * shape(step / 100) for step in range(100)], rel=1e-12)
    assert max(rates) == 0.5 and min(rates) > 0


@pytest.mark.parametrize("warmup, steps", [(0, 1), (5, 5), (9, 5), (0, 7)])
def test_every_step_has_a_rate_however_long_the_warm_up(warmup: int, steps: int) -> None:
    rates = [learning_rate(experiment(warmup=warmup, steps=steps), step) for step in range(steps)]
    assert all(0 < rate <= 0.01 for rate in rates)


def test_the_average_is_the_product_form() -> None:
    """a_K = Π d_k a_0 + Σ (1 − d_k) Π_{j>k} d_j w_k, with d_k = min(0.9, (1 + k)/(10 + k))."""
    a, w = normal(3, 0, 0, 0, 5, (), torch.float64), gradients(200)
    d = [min(0.9, (1 + k) / (10 + k)) for k in range(200)]
    expected = a * math.prod(d) + sum(((1 - d[k]) * math.prod(d[k + 1 :]) * w[k] for k in range(200)), torch.zeros(5))
    for k in range(200):
        average_(a, w[k], 1 - decay(0.9, k))
    torch.testing.assert_close(a, expected, rtol=1e-12, atol=1e-13)


def test_the_ramp_forgets_the_start_as_the_tenth_power() -> None:
    """Π_{k<K} (1 + k)/(10 + k) = 9! K!/(K + 9)!."""
    share = math.prod(decay(1.0, k) for k in range(50))
    assert share == pytest.approx(1 / math.comb(59, 9), rel=1e-12)


def test_flattened_parameters_are_views_and_the_network_is_the_same() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2))
    net[2].bias.requires_grad_(False)
    x = normal(0, 0, 0, 0, 6, (3,))
    before = net(x)
    names = trainable(net)
    vector = flatten(names.values())
    assert torch.equal(net(x), before) and list(names) == ["0.weight", "0.bias", "2.weight"]
    vector.mul_(2)
    views = unflatten(vector, list(names.values()))
    assert all(torch.equal(view, p) for view, p in zip(views, names.values(), strict=True))
    net[0].weight.data.zero_()
    assert float(vector[:12].abs().sum()) == 0


def state(**changes: object) -> TrainingState:
    e = experiment(**changes)
    model = rebuild(describe(e, points(), ""))
    initialize(model.net, e.seed)
    return TrainingState(e, model)


def loss_of(s: TrainingState, factor: float = 1.0) -> Tensor:
    return factor * s.weights.new_tensor(1.0) * sum((p + 0.1).square().sum() for p in s.parameters.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e38])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "muon"])
def test_an_update_that_is_not_finite_changes_no_bit_nor_does_any_later_one(bad, clip, optimizer) -> None:
    s = state(max_grad_norm=clip, optimizer=optimizer, weight_decay=0.1)
    for _ in range(3):
        s.update(s.gradient(loss_of(s)))
    before = {name: t.clone() for name, t in s.tensors().items() if name != "sums"}
    for factor in (bad, 1.0, 1.0):
        s.update(s.gradient(loss_of(s, factor)))
    assert s.step == 6 and int(s.steps_applied) == 3 and s.is_finite()
    assert all(torch.equal(t, s.tensors()[name]) for name, t in before.items())


def test_the_gradient_is_clipped_to_the_norm_and_its_direction_kept() -> None:
    free, clipped = state(max_grad_norm=None, betas=(0.0, 0.0)), state(max_grad_norm=0.5, betas=(0.0, 0.0))
    gradient = free.gradient(loss_of(free))[:-1]
    norm = torch.linalg.vector_norm(gradient)
    expected = gradient * 0.5 / norm
    assert norm > 0.5
    clipped.update(clipped.gradient(loss_of(clipped)))
    torch.testing.assert_close(clipped.optimizer.m, expected, rtol=1e-6, atol=0)
    assert float(clipped.sums[2]) == pytest.approx(float(norm), rel=1e-6)


def test_the_meter_holds_means_and_the_schema_fits() -> None:
    s = state()
    values = []
    for _ in range(4):
        values.append(float(loss_of(s).detach()))
        s.update(s.gradient(loss_of(s)))
    count, total, _ = s.sums.tolist()
    assert count == 4 and total == pytest.approx(sum(values), rel=1e-6)
    expected = schema(rebuild(describe(experiment(), points(), "")))
    shapes = [{n: (t.shape, t.dtype) for n, t in tensors.items()} for tensors in (expected, s.tensors())]
    assert shapes[0] == shapes[1]


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    s, other = state(), state()
    for _ in range(5):
        s.update(s.gradient(loss_of(s)))
    other.restore(5, {name: t.clone() for name, t in s.tensors().items()})
    for one in (s, other):
        one.update(one.gradient(loss_of(one)))
    assert all(torch.equal(t, other.tensors()[name]) for name, t in s.tensors().items())


def test_a_description_that_is_none_is_refused() -> None:
    config = describe(experiment(), points(), "")
    for wrong in ({}, {**config, "format": 2}, {**config, "net": {"name": "mlp"}}, {**config, "dtype": "int8"},
                  {**config, "net": {**config["net"], "name": "os.system"}}, {**config, "sde": {"name": "none"}}):
        with pytest.raises(InputError):
            rebuild(wrong)


def test_a_model_of_another_format_is_refused_and_no_other() -> None:
    config = describe(experiment(), points(), "")
    with pytest.raises(InputError, match=r"its format is 1, .* train it again"):
        rebuild({**config, "format": 1})
    assert rebuild(describe(experiment(prediction_type="wiener"), points(), "")).prediction_type == "wiener"
