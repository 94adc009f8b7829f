"""Posteriors of simulators: p(θ | x) learned from simulations, with densities and checks of calibration.

infer: from simulations to a posterior; posterior: draws and densities; priors: bounds; calibration: ranks and coverage
"""

from undiffuse.simulators.calibration import Calibration
from undiffuse.simulators.infer import infer
from undiffuse.simulators.posterior import Posterior

__all__ = ["Calibration", "Posterior", "infer"]
