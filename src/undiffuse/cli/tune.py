"""`undiffuse tune RUN`."""

from __future__ import annotations

from pathlib import Path


def tune(run: Path, /, *, evaluations: str = "4,5,6,8,10,15,20", trajectories: int = 32, rounds: int = 4,
         noise: bool = False, device: str = "auto") -> None:
    """Fit the sampler to a run's model, for so many evaluations each; `sample` then uses it at --steps of that number.

    Args:
        run: Folder of the run.
        evaluations: Numbers of evaluations.
        trajectories: Exact paths to fit to; the ends of eight times as many choose and validate.
        rounds: How often the times of the steps are moved; 0 fits coefficients only, at a tenth of the cost. Of no
            meaning with --noise.
        noise: Fit a sampler that adds noise on its way, nearest to the run's data, beside one without that the run has.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    import sys

    from undiffuse import training, tuning
    from undiffuse.cli.select import budgets_of
    from undiffuse.report.tuned import draw

    def say(line: str) -> None:
        if sys.stderr.isatty():
            print(f"undiffuse: {line}", file=sys.stderr)

    rows = training.load_data(run)[0].x[:5000] if noise else None
    model = training.load(run, device=device)
    tuned = tuning.tune(model, budgets_of(evaluations), trajectories=trajectories, rounds=rounds, noise=noise,
                        data=rows, say=say)
    print(*(tuning.noisy_lines if noise else tuning.lines)(tuned.tuning), sep="\n")
    path = tuning.save(tuned, run / tuning.NAME)
    if noise:
        return print(f"{path}; `undiffuse sample` uses it at these --steps")
    print(f"{path} and {draw(tuned.tuning, run / 'tuning.png')}; `undiffuse sample` uses it at these --steps")
