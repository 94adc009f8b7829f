"""The posterior of a simulator: draws of the parameters given an observation, and their density."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from undiffuse.data.dataset import Dataset
from undiffuse.errors import InputError
from undiffuse.likelihood.log_likelihood import Likelihood, log_likelihood
from undiffuse.model import Model
from undiffuse.progress import say
from undiffuse.samplers.driver import sample

if TYPE_CHECKING:
    from undiffuse.simulators.calibration import Calibration

OBSERVATION = "obs"
"""The name of the condition that holds what the simulator returned."""
_FAR = 6.0  # standard deviations from the simulations beyond which an observation is far
_STEPS = 24


class Posterior:
    """p(θ | x) of a simulator.

    Args:
        model: A model of the parameters whose condition `obs` is the output of the simulator.
        data: The simulations, for `check`; None: there is none.
    """

    def __init__(self, model: Model, data: Dataset | None = None) -> None:
        if [c.name for c in model.conditions] != [OBSERVATION]:
            raise InputError(f"got a model with the conditions {[c.name for c in model.conditions]}; expected "
                             f"[{OBSERVATION!r}], as ud.infer trains it")
        self.model, self.data = model, data

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return () if self.model.schema is None else self.model.schema.columns

    def given(self, x: Any) -> Model:
        """The model of the parameters given an observation.

        Args:
            x: One observation, of the shape of the simulator's output; NaN is a missing entry.

        Raises:
            InputError: For another number of entries, and one that is not finite.
        """
        rows = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, np.float64).reshape(-1)
        width = self.model.conditions[0].width
        if rows.size != width:
            raise InputError(f"got an observation of {rows.size} numbers; expected {width}, the output of one "
                             "simulation")
        if not np.isfinite(rows).all():
            raise InputError("got an observation with entries that are missing or not finite; expected numbers")
        self._warn(torch.tensor(rows)[None])
        return self.model.given(**{OBSERVATION: torch.tensor(rows)})

    def sample(self, n: int, x: Any, seed: int = 0, steps: int = _STEPS) -> Any:
        """Draws of the parameters given an observation, (n, d) float64; a DataFrame where the parameters have names.

        Args:
            n: Number of draws; draw i of a seed is the same whatever n is.
            x: The observation.
            seed: Seed.
            steps: Evaluations of the network per draw.

        Raises:
            InputError: For an observation of another size.
        """
        return sample(self.given(x), n, steps=steps, seed=seed).x.double().numpy()

    def log_prob(self, theta: Any, x: Any, **options: Any) -> Likelihood:
        """log p(θ | x) of parameters (n, d) with its error, in nats; see `log_likelihood`.

        Args:
            theta: Parameters (n, d).
            x: The observation.
            options: Arguments of `log_likelihood`, such as rtol.

        Raises:
            InputError: For an observation or parameters of another size.
        """
        rows = theta.detach() if isinstance(theta, Tensor) else torch.tensor(np.asarray(theta, np.float64))
        return log_likelihood(self.given(x), rows, **options)

    def check(self, simulations: int = 200, draws: int = 100, seed: int = 0) -> Calibration:
        """Whether the posterior is calibrated, on simulations held out of the training; see `calibration`.

        Args:
            simulations: Number of held-out simulations.
            draws: Draws per simulation.
            seed: Seed of the draws.
        """
        from undiffuse.simulators.calibration import check

        return check(self, simulations, draws, seed)

    def _warn(self, rows: Tensor) -> None:
        far = self.model.conditions[0].standardise(rows).abs().amax()
        if float(far) > _FAR:
            say(f"the observation lies {float(far):.1f} standard deviations from the mean of the simulations; a posterior "
                "so far from them is an extrapolation")
