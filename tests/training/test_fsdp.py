"""The loop of docs/fsdp.py: weights shared out among processes end as those of one process do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

LOOP = Path(__file__).parents[2] / "docs" / "fsdp.py"


@pytest.mark.slow
def test_two_processes_with_half_of_the_weights_each_end_as_one_does(tmp_path: Path) -> None:
    """To a thousandth of the way of 20 updates of 1e-3. Adam divides rounding by small gradients, and the bias of the
    attention's keys has none but rounding, since softmax does not see it."""
    found = []
    for size in (1, 2):
        file = tmp_path / f"{size}.pt"
        done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                               str(size), str(LOOP), str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found.append((torch.load(file), [int(line.split()[3].replace(",", "")) for line in done.stdout.splitlines()]))
    (one, (whole,)), (two, parts) = found
    assert sum(parts) == whole and max(parts) < 0.6 * whole
    away = max(float((two[name] - one[name]).abs().max()) for name in one)
    assert one.keys() == two.keys() and 0 < away < 1e-3 * 20 * 1e-3
