"""Samplers as steps: functions (state, node) -> state, the table that names them, and the driver that runs them."""

from undiffuse.samplers.default import TABLES, default_sampler
from undiffuse.samplers.driver import Samples, blocks, sample
from undiffuse.samplers.method import Method, Node, SamplerContext, State, Step
from undiffuse.samplers.registry import ALL, METHODS, method_of, multistep

__all__ = ["ALL", "METHODS", "TABLES", "Method", "Node", "SamplerContext", "Samples", "State", "Step", "blocks",
           "default_sampler", "method_of", "multistep", "sample"]
