"""Rows as the package datasets holds them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from undiffuse.random import Purpose, raw_words

hf = pytest.importorskip("datasets", reason="the extra undiffuse[data] is not installed")
N = 24


def pixels() -> np.ndarray[Any, Any]:
    return (raw_words(1, Purpose.DATA, 9, 0, N * 20) >> np.uint64(56)).astype(np.uint8).reshape(N, 4, 5)


def png(image: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def pictures(**columns: Any) -> Any:
    """24 grey images, of which the first half are cats."""
    cells = [{"bytes": png(image), "path": None} for image in pixels()]
    features = {"image": hf.Image(), "label": hf.ClassLabel(names=["cat", "dog"])}
    values = {"image": cells, "label": [2 * i // N for i in range(N)], **columns}
    more = {name: hf.Value("float32" if isinstance(v[0], float) else "string") for name, v in columns.items()}
    return hf.Dataset.from_dict(values, features=hf.Features({**features, **more}))


def saved(rows: Any, path: Path) -> Path:
    if path.suffix:
        rows.to_parquet(path)
    else:
        rows.save_to_disk(path)
    return path
