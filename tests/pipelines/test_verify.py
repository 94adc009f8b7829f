"""The checks pass on a sound installation and a sound run, and each of them fails on the fault that it is there for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from undiffuse import random
from undiffuse.data import Dataset
from undiffuse.errors import InputError
from undiffuse.experiment import Experiment
from undiffuse.mixture import Mixture
from undiffuse.model import Denoiser, Model
from undiffuse.nets.mlp import MLP
from undiffuse.pipelines import verify
from undiffuse.processes import VP, SubVP
from undiffuse.sde import GaussianSDE, derivative
from undiffuse.training import train
from undiffuse.transforms.base import Table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = random.normal(9, random.Purpose.DATA, 0, 0, 60, (2,)) * 3 + 1
    data = Dataset(x, torch.arange(60) % 2, "points", "points", ("0", "1"), ("a", "b"))
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(Experiment(data="memory", net_args={"width": 8, "depth": 1, "condition": 4}, steps=3, batch_size=8, warmup=1,
                     device="cpu"), folder, data=data)
    return folder


def failed(checks: list[verify.Check]) -> set[str]:
    return {check.name for check in checks if not check.ok}


def test_this_installation_is_sound() -> None:
    checks = verify.verify()
    assert failed(checks) == set(), checks
    assert len({check.name for check in checks}) == len(checks) == 8


def test_a_run_is_sound(run: Path) -> None:
    checks = verify.verify(run)
    assert failed(checks) == set(), checks
    assert len(checks) == 6


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not the folder of a run"):
        verify.verify(tmp_path)


FAULTS = {
    "random numbers": (verify, "raw_words", lambda seed, purpose, step, first, count: random.raw_words(
        1, 0, 0, first, count)),
    "schedules": (VP, "time_of", lambda self, lam: SubVP().time_of(lam)),
    "kernels": (GaussianSDE, "g2", lambda self, t: derivative(self.variance, t)),  # without −2 f σ²
    "score": (Mixture, "score", lambda self, x: -x),
    "gradients of mlp": (MLP, "forward", lambda self, x, c, label=None: self.last(self.first(x)).detach() * c.mean()),
    "samples by index": (verify, "sample", lambda m, n, **k: SimpleNamespace(x=torch.arange(n * 1.0))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_detected_by_its_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, wrong = FAULTS[name]
    monkeypatch.setattr(owner, attribute, wrong)
    check = verify._installation_checks()[name]
    assert not verify._run_check(name, check).ok


def test_a_wrong_drift_loses_the_order_of_every_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GaussianSDE.rates
    monkeypatch.setattr(GaussianSDE, "rates", lambda self, t: tuple(1.01 * rate for rate in right(self, t)))
    assert "order of solvers" in failed(verify.verify())


def test_a_wrong_identity_of_a_run_is_detected(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Denoiser.denoise
    monkeypatch.setattr(Model, "score", lambda self, x, t, **c: (right(self, x, t, **c) - x) / self.sde.variance(t))
    assert failed(verify.verify(run)) == {"score, noise, velocity"}


def test_the_transform_of_a_table_of_words_and_whole_numbers_is_sound_and_a_wrong_one_is_not(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{i * i / 7:.4f},{i % 3},{'xyz'[i % 3]},{i * i},{'NA' if i % 5 else i * 1e-4}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["a,few,word,many,small", *lines]))
    train(Experiment(data=str(tmp_path / "t.csv"), net_args={"width": 16, "depth": 1}, steps=1, batch_size=8, warmup=1,
                     device="cpu"), tmp_path / "run")
    assert failed(verify.verify(tmp_path / "run")) == set()
    right = Table.forward
    monkeypatch.setattr(Table, "forward", lambda self, x: right(self, x * torch.tensor([1, 1, 1, 1, 1.01])))
    assert failed(verify.verify(tmp_path / "run")) == {"transform"}


def test_a_check_that_raises_has_failed_and_says_why() -> None:
    def broken() -> tuple[bool, str]:
        raise ZeroDivisionError("by nothing")

    assert verify._run_check("a", broken) == verify.Check("a", False, "ZeroDivisionError: by nothing")
