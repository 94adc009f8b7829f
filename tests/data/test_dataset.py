"""The data set: splits, subsets, fingerprints, its line; the built-in digits; options that mean nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from undiffuse.data import describe, from_arrays, open_data
from undiffuse.errors import InputError


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, bunch = open_data("digits"), load_digits()
    assert np.array_equal(data.x[:, 0].numpy(), bunch.images) and data.x.dtype == torch.uint8
    assert data.y is not None and np.array_equal(data.y.numpy(), bunch.target)
    assert (data.levels, data.kind, data.classes) == (17, "image", tuple("0123456789"))
    assert describe(data) == "1,797 grey images of 8x8, 10 classes (digits)"


def test_lines_of_other_data() -> None:
    assert describe(open_data("swiss_roll")) == "10,000 points in 2-D (swiss_roll)"
    table = from_arrays(np.arange(20.0).reshape(4, 5), ["a", "b", "a", "b"], name="t.npy")
    assert describe(table) == "4 rows of 5 columns, 2 classes (t.npy)"
    colour = from_arrays(np.arange(2 * 3 * 4 * 6, dtype=np.uint8).reshape(2, 3, 4, 6), name="c.npy")
    assert describe(colour) == "2 colour images of 6x4 (c.npy)"


def numbered(n: int = 50) -> np.ndarray:
    return np.stack([np.arange(n), np.arange(n) ** 2], 1).astype(float)


@pytest.mark.parametrize("held_out", [1, 7, 49])
def test_a_split_is_a_partition_that_the_seed_decides(held_out: int) -> None:
    data = from_arrays(numbered(), np.arange(50) % 5)
    train, held = data.split(held_out, seed=1)
    together = torch.cat([train.x, held.x])[:, 0].sort().values
    assert len(held) == held_out and torch.equal(together, torch.arange(50.0))
    assert train.y is not None and torch.equal(train.y, train.x[:, 0].long() % 5)  # labels move with their rows
    again, other = data.split(held_out, seed=1)[1], data.split(held_out, seed=2)[1]
    assert torch.equal(held.x, again.x) and not torch.equal(held.x, other.x)


@pytest.mark.parametrize("held_out", [-1, 0, 50, 51])
def test_a_split_leaves_something_on_both_sides(held_out: int) -> None:
    with pytest.raises(InputError, match="expected 1 to 49"):
        from_arrays(numbered()).split(held_out)


def test_a_subset_of_sorted_classes_holds_them_all() -> None:
    data = from_arrays(numbered(1000), np.repeat(np.arange(4), 250)).subset(100, seed=0)
    assert len(data) == 100 and (data.x[:, 0].diff() > 0).all()
    assert data.y is not None and torch.bincount(data.y).min() >= 5  # 25 expected, std 4.3


def test_a_fingerprint_tells_any_change() -> None:
    data = from_arrays(numbered(), np.arange(50) % 5)
    changed = data.x.clone()
    changed[3, 1] = torch.nextafter(changed[3, 1], torch.tensor(9e9).to(changed))
    assert data.y is not None
    others = [replace(data, x=changed), replace(data, y=data.y.flip(0)), replace(data, y=None),
              replace(data, classes=("a", *data.classes[1:])), replace(data, columns=("a", "b")),
              replace(data, x=data.x.half()), replace(data, x=data.x.reshape(25, 4))]
    prints = {d.fingerprint() for d in [data, *others]}
    assert len(prints) == 1 + len(others)
    assert replace(data, name="other", notes=("n",)).fingerprint() == data.fingerprint()


def test_options_without_meaning_are_refused(refused: object, tmp_path: object) -> None:
    for source, options, word in (("moons", {"size": 8}, "leave size out"), ("digits", {"label": "y"}, "label"),
                                  ("digits", {"part": "test"}, ".split"), ("digits", {"part": "dev"}, "'train'"),
                                  ("digits", {"size": 0}, "1 to"), ("digits", {"size": 10**9}, "1 to"),
                                  ("digits", {"n": 10**6}, "1797"), ("digits", {"n": 1}, "expected 2")):
        refused(source, word, **options)  # type: ignore[operator]


def test_a_name_beats_a_folder_and_says_so(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    assert open_data("moons", n=5).notes == ()
    (tmp_path / "moons").mkdir()  # type: ignore[operator]
    assert "./moons" in open_data("moons", n=5).notes[0]
