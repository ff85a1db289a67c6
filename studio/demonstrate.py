"""Record one episode of the scripted expert; runs inside a collection's worker processes.

Under DAgger the episode begins where a policy got to (`studio.dagger`), under `miss` after a failed
grasp (`studio.sim.expert_clumsy`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studio import demos
from studio.events import SceneSpec
from studio.sim.build import placed_xml
from studio.sim.expert import Expert, NoSkill
from studio.sim.expert_clumsy import miss
from studio.sim.libero_sim import LiberoSim, NoPlace

if TYPE_CHECKING:
    from studio.dagger import Dagger

HOLD_STEPS = 5  # successful steps after the expert is done: the policy learns to finish
NOISE_SCALE = np.array([1, 1, 1, 0.5, 0.5, 0.5, 0])  # the gripper's action stays clean
IMAGE_SIZE = 128


class Verdict(StrEnum):
    """Why an episode is kept or not."""

    KEPT = "kept"
    FAILED = "failed"
    REGRASPED = "regrasped"
    SLOW = "slow"  # not solved within the suite's steps
    UNNEEDED = "unneeded"  # the policy had solved it before the expert's turn
    UNABLE = "unable"  # the expert has no skill for the task, or its fixtures found no place


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an episode: a scene, the noise over the expert's actions, who leads, the seed."""

    scene: SceneSpec
    noise: float  # standard deviation on translations; half of it on rotations
    entropy: tuple[int, ...]
    dagger: Dagger | None = None
    miss: bool = False
    regrasp: bool = False  # keep it with a second grasp, too


_sim: LiberoSim | None = None  # one simulator per worker process


def start_worker() -> None:
    """Initialise a worker process: it lives no longer than its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def make_part(path: Path, attempts: tuple[Attempt, ...]) -> tuple[Verdict, ...]:
    """Worker entry: write the first attempt worth keeping to `path`; returns all verdicts."""
    global _sim
    if _sim is None:
        _sim = LiberoSim(pixels=demos.COLLECTED)
    verdicts = []
    for attempt in attempts:
        try:
            verdict, demo = record(_sim, attempt)
        except (NoSkill, NoPlace) as error:
            _tell(str(error))
            verdict, demo = Verdict.UNABLE, None
        verdicts.append(verdict)
        if demo is not None:
            demos.write_part(path, demo)
            break
    return tuple(verdicts)


@lru_cache
def _tell(reason: str) -> None:
    """Once per worker."""
    print(reason, file=sys.stderr, flush=True)


def record(sim: LiberoSim, attempt: Attempt) -> tuple[Verdict, demos.Demonstration | None]:
    """Run the expert on a scene; the demonstration only when it is worth keeping.

    Labels are the clean actions; the noise is in `executed_actions` only.
    Raises NoSkill and NoPlace where there is no skill or no scene.
    """
    max_steps = sim.load(attempt.scene).max_steps
    rng = np.random.default_rng(attempt.entropy)
    log, held = StepLog(sim), 0
    if attempt.dagger is not None and attempt.dagger.relabel:
        from studio.dagger import relabelled  # imports the model

        solved = relabelled(sim, attempt.dagger, max_steps, rng, log)
        if not log.actions:
            return Verdict.UNABLE, None
        origin = _origin(replace(attempt, noise=0.0))  # the policy drives without
        return Verdict.KEPT, log.demonstration({**origin, **sim.versions()}, solved)
    expert, before = _begin(sim, attempt, max_steps, rng)
    while held < HOLD_STEPS:
        action = expert.act()
        if expert.done and not log.actions:
            return Verdict.UNNEEDED, None
        if expert.retries and not attempt.regrasp:
            return Verdict.REGRASPED, None
        if before + len(log.actions) == max_steps:
            return Verdict.SLOW, None
        noise = attempt.noise * NOISE_SCALE * rng.standard_normal(7)
        executed = np.clip(action + noise, -1, 1)
        log.note(action, executed)
        success = sim.step(executed).success
        if expert.done and not success:
            return Verdict.FAILED, None
        held += expert.done
    return Verdict.KEPT, log.demonstration({**_origin(attempt, before), **sim.versions()})


def _begin(
    sim: LiberoSim, attempt: Attempt, max_steps: int, rng: np.random.Generator
) -> tuple[Expert, int]:
    """The expert at its turn and the steps that passed before."""
    if attempt.miss:
        return miss(sim, max_steps, rng)
    if attempt.dagger is None:
        return Expert(sim, rng), 0
    from studio.dagger import lead  # imports the model

    return lead(sim, attempt.dagger, max_steps, rng)


def _origin(attempt: Attempt, before: int = 0) -> dict[str, object]:
    """What makes the episode again."""
    origin = {
        "scene_task": attempt.scene.task,
        "init": attempt.scene.init,
        "seed": attempt.scene.seed,
        "action_noise": attempt.noise,
        "entropy": list(attempt.entropy),
        "collected_by": "expert",
    }
    if attempt.miss:
        origin |= {"collected_by": "expert after a miss", "steps_before": before}
    if attempt.dagger is not None:
        origin |= {
            "collected_by": "dagger, relabelled" if attempt.dagger.relabel else "dagger",
            "checkpoint": attempt.dagger.sha256,
            "beta": attempt.dagger.beta,
            "steps_before": before,  # the policy's; not in the file
        }
    return origin


class StepLog:
    """What was seen and done, step by step, as a demonstration has it."""

    def __init__(self, sim: LiberoSim, writer: demos.DemoWriter | None = None) -> None:
        """`writer` takes the pictures; without one they are kept here."""
        self._sim = sim
        self._writer = writer
        self.actions: list[np.ndarray] = []
        self._executed: list[np.ndarray] = []
        self._images: list[Mapping[str, np.ndarray]] = []
        self._proprio: list[np.ndarray] = []
        self._states: list[np.ndarray] = []
        self._joints: list[np.ndarray] = []

    def note(self, action: np.ndarray, executed: np.ndarray) -> None:
        """Keep the present state and the actions that follow it."""
        seen = self._sim.observe(size=IMAGE_SIZE)
        (self._writer or self._images).append(seen.images)
        self._proprio.append(seen.proprio)
        self._states.append(self._sim.get_state())
        self._joints.append(np.array(self._sim.env.robots[0]._joint_positions))
        self.actions.append(action)
        self._executed.append(executed)

    def demonstration(
        self, attributes: dict[str, object], success: bool = True
    ) -> demos.Demonstration:
        """All steps as arrays; the pictures as well, unless the writer has them."""
        images = None
        if self._writer is None:
            images = {c: np.stack([seen[c] for seen in self._images]) for c in demos.IMAGE_KEYS}
        return demos.Demonstration(
            images=images,
            proprio=np.stack(self._proprio),
            joints=np.stack(self._joints),
            states=np.stack(self._states),
            actions=np.stack(self.actions),
            executed_actions=np.stack(self._executed),
            model_xml=placed_xml(self._sim.env),
            attributes=attributes,
            success=success,
        )
