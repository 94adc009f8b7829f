"""`undiffuse check RUN`."""

from __future__ import annotations

from pathlib import Path


def check(run: Path, /, *, simulations: int = 200, draws: int = 99, seed: int = 0, out: Path | None = None,
          device: str = "auto") -> int:
    """Check whether the posterior of a simulator is calibrated, on simulations held out of the training.

    Ends with code 1 if it is not.

    Args:
        run: Folder of a run that was trained with the output of a simulator as condition.
        simulations: Number of held-out simulations.
        draws: Draws per simulation.
        seed: Seed of the draws.
        out: Page to write, .html, and its numbers next to it as .json; calibration.html in the run by default.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    from undiffuse.simulators import SimulatorPosterior
    from undiffuse.training.run import load

    path = out or run / "calibration.html"
    calibration = SimulatorPosterior(load(run, device=device)).check(simulations, draws, seed, out=path, progress=True)
    print(calibration.verdict)
    print(f"{path} shows ranks and coverages.")
    return 0 if calibration.calibrated else 1
