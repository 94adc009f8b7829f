"""The posterior of a simulator: draws of the parameters given an observation, and their density."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError
from undiffuse.likelihood.log_likelihood import Likelihood, log_likelihood
from undiffuse.model import Model
from undiffuse.progress import ProgressFn, bar, say
from undiffuse.samplers.driver import sample
from undiffuse.simulators.calibration import Calibration, calibration_of
from undiffuse.simulators.composition import composed
from undiffuse.tensors import as_tensor
from undiffuse.training.run import load_data
from undiffuse.transforms.conditions import split

OBSERVATION = "obs"
"""The name of the condition that holds what the simulator returned."""
_FAR = 6.0  # standard deviations from the simulations beyond which an observation is far
_STEPS = 24


class SimulatorPosterior:
    """p(θ | x) of a simulator.

    Args:
        model: A model of the parameters whose conditions, numbers and vectors, are the output of the simulator.
        data: The simulations that it was trained on, for `check`; None: those that its run names.
        frame: A DataFrame without rows whose type and columns the draws have; None: they are arrays.
        steps: Evaluations of the network per draw.
    """

    def __init__(self, model: Model, data: Dataset | None = None, frame: Any = None,
                 steps: int = _STEPS) -> None:
        if not model.conditions or any(c.kind not in ("number", "vector") for c in model.conditions):
            kinds = ", ".join(f"{c.name} ({c.kind})" for c in model.conditions) or "none"
            raise InputError(f"got a model with the conditions {kinds}; expected the numbers that a simulator returns, "
                             "as ud.infer or `undiffuse train sims.npz --condition obs` trains it")
        self.model, self.data, self.frame, self.steps = model, data, frame, steps

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return () if self.model.schema is None else self.model.schema.columns

    def conditional(self, x: Any, warn: bool = True) -> Model:
        """The model of the parameters given an observation.

        Args:
            x: One observation, of the shape of the simulator's output; NaN is a missing entry.
            warn: Whether to say on stderr that it is far from all simulations.

        Raises:
            InputError: For another number of entries, and one that is infinite.
        """
        try:
            row = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, np.float64).reshape(-1)
        except (TypeError, ValueError):
            raise InputError(f"got an observation of type {type(x).__name__}; expected numbers") from None
        width = sum(c.width for c in self.model.conditions)
        if row.size != width:
            raise InputError(f"got an observation of {row.size} numbers; expected {width}, the output of one "
                             "simulation")
        if not np.isfinite(row).all():
            raise InputError("got an observation with entries that are not finite; expected numbers")
        pieces = split(self.model.conditions, torch.tensor(row)[None])
        if warn:
            self._warn(pieces)
        return self.model.given(**{name: piece[0] if c.kind == "vector" else float(piece) for c, (name, piece) in zip(
            self.model.conditions, pieces.items(), strict=True)})

    def sample(self, n: int, x: Any = None, seed: int = 0, steps: int | None = None, *,
               observations: Any = None) -> Any:
        """Draws of the parameters given an observation, (n, d); a DataFrame if the parameters came in one.

        Args:
            n: Number of draws; draw i of a seed is the same whatever n is.
            x: The observation.
            seed: Seed.
            steps: Evaluations of the network per draw.
            observations: In place of x several independent observations of the same parameters (k, ...), whose
                posteriors are composed; see `composition`.

        Raises:
            InputError: For an observation of another size, and unless one of x and observations is passed.
        """
        if (x is None) == (observations is None):
            raise InputError("got both or none of x or observations; pass one observation or several")
        model = self.conditional(x) if observations is None else self._composed(observations, seed)
        draws = sample(model, n, steps=steps or self.steps, seed=seed).x.double().numpy()
        return draws if self.frame is None else type(self.frame)(draws, columns=self.frame.columns)

    def log_prob(self, theta: Any, x: Any, **options: Any) -> Likelihood:
        """log p(θ | x) of parameters (n, d) with its error, in nats; see `log_likelihood`.

        Args:
            theta: Parameters (n, d), inside the bounds of the prior.
            x: The observation.
            options: Arguments of `log_likelihood`, such as rtol.

        Raises:
            InputError: For an observation or parameters of another size.
        """
        return log_likelihood(self.conditional(x), as_tensor(theta, "theta", torch.float64), **options)

    def check(self, simulations: int = 200, draws: int = 99, seed: int = 0,
              simulator: Callable[[Any], Any] | None = None, out: str | os.PathLike[str] | None = None,
              progress: bool = False) -> Calibration:
        """Whether the posterior is calibrated, on simulations held out of the training; see `calibration`.

        Args:
            simulations: Number of simulations, the first of those held out.
            draws: Draws per simulation.
            seed: Seed of the draws and of the random points.
            simulator: A function from parameters (n, d) to outputs (n, ...), for the posterior predictive; or None.
            out: Page to write, .html, and its numbers next to it as .json; None: no page.
            progress: Whether to show how far the check is.

        Raises:
            InputError: For fewer than 20 held-out simulations or draws.
        """
        rows = self.held_out()
        rows = rows.take(torch.arange(min(simulations, len(rows))))
        assert rows.condition_values is not None
        x = rows.condition_values.double()
        with bar("checking", progress) as update:
            drawn = self._draws(x, draws, seed, update)
        calibration = calibration_of(self.names, rows.x.double().numpy(), drawn, x.numpy(), seed, simulator)
        if out is not None:
            from undiffuse.simulators.calibration_page import save_page

            save_page(calibration, out)
        return calibration

    def _draws(self, x: Tensor, draws: int, seed: int, progress: ProgressFn) -> NDArray[np.float64]:
        """Draws (m, L, d) given each of the outputs x (m, k), all in common blocks; each starts at its own prior."""
        t = self.model.t_start()
        starts = [self.conditional(row, warn=False).prior_sample(draws, seed, i * draws, t) for i, row in enumerate(x)]
        pieces = split(self.model.conditions, x.repeat_interleave(draws, 0))
        cond: dict[str, Any] = {c.name: pieces[c.name] if c.kind == "vector" else pieces[c.name][:, 0]
                                for c in self.model.conditions}
        out = sample(self.model, x_T=torch.cat(starts), seed=seed, steps=self.steps, progress=progress, **cond)
        return np.asarray(out.x.double().numpy().reshape(len(x), draws, -1))

    def held_out(self) -> Dataset:
        """The simulations that were held out of the training.

        Raises:
            InputError: Without any, for a model that has no run, and where the simulations were in memory.
        """
        folder = getattr(self.model, "folder", None)
        if folder is None:
            raise InputError("got a posterior without a run; pass the simulations to check against as `data`")
        held_out = load_data(folder, self.data)[1]
        if held_out is None:
            raise InputError("got a posterior whose training held out no simulations; train it with held_out above 0, "
                             "or pass other simulations as `data`")
        return held_out

    def _composed(self, observations: Any, seed: int) -> Model:
        """The model of the parameters given several observations."""
        if self.model.moments is None:
            raise InputError("got several observations for a model without the moments of its prior; pass one, as x")
        return composed([self.conditional(x) for x in observations], self.model.moments, seed)

    def _warn(self, pieces: dict[str, Tensor]) -> None:
        far = max(float(c.standardise(pieces[c.name]).abs().max()) for c in self.model.conditions)
        if far > _FAR:
            say(f"the observation lies {far:.1f} standard deviations from the mean of the simulations; a posterior so "
                "far from them is an extrapolation")
