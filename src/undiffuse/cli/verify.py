"""`undiffuse verify [RUN]`."""

from __future__ import annotations

from pathlib import Path


def verify(run: Path | None = None, /) -> int:
    """Check the installation, or the model of a run, against closed-form results; exit status 1 if a check fails.

    Args:
        run: Folder of a run; without it only the installation is checked.
    """
    from undiffuse.pipelines.verify import verify

    results = verify(run)
    print(*(f"{'ok  ' if ok else 'FAIL'}  {name}: {detail}" for name, ok, detail in results), sep="\n")
    return 0 if all(ok for _, ok, _ in results) else 1
