"""A run of a sampler as questions and answers, for loops that belong to others.

A step is a pure function of its state, its noise and the answers of the model. `StepwiseRun` replays the current step
with the answers so far; where one more is needed, the step ends in `Need`, whose point is the next question.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from undiffuse.model import Model
from undiffuse.samplers.method import CountingModel, Node, NoiseSource, State, Step


class Need(Exception):
    """The point (x, t) at which a step needs the denoiser."""

    def __init__(self, x: Tensor, t: Tensor) -> None:
        super().__init__()
        self.x, self.t = x, t


class AnsweredModel(CountingModel):
    """A model whose evaluations are answers given in advance, and `Need` after the last one."""

    model: Model

    def __init__(self, model: Model, cond: dict[str, Any], answers: list[Tensor]) -> None:
        super().__init__(model, cond)
        self.answers = answers

    def denoise_at(self, x: Tensor, t: Tensor) -> Tensor:
        """The next answer."""
        if self.nfe == len(self.answers):
            raise Need(x, t)
        self.nfe += 1
        return self.answers[self.nfe - 1]

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The score of the next answer."""
        return self.model.score_of(x, t, self.denoise_at(x, t))

    def drift(self, x: Tensor, t: Tensor, eta: float = 0.0) -> Tensor:
        """The drift of the next answer."""
        return self.model.drift_of(x, t, eta, self.denoise_at(x, t))


class StepwiseRun:
    """A run from the first node to the last one, then to x = D if `denoise_last`.

    Args:
        model: the process, prior and scale of the model; its denoiser is not called.
        step: the step of a method that is not adaptive.
        nodes: the grid.
        x: the states (B, *shape) at the first node.
        noise: the normals of the steps.
        denoise_last: end with the denoised state.
        cond: conditions by name, for steps whose coefficients depend on them.
    """

    def __init__(self, model: Model, step: Step, nodes: list[Node], x: Tensor, noise: NoiseSource,
                 denoise_last: bool = True, cond: dict[str, Any] | None = None) -> None:
        self.model, self.step, self.nodes, self.denoise_last, self.cond = model, step, nodes, denoise_last, cond or {}
        self.answers: list[Tensor] = []
        self.state = State(x, nodes[0], 0, AnsweredModel(model, self.cond, []), noise)
        self.need: Need | None = None
        self._advance()

    @property
    def at_state(self) -> bool:
        """Whether the question is asked at the state itself, before the step has used it."""
        return self.need is not None and self.need.x is self.state.x and not self.answers

    def move(self, x: Tensor) -> None:
        """Replace the state; only where `at_state`."""
        self.state = replace(self.state, x=x)
        self._advance()

    def answer(self, D: Tensor) -> Tensor:
        """Answer the question; the next point to ask at, or the result where there is no more question."""
        if self.need is None:
            raise IndexError("the run has ended")
        if self.state.index == len(self.nodes) - 1:
            self.need, self.state = None, replace(self.state, x=D)
            return D
        self.answers.append(D)
        self._advance()
        return self.state.x if self.need is None else self.need.x

    def _advance(self) -> None:
        """Replay the current step and begin the next ones, up to the next question."""
        while self.state.index < len(self.nodes) - 1:
            model = AnsweredModel(self.model, self.cond, self.answers)
            try:
                self.state = self.step(replace(self.state, model=model), self.nodes[self.state.index + 1])
            except Need as need:
                self.need = need
                return
            self.answers = []
        self.need = Need(self.state.x, self.nodes[-1].t) if self.denoise_last else None
