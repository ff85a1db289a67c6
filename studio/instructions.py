"""What the scene is asked for: words, the goal that counts, instructions one after the other."""

from __future__ import annotations

from dataclasses import replace

from studio.events import Status
from studio.helm import Helm
from studio.sequence import Sequence
from studio.sim.process import SimProcess
from studio.state import Telling


class Instructing(Telling):
    """The part of the control loop that keeps them (see the module docstring)."""

    _sim: SimProcess  # the loop's own, as is the rest
    _helm: Helm
    _limit: int  # control steps that the suite gives an instruction

    def _say(self, text: str) -> bool:
        """The instruction from now on; True if its goal can be tested."""
        tested = self._ask(text)
        if text != self.state.instruction:
            self._set(instruction=text)
            self._mark("instruction", text)
        return tested

    def _ask(self, text: str) -> bool:
        """Another task's words ask for that task's goal, if the scene has what it needs."""
        if self.state.status in (Status.EMPTY, Status.ERROR):
            return False  # asked for when the scene is loaded
        goal = self._sim.ask(text)
        if goal is not None:
            self._set(scene=replace(self.state.scene, goal=goal), task_instruction=text)
        return goal is not None

    def _line_up(self, sequence: Sequence) -> None:
        """Carry out the present item of `sequence`, with the suite's steps for itself."""
        step, tested = self.state.step, self.state.sequence.tested  # the last words stay
        if sequence.items:
            tested = self._say(" ".join(sequence.text.split()))
            self._helm.drop()
            self._set(max_steps=step + self._limit)
        self._set(sequence=replace(sequence, began=step, tested=tested))

    def _next_instruction(self) -> None:
        sequence = self.state.sequence
        if sequence.more:
            self._line_up(replace(sequence, at=sequence.at + 1))
