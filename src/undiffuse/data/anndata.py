"""Cells: AnnData files (.h5ad), a row a cell and a column a gene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data import validation
from undiffuse.data.checks import decoding
from undiffuse.data.dataset import Dataset, with_conditions
from undiffuse.errors import InputError, MachineError, did_you_mean, quote
from undiffuse.transforms import conditions

_MOST = 1 << 31


def read_h5ad(path: Path, label: str | None = None, condition: Sequence[str] = ()) -> Dataset:
    """The Dataset in an AnnData file: X as it is stored, sparse or dense, and the column `label` of obs as the classes.

    Columns of obs named in `condition`, as NAME or NAME:KIND, are conditions.
    Raises MachineError if the package anndata is missing; InputError for a file without X, an unknown label, and more
    than 2 GiB of numbers.
    """
    try:
        import anndata
    except ImportError:
        raise MachineError(f"{quote(path)} needs the package anndata, which is not here; "
                           "pip install 'undiffuse[cells]' brings it") from None
    with decoding(path, "an AnnData file"):
        cells = anndata.read_h5ad(path)
        if cells.X is None:
            raise InputError(f"{quote(path)} has no X; expected the matrix of cells and genes there")
        if 8 * cells.n_obs * cells.n_vars > _MOST:
            raise InputError(f"{quote(path)} holds {cells.n_obs:,} cells of {cells.n_vars:,} genes, over 2 GiB of "
                             "numbers; choose the genes that vary most, or save its principal components as .npy")
        x = cells.X.toarray() if hasattr(cells.X, "toarray") else np.asarray(cells.X)
        marks = None if label is None else _marks(cells.obs, label, path)
        genes = [str(name) for name in cells.var_names]
        given = [_condition(cells.obs, path, *conditions.named(spec)) for spec in condition]
    values = np.asarray(x, np.float64)
    data = validation.make_table(
        values, name=path.name, columns=genes if len(set(genes)) == len(genes) else (), marks=marks, note=_note(values)
    )
    return with_conditions(data, given)


def _condition(obs: Any, path: Path, name: str, kind: str | None) -> tuple[conditions.Condition, Tensor]:
    _check_column(obs, name, path)
    column = obs[name]
    if column.dtype.kind in "iuf":
        return conditions.read(name, kind, column.to_numpy())
    return conditions.read(name, kind, ["" if missing else str(v) for v, missing in zip(column, column.isna(),
                                                                                       strict=True)])


def _marks(obs: Any, label: str, path: Path) -> list[str]:
    """The classes of the cells."""
    _check_column(obs, label, path)
    if obs[label].isna().any():
        raise InputError(f"the column {quote(label)} of {quote(path)} is empty for some cells; fill it in or remove "
                         "them")
    return [str(value) for value in obs[label]]


def _check_column(obs: Any, name: str, path: Path) -> None:
    if name not in obs:
        known = [str(column) for column in obs.columns]
        raise InputError(f"{quote(path)} has no column {quote(name)} in obs; it has "
                         f"{', '.join(map(quote, known[:8])) or 'none'}{did_you_mean(name, known)}")


def _note(x: NDArray[np.float64]) -> list[str]:
    counts = bool(x.size and x.min() >= 0 and x.max() > 20 and (x == np.rint(x)).all())
    return ["X holds raw counts; log1p of counts per 10,000 is easier to learn"] if counts else []
