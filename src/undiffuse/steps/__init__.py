"""Samplers as steps: functions (state, node) -> state, and the table that names them."""

from undiffuse.steps.auto import TABLES, automatic
from undiffuse.steps.deterministic import multistep
from undiffuse.steps.method import Method, Plan
from undiffuse.steps.names import ALL, METHODS, method_of
from undiffuse.steps.state import Node, State, Step

__all__ = ["ALL", "METHODS", "TABLES", "Method", "Node", "Plan", "State", "Step", "automatic", "method_of", "multistep"]
