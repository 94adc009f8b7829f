"""Thousands of broken files: each is a valid data set or one line of InputError, and never anything else."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from undiffuse.data import Dataset, open_data
from undiffuse.errors import InputError

X = (np.arange(12 * 5 * 4) * 13 % 256).astype(np.uint8).reshape(12, 5, 4)


class Change(NamedTuple):
    """One damage: `count` bytes at `place` (a fraction of the file) are replaced by `new`."""

    place: float
    count: int
    new: bytes


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(40.0).reshape(10, 4))
    return buffer.getvalue()


def npz(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, x=X, y=np.arange(12) % 3)
    return buffer.getvalue()


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.stack([X[0]] * 3, -1)).save(buffer, kind)
    return buffer.getvalue()


IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", *X.shape) + X.tobytes()
CSV = b"height,weight,kind\n1.5,2,a\n3,-4e3,b\n" + b"5,6.25,a\n" * 5
VALID: dict[str, tuple[str, bytes]] = {
    "npy": ("x.npy", npy()), "npz": ("x.npz", npz(False)), "npz deflated": ("x.npz", npz(True)),
    "csv": ("x.csv", CSV), "tsv": ("x.tsv", CSV.replace(b",", b"\t")),
    "idx": ("train-images-idx3-ubyte", IDX), "idx.gz": ("train-images-idx3-ubyte.gz", gzip.compress(IDX)),
    "png": ("b.png", picture("PNG")), "jpeg": ("b.jpg", picture("JPEG")), "webp": ("b.webp", picture("WEBP")),
    "bmp": ("b.bmp", picture("BMP"))}

changes = st.lists(st.builds(Change, st.floats(0, 1), st.integers(0, 8), st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\n", b",", b'"', b"nan", b"9" * 6]))),
    min_size=1, max_size=4)


def damaged(content: bytes, damage: list[Change], keep: float) -> bytes:
    for change in damage:
        at = int(change.place * len(content))
        content = content[:at] + change.new + content[at + change.count:]
    return content[:int(keep * len(content)) + 1]


def opens_or_refuses(source: Path, label: str | None) -> None:
    try:
        data = open_data(source, label=label)
    except InputError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert isinstance(data, Dataset) and len(data) >= 2 and not bool(data.x.isinf().any())
        assert data.kind == "table" or not bool(data.x.isnan().any())  # cells may be missing in tables only
        assert data.y is None or (data.y.shape == (len(data),) and int(data.y.max()) < len(data.classes))


def source(folder: Path, name: str) -> Path:
    """What to open: the file, or for an image the folder that holds it and a sound one."""
    if not name.startswith("b."):
        return folder / name
    Image.fromarray(np.stack([X[1]] * 3, -1)).save(folder / "a.png")
    return folder


def label_of(name: str) -> str | None:
    return "kind" if name in ("x.csv", "x.tsv") else None


def damage_files(folder: Path, kind: str, examples: int) -> None:
    name, content = VALID[kind]
    opened = source(folder, name)

    @settings(derandomize=True, deadline=None, max_examples=examples, database=None)
    @given(damage=changes, keep=st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.0]))
    def one(damage: list[Change], keep: float) -> None:
        (folder / name).write_bytes(damaged(content, damage, keep))
        opens_or_refuses(opened, label_of(name))

    one()


@pytest.mark.parametrize("kind", VALID)
def test_damaged_files_open_or_are_refused(tmp_path: Path, kind: str) -> None:
    damage_files(tmp_path, kind, 40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", VALID)
def test_many_damaged_files_open_or_are_refused(tmp_path: Path, kind: str) -> None:
    damage_files(tmp_path, kind, 400)


@pytest.mark.parametrize("kind", VALID)
def test_the_undamaged_files_open(tmp_path: Path, kind: str) -> None:
    name, content = VALID[kind]
    (tmp_path / name).write_bytes(content)
    assert len(open_data(source(tmp_path, name), label=label_of(name))) >= 2


@settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(text=st.text(alphabet='0123456789.,;eE+-"\n\r\t ainf\ufeffß', max_size=60))
def test_any_text_is_a_table_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text, encoding="utf-8")
    opens_or_refuses(path, None)


@settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(damage=changes, shape=st.tuples(*[st.integers(-2, 6)] * 3))
def test_damage_inside_a_sound_archive_is_found(tmp_path_factory: pytest.TempPathFactory, damage: list[Change],
                                                shape: tuple[int, int, int]) -> None:
    """The checksums of the archive are right here, so that the damage reaches the array reader."""
    path = tmp_path_factory.getbasetemp() / "inside.npz"
    body = damaged(npy().replace(b"(10, 4)", str(shape[:2]).encode()), damage, 1.0)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", body)
    opens_or_refuses(path, None)
