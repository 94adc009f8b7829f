"""A pipe never ends, and a device has no end: both are refused at once, wherever a file is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from undiffuse import storage
from undiffuse.data.images import load_image
from undiffuse.errors import InputError
from undiffuse.hashing import file_sha256
from undiffuse.regular_files import open_regular
from undiffuse.training.checkpoint import read_json
from undiffuse.training.metrics_log import read_metrics

READERS = (open_regular, storage.read, load_image, read_json, read_metrics, file_sha256)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\x01")
    with open_regular(tmp_path / "x") as file:
        assert file.read() == b"\x00\x01"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_a_pipe_and_a_device_are_refused_and_a_missing_file_is_missing(tmp_path: Path, read: object) -> None:
    assert callable(read)
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(InputError, match="a pipe or a device"):
            read(path)


def test_a_folder_and_a_missing_file_are_what_the_system_says(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
