"""The first rows of a stream are those of the same rows by number, are fetched once, and are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.rows_of_hub import N, pictures, pixels, saved
from PIL import Image
from training.small_runs import TINY, code_of, final, in_child, same

from undiffuse.cli import main
from undiffuse.data import hf_streaming, lazy, open_data
from undiffuse.data.huggingface import from_datasets
from undiffuse.errors import InputError, MachineError
from undiffuse.experiment import Experiment
from undiffuse.training import load_data, open_run, train

hf = pytest.importorskip("datasets", reason="the extra undiffuse[data] is not installed")
Refused = Callable[..., str]
pytestmark = pytest.mark.usefixtures("cache")
ROWS = 60


class Asked:
    """A stream of points that counts how many were asked for; `at` is a row where something happens instead."""

    def __init__(self, count: int = ROWS, at: int = -1, event: Callable[[], None] = lambda: None) -> None:
        self.asked, self.count, self.at, self.event = 0, count, at, event
        self.rows = hf.IterableDataset.from_generator(self.points)

    def points(self) -> Iterator[dict[str, float]]:
        for i in range(self.count):
            if i == self.at:
                self.event()
            self.asked += 1
            yield {"a": i / 7, "b": float(i * i % 11)}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub that holds someone/cats in a parquet file, and what it was asked."""
    path, calls, load = saved(pictures(), tmp_path / "cats.parquet"), [], hf.load_dataset

    def load_dataset(name: str, configuration: str | None = None, **how: Any) -> Any:
        calls.append(how)
        return load("parquet", data_files={"train": str(path), "test": str(path)}, **how)

    monkeypatch.setattr(hf, "load_dataset", load_dataset)
    return calls


def test_first_rows_of_the_hub_are_streamed_once_and_are_those_by_number(hub: list[dict[str, Any]], cache: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    expected = from_datasets(pictures().select(range(15)))
    data = open_data("someone/cats", first=15)
    assert torch.equal(data.x, expected.x) and torch.equal(data.y, expected.y)  # type: ignore[arg-type]
    assert data.fingerprint() == expected.fingerprint() and data.classes == ("cat", "dog")
    monkeypatch.setattr(lazy, "LARGE", 100)
    again = open_data("someone/cats", first=15)
    assert hub == [{"streaming": True}] and isinstance(again.x, lazy.Lazy)
    assert torch.equal(again.x[:], expected.x) and again.fingerprint() == from_datasets(
        pictures().select(range(15))).fingerprint()
    assert len(open_data("someone/cats", first=7, part="test")) == 7 and hub == [{"streaming": True}] * 2
    assert sorted(path.name for path in cache.rglob("*.arrow") if "undiffuse" in path.parts) == ["15.arrow", "7.arrow"]


def test_a_run_finds_the_same_rows_again(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    e = Experiment(data="someone/cats", max_rows=20, net_args=TINY, steps=6, batch_size=7, save_every=3, held_out=4,
                   device="cpu")
    train(e, tmp_path / "whole", progress=False)
    train(e, tmp_path / "broken", progress=False, stop=lambda step: step == 4)
    train(open_run(tmp_path / "broken").experiment, tmp_path / "broken", progress=False)
    assert same(final(tmp_path / "whole"), final(tmp_path / "broken")) and hub == [{"streaming": True}]
    rows, held = load_data(tmp_path / "whole")
    assert held is not None and sorted(torch.cat([rows.x, held.x]).flatten(1).tolist()) == sorted(
        pixels()[:20].reshape(20, -1).tolist())
    with pytest.raises(InputError, match="max_rows is 20 there and 21 here"):
        train(e.replace(max_rows=21), tmp_path / "whole", progress=False)


def test_on_the_command_line(hub: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--out", str(tmp_path / "run"), "--steps", "2", "--batch-size", "4", "--net", "mlp", "--held-out", "4"]
    for first, words in (("20", "max_rows = 20, as set"), ("2000", "there are fewer rows than 2,000")):
        assert main(["train", "someone/cats", "--max-rows", first, *run]) == (2 if first == "2000" else 0)
        assert words in capsys.readouterr().out
    assert main(["train", str(tmp_path / "run")]) == 0 and hub == [{"streaming": True}] * 2
    assert main(["train", "someone/cats", "--max-rows", "1"]) == 2
    assert "expected a whole number of at least 2" in capsys.readouterr().err


def test_a_stream_in_memory_is_read_once_and_may_be_kept(tmp_path: Path, cache: Path) -> None:
    """With images of no stated type too; nothing stays but what was to be kept."""
    x = torch.tensor([[i / 7, i * i % 11] for i in range(ROWS)], dtype=torch.float64)
    for first in (None, 25, ROWS):
        stream = Asked()
        assert torch.equal(from_datasets(stream.rows, first=first).x, x[:first])
        assert stream.asked <= (first or ROWS) + 1
    stream = Asked()
    for _ in range(2):
        assert torch.equal(from_datasets(stream.rows, first=25, keep=tmp_path / "kept").x, x[:25])
    assert stream.asked <= 26 and sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["25.arrow", "lock"]
    images = hf.IterableDataset.from_generator(lambda: ({"image": Image.fromarray(p), "label": i % 3}
                                                       for i, p in enumerate(pixels())))
    assert np.array_equal(from_datasets(images).x[:, 0].numpy(), pixels())
    assert list((cache / "undiffuse").iterdir()) == []


def test_memory_is_that_of_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more rows than a batch and one have been asked for and not yet been written."""
    from datasets.arrow_writer import ArrowWriter

    stream, ahead, write, written = Asked(), [], ArrowWriter.write_table, [0]

    def write_table(writer: Any, table: Any, *args: Any) -> None:
        ahead.append(stream.asked - written[0])
        write(writer, table, *args)
        written[0] += table.num_rows

    monkeypatch.setattr(ArrowWriter, "write_table", write_table)
    monkeypatch.setattr(hf_streaming, "BATCH", 10)
    for typed in (False, True):
        stream.asked = written[0] = 0
        rows = stream.rows.cast(hf.Features(dict.fromkeys("ab", hf.Value("float32")))) if typed else stream.rows
        assert len(from_datasets(rows, first=50)) == 50
    assert len(ahead) == 10 and max(ahead) <= 11


def test_an_end_in_the_middle_leaves_nothing_that_is_taken(tmp_path: Path) -> None:
    """Killed before the first row, in the middle, and before the last one."""
    keep, many = tmp_path / "keep", 50 * ROWS
    for at in (0, many // 2, many - 1):
        dying = Asked(many, at, lambda: os._exit(77))
        assert code_of(in_child(lambda rows=dying.rows: from_datasets(rows, keep=keep))) == 77
        assert [path.suffix for path in keep.iterdir() if path.name != "lock"] == [".tmp"]
        assert next(keep.glob(".*.tmp")).stat().st_size > 0 or at == 0
    stream = Asked()
    assert len(from_datasets(stream.rows, keep=keep)) == stream.asked == ROWS
    assert sorted(path.name for path in keep.iterdir()) == ["all.arrow", "lock"]


@pytest.mark.parametrize("error", [ConnectionError("it is\ngone"), TimeoutError(), RuntimeError("Server Disconnected")])
def test_a_network_that_is_gone_is_one_sentence_and_the_next_start_begins_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def gone() -> None:
        raise error

    monkeypatch.setattr(hf_streaming, "BATCH", 10)
    with pytest.raises(MachineError, match=r"'cats' broke off after 30 rows .*none of them were kept") as caught:
        from_datasets(Asked(at=35, event=gone).rows, "cats", first=40, keep=tmp_path)
    assert "\n" not in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert len(from_datasets(Asked().rows, first=40, keep=tmp_path)) == 40


def test_of_two_processes_one_streams(tmp_path: Path) -> None:
    """The other waits for it, also for one that is killed meanwhile."""
    count = tmp_path / "count"

    def note() -> None:
        with count.open("a") as file:
            file.write("x")

    def work() -> None:
        assert len(from_datasets(Asked(at=30, event=note).rows, keep=tmp_path / "keep")) == ROWS

    for pid in [in_child(work) for _ in range(3)]:
        assert code_of(pid) == 0
    assert count.read_text() == "x"


def test_first_rows_of_anything_else(tmp_path: Path) -> None:
    """Of files here and of built-in sets, with the classes that occur in them."""
    np.save(tmp_path / "x.npy", pixels())
    rows = saved(pictures(), tmp_path / "x.parquet")
    for path in (tmp_path / "x.npy", rows):
        assert torch.equal(open_data(path, first=9).x, open_data(path).x[:9])
    assert open_data(rows, first=N // 2).classes == ("cat",) and open_data(rows, first=N // 2 + 1).classes == (
        "cat", "dog")
    assert torch.equal(open_data("swiss_roll", first=30).x, open_data("swiss_roll").x[:30])
    whole, few = open_data("digits"), open_data("digits", first=5)
    assert few.classes == ("0", "1", "2", "3", "4") and torch.equal(few.x, whole.x[:5])
    assert [few.classes[k] for k in few.y] == [whole.classes[k] for k in whole.y[:5]]  # type: ignore[union-attr]
    more = open_data("digits", first=2000)
    assert torch.equal(more.x, whole.x) and more.notes == (*whole.notes, "there are fewer rows than 2,000, and all are "
                                                          "taken")


def test_refusals(tmp_path: Path, refused: Refused) -> None:
    refused("digits", "first=1", "at least 2 rows", first=1)
    with pytest.raises(InputError, match="first=0"):
        from_datasets(Asked().rows, first=0)
    with pytest.raises(InputError, match="'cats' holds 1 row; expected at least 2"):
        from_datasets(Asked(1).rows, "cats", keep=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    mixed = hf.IterableDataset.from_generator(lambda: ({"a": "three" if i == 300 else i} for i in range(400)))
    with pytest.raises(InputError, match="'cats' cannot be read by the package datasets"):
        from_datasets(mixed, "cats")
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="file', where streams are stored, cannot be written"):
        from_datasets(Asked().rows, keep=tmp_path / "file")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    from_datasets(Asked().rows, first=20, keep=tmp_path)
    file = tmp_path / "20.arrow"
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"x" * 500):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"20\.arrow.* is damaged .*; remove it"):
            from_datasets(Asked().rows, first=20, keep=tmp_path)
