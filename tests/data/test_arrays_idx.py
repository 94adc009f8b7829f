"""IDX files: MNIST as it is published, and the ways it can be broken."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from undiffuse.data import describe, open_data, validation

Refused = Callable[..., str]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
X = (np.arange(12 * 5 * 4) * 13 % 256).astype(np.uint8).reshape(12, 5, 4)
Y = (np.arange(12) % 3).astype(np.uint8)
needs_mnist = pytest.mark.skipif(not SHARED.is_dir(), reason="the real MNIST files are not here")


def idx(x: np.ndarray) -> bytes:
    return bytes([0, 0, 8, x.ndim]) + struct.pack(f">{x.ndim}I", *x.shape) + x.tobytes()


def put(folder: Path, packed: bool, prefix: str = "train", dot: bool = False) -> Path:
    kinds = {"images.idx3" if dot else "images-idx3": X, "labels.idx1" if dot else "labels-idx1": Y}
    paths = []
    for kind, x in kinds.items():
        paths.append(folder / f"{prefix}-{kind}-ubyte{'.gz' * packed}")
        paths[-1].write_bytes(gzip.compress(idx(x)) if packed else idx(x))
    return paths[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", [False, True])
def test_images_and_labels_are_found_by_their_names(tmp_path: Path, packed: bool, dot: bool) -> None:
    path = put(tmp_path, packed, dot=dot)
    for source in (path, tmp_path):
        data = open_data(source)
        assert torch.equal(data.x, torch.from_numpy(X)[:, None]) and data.classes == ("0", "1", "2")
        assert data.y is not None and data.y.tolist() == Y.tolist() and data.levels == 256


def test_the_test_part_is_the_other_file(tmp_path: Path, refused: Refused) -> None:
    train = put(tmp_path, True)
    refused(tmp_path, "0 IDX image files of the test part", part="test")
    refused(train, "no test images next to it", part="test")
    test = put(tmp_path, True, "t10k")
    test.write_bytes(gzip.compress(idx(255 - X)))
    for source in (tmp_path, train, test):
        assert torch.equal(open_data(source, part="test").x[:, 0], torch.from_numpy(255 - X))


def test_labels_may_be_absent_or_packed_otherwise(tmp_path: Path) -> None:
    path = put(tmp_path, False)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.with_name(labels.name + ".gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    assert open_data(path).y is not None
    labels.with_name(labels.name + ".gz").unlink()
    assert open_data(path).y is None and "no labels" in open_data(path).notes[0]


def test_any_name_will_do(tmp_path: Path) -> None:
    (tmp_path / "mine.bin").write_bytes(idx(X))
    assert torch.equal(open_data(tmp_path / "mine.bin").x[:, 0], torch.from_numpy(X))


def test_refusals(tmp_path: Path, refused: Refused) -> None:
    path = put(tmp_path, False)
    refused(tmp_path / "train-labels-idx1-ubyte", "holds labels", "give the file of the images")
    whole = path.read_bytes()
    cases = {"cut": (whole[:-1], ["promises 240 bytes", "239"]), "long": (whole + b"?", ["more"]),
             "header": (whole[:9], ["cannot be read"]), "empty": (b"", ["nothing"]),
             "float": (bytes([0, 0, 13, 3]) + whole[4:], ["type 13", "unsigned bytes"]),
             "axes": (bytes([0, 0, 8, 9]) + whole[4:], ["number of axes"]),
             "text": (b"hello" * 9, ["68 65 6c 6c"]), "magic": (b"\x1f\x8b" + whole, ["cannot be read"]),
             "gzip cut": (gzip.compress(whole)[:-12], ["cannot be read"]),
             "gzip crc": (gzip.compress(whole)[:-6] + bytes(6), ["cannot be read"])}
    for name, (content, words) in cases.items():
        path.write_bytes(content)
        assert refused(path, path.name, *words), name
    path.write_bytes(whole)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(Y[:-1]))
    refused(path, "shape (11,)", "expected (12,)")


def test_a_header_cannot_ask_for_memory(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)))
    refused(path, "would unpack to")
    path.write_bytes(gzip.compress(idx(np.zeros((1000, 64, 64), np.uint8))))
    monkeypatch.setattr(validation, "_MAX_UNPACKED", 1 << 20)
    refused(path, "would unpack to 4,096,000 bytes")


@needs_mnist
@pytest.mark.parametrize(("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion_mnist", 0.2860, 0.3530)])
def test_the_published_sets(name: str, mean: float, std: float) -> None:
    data = open_data(SHARED / name)
    assert describe(data) == f"60,000 grey images of 28x28, 10 classes ({name})"
    share, grey = np.bincount(data.x.numpy().ravel(), minlength=256) / data.x.numel(), np.arange(256) / 255
    assert share @ grey == pytest.approx(mean, abs=5e-5)
    assert np.sqrt(share @ grey**2 - (share @ grey) ** 2) == pytest.approx(std, abs=5e-5)
    test = open_data(SHARED / name, part="test")
    assert len(test) == 10_000 and test.y is not None
    raw = gzip.decompress((SHARED / name / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    assert hashlib.sha256(test.x.numpy().tobytes()).digest() == hashlib.sha256(raw).digest()
    assert torch.equal(open_data(SHARED / name, part="test", size=28).x, test.x)  # 28 is native: nothing is done
