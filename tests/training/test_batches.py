"""What an update is made from is a pure function of the seed and its number."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training.small_runs import experiment, points

from undiffuse.training.batches import Batch, Feed, order
from undiffuse.training.model_config import describe, rebuild


def feed(classes: int = 0, n: int = 50, **changes: object) -> Feed:
    e, data = experiment(**changes), points(n, classes)
    return Feed(e, data, rebuild(describe(e, data, "")))


@given(seed=st.integers(0, 2**64 - 1), n=st.integers(1, 40), epochs=st.integers(1, 4))
def test_every_row_comes_once_in_every_epoch(seed: int, n: int, epochs: int) -> None:
    rows = order(seed, n, 0, n * epochs).reshape(epochs, n)
    assert torch.equal(rows.sort(1).values, torch.arange(n).expand(epochs, n))


@given(seed=st.integers(0, 99), n=st.integers(1, 40), first=st.integers(0, 200), count=st.integers(1, 100))
def test_a_batch_is_a_stretch_of_one_endless_reading(seed: int, n: int, first: int, count: int) -> None:
    assert torch.equal(order(seed, n, first, count), order(seed, n, 0, first + count)[first:])


def test_epochs_and_seeds_differ() -> None:
    reading = order(0, 1000, 0, 2000)
    assert not torch.equal(reading[:1000], reading[1000:])
    assert not torch.equal(order(1, 1000, 0, 1000), reading[:1000])


@pytest.mark.parametrize("n, batch", [(1, 5), (3, 16), (16, 16), (50, 16), (50, 49)])
def test_batches_of_any_size_use_the_rows_evenly(n: int, batch: int) -> None:
    e = experiment(batch_size=batch)
    rows = torch.cat([order(0, n, step * batch, batch) for step in range(e.steps)])
    counts = torch.bincount(rows, minlength=n)
    assert len(rows) == e.steps * batch and int(counts.max() - counts.min()) <= 1


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if x is not None)


def test_a_batch_does_not_depend_on_what_was_asked_for_before() -> None:
    used, fresh = feed(classes=3), feed(classes=3)
    for step in (5, 0, 11, 3):
        used.batch(step)
    assert all(equal(used.batch(step), fresh.batch(step)) for step in range(12))
    assert not equal(used.batch(0), used.batch(1))


def test_rows_labels_and_values_belong_together() -> None:
    f, data = feed(classes=5, label_dropout=0.0), points(50, 5)
    batch = f.batch(7)
    assert torch.equal(batch.label, data.y[batch.rows])
    torch.testing.assert_close(f.model.transform.inverse(batch.x0), data.x[batch.rows])


def test_the_asked_share_of_the_labels_is_hidden() -> None:
    f = feed(classes=5, n=5000, batch_size=5000, label_dropout=0.3)
    batch = f.batch(0)
    hidden = batch.label == 5
    assert abs(int(hidden.sum()) - 1500) < 4 * math.sqrt(5000 * 0.3 * 0.7)
    assert torch.equal(batch.label[~hidden], f.y[batch.rows][~hidden])


def test_levels_are_stratified_and_do_not_favour_rows() -> None:
    """Each row sees all the levels: its mean rank among them is a half within the error of the mean."""
    f = feed(n=16, batch_size=16)
    ranks = torch.zeros(16)
    for step in range(400):
        batch = f.batch(step)
        assert torch.equal(batch.t.argsort(), torch.arange(16))
        ranks[batch.rows] += torch.arange(16) / 15
    assert float((ranks / 400 - 0.5).abs().max()) < 4.5 * math.sqrt((17 / 15) / 12 / 400)
