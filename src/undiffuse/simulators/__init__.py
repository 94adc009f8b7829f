"""Posteriors of simulators: p(θ | x) learned from simulations, with densities and checks of calibration.

inference: from simulations to a posterior; posterior: draws, densities; priors: bounds; calibration: ranks, coverage
composition: several observations
"""

from undiffuse.simulators.calibration import Calibration
from undiffuse.simulators.inference import infer
from undiffuse.simulators.posterior import SimulatorPosterior

__all__ = ["Calibration", "SimulatorPosterior", "infer"]
