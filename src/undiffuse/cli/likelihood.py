"""`undiffuse likelihood RUN DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def likelihood(run: Path, data: str, /, *, out: Path | None = None, n: int | None = None, part: str = "train",
               divergence: Literal["auto", "exact", "hutchinson"] = "auto", probes: int = 8, tolerance: float = 1e-4,
               dequantise: Literal["auto", "none", "uniform", "normal"] = "auto", draws: int | None = None,
               seed: int = 0, device: str = "auto", rank: bool = False) -> None:
    """Compute the log-likelihood of every row of DATA, with its errors and a rank: 1 is the most unusual row.

    For a run of a series: of windows that overlap by half, and in a second table of every step given those before it,
    under the Gaussian law of windows, with missing values integrated out.

    Args:
        run: Folder of the run.
        data: Rows of the kind that the run was trained on: a built-in set, a file or a folder.
        out: Table to write, .csv; scores.csv in the run by default. A figure (.png) is written next to it.
        n: Number of rows from the start; all by default.
        part: train or test, if DATA has both.
        divergence: exact, or hutchinson (random probes); auto is exact up to 64 numbers per row.
        probes: Number of probes, for hutchinson.
        tolerance: Relative and absolute tolerance of the ODE solver.
        dequantise: Noise that makes grey levels continuous: normal (auto), uniform or none; auto for tables.
        draws: Samples per row of grey levels, categories and missing values; more give a tighter bound.
        seed: Seed of all random numbers.
        device: auto, cpu, cuda, cuda:N or mps.
        rank: Sort the table by rank, the most unusual row first, and add for every column of a table its surprise: the
            nats by which it makes the row less likely than samples of the run are.
    """
    from undiffuse.pipelines.score import score

    print(score(run, data, out or run / "scores.csv", n=n, part=part, seed=seed, device=device, rank=rank,
                divergence=divergence, probes=probes, rtol=tolerance, atol=tolerance, dequantise=dequantise,
                draws=draws))
