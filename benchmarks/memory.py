"""Memory that does not grow: of training with the number of updates, with data in memory, images on the disk and
encoded images of a parquet file (where the extra undiffuse[data] is installed), of writing a stream to the disk with
the number of its rows, and of sampling with the number of samples.

Every line is a process of its own; what is measured is its resident memory, that of PyTorch included.
"""

from __future__ import annotations

import io
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from undiffuse.data import from_datasets, lazy, open_data, save_samples
from undiffuse.experiment import Experiment
from undiffuse.pipelines.sample_to_file import sample_to_file
from undiffuse.random import Purpose, raw_words
from undiffuse.samplers import driver
from undiffuse.training import load, train

POINTS = Experiment(data="swiss_roll", steps=2000, save_every=500, device="cpu")
EARLY = 200


def table(steps: str = "2000", n: str = "100000") -> Iterator[str]:
    """Resident MiB after 200 and after all updates; the largest of 1,000 and of 20,000 rows of a stream, and of 1,000
    and of `n` samples; and their ratios.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, e = Path(name), POINTS.replace(steps=int(steps))
        yield _line("training on points in memory", f"update {EARLY}", f"update {steps}", *_in_child(
            lambda: _training(e, folder / "points")))
        images = e.replace(data=str(_images(folder)), net="mlp", batch_size=64, held_out=100)
        yield _line("training on images on the disk", f"update {EARLY}", f"update {steps}", *_in_child(
            lambda: _training(images, folder / "images")))
        if find_spec("datasets"):
            encoded = images.replace(data=str(_parquet(folder)))
            yield _line("training on a parquet file", f"update {EARLY}", f"update {steps}", *_in_child(
                lambda: _training(encoded, folder / "encoded")))
            few, many = (_in_child(lambda count=count: _streaming(count))[0] for count in (1000, 20_000))
            yield _line("writing a stream of images", "1000 rows", "20000 rows", few, many)
        small, large = (_in_child(lambda count=count: _sampling(folder / "points", folder / f"{count}.npy", count))[0]
                        for count in (1000, int(n)))
        yield _line("sampling points to .npy", "1000 samples", f"{n} samples", small, large)


def _line(what: str, first: str, second: str, before: float, after: float) -> str:
    return f"{what:32} {first} {before:7.1f} MiB, {second} {after:7.1f} MiB, ratio {after / before:.4f}"


def _training(e: Experiment, folder: Path) -> list[float]:
    seen: dict[int, float] = {}

    def note(step: int) -> bool:
        if step in (EARLY, e.steps):
            seen[step] = _resident()
        return False

    lazy.LARGE = 1 << 20
    train(e, folder, progress=False, stop=note)
    return [seen[EARLY], seen[e.steps]]


def _sampling(run: Path, out: Path, n: int) -> list[float]:
    model = load(run, device="cpu")

    def rows(first: int, count: int, progress: driver.Progress) -> Tensor:
        return driver.sample(model, count, steps=5, first_index=first, progress=progress).x

    sample_to_file(model, rows, [(0, n)], out, lambda x: save_samples(out, x))
    return [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]


def _streaming(n: int) -> list[float]:
    """The largest memory while n images of 12 KB are written from a stream and opened as data."""
    import datasets

    def images() -> Iterator[dict[str, object]]:
        for i in range(2 * n):
            noise = raw_words(0, Purpose.DATA, 0, i * 1536, 1536).view(np.uint8).reshape(64, 64, 3)
            yield {"image": {"bytes": _png(noise), "path": None}}

    lazy.LARGE = 1 << 20
    stream = datasets.IterableDataset.from_generator(images, features=datasets.Features({"image": datasets.Image()}))
    assert len(from_datasets(stream, first=n)) == n
    return [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]


def _images(folder: Path) -> Path:
    """10,000 images of 16x16 in an .npy file."""
    rows = open_data("digits").x.repeat(6, 1, 2, 2)[:10_000]
    np.save(folder / "images.npy", (rows.float() * (255 / 16)).to(torch.uint8).numpy())
    return folder / "images.npy"


def _parquet(folder: Path) -> Path:
    """The same images as PNG in a parquet file, made by a child, so that nothing of it stays in memory."""
    def write() -> list[float]:
        import datasets

        datasets.disable_progress_bars()
        images = np.load(folder / "images.npy")[:, 0]
        rows = datasets.Dataset.from_dict({"image": [{"bytes": _png(x), "path": None} for x in images]},
                                          features=datasets.Features({"image": datasets.Image()}))
        rows.to_parquet(folder / "images.parquet")
        return [float(len(images))]

    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    _in_child(write)
    return folder / "images.parquet"


def _png(image: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _in_child(work: Callable[[], list[float]]) -> list[float]:
    """What some work returns, done by a fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, " ".join(map(str, work())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as answer:
        return [float(word) for word in answer.read().split()]
