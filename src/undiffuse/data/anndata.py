"""Single-cell data: AnnData files (.h5ad), one row per cell and one column per gene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.data.validation import decoding, make_table
from undiffuse.errors import InputError, MachineError, did_you_mean, quote
from undiffuse.transforms.conditions import Condition, infer_rows, parse_spec

_MAX_BYTES = 1 << 31


def read_h5ad(path: Path, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset in an AnnData file: X, sparse or dense.

    Args:
        path: the file.
        label: column of obs that holds the classes.
        condition: columns of obs that are conditions, as NAME or NAME:KIND.

    Raises:
        MachineError: if the package anndata is missing.
        InputError: for a file without X, an unknown column, and more than 2 GiB of numbers.
    """
    try:
        import anndata
    except ImportError:
        raise MachineError(f"{quote(path)} needs the package anndata; install it with pip install "
                           "'undiffuse[cells]'") from None
    with decoding(path, "an AnnData file"):
        cells = anndata.read_h5ad(path)
        if cells.X is None:
            raise InputError(f"{quote(path)} has no X; expected the matrix of cells and genes there")
        if 8 * cells.n_obs * cells.n_vars > _MAX_BYTES:
            raise InputError(f"{quote(path)} holds {cells.n_obs:,} cells of {cells.n_vars:,} genes, over 2 GiB of "
                             "numbers; choose the genes that vary most, or save its principal components as .npy")
        x = np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, np.float64)
        label_texts = None if label is None else _texts(cells.obs, label, path)
        conditions = [_condition(cells.obs, path, *parse_spec(spec)) for spec in condition]
        genes = [str(name) for name in cells.var_names]
    if label_texts and "" in label_texts:
        raise InputError(f"the column {quote(label)} of {quote(path)} is empty for some cells; fill it in or remove "
                         "them")
    columns = genes if len(set(genes)) == len(genes) else ()
    return with_conditions(make_table(x, name=path.name, columns=columns, label_texts=label_texts, notes=_notes(x)),
                           conditions)


def _condition(obs: Any, path: Path, name: str, kind: str | None) -> tuple[Condition, Tensor]:
    texts = _texts(obs, name, path)
    return infer_rows(name, kind, obs[name].to_numpy() if obs[name].dtype.kind in "iuf" else texts)


def _texts(obs: Any, name: str, path: Path) -> list[str]:
    """The texts of a column of obs, "" where missing."""
    if name not in obs:
        columns = [str(column) for column in obs.columns]
        raise InputError(f"{quote(path)} has no column {quote(name)} in obs; it has "
                         f"{', '.join(map(quote, columns[:8])) or 'none'}{did_you_mean(name, columns)}")
    return ["" if missing else str(value) for value, missing in zip(obs[name], obs[name].isna(), strict=True)]


def _notes(x: NDArray[np.float64]) -> list[str]:
    counts = bool(x.size and x.min() >= 0 and x.max() > 20 and (x == np.rint(x)).all())
    return ["X holds raw counts; log1p of counts per 10,000 is easier to learn"] if counts else []
