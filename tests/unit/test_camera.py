"""The LIBERO-Plus camera move against poses worked out by hand."""

import numpy as np
import pytest

from studio.events import CameraPerturbation
from studio.sim.camera import PIVOT, perturbed_pose, rotation

EYE = np.eye(3)
FRONT = np.array([1.0, 0.0, 0.8])  # one metre in front of the pivot


def moved(**camera: float) -> tuple[np.ndarray, np.ndarray]:
    return perturbed_pose(FRONT, EYE, CameraPerturbation(**camera))


def test_the_nominal_camera_stays():
    pos, rot = moved()
    np.testing.assert_allclose(pos, FRONT)
    np.testing.assert_allclose(rot, EYE)


def test_rotation_follows_the_right_hand():
    np.testing.assert_allclose(rotation((0, 0, 1), 90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation((0, -1, 0), 90) @ [1, 0, 0], [0, 0, 1], atol=1e-12)


def test_horizontal_orbit_turns_about_the_vertical_through_the_pivot():
    pos, rot = moved(orbit_horizontal=90)
    np.testing.assert_allclose(pos, [0, 1, 0.8], atol=1e-12)
    np.testing.assert_allclose(rot, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)


def test_vertical_orbit_lifts_a_camera_that_stands_in_front():
    pos, rot = moved(orbit_vertical=30)
    np.testing.assert_allclose(pos, [np.sqrt(3) / 2, 0, 0.8 + 0.5], atol=1e-12)
    np.testing.assert_allclose(rot[:, 0], [np.sqrt(3) / 2, 0, 0.5], atol=1e-12)


def test_the_vertical_orbit_comes_first():
    pos, _ = moved(orbit_vertical=30, orbit_horizontal=90)
    np.testing.assert_allclose(pos, [0, np.sqrt(3) / 2, 1.3], atol=1e-12)


def test_distance_scales_the_offset_from_the_pivot_and_keeps_the_orientation():
    pos, rot = perturbed_pose(np.array([1.0, 2.0, 1.8]), EYE, CameraPerturbation(distance=150))
    np.testing.assert_allclose(pos, [1.5, 3.0, 0.8 + 1.5])
    np.testing.assert_allclose(rot, EYE)


def test_turning_keeps_the_position_and_acts_on_the_left():
    start = rotation((1, 0, 0), 90)
    pos, rot = perturbed_pose(FRONT, start, CameraPerturbation(turn_horizontal=90))
    np.testing.assert_allclose(pos, FRONT)
    np.testing.assert_allclose(rot, rotation((0, 0, 1), 90) @ start, atol=1e-12)


def test_turning_is_about_z_then_about_y():
    _, rot = moved(turn_horizontal=90, turn_vertical=90)
    np.testing.assert_allclose(rot @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rot @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_every_pose_keeps_its_rotation_and_its_distance():
    camera = CameraPerturbation(40, 15, 130, 8, -6)
    pos, rot = perturbed_pose(FRONT, rotation((0, 1, 0), 20), camera)
    assert np.linalg.norm(pos - PIVOT) == pytest.approx(1.3)
    np.testing.assert_allclose(rot @ rot.T, EYE, atol=1e-12)
    assert np.linalg.det(rot) == pytest.approx(1.0)
