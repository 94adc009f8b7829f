"""The long forms of two tests, by `make soak`: 200 kills and 5,000 damaged checkpoints."""

from __future__ import annotations

import random
from pathlib import Path

from training.test_checkpoint import STATE, mutate, refused, save, tensors
from training.test_exact import kills_change_no_bit

KILLS, DAMAGED = 200, 5000


def test_two_hundred_kills_change_no_bit() -> None:
    kills_change_no_bit(KILLS, 500)


def test_five_thousand_damaged_files_are_as_many_refusals(tmp_path: Path) -> None:
    path = save(tmp_path, 8, tensors(), STATE)
    content, chance, done = path.read_bytes(), random.Random(77), 0
    while done < DAMAGED:
        damaged = mutate(content, chance)
        if damaged != content:
            path.write_bytes(damaged)
            refused(path)
            done += 1
