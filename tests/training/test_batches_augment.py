"""Images are mirrored and moved by draws that depend on seed, step and slot alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from training.small_runs import experiment, points

from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.random import Purpose, normal, uniform
from undiffuse.training.batches import Feed, augment, check_augment
from undiffuse.training.model_config import describe, rebuild

X = normal(5, Purpose.DATA, 7, 0, 40, (3, 6, 5))


def by_hand(x: torch.Tensor, e, step: int, slot: int) -> torch.Tensor:
    """One image mirrored and moved by torch's own flip, pad and crop."""
    u = uniform(e.seed, Purpose.AUGMENT, step, slot, 1, (3,))[0]
    x = x.flip(-1) if e.flip and u[2] < 0.5 else x
    down, right = (math.floor((2 * e.shift + 1) * float(v)) - e.shift for v in u[:2])
    padded = functional.pad(x[None], (e.shift,) * 4, mode="replicate")[0] if e.shift else x
    top, left = e.shift - down, e.shift - right
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


@pytest.mark.parametrize("flip, shift", [(True, 0), (False, 2), (True, 2), (True, 4)])
def test_each_image_is_flipped_padded_and_cropped(flip: bool, shift: int) -> None:
    e = experiment(flip=flip, shift=shift, seed=3)
    expected = torch.stack([by_hand(x, e, 11, 5 + i) for i, x in enumerate(X)])
    assert torch.equal(augment(X, e, 11, 5), expected)


def test_it_does_not_depend_on_how_a_batch_is_cut() -> None:
    e = experiment(flip=True, shift=1)
    whole = augment(X, e, 4, 0)
    assert torch.equal(torch.cat([augment(X[:13], e, 4, 0), augment(X[13:], e, 4, 13)]), whole)
    assert not torch.equal(augment(X, e, 5, 0), whole)


def test_all_moves_come_equally_often() -> None:
    e, n = experiment(flip=True, shift=1), 9000
    place = torch.zeros(n, 1, 5, 5)
    place[:, :, 2, 1] = 1.0
    where = augment(place, e, 0, 0).flatten(1).argmax(1)
    counts = torch.bincount(where, minlength=25).reshape(5, 5)
    mirrored, straight = counts[1:4, 2:5].clone(), counts[1:4, 0:3].clone()
    assert int(counts.sum()) == n  # columns 0 ... 2 as it was, 2 ... 4 mirrored; column 2 has both
    share = torch.tensor([n / 18, n / 18, n / 9, n / 18, n / 18])
    assert bool(((counts[1:4] - share).abs() < 4.5 * share.sqrt()).all()) and mirrored.sum() + straight.sum() > n


def test_the_feed_augments_training_rows_only() -> None:
    data = Dataset((X.abs() * 50).clamp(0, 255).to(torch.uint8), None, "image", "noise", levels=256)
    made = {flip: Feed(e, data, rebuild(describe(e, data, ""))) for flip in (False, True)
            for e in [experiment(flip=flip, net="mlp")]}
    plain, mirrored = (made[flip].batch(2) for flip in (False, True))
    changed = (plain.x0 != mirrored.x0).flatten(1).any(1)
    assert 0 < int(changed.sum()) < len(changed)
    assert torch.equal(mirrored.x0[changed], plain.x0[changed].flip(-1))
    assert all(torch.equal(a, b) for a, b in zip(plain[2:4], mirrored[2:4], strict=True))
    rows = torch.arange(8)
    assert torch.equal(made[True].at(2, rows).x0, made[False].at(2, rows).x0)


def test_what_is_no_image_and_what_would_leave_it_are_refused() -> None:
    with pytest.raises(InputError, match="expected images"):
        check_augment(experiment(flip=True), points().shape)
    with pytest.raises(InputError, match="shift=5 for images of 5x6"):
        check_augment(experiment(shift=5), (3, 6, 5))
