"""`undiffuse impute RUN TABLE`."""

from __future__ import annotations

from pathlib import Path


def impute(run: Path, table: Path, /, *, draws: int = 10, out: Path | None = None, seed: int = 0, steps: int = 20,
           interval: float = 0.9, method: str = "auto", device: str = "auto") -> None:
    """Fill the missing cells of TABLE, or values of an array, several times; all others are copied unchanged.

    Writes draw-1.csv, draw-2.csv, ..., each the complete table with its missing cells filled by one sample given the
    other cells of the row, and summary.csv with the mean (or most frequent category) and an interval per cell. Of an
    array draw-1.npy, ..., mean.npy, low.npy and high.npy, in its layout and type.

    Args:
        run: Folder of a run that was trained on a table with these columns.
        table: A .csv, .tsv or .parquet file, with the columns in any order; of arrays an .npy or .npz file. For
            .parquet the output is .csv as well.
        draws: Number of samples per missing cell.
        out: Folder to write, new or empty; TABLE-imputed by default.
        seed: Seed of all random numbers.
        steps: Number of steps from noise to data.
        interval: Fraction of the samples inside an interval.
        method: rows (from the rows of TABLE, without the network), linear (exact if mean and covariance determine the
            distribution), mmps (uses the covariance of the network), twisted (converges to the exact posterior, slow),
            or another of `observe`; auto: rows if every column has at least 100 values, else linear.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse.pipelines import impute

    folder = out or table.with_name(f"{table.stem}-imputed")
    for path in impute.impute_file(run, table, folder, draws, seed, steps, interval, method, device):
        print(path)
