"""AnnData files: what was written is read; without the package one sentence says what to install."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from undiffuse.data import open_data
from undiffuse.errors import MachineError

X = np.arange(1, 25, dtype=np.float32).reshape(8, 3) * np.array([1, 0.5, -2], np.float32)
X[::2, 1] = 0


def test_without_the_package_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.h5ad").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MachineError, match=r"^[^\n]*undiffuse\[cells\][^\n]*$"):
        open_data(tmp_path / "a.h5ad")


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_what_was_written_is_read(tmp_path: Path, refused: Callable[..., str], kind: Callable[..., object]) -> None:
    anndata = pytest.importorskip("anndata")
    import pandas

    cells, genes = (pandas.Index(names, dtype=object) for names in ([f"c{i}" for i in range(8)], ["G1", "G2", "G3"]))
    types = pandas.Categorical(list("abcabcab"), pandas.Index(list("abc"), dtype=object))
    obs = pandas.DataFrame({"type": types, "age": np.arange(8.0)}, index=cells)
    var = pandas.DataFrame(index=genes)
    path = tmp_path / "a.h5ad"
    anndata.AnnData(kind(X), obs, var).write_h5ad(path)
    data = open_data(path, label="type")
    assert torch.equal(data.x, torch.from_numpy(X)) and data.columns == ("G1", "G2", "G3")
    assert data.classes == ("a", "b", "c") and data.y is not None and data.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    told = open_data(path, condition=["age", "type"])
    assert [c.kind for c in told.conditions] == ["number", "class"] and told.condition_values is not None
    assert told.condition_values.T.tolist() == [list(range(8)), [0, 1, 2, 0, 1, 2, 0, 1]] and told.y is None
    refused(path, "no column 'typ'", "did you mean 'type'", label="typ")
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, "cannot be read as an AnnData file")
