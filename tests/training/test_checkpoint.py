"""A checkpoint is whole or refused: damaged in any way, written to a full disk, or cut off at any system call."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from training.small_runs import Crash, code_of, in_child

from undiffuse.atomic_files import remove_stale
from undiffuse.errors import InputError, MachineError
from undiffuse.random import normal
from undiffuse.storage import locked
from undiffuse.training.checkpoint import load, newest, path_of, read_json, save, steps, write_json

STATE = {"experiment": "e" * 64, "seconds": 1.5}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    return {"a": normal(seed, 0, 0, 0, 3, (5,)), "b": normal(seed, 1, 0, 0, 4, (), torch.float64), "c": torch.tensor(7),
            "none": torch.zeros(0, 3), "flag": torch.tensor([True, False])}


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path, tensors())
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    found = load(save(tmp_path, 8, tensors(), STATE), tensors(1))
    assert found.step == 8 and found.state == {**STATE, "step": 8}
    assert list(found.tensors) == list(tensors())
    for name, t in tensors().items():
        assert torch.equal(found.tensors[name], t) and found.tensors[name].dtype == t.dtype


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    with safe_open(save(tmp_path, 8, tensors(), STATE), "pt") as file:
        assert set(file.keys()) == set(tensors())
        assert all(torch.equal(file.get_tensor(name), t) for name, t in tensors().items())
        assert json.loads(file.metadata()["state"])["seconds"] == 1.5


def test_the_digest_is_sha256_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    content = save(tmp_path, 8, tensors(), STATE).read_bytes()
    written = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["sha256"]
    assert hashlib.sha256(content.replace(written.encode(), b"0" * 64)).hexdigest() == written


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 8, tensors(), STATE)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        refused(path)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """The content damaged in one of the ways of disks, networks and editors."""
    a, b = sorted(chance.choices(range(len(content) + 1), k=2))
    c = chance.randrange(len(content))
    return chance.choice([
        lambda: content[:a],
        lambda: content[b:],
        lambda: content[:a] + content[b:],
        lambda: content[:a] + content[c:],
        lambda: content + content[a:b],
        lambda: content[:a] + bytes(b - a) + content[b:],
        lambda: content[:a] + chance.randbytes(b - a) + content[b:],
        lambda: chance.randbytes(8) + content[8:],
        lambda: chance.randrange(2 * len(content)).to_bytes(8, "little") + content[8:],
        lambda: content[:c] + bytes([content[c] ^ 1 << chance.randrange(8)]) + content[c + 1 :],
        lambda: content[:a] + content[b:] + content[a:b],
        lambda: content.replace(b"[", b"{", 1),
    ])()


def test_six_hundred_damaged_files_are_as_many_refusals(tmp_path: Path) -> None:
    chance = random.Random(4)
    path = save(tmp_path, 8, tensors(), STATE)
    content = path.read_bytes()
    damaged = [d for d in (mutate(content, chance) for _ in range(660)) if d != content]
    assert len(damaged) > 600
    for one in damaged:
        path.write_bytes(one)
        refused(path)


def forged(path: Path, header: dict[str, object], data: bytes = b"") -> str:
    """The refusal of a file that was made on purpose, with a right digest."""
    text = json.dumps({"__metadata__": {"sha256": "0" * 64, "state": json.dumps({"step": 8})}, **header},
                      separators=(",", ":")).encode()
    content = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(content).hexdigest().encode()
    path.write_bytes(content.replace(b"0" * 64, digest, 1))
    return refused(path)


def test_a_forged_file_has_to_have_the_expected_names_shapes_and_types(tmp_path: Path) -> None:
    path = save(tmp_path, 8, tensors(), STATE)
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    layout, data = json.loads(content[8:length]), content[length:]
    del layout["__metadata__"]
    assert "another network" in forged(path, {})
    assert "got b = nothing" in forged(path, {"a": {**layout["a"], "data_offsets": [0, 60]}}, bytes(60))
    assert "got a = torch.int32" in forged(path, {**layout, "a": {**layout["a"], "dtype": "I32"}}, data)
    assert "got a = torch.float32 (5, 3)" in forged(path, {**layout, "a": {**layout["a"], "shape": [5, 3]}}, data)
    assert "got z = " in forged(path, {**layout, "z": {**layout["none"]}}, data)
    for broken in ({}, {"a": {**layout["a"], "dtype": "F64"}}, {"a": {**layout["a"], "data_offsets": [0, 2**62]}},
                   {"a": {**layout["a"], "data_offsets": [0, 60]}, "b": {**layout["b"], "data_offsets": [0, 32]}}):
        assert "not of undiffuse" in forged(path, {**layout, **broken}, data + bytes(10**6 * (broken == {})))
    for metadata in ({"sha256": "0" * 64}, {"sha256": "0" * 64, "state": "[" * 10_000},
                     {"sha256": "0" * 64, "state": '{"step": 9}'}, {"sha256": "0" * 64, "state": "8"}, {}, 3):
        assert "of undiffuse" in forged(path, {"__metadata__": metadata, **layout}, data)


def test_a_huge_claim_is_refused_before_it_is_believed(tmp_path: Path) -> None:
    path = path_of(tmp_path, 8)
    for length in (2**63, 2**24 + 1, 9):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        assert f"claims {length}" in refused(path)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for step in (0, 5, 10, 100):
        save(tmp_path, step, tensors(step), STATE)
    assert steps(tmp_path) == [10, 100]
    found = newest(tmp_path, tensors(), pytest.fail)
    assert found is not None and found.step == 100 and torch.equal(found.tensors["a"], tensors(100)["a"])


def test_a_damaged_one_is_passed_over_and_said_so(tmp_path: Path) -> None:
    save(tmp_path, 5, tensors(), STATE)
    save(tmp_path, 10, tensors(), STATE).write_bytes(b"")
    said: list[str] = []
    found = newest(tmp_path, tensors(), said.append)
    assert found is not None and found.step == 5
    assert len(said) == 1 and "checkpoint-10" in said[0] and "one before" in said[0]


def test_a_damaged_one_never_pushes_out_a_good_one(tmp_path: Path) -> None:
    save(tmp_path, 5, tensors(), STATE)
    save(tmp_path, 10, tensors(), STATE).write_bytes(b"damaged")
    save(tmp_path, 7, tensors(), STATE)
    assert steps(tmp_path) == [5, 7]


def test_none_intact_is_an_error_and_none_at_all_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path, tensors(), pytest.fail) is None
    save(tmp_path, 5, tensors(), STATE).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"no checkpoint in .* is intact"):
        newest(tmp_path, tensors(), str)


def test_a_full_disk_leaves_the_last_good_one_and_no_part(tmp_path: Path) -> None:
    save(tmp_path, 5, tensors(), STATE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        with pytest.raises(MachineError, match=r"checkpoint-10.*File too large.*\d+ bytes are needed"):
            save(tmp_path, 10, tensors(), STATE)

    assert code_of(in_child(fill)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5.safetensors"]
    assert load(path_of(tmp_path, 5), tensors()).step == 5


def test_a_crash_at_any_system_call_leaves_a_valid_checkpoint(tmp_path: Path) -> None:
    last, codes = 0, set()
    while 0 not in codes:
        last += 1
        folder = tmp_path / str(last)
        folder.mkdir()
        for step in (1, 2):
            save(folder, step, tensors(step), STATE)
        pid = in_child(lambda last=last, folder=folder: (Crash(last).install(), save(folder, 3, tensors(3), STATE)))
        codes.add(code_of(pid))
        remove_stale(folder)
        found = newest(folder, tensors(), pytest.fail)
        assert found is not None and found.step in (2, 3)
        assert torch.equal(found.tensors["a"], tensors(found.step)["a"])
        assert {p.name for p in folder.iterdir()} <= {f"checkpoint-{s}.safetensors" for s in (1, 2, 3)}
        assert len(steps(folder)) >= 2
    assert codes == {0, 77} and last > 8


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="tells files from folders by /proc")
def test_the_power_may_fail_as_well(tmp_path: Path) -> None:
    """Data reach the disk before the name does, and the new name before the old file goes: no reordering loses both."""
    for step in (1, 2):
        save(tmp_path, step, tensors(), STATE)

    def work() -> None:
        crash = Crash(0)
        crash.install()
        save(tmp_path, 3, tensors(), STATE)
        with open(tmp_path / "calls", "w") as file:
            file.write("\n".join(crash.calls))

    assert code_of(in_child(work)) == 0
    calls = [line.strip() for line in (tmp_path / "calls").read_text().splitlines() if line != "open"]
    writes = calls.count("write")
    assert calls[: writes] == ["write"] * writes
    assert calls[writes : writes + 5] == ["fsync", "replace", "unlink", "fsync folder", "unlink"]


def test_one_folder_has_one_writer(tmp_path: Path) -> None:
    def second() -> None:
        with pytest.raises(MachineError, match=rf"in use by process {os.getppid()} on "), locked(tmp_path):
            pass

    with locked(tmp_path):
        assert code_of(in_child(second)) == 0


def test_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    def hold() -> None:
        with locked(tmp_path):
            os.kill(os.getpid(), 9)

    assert code_of(in_child(hold)) == -9
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff"])
def test_a_damaged_json_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        read_json(path)
