"""`undiffuse tune RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tune(run: str, /, *, evaluations: str = "4,5,6,8,10,15,20", trajectories: int | None = None,
         rounds: int | None = None, budget: str | None = None, guidance_scale: str | None = None,
         prompt: list[str] | None = None, prompt_file: Path | None = None, per_class: bool = False,
         device: str = "auto") -> None:
    """Fit the sampler to the model of a run for given numbers of model evaluations; `sample` uses it at these --steps.

    Samplers for different guidance scales are stored together.

    Args:
        run: Folder of the run, or of `undiffuse import`.
        evaluations: Numbers of model evaluations, such as 4-6,10.
        trajectories: Number of exact trajectories to fit to, by default 32, or 8 for large images; eight times as many
            endpoints select and validate.
        rounds: Rounds in which the times of the steps are refined, by default 4; 0 fits coefficients only.
        budget: The network's time, such as 10min, by which trajectories and rounds are chosen.
        guidance_scale: Fit to labelled samples at these guidance scales, such as 1,2,4; `sample` then uses the sampler
            at every --guidance-scale between the smallest and the largest.
        prompt: Text for a text-to-image model; repeat the flag for several in turn.
        prompt_file: Texts, one a line.
        per_class: Also fit per-class coefficients and a per-class linear part, for labelled samples.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import sys

    from undiffuse import interop, training, tuning
    from undiffuse.cli.parsing import budgets_of, lines_of, scales_of
    from undiffuse.report.plots import tuning_figure

    def say(line: str) -> None:
        if sys.stderr.isatty() or line.startswith("tuning with"):
            print(f"undiffuse: {line}", file=sys.stderr)

    scales, budgets = scales_of(guidance_scale, per_class), budgets_of(evaluations)
    opened = interop.open_model(run, device, in_folder=True)
    model = opened.model
    if per_class:
        tuning.check_per_class(model)
    data = training.load_data(run)[0] if per_class else None
    size: dict[str, Any] = {"trajectories": trajectories, "rounds": rounds}
    fitting = {**size, "prompts": lines_of(prompt_file, prompt), "budget": budget, "say": say}
    tuned = tuning.tune_guided(model, scales, budgets, **fitting) if scales else tuning.tune(model, budgets, **fitting)
    if data:
        tuned = tuning.tune_classes(tuned, data=data.x, labels=data.y, say=say,
                                    **{k: v for k, v in size.items() if v is not None})
    print(*(tuning.guided_lines if scales else tuning.lines)(tuned.tuning), sep="\n")
    paths = [tuning.save(tuned, opened.folder / tuning.NAME)]
    paths += [] if scales else [tuning_figure(tuned.tuning, opened.folder / "tuning.png")]
    print(f"{' and '.join(map(str, paths))}; `undiffuse sample {run}` uses it at these --steps")
