"""Data sets of Hugging Face are what the same rows are as a folder of images or as a .csv."""

from __future__ import annotations

import csv
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from data.rows_of_hub import N, pictures, pixels, png, saved
from training.small_runs import TINY, final, same

from undiffuse.data import huggingface, lazy, open_data
from undiffuse.data.huggingface import from_datasets, is_name
from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.training import train

hf = pytest.importorskip("datasets", reason="the extra undiffuse[data] is not installed")
Refused = Callable[..., str]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same as files."""
    for i, image in enumerate(pixels()):
        (place := tmp_path / "folder" / ("cat", "dog")[2 * i // N]).mkdir(parents=True, exist_ok=True)
        (place / f"{i:02}.png").write_bytes(png(image))
    return tmp_path / "folder"


@pytest.mark.parametrize("name", ["x.parquet", "saved", "splits", "shards", "layout"])
def test_images_are_those_of_a_folder(tmp_path: Path, folder: Path, name: str) -> None:
    rows, path = pictures(), tmp_path / name
    if name == "splits":
        hf.DatasetDict({"train": rows, "test": rows.select(range(3))}).save_to_disk(path)
        assert len(open_data(path, part="test")) == 3
    elif name in ("shards", "layout"):
        (place := path if name == "shards" else path / "data").mkdir(parents=True)
        for k in range(2):
            rows.shard(2, k, contiguous=True).to_parquet(place / f"train-0000{k}-of-00002.parquet")
    else:
        saved(rows, path)
    data, expected = open_data(path), open_data(folder)
    assert torch.equal(data.x, expected.x) and torch.equal(data.y, expected.y)  # type: ignore[arg-type]
    assert data.classes == ("cat", "dog") and data.fingerprint() == expected.fingerprint()
    assert open_data(path, size=2).shape == (1, 2, 2)


def test_a_row_may_name_a_file_instead(tmp_path: Path, folder: Path) -> None:
    rows = hf.load_dataset("imagefolder", data_dir=str(folder), split="train")
    data = open_data(saved(rows, tmp_path / "saved"))
    assert torch.equal(data.x, open_data(folder).x) and data.classes == ("cat", "dog")


def test_large_ones_stay_encoded_and_any_container_is_the_same_data(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_data(saved(pictures(), tmp_path / "x.parquet"))
    monkeypatch.setattr(lazy, "LARGE", 100)
    data = open_data(tmp_path / "x.parquet")
    assert isinstance(data.x, lazy.Lazy) and tuple(data.x.shape) == tuple(whole.x.shape)
    for index in (torch.tensor([19, 3, 4, 0, 0]), slice(2, 9), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(data.x[index], whole.x[index])
    assert all(torch.equal(a.x[:], b.x) for a, b in zip(data.split(7), whole.split(7), strict=True))
    assert open_data(saved(pictures(), tmp_path / "saved")).fingerprint() == data.fingerprint()
    changed = pictures().map(lambda row, i: {"image": {"bytes": png(pixels()[i] ^ (i == 20)), "path": None}},
                             with_indices=True)
    assert open_data(saved(changed, tmp_path / "changed")).fingerprint() != data.fingerprint()


def test_training_on_encoded_images_has_the_bits_of_training_in_memory_also_when_resumed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    e = Experiment(data=str(saved(pictures(), tmp_path / "x.parquet")), net_args=TINY, steps=6, batch_size=7,
                   save_every=3,
                   device="cpu", flip=True)
    train(e, tmp_path / "memory", progress=False)
    monkeypatch.setattr(lazy, "LARGE", 100)
    train(e, tmp_path / "disk", progress=False, stop=lambda step: step == 4)
    train(e, tmp_path / "disk", progress=False)
    assert same(final(tmp_path / "memory"), final(tmp_path / "disk"))


COLUMNS: dict[str, list[Any]] = {
    "a": [i / 7 for i in range(N)], "b": [i * i for i in range(N)], "kind": ["x", "y", None] * (N // 3),
    "gap": [None if i % 5 == 0 else float(i) for i in range(N)], "flag": [i % 3 == 0 for i in range(N)],
    "level": [("low", "high")[i % 2] for i in range(N)]}


def test_a_table_is_what_it_is_as_a_csv(tmp_path: Path) -> None:
    """Numbers, whole numbers, words, truth values and what is missing; classes and conditions too."""
    hf.Dataset.from_dict(COLUMNS).to_parquet(tmp_path / "x.parquet")
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list(COLUMNS), *zip(*COLUMNS.values(), strict=True)])
    for options in ({}, {"label": "level"}, {"label": "level", "condition": ["flag"]}, {"condition": ["b", "kind"]}):
        ours, theirs = (open_data(tmp_path / name, **options) for name in ("x.parquet", "x.csv"))
        assert ours.columns == theirs.columns and ours.categories == theirs.categories and ours.notes == theirs.notes
        assert ours.fingerprint() == theirs.fingerprint()


def test_conditions_beside_images() -> None:
    data = from_datasets(pictures(age=[i / 2 for i in range(N)], note=[f"a cat {i % 2}" for i in range(N)]), "cats",
                     condition=["age", "note"])
    assert [c.name for c in data.conditions] == ["age", "note"] and data.condition_values is not None
    assert data.condition_values[:, 0].tolist() == [i / 2 for i in range(N)]


def test_the_classes_are_the_column_that_is_named(tmp_path: Path) -> None:
    rows = pictures(mood=["glad", "cross"] * (N // 2))
    assert from_datasets(rows).classes == ("cat", "dog")
    assert from_datasets(rows, label="mood").classes == ("cross", "glad")
    assert from_datasets(rows.remove_columns("label")).y is None


def test_the_hub_is_asked_by_name_and_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(hf, "load_dataset", lambda *args: asked.append(args) or hf.DatasetDict({"all": pictures()}))
    assert len(open_data("someone/cats")) == len(open_data("someone/cats:small", label="label")) == N
    assert asked == [("someone/cats", None), ("someone/cats", "small")]


@pytest.mark.parametrize("text, named", [
    ("someone/cats", True), ("some-one/cats.v1.5", True), ("a/b:c", True), ("cats", False), ("a/b/c", False),
    ("./a/b", False), ("/a/b", False), ("photos/cats/", False), ("data/cells.h5ad", False), ("data/x.CSV", False),
    ("~/cats", False), ("a/b:", False), ("a/ b", False), ("", False)])
def test_what_can_be_a_name_on_the_hub_and_what_is_a_mistyped_path(text: str, named: bool) -> None:
    assert is_name(text) is named


@pytest.mark.parametrize("error, kind, words_", [
    (hf.exceptions.DatasetNotFoundError("no"), InputError, "neither a path that exists nor a data set"),
    (ConnectionError("Couldn't reach\nit"), MachineError, "cannot be reached"),
    (ValueError("Config name is missing"), InputError, "Config name is missing")])
def test_what_the_hub_says_no_to_is_one_sentence(error: Exception, kind: type[Exception], words_: str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any) -> None:
        raise error

    monkeypatch.setattr(hf, "load_dataset", load_dataset)
    with pytest.raises(kind, match=words_) as caught:
        open_data("someone/cats")
    assert "\n" not in str(caught.value)


def test_the_hubs_own_lines_are_not_shown_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub logs every retry, on a handler of its own."""
    log = logging.getLogger("huggingface_hub.utils._http")

    def load_dataset(*args: Any) -> None:
        log.warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(hf, "load_dataset", load_dataset)
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    with pytest.raises(MachineError, match="cannot be reached"):
        open_data("someone/cats")
    assert heard == []
    log.warning("outside of the call")
    log.removeHandler(handler)
    assert heard == ["outside of the call"]


def test_without_the_package_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(pictures(), tmp_path / "x.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in ("someone/cats", tmp_path / "x.parquet"):
        with pytest.raises(MachineError, match=r"pip install 'undiffuse\[data\]'"):
            open_data(source)


def test_refusals(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    refused(tmp_path / "broken.parquet", "cannot be read by the package datasets")
    x = saved(pictures(), tmp_path / "x.parquet")
    refused(x, "has no column 'lable'", "did you mean 'label'?", label="lable")
    refused(x, "splits 'train'", "test or validation", part="test")
    both = pictures().add_column("c", [{"bytes": png(i), "path": None} for i in pixels()]).cast_column("c", hf.Image())
    refused(saved(both.rename_column("image", "b"), tmp_path / "both"), "'b', 'c'", "expected one")
    cut = pictures().map(lambda row, i: {"image": {"bytes": png(pixels()[i])[: 30 if i == 5 else None], "path": None}},
                         with_indices=True)
    refused(saved(cut, tmp_path / "cut"), "image of row 6 of cut", "cannot be read as an image")
    unsure = pictures().map(lambda row, i: {"label": -1 if i == 3 else 0}, with_indices=True)
    refused(saved(unsure, tmp_path / "unsure"), "row 4, column 'label'", "missing")
    lists = hf.Dataset.from_dict({"tokens": [[1, 2]] * N})
    refused(saved(lists, tmp_path / "lists"), "'tokens'", "expected a column of images, numbers or words")
    mixed = hf.Dataset.from_dict({"a": [*map(str, range(N - 1)), "seven"], "b": list(range(N))})
    assert open_data(saved(mixed, tmp_path / "mixed")).columns == ("a",)  # "seven" is an unknown number, b a counter
    endless = hf.Dataset.from_dict({"a": [1.0, float("inf"), 3.0]})
    assert open_data(saved(endless, tmp_path / "endless")).x[:, 0].isnan().tolist() == [False, True, False]


def test_the_name_of_a_parquet_file_is_no_pattern(tmp_path: Path) -> None:
    for name, first in (("q*.parquet", 5), ("q_secret.parquet", 50), ("x[1].parquet", 7)):
        hf.Dataset.from_dict({"a": [first, first + 1, first + 2]}).to_parquet(tmp_path / name)
    for name, first in (("q*.parquet", 5), ("x[1].parquet", 7)):
        assert open_data(tmp_path / name).x[:, 0].tolist() == [first, first + 1, first + 2]


@pytest.mark.parametrize("large", [False, True])
def test_a_parquet_file_that_changed_is_read_again_whatever_its_time(tmp_path: Path, large: bool,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "LARGE", 1 if large else lazy.LARGE)
    path = tmp_path / "s.parquet"
    hf.Dataset.from_dict({"a": [1, 2, 3]}).to_parquet(path)
    time = path.stat()
    assert open_data(path).x[:, 0].tolist() == [1, 2, 3]
    hf.Dataset.from_dict({"a": [9, 8, 7]}).to_parquet(path)
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert open_data(path).x[:, 0].tolist() == [9, 8, 7]
