"""Conditions in training and sampling: hidden each on its own, resumed to the bit, and against a closed form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training.small_runs import experiment, final, points, same

from undiffuse.data import Dataset, conditioned
from undiffuse.errors import InputError
from undiffuse.guidance import classifier_free, with_guidance
from undiffuse.inverse import observe
from undiffuse.random import Purpose, normal
from undiffuse.samplers.driver import sample
from undiffuse.training import load, open_run, train
from undiffuse.training.batches import Feed
from undiffuse.training.model_config import describe, initialized, rebuild
from undiffuse.transforms.conditions import split


def people(n: int = 50, classes: int = 0) -> Dataset:
    """Points with a number, a vector, a class and a text."""
    k = np.arange(n)
    return conditioned(points(n, classes), age=20.0 + k, place=np.stack([k % 7, k % 5], 1).astype(float),
                       sex=["fm"[i % 2] for i in k], note=[["a red circle", "a blue square", ""][i % 3] for i in k])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("people") / "run"
    train(experiment(held_out=10, label_dropout=0.3), folder, progress=False, data=people(classes=3))
    return folder


def test_each_is_hidden_as_often_as_asked_and_independent_of_the_others() -> None:
    e, data = experiment(batch_size=6000, label_dropout=0.3), people(6000)
    batch = Feed(e, data, rebuild(describe(e, data, ""))).batch(0)
    parts = split(data.conditions, batch.conditions)
    hidden = torch.stack([piece.isnan().all(1) for piece in parts.values()], 1)
    hidden = hidden[split(data.conditions, data.condition_values)["note"][batch.rows].isfinite().any(1)]
    error = 4 * math.sqrt(0.21 / len(hidden))
    assert (hidden.double().mean(0) - 0.3).abs().max() < error
    both = (hidden[:, :, None] & hidden[:, None]).double().mean(0)
    apart = both[~torch.eye(4, dtype=torch.bool)] - 0.09
    assert apart.abs().max() < 4 * math.sqrt(0.09 * 0.91 / len(hidden))
    specified = ~batch.conditions.isnan()
    assert torch.equal(batch.conditions[specified], data.condition_values[batch.rows][specified])


def test_a_run_that_was_stopped_ends_with_the_same_bits(run: Path, tmp_path: Path) -> None:
    e, data = experiment(held_out=10, label_dropout=0.3), people(classes=3)
    train(e, tmp_path, progress=False, data=data, stop=lambda step: step == 7)
    train(e, tmp_path, progress=False, data=data)
    assert same(final(tmp_path), final(run))
    other = conditioned(points(50, 3), age=np.arange(50.0))
    with pytest.raises(InputError, match="trained on other data"):
        train(e, tmp_path, progress=False, data=other)


def test_the_model_knows_its_conditions_when_it_is_loaded(run: Path) -> None:
    model, config = load(run, device="cpu"), open_run(run).config
    assert [c.name for c in model.conditions] == ["age", "place", "sex", "note"] and model.classes == 3
    assert config["net"]["conditions"] == [["number", 0, 1], ["vector", 0, 2], ["class", 2, 1], ["words", 6, 3]]
    cond = {"age": 30.0, "place": [1.0, 2.0], "sex": "m", "note": "a red square"}
    alone = sample(model, 1, steps=4, seed=3, first_index=2, label=1, **cond).x
    several = sample(model, 3, steps=4, seed=3, label=1, age=[20.0, None, 30.0], place=[1.0, 2.0],
                     sex=["f", "m", "m"], note=["", "blue", "a red square"]).x
    assert torch.equal(several[2:], alone) and not torch.equal(several[:1], several[1:2])
    assert torch.equal(sample(model.given(**cond), 2, steps=4, label=1).x, sample(model, 2, steps=4, label=1, **cond).x)


def test_what_is_hidden_is_what_was_left_out(run: Path) -> None:
    model = load(run, device="cpu")
    x = normal(1, 0, 0, 0, 4, (2,))
    free = model.denoise(x, 0.5)
    assert torch.equal(model.denoise(x, 0.5, age=None, note="", place=torch.full((4, 2), torch.nan)), free)
    for name, value in {"age": 30.0, "place": [1.0, 2.0], "sex": "m", "note": "red"}.items():
        told = model.denoise(x, 0.5, **{name: value})
        assert not torch.allclose(told, free)
        assert torch.allclose(model.denoise(x, 0.5, **{name: [value, None, value, None]} if name != "place" else {
            name: torch.tensor([[1.0, 2.0], [math.nan] * 2] * 2)})[::2], told[::2], atol=1e-6)


def test_guidance_has_a_scale_for_each(run: Path) -> None:
    model, x = load(run, device="cpu"), normal(1, 0, 0, 0, 4, (2,))
    free, age, sex, both = (model.denoise(x, 0.5, **c) for c in ({}, {"age": 30.0}, {"sex": "f"},
                                                                 {"age": 30.0, "sex": "f"}))
    cond = {"age": 30.0, "sex": "f"}
    found = classifier_free(model, {"age": 2.0, "sex": 0.5}).denoise(x, 0.5, **cond)
    assert torch.allclose(found, free + 2 * (age - free) + 0.5 * (sex - free), atol=1e-6)
    assert torch.allclose(classifier_free(model, 3.0).denoise(x, 0.5, **cond), free + 3 * (both - free), atol=1e-6)
    leaning = with_guidance(model, {"age": 2.0}, ["age", "sex"]).denoise(x, 0.5, **cond)
    assert torch.allclose(leaning, sex + 2 * (both - sex), atol=1e-6)
    assert with_guidance(model, 1.0, []) is model
    with pytest.raises(InputError, match="add a label or a condition"):
        with_guidance(model, {"age": 2.0}, ["sex"])


def test_a_condition_called_y_is_not_the_y_of_an_observation(tmp_path: Path) -> None:
    e, data = experiment(), conditioned(points(), y=np.arange(50.0))
    model = initialized(describe(e, data, ""), 0, data)
    for k, weight in enumerate(model.net.parameters()):  # some are 0 at first, and hide the condition
        weight.data.copy_(0.3 * normal(0, Purpose.PROBE, k, 0, 1, tuple(weight.shape))[0])
    observed = observe(model.given(y=3.0), [[1.0, 0.0]], None, 0.1)
    x = sample(observed, 2, steps=3, y=torch.tensor([[0.5], [-0.5]])).x
    for row, value in enumerate((0.5, -0.5)):
        alone = [sample(observe(model.given(y=condition), [[1.0, 0.0]], [value], 0.1), 2, steps=3).x[row]
                 for condition in (3.0, 40.0)]
        assert torch.allclose(x[row], alone[0], atol=1e-6) and not torch.allclose(x[row], alone[1], atol=1e-4)
    assert observed.conditions == ()


@pytest.mark.parametrize("cond, words", [
    ({"colour": 1}, "it has label, age, place, sex, note"), ({"sex": "x"}, "expected one of f, m"),
    ({"sex": torch.tensor([0, 5])}, "expected 0 to 1"), ({"age": [1.0, 2.0, 3.0]}, "one for each of 2"),
    ({"age": math.inf}, "finite"), ({"place": 1.0}, "expected 2 numbers"),
])
def test_values_that_no_condition_has_are_refused(run: Path, cond, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sample(load(run, device="cpu"), 2, steps=2, **cond)


def joint(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draws x (n, 2) and u (n, 2) of a Gaussian, x = B u + noise of covariance S, and B and S."""
    z = normal(3, Purpose.DATA, 50, 0, n, (4,), torch.float64)
    B, half = torch.tensor([[0.4, 0.3], [-0.3, 0.0]]).double(), torch.tensor([[0.3, 0.0], [0.1, 0.2]]).double()
    return z[:, :2] @ B.mT + z[:, 2:] @ half.mT, z[:, :2], B, half @ half.mT


@pytest.mark.slow
def test_a_trained_model_has_the_conditional_laws_of_a_gaussian(tmp_path: Path) -> None:
    """Mean and covariance given both numbers, one, and none: the means within .25 deviations, the deviations within
    15 %, of which sampling error is a tenth; the conditions move the means by up to 3 deviations."""
    x, u, B, S = joint(8192)
    data = conditioned(Dataset(x.float(), None, "points", "joint", (), ("a", "b")), age=(3 + 2 * u[:, 0]).numpy(),
                       dose=u[:, 1].numpy())
    e = experiment(net_args={"width": 64, "depth": 2, "condition": 32}, steps=1000, batch_size=256, lr=3e-3,
                   ema_decay=0.99,
                   optimizer="adamw", betas=(0.9, 0.99), save_every=1000, label_dropout=0.3, prediction_type="wiener",
                   sde="edm", sde_args={"sigma_max": 20.0})
    model = train(e, tmp_path / "run", progress=False, data=data)
    for cond in ({}, {"age": 0.0}, {"age": 6.0}, {"dose": 1.0}, {"age": 0.0, "dose": 1.0}, {"age": 6.0, "dose": -1.0}):
        known = [torch.tensor(v).double() for v in ((cond["age"] - 3) / 2 if "age" in cond else math.nan,
                                                    cond.get("dose", math.nan))]
        mean, cov = torch.zeros(2).double(), S.clone()
        for k, value in enumerate(known):
            mean, cov = (mean + B[:, k] * value, cov) if value.isfinite() else (mean, cov + B[:, k].outer(B[:, k]))
        found, sd = sample(model, 1000, steps=25, **cond).x.double(), cov.diagonal().sqrt()
        assert ((found.mean(0) - mean).abs() / sd).max() < 0.25, cond
        ratio = torch.linalg.solve(torch.linalg.cholesky(cov), torch.cov(found.mT)) @ torch.linalg.inv(
            torch.linalg.cholesky(cov)).mT
        assert (torch.linalg.eigvalsh((ratio + ratio.mT) / 2).sqrt() - 1).abs().max() < 0.15, cond


def test_a_model_with_classes_only_has_no_parameters_for_conditions() -> None:
    """Checkpoints are matched by the names of their tensors and by the digest of the description."""
    config = describe(experiment(), points(50, 3), "")
    assert config["conditions"] == [] and "conditions" not in config["net"]
    names = [name for name, _ in rebuild(config).net.named_parameters() if name.startswith("condition.")]
    assert names == [f"condition.{n}" for n in ("inner.weight", "inner.bias", "outer.weight", "outer.bias",
                                                "label.weight")]
