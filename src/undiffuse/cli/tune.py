"""`undiffuse tune RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tune(run: Path, /, *, evaluations: str = "4,5,6,8,10,15,20", trajectories: int = 32, rounds: int = 4,
         guidance_scale: str | None = None, per_class: bool = False, device: str = "auto") -> None:
    """Fit samplers to a run's model; `sample` then uses them at --steps of the fitted numbers of evaluations.

    Samplers with and without guidance are stored in one file.

    Args:
        run: Folder of the run.
        evaluations: Numbers of model evaluations.
        trajectories: Exact trajectories to fit to; the endpoints of eight times as many choose and validate.
        rounds: Gauss-Newton rounds over the times of the steps; 0 fits coefficients only, at a tenth of the cost.
        guidance_scale: Fit to samples with a label at these guidance scales, such as 1,2,4, instead; `sample` then uses
            the result at every --guidance-scale in their range.
        per_class: For samples with a label, also fit coefficients and moments per class.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import sys

    from undiffuse import training, tuning
    from undiffuse.cli.parsing import budgets_of, scales_of
    from undiffuse.report.plots import draw

    def say(line: str) -> None:
        if sys.stderr.isatty():
            print(f"undiffuse: {line}", file=sys.stderr)

    scales, budgets = scales_of(guidance_scale, per_class), budgets_of(evaluations)
    model = training.load(run, device=device)
    if per_class:
        tuning.check_per_class(model)
    data = training.load_data(run)[0] if per_class else None
    fitting: dict[str, Any] = {"trajectories": trajectories, "rounds": rounds, "say": say}
    tuned = tuning.tune_guided(model, scales, budgets, **fitting) if scales else tuning.tune(model, budgets, **fitting)
    if data:
        tuned = tuning.tune_classes(tuned, data=data.x, labels=data.y, **fitting)
    print(*(tuning.guided_lines if scales else tuning.lines)(tuned.tuning), sep="\n")
    paths = [tuning.save(tuned, run / tuning.NAME)]
    paths += [] if scales else [draw(tuned.tuning, run / "tuning.png")]
    print(f"{' and '.join(map(str, paths))}; `undiffuse sample` uses it at these --steps")
