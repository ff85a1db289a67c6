"""A person's hand on the real arm: directions in every frame, changes of driver without a jump."""

import math

import numpy as np
import pytest

from models.config import SamplerConfig
from models.policy import Policy
from studio.events import (
    CameraPerturbation,
    Drive,
    LoadScene,
    Run,
    SceneSpec,
    SetAssists,
    SetCamera,
    SetDriver,
    SetSampler,
)
from studio.loop import ControlLoop
from studio.recorder import Recorder
from studio.sim.process import SimProcess
from studio.teleop import REACH, Assists, DriveInput, hand_rotation

STEPS = 8


@pytest.fixture(scope="module")
def sim():
    with SimProcess() as process:
        yield process


@pytest.fixture(scope="module")
def policy(debug_checkpoint):
    return Policy.from_pretrained(debug_checkpoint, device="cpu")


@pytest.fixture
def loop(sim, policy, monkeypatch):
    """The arm of a fresh episode in a person's hand."""
    monkeypatch.setattr("studio.teleop.STALE_S", math.inf)  # however slow the test is
    recorder = Recorder({})
    loop = ControlLoop(sim, policy, [recorder], hz=0, frames="none")
    loop.recorder = recorder
    loop.apply(SetSampler(SamplerConfig(steps=2)))
    loop.apply(LoadScene(SceneSpec("libero_object", 0, 40, 0)))
    loop.apply(SetDriver("human"))
    loop.apply(Run())
    return loop


def push(loop, sim, steps=STEPS, **held):
    """Hold something for a while; how the hand has moved and turned, and its way step by step."""
    before = sim.proprio()
    way = [before]
    for _ in range(steps):
        loop.apply(Drive(DriveInput(1, speed=1.0, **held)))
        loop.tick()
        way.append(sim.proprio())
    turned = hand_rotation(way[-1]) @ hand_rotation(before).T
    return way[-1][:3] - before[:3], turned, np.array(way)


@pytest.mark.parametrize(("name", "axis"), [("x", 0), ("y", 1), ("z", 2)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_base_frame_is_the_worlds(loop, sim, name, axis, sign):
    moved, _, _ = push(loop, sim, frame="base", **{name: sign})
    assert sign * moved[axis] > 0.02
    assert np.abs(np.delete(moved, axis)).max() < 0.5 * abs(moved[axis])


@pytest.mark.parametrize("orbit", [0.0, 70.0])
def test_the_camera_frame_pushes_into_the_picture(loop, sim, orbit):
    loop.apply(SetCamera(CameraPerturbation(orbit_horizontal=orbit)))
    _, axes = sim.camera_pose()
    right, up = axes[:, 0], axes[:, 1]
    forward, _, _ = push(loop, sim, frame="camera", x=1.0)
    assert forward @ up > 0.01 and abs(forward @ right) < 0.5 * (forward @ up)
    left, _, _ = push(loop, sim, frame="camera", y=1.0)
    assert left @ right < -0.02 and abs(left @ up) < -0.5 * (left @ right)


def test_the_effector_frame_turns_with_the_hand(loop, sim):
    _, turned, _ = push(loop, sim, steps=15, frame="effector", yaw=1.0)
    angle = np.arctan2(turned[1, 0], turned[0, 0])
    assert angle > 0.3 and turned[2, 2] > 0.95  # about the vertical
    way = hand_rotation(sim.proprio())[:2, 0]
    moved, _, _ = push(loop, sim, frame="effector", x=1.0)
    assert moved[:2] @ way > 0.9 * np.linalg.norm(moved[:2]) > 0.015


def test_the_gripper_closes_and_the_scene_comes_to_rest(loop, sim):
    push(loop, sim, steps=1, gripper=1.0)
    for _ in range(60):
        loop.apply(Drive(DriveInput(2)))
        loop.tick()
    assert loop.state.resting and loop.state.step < 40
    assert np.abs(sim.proprio()[6:]).max() < 0.01


def test_upright_straightens_the_hand(loop, sim):
    loop.apply(SetAssists(Assists()))
    push(loop, sim, steps=10, frame="base", roll=1.0)
    leaning = hand_rotation(sim.proprio())[2, 2]
    loop.apply(SetAssists(Assists(upright=True)))
    push(loop, sim, steps=30, frame="base", z=0.1)
    assert leaning > -0.98 and hand_rotation(sim.proprio())[2, 2] < -0.995


def test_the_workspace_ends_before_the_arms_reach(loop, sim):
    home = sim.proprio()[:3]
    push(loop, sim, steps=60, frame="base", z=1.0)
    top = sim.proprio()[2] - home[2]
    assert REACH[1, 2] - 0.02 < top < REACH[1, 2] + 0.05


def test_no_jump_between_policy_and_person(loop, sim):
    _, _, _ = push(loop, sim, steps=STEPS, frame="base", x=0.5, gripper=1.0)
    for driver in ("policy", "human", "shared"):
        loop.apply(SetDriver(driver))
        for _ in range(10):
            loop.apply(Drive(DriveInput(2, z=0.3)))
            loop.tick()
    steps = loop.recorder.episode().steps
    drivers = [step.driver for step in steps]
    assert [drivers[0], drivers[8], drivers[18], drivers[28]] == [
        "human",
        "policy",
        "human",
        "shared",
    ]
    hands = np.array([step.proprio[:3] for step in steps])
    strides = np.linalg.norm(np.diff(hands, axis=0), axis=1)
    at_changes = strides[[7, 17, 27]]
    assert at_changes.max() <= strides.max() and strides.max() < 0.05  # m, what one action may ask
    grips = [step.action[6] for step in steps]
    assert all(np.sign(grips[18:28]) == np.sign(grips[17]))  # the person keeps what the policy held
