"""`undiffuse impute RUN TABLE`."""

from __future__ import annotations

from pathlib import Path


def impute(run: Path, table: Path, /, *, draws: int = 10, out: Path | None = None, seed: int = 0, steps: int = 20,
           interval: float = 0.9, method: str = "linear", device: str = "auto") -> None:
    """Fill the missing values of TABLE with several samples; all other cells stay as they are, to the character.

    Writes draw-1.csv, draw-2.csv, ..., each the table with its missing values filled by one sample given the other
    cells of the row, and summary.csv with mean (or most frequent category) and interval.

    Args:
        run: Folder of a run that was trained on a table with these columns.
        table: A .csv, .tsv or .parquet file; its columns are matched by name. For .parquet, .csv files are written.
        draws: Samples of every missing value.
        out: Folder to write, which must not exist or be empty; TABLE-imputed by default.
        seed: Random seed.
        steps: Number of steps from noise to data.
        interval: Fraction of the samples inside an interval.
        method: linear (fast; exact for Gaussian data), mmps (covariance from the network), twisted (tends to the exact
            posterior, slow), or another of `observe`.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse.pipelines import impute

    folder = out or table.with_name(f"{table.stem}-imputed")
    for path in impute.impute_file(run, table, folder, draws, seed, steps, interval, method, device):
        print(path)
