"""Held inputs become actions: frames, assists, taps, silence."""

import numpy as np
import pytest

from studio.sim.rotations import rotation_about
from studio.teleop import (
    REACH,
    STALE_S,
    Assists,
    DriveInput,
    Pilot,
    arm_action,
    frame_axes,
    hand_rotation,
    plumb,
)

HOME = np.array([-0.2, 0.0, 1.17])
DOWN = np.array([np.pi, 0, 0])  # axis-angle of a hand that points down, unturned
FREE = Assists(workspace=False)
LOOK, UP = (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def proprio(position=HOME, turned=DOWN):
    return np.concatenate([position, turned, [0.02, -0.02]])


def action(held, at=None, frame="base", assists=FREE, look=LOOK, up=UP):
    at = proprio() if at is None else at
    axes = frame_axes(frame, hand_rotation(at), look, up)
    return arm_action(held, at, axes, HOME, assists)


@pytest.mark.parametrize(
    ("name", "index"), [("x", 0), ("y", 1), ("z", 2), ("roll", 3), ("pitch", 4), ("yaw", 5)]
)
def test_each_axis_of_the_base_is_one_of_the_action(name, index):
    found = action(DriveInput(**{name: -1.0}, speed=1.0))
    assert found[index] < 0 and np.count_nonzero(found) == 1
    assert np.abs(action(DriveInput(**{name: -1.0}, speed=0.5))).sum() == pytest.approx(
        np.abs(found).sum() / 2
    )


def test_a_hand_that_points_down_has_the_axes_of_the_base():
    axes = frame_axes("effector", hand_rotation(proprio()), LOOK, UP)
    assert np.allclose(axes, np.eye(3))


def test_the_effector_frame_turns_with_the_hand():
    quarter = rotation_about(np.array([0, 0, 1.0]), np.pi / 2) @ hand_rotation(proprio())
    assert np.allclose(frame_axes("effector", quarter, LOOK, UP)[:, 0], [0, 1, 0])


@pytest.mark.parametrize("tilt", [0.0, 40.0, 90.0])
@pytest.mark.parametrize("around", [0.0, 90.0, 200.0])
def test_the_camera_frame_is_that_of_the_picture(tilt, around):
    turn = rotation_about(np.array([0, 0, 1.0]), np.radians(around))
    lean = rotation_about(np.array([0, 1.0, 0]), -np.radians(tilt))
    look, up, right = turn @ lean @ LOOK, turn @ lean @ UP, turn @ [0, 1, 0]
    forward, left, upward = frame_axes("camera", np.eye(3), tuple(look), tuple(up)).T
    assert forward[2] == 0 and np.linalg.norm(forward) == pytest.approx(1)
    assert forward @ look + forward @ up > 0.99
    assert left @ right == pytest.approx(-1) and np.allclose(upward, [0, 0, 1])


def test_two_keys_are_not_faster_than_one():
    both = action(DriveInput(x=1, y=1, speed=1.0))
    assert np.linalg.norm(both) == pytest.approx(1)


def test_the_limit_caps_the_speed():
    assert action(DriveInput(x=1, speed=1.0), assists=Assists(limit=0.2))[0] == pytest.approx(0.2)
    assert action(DriveInput(x=1, speed=0.1), assists=Assists(limit=0.2))[0] == pytest.approx(0.1)


def test_the_workspace_stops_the_way_out_only():
    edge = proprio(HOME + np.array([REACH[1, 0] + 0.01, 0, 0]))
    assert action(DriveInput(x=1, y=1), edge, assists=Assists())[0] == 0
    assert action(DriveInput(x=1, y=1), edge, assists=Assists())[1] > 0
    assert action(DriveInput(x=-1), edge, assists=Assists())[0] < 0
    assert action(DriveInput(x=1), edge)[0] > 0


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_a_hand_that_starts_outside_of_the_workspace_is_left_alone(axis, side):
    """A moved start of the arm may put it there: it does not jump back, and goes no further."""
    limit = REACH[(side + 1) // 2, axis]
    outside = HOME.copy()
    outside[axis] += limit + side * 0.3
    name, others = "xyz"[axis], "xyz".replace("xyz"[axis], "")
    assert not action(DriveInput(), proprio(outside), assists=Assists()).any()
    assert not action(DriveInput(**{name: side}), proprio(outside), assists=Assists()).any()
    free = action(DriveInput(**{name: -side}), proprio(outside), assists=FREE)
    assert (action(DriveInput(**{name: -side}), proprio(outside), assists=Assists()) == free).all()
    along = DriveInput(**dict.fromkeys(others, 1.0), **{name: float(side)})
    found = action(along, proprio(outside), assists=Assists())
    assert found[axis] == 0 and np.count_nonzero(found) == 2


def test_upright_only_turns_and_straightens():
    held = DriveInput(roll=1, yaw=1, speed=1.0)
    found = action(held, assists=Assists(upright=True))
    assert found[3] == found[4] == 0 and found[5] > 0
    for axis in np.eye(3)[:2]:
        hand = rotation_about(axis, 0.3) @ hand_rotation(proprio())
        for _ in range(20):
            step = plumb(hand) * 0.5  # as the controller reads it
            if angle := np.linalg.norm(step):
                hand = rotation_about(step / angle, angle) @ hand
        assert hand[2, 2] < -0.999


def step_of(pilot: Pilot, now: float):
    """What counts for a control step that is made."""
    held = pilot.look(now)
    pilot.stepped()
    return held


def test_a_tap_between_two_steps_counts_once():
    pilot = Pilot()
    pilot.receive(DriveInput(1, x=1.0), 0.0)
    pilot.receive(DriveInput(2), 0.01)
    assert step_of(pilot, 0.02).x == 1.0
    assert not step_of(pilot, 0.05).moves
    assert pilot.inputs == 2


def test_a_tap_between_two_slow_steps_counts_once():
    pilot = Pilot()
    pilot.receive(DriveInput(1, x=1.0), 0.0)
    pilot.receive(DriveInput(2), 0.05)
    assert step_of(pilot, 0.05 + 1.1 * STALE_S).x == 1.0
    assert not step_of(pilot, 0.05 + 1.2 * STALE_S).moves


def test_a_key_moves_until_it_is_released_or_silent():
    pilot = Pilot()
    pilot.receive(DriveInput(1, y=-1.0, gripper=1.0), 0.0)
    assert [step_of(pilot, t).y for t in (0.05, 0.1)] == [-1.0, -1.0]
    pilot.receive(DriveInput(1, y=-1.0, gripper=1.0), 0.1)  # a repeat is no new input
    assert pilot.inputs == 1
    assert step_of(pilot, 0.1 + 0.9 * STALE_S).y == -1.0
    assert not step_of(pilot, 0.1 + 1.1 * STALE_S).moves
    assert not step_of(pilot, 0.1 + 1.2 * STALE_S).moves


@pytest.mark.parametrize(
    "fields",
    [{"x": 2.0}, {"x": float("nan")}, {"frame": "moon"}, {"speed": 0.0}, {"go": 1}],
)
def test_bad_inputs_are_refused(fields):
    with pytest.raises(ValueError, match=f"drive: {next(iter(fields))}"):
        DriveInput(**fields)
