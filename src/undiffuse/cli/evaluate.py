"""`undiffuse evaluate RUN`."""

from __future__ import annotations

import json
from pathlib import Path


def evaluate(run: Path, /) -> None:
    """Print the measurements of a run's report as JSON.

    Args:
        run: Folder of the run.
    """
    from undiffuse.report import evaluate

    print(json.dumps(evaluate(run), indent=2))
