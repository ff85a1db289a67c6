"""Reading LIBERO's HDF5, and the scales fitted on it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from models.data import chunks, load_demonstrations
from models.normalize import Statistics

H = 8


def write_demos(
    file: Path, instruction="pick up the milk", demos=2, steps=6, side=32, convention="opengl"
) -> Path:
    """A small file in LIBERO's format; the upright images have their top row white."""
    rng = np.random.default_rng(0)
    with h5py.File(file, "w") as h5:
        data = h5.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": f'"{instruction}"'})
        data.attrs["bddl_file_name"] = "some/where/libero_object/task.bddl"
        data.attrs["macros_image_convention"] = convention
        for i in range(demos):
            demo = data.create_group(f"demo_{i}")
            actions = rng.uniform(-1, 1, (steps, 7))
            actions[:, -1] = np.where(np.arange(steps) < steps // 2, -1, 1)
            demo["actions"] = actions
            images = np.zeros((steps, side, side, 3), np.uint8)
            images[:, 0] = 255
            for key in ("agentview_rgb", "eye_in_hand_rgb"):
                demo[f"obs/{key}"] = images[:, ::-1] if convention == "opengl" else images
            for key, size in (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2)):
                demo[f"obs/{key}"] = rng.normal(size=(steps, size))
    return file


@pytest.mark.parametrize("convention", ["opengl", "opencv"])
def test_images_come_out_upright(tmp_path, convention):
    write_demos(tmp_path / "a_demo.hdf5", convention=convention)
    images = load_demonstrations(tmp_path, H).images
    assert images.shape == (12, 2, 32, 32, 3) and images.dtype == np.uint8
    assert (images[:, :, 0] == 255).all() and (images[:, :, 1:] == 0).all()


def test_tasks_demos_suites_and_stride(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5")
    write_demos(tmp_path / "b_demo.hdf5", instruction="pick up the soup", steps=5)
    data = load_demonstrations(tmp_path, H, stride=2)
    assert data.instructions == ("pick up the milk", "pick up the soup")
    assert data.suites == ("libero_object",)
    assert data.task.tolist() == [0] * 6 + [1] * 6
    assert data.demo.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_chunk_past_the_end_rests_with_the_same_gripper():
    actions = np.arange(21, dtype=np.float32).reshape(3, 7) + 1
    out = chunks(actions, np.array([0, 2]), 4)
    np.testing.assert_array_equal(out[0, :3], actions)
    assert (out[0, 3, :6] == 0).all() and out[0, 3, 6] == 21
    np.testing.assert_array_equal(out[1, 0], actions[2])
    assert (out[1, 1:, :6] == 0).all() and (out[1, 1:, 6] == 21).all()


def test_split_holds_out_whole_demonstrations_of_each_task(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5", demos=3)
    write_demos(tmp_path / "b_demo.hdf5", instruction="b", demos=1)
    data = load_demonstrations(tmp_path, H)
    train, held = data.split(0.05)
    assert set(data.demo[held]) == {2} and set(data.demo[train]) == {0, 1, 3}
    assert len(data.split(0)[1]) == 0


def _edit(file, path, value):
    with h5py.File(file, "r+") as h5:
        del h5[path]
        if value is not None:
            h5[path] = value


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data/demo_0/obs/ee_pos", None, "ee_pos"),
        ("data/demo_0/actions", None, "actions"),
        ("data/demo_0/actions", np.zeros((6, 14)), r"\(6, 14\), expected \(T, 7\)"),
        ("data/demo_0/actions", np.full((6, 7), np.nan), "not finite"),
        ("data/demo_0/obs/ee_pos", np.zeros((5, 3)), r"expected \(6, 3\)"),
        ("data/demo_0/obs/agentview_rgb", np.zeros((6, 32, 32, 3)), "expected uint8"),
        ("data/demo_0/obs/agentview_rgb", np.zeros((6, 32, 16, 3), np.uint8), "square"),
        ("data", None, "data"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, path, value, words):
    file = write_demos(tmp_path / "a_demo.hdf5")
    _edit(file, path, value)
    with pytest.raises(ValueError, match=words) as caught:
        load_demonstrations(tmp_path, H)
    assert "a_demo.hdf5" in str(caught.value) and "\n" not in str(caught.value)


def test_truncated_and_absent_files(tmp_path):
    with pytest.raises(ValueError, match="collect or download"):
        load_demonstrations(tmp_path / "none", H)
    file = write_demos(tmp_path / "a_demo.hdf5")
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ValueError, match="truncated"):
        load_demonstrations(tmp_path, H)


# -- scales -------------------------------------------------------------------------------------


def fitted() -> tuple[Statistics, np.ndarray]:
    rng = np.random.default_rng(0)
    actions = rng.normal(0.2, 0.3, (5000, 7))
    actions[:, 4] = 0.0
    actions[:, 6] = rng.choice([-1, 1], 5000)
    return Statistics.fit(actions, rng.normal(3, 2, (5000, 8))), actions


def test_normalise_round_trip_and_range():
    statistics, actions = fitted()
    scaled = statistics.normalize(actions)
    np.testing.assert_allclose(statistics.denormalize(scaled), actions, atol=1e-5)
    low, high = np.quantile(scaled[:, 0], [0.005, 0.995])
    np.testing.assert_allclose([low, high], [-1, 1], atol=1e-3)
    np.testing.assert_array_equal(scaled[:, 6], actions[:, 6])
    assert np.abs(scaled[:, 4]).max() == 0


def test_statistics_survive_json_and_reject_nonsense():
    statistics, actions = fitted()
    again = Statistics.from_json(json.loads(json.dumps(statistics.to_json())))
    np.testing.assert_array_equal(again.normalize(actions), statistics.normalize(actions))
    bad = statistics.to_json()
    bad["action"]["scale"][0] = 0.0
    with pytest.raises(ValueError, match="positive"):
        Statistics.from_json(bad)
    with pytest.raises(ValueError, match="mode"):
        Statistics.from_json(statistics.to_json() | {"mode": "other"})
    with pytest.raises(ValueError, match="missing"):
        Statistics.from_json({"mode": statistics.mode})
