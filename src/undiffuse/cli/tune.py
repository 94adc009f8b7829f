"""`undiffuse tune RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tune(run: Path, /, *, evaluations: str = "4,5,6,8,10,15,20", trajectories: int = 32, rounds: int = 4,
         guidance_scale: str | None = None, per_class: bool = False, device: str = "auto") -> None:
    """Fit the sampler to a run's model, for so many evaluations each; `sample` then uses it at --steps of that number.

    Samplers with and without guidance are kept beside one another.

    Args:
        run: Folder of the run.
        evaluations: Numbers of evaluations.
        trajectories: Exact paths to fit to; the ends of eight times as many choose and validate.
        rounds: How often the times of the steps are moved; 0 fits coefficients only, at a tenth of the cost.
        guidance_scale: Fit to samples with a label at these scales of guidance, such as 1,2,4, instead; `sample` then
            uses it at every --guidance-scale between the least and the greatest.
        per_class: For samples with a label, fit coefficients and a linear part of each class's own as well.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import sys

    from undiffuse import training, tuning
    from undiffuse.cli.parsing import budgets_of, scales_of
    from undiffuse.report.plots import draw

    def say(line: str) -> None:
        if sys.stderr.isatty():
            print(f"undiffuse: {line}", file=sys.stderr)

    scales, asked = scales_of(guidance_scale, per_class), budgets_of(evaluations)
    model = training.load(run, device=device)
    if per_class:
        tuning.check_per_class(model)
    data = training.load_data(run)[0] if per_class else None
    fitting: dict[str, Any] = {"trajectories": trajectories, "rounds": rounds, "say": say}
    tuned = tuning.tune_guided(model, scales, asked, **fitting) if scales else tuning.tune(model, asked, **fitting)
    if data:
        tuned = tuning.tune_classes(tuned, data=data.x, labels=data.y, **fitting)
    print(*(tuning.guided_lines if scales else tuning.lines)(tuned.tuning), sep="\n")
    paths = [tuning.save(tuned, run / tuning.NAME)]
    paths += [] if scales else [draw(tuned.tuning, run / "tuning.png")]
    print(f"{' and '.join(map(str, paths))}; `undiffuse sample` uses it at these --steps")
