"""An update of the past made again: the same rows, losses, gradient and weights, from whatever checkpoint is left."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from training.small_runs import experiment, measured, points

from undiffuse.errors import InputError
from undiffuse.training import replay, train
from undiffuse.training.checkpoint import path_of, steps

DATA = points(50, classes=3)
E = experiment(held_out=10, label_dropout=0.2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run, and the digests of its weights after 1, 2, ... updates."""
    folder, digests = tmp_path_factory.mktemp("run"), []
    for step in range(1, 13):
        train(E, folder, progress=False, data=DATA, stop=lambda at, step=step: at == step)
        digests.append(digest(folder, step))
    return folder, digests


def digest(folder: Path, step: int) -> str:
    from safetensors.torch import load_file

    from undiffuse.training import load
    from undiffuse.training.optimizers import trainable

    found = load_file(path_of(folder, step))
    names = trainable(load(folder, "net").requires_grad_(True).net)
    weights = torch.cat([found[f"net.{name}"].reshape(-1) for name in names])
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("step", [0, 1, 5, 11])
def test_every_update_is_made_again_bit_for_bit(run: tuple[Path, list[str]], step: int) -> None:
    """Only the checkpoints of steps 11 and 12 are left: earlier updates are made again from the first weights."""
    folder, digests = run
    assert steps(folder) == [11, 12]
    before = sorted((path.name, path.read_bytes()) for path in folder.rglob("*.*") if path.is_file())
    seen = replay(folder, step, DATA)
    assert seen.after == digests[step] and (step == 0 or seen.before == digests[step - 1])
    line = measured(folder)[:]
    noted = next(entry for entry in line if entry["step"] == step + 1 and "loss" in entry)
    assert (seen.loss, seen.norm, seen.lr) == (noted["loss"], noted["grad_norm"], noted["lr"])
    assert seen.agreement == ((step, step) if step < 11 else (0, 0))
    assert float(seen.losses.mean()) == pytest.approx(seen.loss, rel=1e-5)
    norm = torch.stack([g.square().sum() for g in seen.gradient.values()]).sum().sqrt()
    assert float(norm) == pytest.approx(seen.norm, rel=1e-5)
    assert before == sorted((path.name, path.read_bytes()) for path in folder.rglob("*.*") if path.is_file())


def test_rows_are_named_by_their_numbers_in_the_data(run: tuple[Path, list[str]]) -> None:
    seen = replay(run[0], 3, DATA)
    z = torch.as_tensor(seen.batch.x0)
    order = DATA.x[seen.rows].argsort(0)
    assert torch.equal(z.gather(0, order).argsort(0), torch.arange(16)[:, None].expand(16, 2))  # the map is monotone


def test_an_update_that_is_none_and_other_data_are_refused(run: tuple[Path, list[str]]) -> None:
    for step in (-1, 12):
        with pytest.raises(InputError, match=f"step={step}; expected 0 to 11"):
            replay(run[0], step, DATA)
    with pytest.raises(InputError, match="other data"):
        replay(run[0], 3, points(51, classes=3))


def test_a_weight_changed_by_one_bit_is_noticed(run: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Another learning rate gives other weights, and entries of the metrics that do not agree."""
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    text = (folder / "metrics.jsonl").read_text().replace('"loss": ', '"loss": 1', 1)
    (folder / "metrics.jsonl").write_text(text)
    assert replay(folder, 5, DATA).agreement == (4, 5)
