"""An experiment is its JSON: what goes out comes back, and nothing else comes in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undiffuse.errors import InputError
from undiffuse.experiment import SETTINGS, Experiment, read

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                    max_leaves=5)
CHANGES = {
    "data": "moons", "image_size": 16, "label": "kind", "condition": ("age", "sex:class"), "ignore": ("id",),
    "columns": ("a", "b"), "missing": ("-999",), "header": "yes", "sep": ";", "decimal": ",", "encoding": "cp1252",
    "time": "date", "window": 48, "stride": 2, "group": "unit",
    "layout": "NTC", "channels": ("a", "b"), "key": "x", "skip_broken": True, "max_rows": 50,
    "held_out": 9, "sde": "ve", "sde_args": {"sigma_max": 80.0}, "net": "unet", "net_args": {"width": [1, 2]},
    "prediction_type": "v", "sigma_data": 0.7,
    "weighting": "simple", "noise_distribution": "uniform", "level_mean": 0.0, "level_std": 2.0, "steps": 7,
    "batch_size": 8, "lr": 0.1,
    "schedule": "linear",
    "warmup": 3, "optimizer": "adamw", "betas": (0.5, 0.6), "weight_decay": 0.01, "max_grad_norm": None,
    "ema_decay": 0.5,
    "label_dropout": 0.2, "conditional_mean": True, "flip": True, "shift": 2, "deterministic_reduction": True,
    "seed": 5, "save_every": 11, "patience": 3,
    "eval_batch_size": 12, "device": "cuda:1", "dtype": "float64", "precision": "bf16", "compile": "auto",
}


def test_every_field_is_documented_and_has_a_domain() -> None:
    names = [f.name for f in dataclasses.fields(Experiment)]
    assert list(SETTINGS) == names == list(CHANGES)
    text = Experiment.__doc__ or ""
    assert not [name for name, f in SETTINGS.items() if f"{name}: {f.metadata['help']}" not in text]


def test_json_and_back_is_the_identity() -> None:
    experiment = Experiment(**CHANGES)
    again = Experiment.from_dict(json.loads(json.dumps(experiment.to_dict())))
    assert again == experiment and again.digest() == experiment.digest()


@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_field_is_named_and_changes_the_identity(name: str) -> None:
    base = Experiment(data="digits")
    changed = base.replace(**{name: CHANGES[name]})
    assert base.differences(changed) == [name]
    assert base.digest() != changed.digest()
    assert base.differences(Experiment(data="digits")) == []


def test_digest_is_sha256_of_the_canonical_json() -> None:
    experiment = Experiment(data="digits")
    pairs = sorted(experiment.to_dict().items())
    text = "{" + ",".join(f'"{k}":{json.dumps(v, separators=(",", ":"))}' for k, v in pairs) + "}"
    assert experiment.digest() == hashlib.sha256(text.encode()).hexdigest()


def test_equal_values_of_other_types_are_the_same_experiment() -> None:
    same = Experiment(data="digits", lr=1, betas=[0, 0.5], net_args={"width": (8, 16)})
    assert same.digest() == Experiment(data="digits", lr=1.0, betas=(0.0, 0.5), net_args={"width": [8, 16]}).digest()


def test_later_changes_of_the_argument_do_not_reach_the_experiment() -> None:
    args = {"width": [8]}
    experiment = Experiment(data="digits", net_args=args)
    args["width"].append(16)
    assert experiment.net_args == {"width": [8]}


@pytest.mark.parametrize("name", CHANGES)
def test_a_missing_key_is_named(name: str) -> None:
    values = Experiment(data="digits").to_dict()
    del values[name]
    with pytest.raises(InputError, match=rf"\b{name}\b"):
        Experiment.from_dict(values)


@pytest.mark.parametrize("change", [Experiment.from_dict, lambda values: Experiment(data="x").replace(**values)])
def test_an_unknown_key_is_named_with_the_nearest_one(change) -> None:
    with pytest.raises(InputError, match=r"'stepz'; did you mean 'steps'\?"):
        change({**Experiment(data="digits").to_dict(), "stepz": 3})


REFUSED = {
    "data": ["", 3, "a\0b"], "image_size": [0, 8.0, True], "label": [""], "condition": ["age", [""], ["a", "a"], [1]],
    "ignore": ["id"], "columns": [[""]], "missing": [[1]], "header": ["maybe"], "sep": ["ab", ""], "decimal": [";"],
    "encoding": ["latin 1"], "time": [""], "window": [1, 2.5], "stride": [0], "group": [""],
    "layout": ["N1"], "channels": ["ab"], "key": [2],
    "skip_broken": [1], "max_rows": [1, 2.0], "held_out": [-1], "sde": [None],
    "sde_args": [[1]],
    "net": [""], "net_args": [{"a": object()}, {"a": float("nan")}], "prediction_type": [1], "sigma_data": [0, "x"],
    "weighting": [""], "noise_distribution": [""], "level_mean": [float("inf"), None], "level_std": [0.0],
    "steps": [0, 1.5, "7", True], "batch_size": [0], "lr": [0, -1, float("nan"), 10**400, True],
    "schedule": ["cosinus"],
    "warmup": [-1],
    "optimizer": ["sgd"], "betas": [(0.9,), (0.9, 1.0), 0.9, (0.9, 0.9, 0.9)], "weight_decay": [-0.1],
    "max_grad_norm": [0],
    "ema_decay": [0, 1, 1.5], "label_dropout": [-0.1, 1.1], "conditional_mean": [1], "flip": [1, "yes"],
    "shift": [-1, 1.5],
    "deterministic_reduction": [0],
    "seed": [-1, 1 << 64], "save_every": [0], "patience": [-1, True], "eval_batch_size": [0],
    "device": ["gpu", "cuda:"], "dtype": ["float16"], "precision": ["fp16"], "compile": [True],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_value_outside_its_domain_is_refused_in_one_sentence(name: str, value: object) -> None:
    with pytest.raises(InputError) as caught:
        Experiment(**{"data": "digits", name: value})
    message = str(caught.value)
    assert message.startswith(f"got {name}=") and "expected" in message
    assert "\n" not in message and len(message) < 250


def test_every_domain_refuses_something() -> None:
    assert set(REFUSED) == set(CHANGES)


@given(name=st.sampled_from(list(CHANGES)), value=JSON)
def test_no_json_value_escapes_as_another_error(name: str, value: object) -> None:
    try:
        experiment = Experiment(**{"data": "digits", name: value})
    except InputError:
        return
    assert Experiment.from_dict(json.loads(json.dumps(experiment.to_dict(), allow_nan=False))) == experiment


def test_read_takes_the_file_or_the_folder(tmp_path: Path) -> None:
    experiment = Experiment(data="moons", steps=3)
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(experiment.to_dict()))
    assert read(file) == read(str(tmp_path)) == experiment


DAMAGED = [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 21), b"1" * 9999, b"null"]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "experiment.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.*No such file"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("change", [lambda v: {**v, "batch": 7}, lambda v: {k: x for k, x in v.items() if k != "lr"}])
def test_a_run_of_another_version_is_refused_with_the_command_that_makes_it_again(tmp_path: Path, change) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "experiment.json").write_text(json.dumps(change(Experiment(data="moons").to_dict())))
    with pytest.raises(InputError, match=r"not an experiment of this version.*(batch|lr)") as caught:
        read(folder)
    assert f"`undiffuse train moons --out {folder}-2`" in str(caught.value) and "\n" not in str(caught.value)


def test_it_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, undiffuse.experiment; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
