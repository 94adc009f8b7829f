"""Log-densities with an error budget, latent codes, and bounds, by the probability-flow ODE and the reverse SDE.

log_likelihood, latents, bounds, classify: the public functions.
density_ode: the ODE for log p and its trace, in the whitened coordinates of the data (coordinates).
divergence: traces of the denoiser's Jacobian. dequantization: bounds for grey levels.
batching: network evaluations in packs of fixed size.
"""

from undiffuse.likelihood.bounds import Bound, Elbo, PathEstimate, elbo, kl_bound, path_log_likelihood
from undiffuse.likelihood.classify import label_posterior
from undiffuse.likelihood.latents import decode, encode, interpolate
from undiffuse.likelihood.log_likelihood import Likelihood, log_likelihood

__all__ = ["Bound", "Elbo", "Likelihood", "PathEstimate", "decode", "elbo", "encode", "interpolate", "kl_bound",
           "label_posterior", "log_likelihood", "path_log_likelihood"]
