"""The numbers: recomputed by other means, blind to held-out rows where they must be, and alarmed by copies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from report.conftest import Copier, Tiny
from torch import Tensor

from undiffuse import metrics, training
from undiffuse.data import Dataset, distance_to_curve
from undiffuse.errors import InputError
from undiffuse.report import evaluate
from undiffuse.report.evaluate import ReportData, gather, measure
from undiffuse.report.wording import nouns, verdict
from undiffuse.samplers.driver import sample


def brute_nearest(x: Tensor, rows: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The root mean square difference per pixel to the nearest row, without any matrix product."""
    a, b = (v.double().flatten(1).numpy() / 16 for v in (x, rows))
    return np.array([np.sqrt(((row - b) ** 2).mean(1)).min() for row in a])


@pytest.fixture(scope="module")
def seen(images: Tiny) -> ReportData:
    return gather(images.folder, 60, data=images.data)


def test_image_numbers_equal_those_computed_by_hand(images: Tiny, seen: ReportData) -> None:
    numbers = evaluate(images.folder, n=60, data=images.data)
    train, held = training.load_data(images.folder, images.data)
    assert held is not None and held.y is not None and train.y is not None and seen.labels is not None
    x = sample(training.load(images.folder), 60, steps=20, label=seen.labels).x.round().clamp(0, 16)
    assert torch.equal(x, seen.made)
    near, real = brute_nearest(x, train.x), brute_nearest(held.take(torch.arange(100)).x, train.x)
    # torch's median of 60 values is the lower one of the two in the middle
    assert numbers["nearest_made"] == pytest.approx(float(np.sort(near)[29]), rel=1e-6)
    some = real[np.unique(np.linspace(0, 99, 60).round().astype(int))]
    assert numbers["nearest_held_out"] == pytest.approx(float(np.sort(some)[29]), rel=1e-6)
    assert numbers["nearest_ratio"] == numbers["nearest_made"] / numbers["nearest_held_out"]
    assert numbers["copies"] == pytest.approx((near < np.quantile(some, 0.01)).mean())
    read = metrics.classifier(train.x, train.y)(x)
    assert numbers["class_agreement"] == pytest.approx(float((read == seen.labels).double().mean()))
    assert sum(map(sum, numbers["confusion"])) == 60
    assert sum(numbers["confusion"][k][k] for k in range(10)) / 60 == pytest.approx(numbers["class_agreement"])
    assert sum(rate["n"] for rate in numbers["per_class"].values()) == 60


def test_the_judge_and_the_neighbours_never_see_held_out_rows(
    seen: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen.held_out is not None
    known: list[Tensor] = []
    judge, nearest = metrics.classifier, metrics.nearest_distance
    monkeypatch.setattr(metrics, "classifier", lambda x, y: (known.append(x / 128), judge(x, y))[1])
    monkeypatch.setattr(metrics, "nearest_distance", lambda x, rows: (known.append(rows), nearest(x, rows))[1])
    measure(seen)
    assert len(known) == 3
    held = {tuple(row) for row in seen.held_out.x.flatten(1).double().div(128).tolist()}
    train = {tuple(row) for row in seen.train.x.flatten(1).double().div(128).tolist()}
    for rows in known:
        assert len(rows) == len(seen.train)
        used = {tuple(row) for row in rows.flatten(1).double().tolist()}
        assert used == train and not used & (held - train)


def test_labels_are_as_frequent_as_in_the_training_rows(images: Tiny) -> None:
    seen = gather(images.folder, 300, data=images.data)
    assert seen.labels is not None and seen.train.y is not None
    assert torch.equal(seen.labels.bincount(minlength=10), seen.train.y.bincount(minlength=10))


def test_a_model_that_returns_its_training_images_is_named(images: Tiny, seen: ReportData) -> None:
    copier = Copier(seen.model, seen.train.x)
    caught = gather(images.folder, 60, model=copier, data=images.data)
    numbers = measure(caught).numbers
    assert numbers["identical"] == 60 and numbers["nearest_ratio"] < 1e-6 and numbers["copies"] == 1
    assert "the model copies" in verdict(numbers, seen.train).warning


def test_a_single_planted_copy_is_found(seen: ReportData) -> None:
    assert seen.held_out is not None
    honest = replace(seen, made=seen.held_out.x[:60].float())
    assert measure(honest).numbers["identical"] == 0 and verdict(measure(honest).numbers, seen.train).warning == ""
    made = honest.made.clone()
    made[17] = seen.train.x[5].float()
    found = measure(replace(seen, made=made))
    assert found.numbers["identical"] == 1
    assert found.near_made is not None and int(found.near_made.argmin()) == 17
    assert "equal one of the training" in verdict(found.numbers, seen.train).warning


def test_near_copies_are_found_by_their_distance(seen: ReportData) -> None:
    """Training images with one grey level changed: none is identical, all are far too near."""
    made = seen.train.x[:60].float()
    made[:, 0, 4, 4] = torch.where(made[:, 0, 4, 4] > 8, made[:, 0, 4, 4] - 1, made[:, 0, 4, 4] + 1)
    numbers = measure(replace(seen, made=made)).numbers
    assert numbers["identical"] == 0 and numbers["nearest_ratio"] < 0.9
    assert "nearer to the training data" in verdict(numbers, seen.train).warning


def test_point_numbers_are_measured_against_the_held_out_rows(points: Tiny) -> None:
    seen = gather(points.folder, 80, data=points.data)
    numbers = measure(seen).numbers
    assert seen.held_out is not None and len(seen.held_out) == 100
    assert numbers["sliced_w2"] == metrics.sliced_w2(seen.made, seen.held_out.x)
    assert numbers["ratio"] == numbers["sliced_w2"] / numbers["floor"]
    assert numbers["off_curve"] == pytest.approx(float(distance_to_curve("swiss_roll", seen.made).mean()))
    shifted = measure(replace(seen, made=seen.held_out.x + torch.tensor([3.0, 0.0]))).numbers
    assert shifted["sliced_w2"] == pytest.approx(3 / math.sqrt(2), rel=0.1)  # E cos² = ½ over 128 directions
    assert shifted["off_curve_real"] < 1e-6
    fresh = measure(replace(seen, made=seen.train.x[:100])).numbers
    assert abs(fresh["sliced_w2"] - fresh["floor"]) < 4 * fresh["floor_spread"]
    assert abs(fresh["mmd"] - fresh["mmd_floor"]) < 4 * fresh["mmd_spread"]


def test_table_numbers_are_column_by_column(table: Tiny) -> None:
    seen = gather(table.folder, 60, data=table.data)
    assert seen.held_out is not None
    moved = seen.held_out.x.clone()
    moved[:, 2] += 1.0  # a thousand deviations of the third column
    numbers = measure(replace(seen, made=moved)).numbers
    assert list(numbers["ks"].values()) == [0, 0, 1, 0]
    assert numbers["ks_by_chance"] == pytest.approx(1.358 * math.sqrt(2 / 60))
    assert numbers["sliced_w2"] > 100  # in standard deviations of the columns
    assert measure(replace(seen, made=seen.held_out.x)).numbers["sliced_w2"] == 0


@pytest.mark.parametrize("n", [0, 1, -3])
def test_too_few_samples_are_refused(points: Tiny, n: int) -> None:
    with pytest.raises(InputError, match="at least 2 samples"):
        evaluate(points.folder, n=n, data=points.data)


def test_other_data_than_those_of_the_run_are_refused(points: Tiny) -> None:
    other: Dataset = replace(points.data, x=points.data.x + 1)
    with pytest.raises(InputError, match="other data"):
        evaluate(points.folder, n=10, data=other)


def test_only_digits_are_called_digits(images: Tiny) -> None:
    assert nouns(images.data) == ("digit", "digits")
    assert nouns(replace(images.data, name="fashion_mnist")) == ("image", "images")
