"""`undiffuse impute RUN TABLE`."""

from __future__ import annotations

from pathlib import Path


def impute(run: Path, table: Path, /, *, draws: int = 10, out: Path | None = None, seed: int = 0, steps: int = 20,
           interval: float = 0.9, method: str = "linear", device: str = "auto") -> None:
    """Fill the empty cells of TABLE, several times over; cells that hold something stay as they are, to the character.

    Writes draw-1.csv, draw-2.csv, ..., each the whole table with its gaps filled by one draw of what they may be given
    the other cells of the row, and summary.csv with mean (or most frequent word) and interval.

    Args:
        run: Folder of a run that was trained on a table with these columns.
        table: A .csv, .tsv or .parquet file; its columns may be in another order. Of .parquet .csv files are
            written, for its columns have types that an interval does not fit.
        draws: How many times every gap is filled.
        out: Folder to write, which must not exist or be empty; TABLE-imputed by default.
        seed: The seed of everything random.
        steps: Number of steps from noise to data.
        interval: Share of the draws between the two ends of an interval.
        method: linear (fast; exact if mean and covariance say all), mmps (asks the network how sure it is), twisted
            (tends to the truth, slow), or another of `observe`.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse.pipelines import impute

    folder = out or table.with_name(f"{table.stem}-imputed")
    for path in impute.impute_file(run, table, folder, draws, seed, steps, interval, method, device):
        print(path)
