"""Samplers: steps (state, node) -> state, the table that names them, and `sample`, which runs them.

    sample     driver -> select (default, tuned) -> grid -> a `Method` of registry, run block by block
    method     `Method`, `SamplerContext`, `State`, `Node`: ingredients of a step
    registry   names, orders and published formulas; its entries are built by the files below
    exponential, coefficients   exact linear part: DDIM, DPM-Solver, UniPC, DEIS, ancestral; runge_kutta: ODE solvers
    stochastic, covariance_matched, combinators   SDE steps, exact covariances, steps made of steps

A DPM++ 2M step is read in four files: registry (its entry), exponential (`Multistep`), coefficients (`DataPrediction`,
`midpoint`) and method; with driver, select, default and grid for the resolution of a call of `sample`.
"""

from undiffuse.samplers.default import TABLES, default_sampler
from undiffuse.samplers.driver import blocks, sample
from undiffuse.samplers.method import Method, Node, SamplerContext, State, Step
from undiffuse.samplers.registry import ALL, METHODS, multistep
from undiffuse.samplers.samples import Samples
from undiffuse.samplers.select import resolve_method

__all__ = ["ALL", "METHODS", "TABLES", "Method", "Node", "SamplerContext", "Samples", "State", "Step", "blocks",
           "default_sampler", "multistep", "resolve_method", "sample"]
