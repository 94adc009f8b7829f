"""`undiffuse likelihood RUN DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def likelihood(run: Path, data: str, /, *, out: Path | None = None, n: int | None = None, part: str = "train",
               divergence: Literal["auto", "exact", "hutchinson"] = "auto", probes: int = 8, tolerance: float = 1e-4,
               dequantise: Literal["auto", "none", "uniform", "normal"] = "auto", draws: int = 1, seed: int = 0,
               device: str = "auto") -> None:
    """Score every row of DATA by its log-likelihood, with an error estimate and a rank; 1 is the most unusual.

    Args:
        run: Folder of the run.
        data: Rows of the kind that the run was trained on: a built-in set, a file or a folder; columns are matched by
            name.
        out: Table to write, .csv, with a figure of the same name, .png; RUN/scores.csv by default.
        n: Number of rows from the start on; all by default.
        part: train or test, where DATA has both.
        divergence: exact, or hutchinson (random probes); auto is exact up to 64 numbers per row.
        probes: Number of random probes for hutchinson.
        tolerance: Relative and absolute tolerance of the ODE's steps.
        dequantise: Noise that makes grey levels real numbers: normal (auto), uniform or none.
        draws: Dequantization samples per image; more make a tighter bound.
        seed: Random seed.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse.pipelines.score import score

    print(score(run, data, out or run / "scores.csv", n=n, part=part, seed=seed, device=device, divergence=divergence,
                probes=probes, rtol=tolerance, atol=tolerance, dequantise=dequantise, draws=draws))
