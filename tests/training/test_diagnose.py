"""A number that is not finite stops the training before the update, and the message says where it came from."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from training.small_runs import experiment, final, points, same

from undiffuse import nets
from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.experiment import Recipe
from undiffuse.training import train
from undiffuse.training.batches import order
from undiffuse.training.checkpoint import load, path_of, steps
from undiffuse.training.run import open_or_create, open_run, split_held_out
from undiffuse.training.state import schema

E = experiment(steps=20, save_every=3, held_out=10)
DATA = points(200)


def poisoned(row: int, value: float) -> Dataset:
    x = DATA.x.clone()
    x[row, 1] = value
    return Dataset(x, None, DATA.kind, DATA.name, (), DATA.columns)


def measured_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describe the model by the clean data, so that the poison reaches the loop."""
    from undiffuse.training import loop

    def plan_clean(folder, recipe, data, rows):
        return open_or_create(folder, recipe, DATA, split_held_out(DATA, recipe.experiment.held_out)[0])

    monkeypatch.setattr(loop, "open_or_create", plan_clean)


def first_step_with(row: int) -> tuple[int, int]:
    """The first update that uses a row of the data, and the slot of the row in it; (-1, 0) if none does."""
    _, _, numbers = split_held_out(DATA, E.held_out)
    reading = numbers[order(E.seed, len(numbers), 0, E.steps * E.batch_size)]
    places = (reading == row).nonzero()[:, 0]
    return divmod(int(places[0]), E.batch_size) if len(places) else (-1, 0)


@pytest.mark.parametrize("placement", range(12))
def test_one_poisoned_sample_is_named_with_its_step_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             placement: int) -> None:
    chance = random.Random(placement)
    row = chance.choice([r for r in range(200) if first_step_with(r)[0] >= 0])
    step, _ = first_step_with(row)
    data = poisoned(row, chance.choice([math.nan, math.inf, -math.inf]))
    measured_without(monkeypatch)
    with pytest.raises(InputError) as caught:
        train(E, tmp_path, progress=False, data=data)
    message = str(caught.value)
    assert f"before the update of step {step}: the loss is not finite for 1 of 16 rows: row {row} (t = " in message
    assert "loss nan" in message or "loss inf" in message
    last = steps(tmp_path)[-1]
    assert last == step // 3 * 3
    assert f"`undiffuse train {tmp_path}` would repeat it from the checkpoint of step {last}" in message
    assert all(bool(torch.isfinite(t).all()) for t in final(tmp_path).values())


def test_the_weights_before_the_fault_are_those_of_a_run_that_stopped_there(tmp_path: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(r for r in range(200) if 6 < first_step_with(r)[0] < 9)
    train(E, tmp_path / "good", progress=False, data=DATA, stop=lambda step: step == 6)
    measured_without(monkeypatch)
    with pytest.raises(InputError):
        train(E, tmp_path / "bad", progress=False, data=poisoned(row, math.nan))
    good, bad = ({name: t for name, t in final(tmp_path / run).items() if not name.startswith("moments.")}
                 for run in ("good", "bad"))  # the moments are those of the finite rows, of which one has one less
    assert same(good, bad)


class Poisonable(nn.Module):
    """A network whose weights, or only whose gradient, go wrong on command."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.calls, self.at, self.kind = 0, -1, ""

    def forward(self, x: torch.Tensor, c: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += len(x) > 1
        if self.calls > self.at >= 0 and self.kind == "weight":
            self.layer.weight.data[1, 0] = math.nan
        y = self.layer(x)
        if self.calls > self.at >= 0 and self.kind == "gradient":
            y = y + torch.sqrt(self.layer.bias - self.layer.bias.detach()).sum() * 0  # 0 forward, 0/0 backward
        return y


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Names the network `poisonable`, which does `kind` from update `at` on."""
    how: dict[str, object] = {}

    def build(shape: tuple[int, ...], classes: int) -> Poisonable:
        net = Poisonable(shape, classes)
        net.at, net.kind = how["at"], how["kind"]
        return net

    monkeypatch.setitem(nets.NETS, "poisonable", build)
    return how


@pytest.mark.parametrize("at", [0, 3, 5, 19])
@pytest.mark.parametrize("kind, words", [("weight", "the weights layer.weight are not finite"),
                                         ("gradient", "the gradient of layer.bias is not finite")])
def test_a_poisoned_weight_or_gradient_is_named_and_never_saved(tmp_path: Path, fault: dict[str, object], kind: str,
                                                                words: str, at: int) -> None:
    fault |= {"at": at, "kind": kind}
    e = E.replace(net="poisonable", net_args={}, held_out=0)
    with pytest.raises(InputError, match=f"before the update of step {at}: {words}"):
        train(e, tmp_path, progress=False, data=DATA)
    assert steps(tmp_path)[-1] == at // 3 * 3
    model = open_or_create(tmp_path, Recipe(e), DATA, DATA)
    assert model.config == open_run(tmp_path).config
    from undiffuse.training.model_config import rebuild

    for step in steps(tmp_path):
        found = load(path_of(tmp_path, step), schema(rebuild(model.config)))
        assert all(bool(torch.isfinite(t).all()) for t in found.tensors.values())


def test_a_rate_that_explodes_is_stopped_too(tmp_path: Path) -> None:
    e = experiment(lr=1e30, max_grad_norm=None, warmup=0, steps=200, schedule="constant")
    with pytest.raises(InputError, match=r"not finite.*lower lr"):
        train(e, tmp_path, progress=False, data=DATA)
    assert all(bool(torch.isfinite(t).all()) for t in final(tmp_path).values())


def test_a_look_now_and_then_finds_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the host looks every 32 updates: the state has waited at the fault."""
    from undiffuse.training import loop

    row = next(r for r in range(200) if first_step_with(r)[0] == 4)
    measured_without(monkeypatch)
    monkeypatch.setattr(loop._Training, "_is_due", lambda self, every: self.state.step == self.experiment.steps)
    with pytest.raises(InputError, match=rf"before the update of step 4: .* row {row} "):
        train(E, tmp_path, progress=False, data=poisoned(row, math.nan))
    assert steps(tmp_path) == [0]
