"""Recordings as a session leaves them, without a simulator: the tape's own, and a replay's file."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from models.trajectory import DRIVERS
from studio import demos, recording
from studio.events import EpisodeEvent, Frame, Outcome, SceneSpec, StepEvent
from studio.jpeg import encode_jpeg
from studio.replay import DEMO, REPORT, header
from studio.sim.build import versions
from studio.state import LoopState
from studio.tape import Tape

LETTERS = {driver[0]: driver for driver in DRIVERS}  # p the policy, h a person, s both
SCENE = SceneSpec(init=3)
WORDS = "pick up the alphabet soup and place it in the basket"


class Counter:
    """A simulator whose state counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def get_state(self) -> np.ndarray:
        self.asked += 1
        return np.array([self.asked, np.pi])


def drive(
    tape: Tape,
    drivers: str,
    outcome: Outcome | None = Outcome.SUCCESS,
    scene: SceneSpec = SCENE,
    words: dict[int, str] | None = None,
    won: Collection[int] = (),
) -> None:
    """An episode; a letter of LETTERS per step.

    `words`: instructions by the step they begin at; `won`: steps before the last that reached one.
    """
    words = {0: WORDS} | (words or {})
    tape.on_state(LoopState(instruction=words[0]))
    tape.on_episode(EpisodeEvent(scene, words[0], versions=versions()))
    picture = encode_jpeg(np.full((64, 64, 3), 90, np.uint8))
    tape.on_frame(Frame(0, {"agentview": picture}, 0.0))
    for step, letter in enumerate(drivers, 1):
        if step - 1 in words:
            tape.on_state(LoopState(instruction=words[step - 1]))
        action = np.full(7, step / 300, np.float32)
        success = step in won or (step == len(drivers) and outcome is Outcome.SUCCESS)
        proprio = np.zeros(8, np.float32)
        tape.on_step(StepEvent(step, action, proprio, success, driver=LETTERS[letter]))
    if outcome:
        tape.on_episode(EpisodeEvent(scene, words[0], outcome, len(drivers)))


def record(folder: Path, drivers: str, *, developed: bool = True, **episode: object) -> str:
    """A recording in the library `folder`; its name."""
    tape = Tape(folder, Counter(), {"checkpoint": {"name": "tiny", "sha256": "abc"}})
    drive(tape, drivers, **episode)
    name = tape.save(1)
    tape.close()
    if developed:
        develop(folder / name)
    return name


def develop(folder: Path, side: int = 32) -> None:
    """What a replay would leave: picture t is as bright as t."""
    tape = recording.read(folder)
    steps = len(tape)
    pictures = np.repeat(np.arange(steps).astype(np.uint8), side * side * 3)
    images = {name: pictures.reshape(steps, side, side, 3) for name in demos.IMAGE_KEYS}
    codes = np.array([DRIVERS.index(driver) for driver in tape.drivers], np.uint8)
    demo = demos.Demonstration(
        images=images,
        proprio=np.zeros((steps, 8), np.float32),
        joints=np.zeros((steps, 7)),
        states=tape.states[:-1],
        actions=tape.actions,
        executed_actions=tape.actions,
        model_xml="<mujoco/>",
        attributes={"outcome": str(tape.outcome)},
        extras={"driver": codes, "camera_pose": np.zeros((steps, 3, 4))},
        success=bool(tape.success[-1]),
    )
    demos.write_file(folder / DEMO, header(tape.scene, tape.instructions[-1], "fast"), [demo])
    (folder / REPORT).write_text(json.dumps({"faithful": True, "steps": steps}))
