"""Metrics: recomputed by other means, independent of held-out rows where they must be, with warnings of copies."""

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
def report(images: Tiny) -> ReportData:
    return gather(images.folder, 60, data=images.data)


def test_image_numbers_equal_those_computed_by_hand(images: Tiny, report: ReportData) -> None:
    numbers = evaluate(images.folder, n=60, data=images.data)
    train, held_out = training.load_data(images.folder, images.data)
    assert held_out is not None and held_out.y is not None and train.y is not None and report.labels is not None
    x = sample(training.load(images.folder), 60, steps=20, label=report.labels).x.round().clamp(0, 16)
    assert torch.equal(x, report.generated)
    near, real = brute_nearest(x, train.x), brute_nearest(held_out.take(torch.arange(100)).x, train.x)
    # torch's median of 60 values is the lower one of the two in the middle
    assert numbers["nearest_generated"] == pytest.approx(float(np.sort(near)[29]), rel=1e-6)
    subset = real[np.unique(np.linspace(0, 99, 60).round().astype(int))]
    assert numbers["nearest_held_out"] == pytest.approx(float(np.sort(subset)[29]), rel=1e-6)
    assert numbers["nearest_ratio"] == numbers["nearest_generated"] / numbers["nearest_held_out"]
    assert numbers["copied_fraction"] == pytest.approx((near < np.quantile(subset, 0.01)).mean())
    predicted = metrics.classifier(train.x, train.y)(x)
    assert numbers["class_agreement"] == pytest.approx(float((predicted == report.labels).double().mean()))
    assert sum(map(sum, numbers["confusion"])) == 60
    assert sum(numbers["confusion"][k][k] for k in range(10)) / 60 == pytest.approx(numbers["class_agreement"])
    assert sum(rate["n"] for rate in numbers["per_class"].values()) == 60


def test_the_classifier_and_the_neighbours_never_use_held_out_rows(
    report: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report.held_out is not None
    rows_used: list[Tensor] = []
    classifier, nearest = metrics.classifier, metrics.nearest_distance
    monkeypatch.setattr(metrics, "classifier", lambda x, y: (rows_used.append(x / 128), classifier(x, y))[1])
    monkeypatch.setattr(metrics, "nearest_distance", lambda x, rows: (rows_used.append(rows), nearest(x, rows))[1])
    measure(report)
    assert len(rows_used) == 3
    held_rows = {tuple(row) for row in report.held_out.x.flatten(1).double().div(128).tolist()}
    train = {tuple(row) for row in report.train.x.flatten(1).double().div(128).tolist()}
    for rows in rows_used:
        assert len(rows) == len(report.train)
        used = {tuple(row) for row in rows.flatten(1).double().tolist()}
        assert used == train and not used & (held_rows - train)


def test_labels_are_as_frequent_as_in_the_training_rows(images: Tiny) -> None:
    report = gather(images.folder, 300, data=images.data)
    assert report.labels is not None and report.train.y is not None
    assert torch.equal(report.labels.bincount(minlength=10), report.train.y.bincount(minlength=10))


def test_a_model_that_returns_its_training_images_gets_a_warning(images: Tiny, report: ReportData) -> None:
    copier = Copier(report.model, report.train.x)
    copies = gather(images.folder, 60, model=copier, data=images.data)
    numbers = measure(copies).numbers
    assert numbers["identical"] == 60 and numbers["nearest_ratio"] < 1e-6 and numbers["copied_fraction"] == 1
    assert "the model memorises" in verdict(numbers, report.train).warning


def test_a_single_planted_copy_is_detected(report: ReportData) -> None:
    assert report.held_out is not None
    honest = replace(report, generated=report.held_out.x[:60].float())
    assert measure(honest).numbers["identical"] == 0 and verdict(measure(honest).numbers, report.train).warning == ""
    generated = honest.generated.clone()
    generated[17] = report.train.x[5].float()
    measured = measure(replace(report, generated=generated))
    assert measured.numbers["identical"] == 1
    assert measured.generated_distance is not None and int(measured.generated_distance.argmin()) == 17
    assert "equal a training image" in verdict(measured.numbers, report.train).warning


def test_near_copies_are_detected_by_their_distance(report: ReportData) -> None:
    """Training images with one grey level changed: none is identical, all are far too near."""
    generated = report.train.x[:60].float()
    generated[:, 0, 4, 4] = torch.where(generated[:, 0, 4, 4] > 8, generated[:, 0, 4, 4] - 1, generated[:, 0, 4, 4] + 1)
    numbers = measure(replace(report, generated=generated)).numbers
    assert numbers["identical"] == 0 and numbers["nearest_ratio"] < 0.9
    assert "nearer to the training data" in verdict(numbers, report.train).warning


def test_point_numbers_are_measured_against_the_held_out_rows(points: Tiny) -> None:
    report = gather(points.folder, 80, data=points.data)
    numbers = measure(report).numbers
    assert report.held_out is not None and len(report.held_out) == 100
    assert numbers["sliced_w2"] == metrics.sliced_w2(report.generated, report.held_out.x)
    assert numbers["sliced_w2_ratio"] == numbers["sliced_w2"] / numbers["sliced_w2_floor"]
    assert numbers["curve_distance"] == pytest.approx(float(distance_to_curve("swiss_roll", report.generated).mean()))
    shifted = measure(replace(report, generated=report.held_out.x + torch.tensor([3.0, 0.0]))).numbers
    assert shifted["sliced_w2"] == pytest.approx(3 / math.sqrt(2), rel=0.1)  # E cos² = ½ over 128 directions
    assert shifted["curve_distance_real"] < 1e-6
    fresh = measure(replace(report, generated=report.train.x[:100])).numbers
    assert abs(fresh["sliced_w2"] - fresh["sliced_w2_floor"]) < 4 * fresh["sliced_w2_floor_std"]
    assert abs(fresh["mmd"] - fresh["mmd_floor"]) < 4 * fresh["mmd_floor_std"]


@pytest.mark.slow
def test_table_numbers_are_column_by_column(table: Tiny) -> None:
    report = gather(table.folder, 60, data=table.data)
    assert report.held_out is not None
    moved = report.held_out.x.clone()
    moved[:, 2] += 1.0  # a thousand standard deviations of the third column
    numbers = measure(replace(report, generated=moved)).numbers
    assert list(numbers["ks"].values()) == [0, 0, 1, 0]
    assert numbers["ks_critical"] == pytest.approx(1.358 * math.sqrt(2 / 60))
    assert numbers["sliced_w2"] > 100  # in standard deviations of the columns
    assert measure(replace(report, generated=report.held_out.x)).numbers["sliced_w2"] == 0


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
