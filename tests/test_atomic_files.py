"""Files that are whole or absent: after errors, kills and planted links, for single files, sets and folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from undiffuse import atomic_files
from undiffuse.atomic_files import atomic, atomic_folder, atomic_set, check_places, remove_stale, temporary
from undiffuse.errors import InputError, MachineError

WRITER = """
import sys, time
from pathlib import Path
from undiffuse.atomic_files import atomic, atomic_folder
with {writer}(Path(sys.argv[1])) as place:
    {write}
    print("writing", flush=True)
    time.sleep(60)
"""


def writer(path: Path, kind: str) -> subprocess.Popen[str]:
    """A process that is writing a file or folder and does not end."""
    write = {"atomic": "place.write(b'half')", "atomic_folder": "(place / 'a').write_text('half')"}[kind]
    process = subprocess.Popen([sys.executable, "-c", WRITER.format(writer=kind, write=write), str(path)],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete_and_an_error_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x [1]*.csv"
    with atomic(path) as file:
        file.write(b"one")
        assert not path.exists()
    with pytest.raises(KeyError), atomic(path) as file:
        file.write(b"two")
        raise KeyError
    assert path.read_bytes() == b"one" and names(tmp_path) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


@pytest.mark.parametrize("kind", ["atomic", "atomic_folder"])
def test_a_living_writer_is_left_alone_and_what_a_killed_one_left_is_removed(tmp_path: Path, kind: str) -> None:
    path, live = tmp_path / "out.csv", writer(tmp_path / "out.csv", kind)
    try:
        before = names(tmp_path)
        assert len(before) == 1 and before[0].startswith(".out.csv.")
        remove_stale(tmp_path)
        with atomic(path) as file:
            file.write(b"mine")
        assert names(tmp_path) == sorted([*before, "out.csv"])
    finally:
        live.send_signal(signal.SIGKILL)
        live.wait()
    with atomic(tmp_path / "another.csv") as file:
        file.write(b"1")
    assert len(names(tmp_path)) == 3  # the next writer of that name removes it
    with atomic(path) as file:
        file.write(b"mine again")
    assert names(tmp_path) == ["another.csv", "out.csv"]


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Known:
        hex = "0" * 32

    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr(atomic_files.uuid, "uuid4", Known)
    monkeypatch.setattr(atomic_files, "remove_stale", lambda *_: None)
    (tmp_path / f".out.npy.{'0' * 12}.tmp").symlink_to(victim)
    with pytest.raises(MachineError, match="cannot be written"), atomic(tmp_path / "out.npy") as file:
        file.write(b"evil")
    assert victim.read_bytes() == b"precious" and not (tmp_path / "out.npy").exists()


def test_a_link_among_stale_files_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".out.npy.1.tmp").symlink_to(victim)
    remove_stale(tmp_path)
    assert victim.read_bytes() == b"precious"


def test_a_set_is_whole_or_as_before(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"old")
    with pytest.raises(MachineError, match="disk full"), atomic_set([a, b]) as (first, second):
        first.write(b"new")
        second.write(b"new")
        raise OSError(28, "disk full")
    assert a.read_bytes() == b"old" and names(tmp_path) == ["a"]
    with atomic_set([a, b]) as (first, second):
        first.write(b"1")
        second.write(b"2")
        assert a.read_bytes() == b"old" and not b.exists()
    assert (a.read_bytes(), b.read_bytes()) == (b"1", b"2")


def test_a_folder_is_whole_or_absent_and_replaces_an_empty_one(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(KeyError), atomic_folder(out) as folder:
        (folder / "draw-1.csv").write_text("half")
        raise KeyError
    assert not out.exists() and names(out.parent) == []
    out.mkdir()
    with atomic_folder(out) as folder:
        (folder / "draw-1.csv").write_text("whole")
    assert names(out.parent) == ["out"] and names(out) == ["draw-1.csv"]
    with pytest.raises(MachineError, match="cannot be written"), atomic_folder(out) as folder:
        (folder / "other.csv").write_text("1")
    assert names(out) == ["draw-1.csv"] and names(out.parent) == ["out"]


def test_threads_that_write_one_name_do_not_disturb_one_another(tmp_path: Path) -> None:
    path, errors = tmp_path / "x", list[BaseException]()

    def write(number: int) -> None:
        try:
            for _ in range(40):
                with atomic(path) as file:
                    file.write(bytes([number]) * 1000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and names(tmp_path) == ["x"]
    assert len(set(path.read_bytes())) == 1 and path.stat().st_size == 1000


def test_a_temporary_file_is_removed_at_the_end(tmp_path: Path) -> None:
    with temporary(tmp_path / "x.csv", ".rows") as file:
        file.truncate(10)
        assert len(names(tmp_path)) == 1 and names(tmp_path)[0].endswith(".rows.tmp")
    assert names(tmp_path) == []


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    source, link, other = tmp_path / "rows.csv", tmp_path / "link.csv", tmp_path / "new.csv"
    source.write_text("1")
    link.symlink_to(source)
    for place in (source, link):
        with pytest.raises(InputError, match="which is read too"):
            check_places([place], [str(source), "digits"])
    check_places([other], [str(source), "no\0file", "digits"])
    picture = other.with_suffix(".png")
    picture.write_bytes(b"holiday")
    with pytest.raises(InputError, match="would be replaced"):
        check_places([other, picture], [source])
    other.write_text("scores")
    check_places([other, picture], [source])
