"""`undiffuse report RUN`."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, /) -> None:
    """Write the report of a run as one self-contained HTML file and print its path.

    Args:
        run: Folder of the run.
    """
    from undiffuse.report import write_report

    print(write_report(run))
