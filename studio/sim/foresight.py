"""What the scripted expert would do from a moment of the running episode, without disturbing it.

A moment is noted wherever the policy looks. When somebody asks about one, the simulator's process
forks: the copy goes back to that moment, rolls the expert ahead, answers and ends, while the
episode goes on bit for bit as if nobody had asked. The fork never touches OpenGL, whose threads it
lacks.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.sim.build import goal_of
from studio.sim.expert_midway import Latecomer

if TYPE_CHECKING:
    from studio.sim.libero_sim import LiberoSim

MOMENTS = 256  # that are remembered, the newest
LIMIT_S = 20  # of computing; a fork that takes more ends itself
HUNG = 3  # or one that has not ended after so many times as long


@dataclass(frozen=True, slots=True)
class ExpertChunk:
    """The expert's next actions, float32 [H, 7] in the environment's scale, and what it is at."""

    actions: np.ndarray
    phase: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the episode stood, the action [7] before it, and the goal that counted then."""

    snapshot: np.ndarray
    last_action: np.ndarray
    goal: dict[str, Any]


def expert_chunk(sim: LiberoSim, last_action: np.ndarray, horizon: int) -> ExpertChunk:
    """The expert's next `horizon` actions from the present state, which it leaves behind."""
    expert, actions = Latecomer(sim, last_action), []
    phase = None
    for _ in range(horizon):
        actions.append(expert.act())
        phase = phase or expert.phase  # of the first action
        sim.step(actions[-1])
    return ExpertChunk(np.array(actions, dtype=np.float32), phase)


class Foresight:
    """The moments of one episode and the newest question about them; see the module docstring."""

    def __init__(self, sim: LiberoSim) -> None:
        self._sim = sim
        self._moments: dict[tuple[int, str], Moment] = {}  # by control step and instruction
        self._asked: tuple[int, Connection] | None = None  # the fork's process id, its answer

    def forget(self) -> None:
        """Another episode begins."""
        self._moments.clear()
        self._drop()

    def note(self, step: int, instruction: str, last_action: np.ndarray) -> None:
        """Remember the present moment: its control step, and what the policy was told there."""
        goal = goal_of(self._sim.env.parsed_problem)
        self._moments[step, instruction] = Moment(self._sim.snapshot(), last_action, goal)
        if len(self._moments) > MOMENTS:
            del self._moments[next(iter(self._moments))]

    def ask(self, step: int, instruction: str, horizon: int) -> int:
        """Begin to find out; returns a ticket. A question that is still open is given up.

        Raises ValueError for a moment that nobody noted.
        """
        moment = self._moments.get((step, instruction))
        if moment is None:
            raise ValueError(f"the policy did not look at step {step} of this episode")
        self._drop()
        answers, ours = Pipe(duplex=False)
        ticket = os.fork()
        if ticket == 0:
            _answer_and_end(self._sim, moment, horizon, ours)
        ours.close()
        self._asked = ticket, answers
        return ticket

    def answer(self, ticket: int) -> ExpertChunk | None:
        """What was found out, None while it is not. Raises ValueError when it can't be known."""
        if self._asked is None or self._asked[0] != ticket:
            raise ValueError("another question came in between")
        answers = self._asked[1]
        if not answers.poll():
            return None
        try:
            failed, value = answers.recv()
        except EOFError:
            failed, value = True, "the expert found no answer in time"
        self._drop()
        if failed:
            raise ValueError(value)
        return value

    def _drop(self) -> None:
        if self._asked is not None:
            ticket, answers = self._asked
            self._asked = None
            answers.close()
            os.kill(ticket, signal.SIGKILL)  # a zombie still until it is waited for
            os.waitpid(ticket, 0)


def _answer_and_end(sim: LiberoSim, moment: Moment, horizon: int, reply: Connection) -> None:
    """The fork's whole life. Nothing of the process that it copies may run at its end."""
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)  # a busy machine may give it little at a time
    signal.alarm(HUNG * LIMIT_S)
    os.nice(10)  # the scene comes first
    try:
        sim.env.parsed_problem |= moment.goal  # the copy's: another one may count by now
        sim.restore(moment.snapshot)
        reply.send((False, expert_chunk(sim, moment.last_action, horizon)))
    except Exception as error:
        reply.send((True, str(error) or type(error).__name__))
    finally:
        os._exit(0)
