"""Demonstrations on disk, read back with plain h5py as LIBERO's tools would."""

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from studio import demos
from studio.hdf5 import whole_hdf5
from tests.helpers import ROOT

BDDL = """(define (problem LIBERO_Floor_Manipulation)
  (:domain robosuite)
  (:language Pick the soup and place it in the basket)
)"""


def demonstration(steps: int = 6, seed: int = 0, **changes: object) -> demos.Demonstration:
    rng = np.random.default_rng(seed)
    values = {
        "images": {c: rng.integers(0, 255, (steps, 16, 16, 3), np.uint8) for c in demos.IMAGE_KEYS},
        "proprio": rng.normal(size=(steps, 8)).astype(np.float32),
        "joints": rng.normal(size=(steps, 7)),
        "states": rng.normal(size=(steps, 40)),
        "actions": rng.uniform(-1, 1, (steps, 7)),
        "executed_actions": rng.uniform(-1, 1, (steps, 7)),
        "model_xml": "<mujoco/>",
        "attributes": {"init": seed, "seed": 0},
    }
    return demos.Demonstration(**(values | changes))


@pytest.fixture
def task_file(tmp_path):
    """Two demonstrations, assembled; returns the file and what went in."""
    bddl = tmp_path / "soup.bddl"
    bddl.write_text(BDDL)
    originals = [demonstration(6, 0), demonstration(9, 1)]
    parts = [tmp_path / "parts" / f"demo_{i}.hdf5" for i in range(2)]
    for part, demo in zip(parts, originals, strict=True):
        demos.write_part(part, demo)
    path = demos.demo_path(tmp_path, "soup")
    demos.assemble(
        path, demos.task_header(bddl, "pick the soup", "fast"), [(p, demos.PART) for p in parts]
    )
    return path, originals


def test_assembled_file_has_liberos_layout(task_file):
    path, originals = task_file
    assert path.name == "soup_demo.hdf5"
    with h5py.File(path, "r") as file:
        data = file["data"]
        assert list(data) == ["demo_0", "demo_1"]
        assert data.attrs["num_demos"] == 2 and data.attrs["total"] == 15
        assert data.attrs["env_name"] == "Libero_Floor_Manipulation"
        assert json.loads(data.attrs["problem_info"])["language_instruction"] == "pick the soup"
        assert data.attrs["bddl_file_name"] == f"{path.parent.name}/soup.bddl"
        assert data.attrs["bddl_file_content"] == BDDL
        assert data.attrs["tag"] == "libero-v1" and data.attrs["pixels"] == "fast"
        for i, original in enumerate(originals):
            demo = data[f"demo_{i}"]
            steps = len(original.actions)
            assert demo.attrs["num_samples"] == steps
            assert demo.attrs["init"] == i
            np.testing.assert_array_equal(demo.attrs["init_state"], original.states[0])
            assert demo["robot_states"].shape == (steps, 9)
            assert list(demo["dones"]) == list(demo["rewards"]) == [0] * (steps - 1) + [1]
            assert all(len(d) == steps for d in demo["obs"].values())


def test_arrays_come_back_and_images_lie_upside_down(task_file):
    path, originals = task_file
    with h5py.File(path, "r") as file:
        assert file["data"].attrs["macros_image_convention"] == "opengl"
        demo, original = file["data/demo_1"], originals[1]
        for camera, key in demos.IMAGE_KEYS.items():
            np.testing.assert_array_equal(demo[f"obs/{key}"][()][:, ::-1], original.images[camera])
        proprio = np.concatenate([demo["obs/ee_states"], demo["obs/gripper_states"]], axis=1)
        np.testing.assert_allclose(proprio, original.proprio)
        np.testing.assert_array_equal(demo["actions"], original.actions)
        np.testing.assert_array_equal(demo["executed_actions"], original.executed_actions)
        np.testing.assert_array_equal(demo["obs/joint_states"], original.joints)


def test_robomimics_reading_finds_what_it_needs(task_file):
    """The steps of robomimic's SequenceDataset and of its file utilities, with h5py alone."""
    path, originals = task_file
    with h5py.File(path, "r", swmr=True, libver="latest") as file:
        env = json.loads(file["data"].attrs["env_args"])
        assert {"env_name", "type", "env_kwargs"} <= set(env)
        demos_by_number = sorted(file["data"], key=lambda name: int(name[5:]))
        lengths = [int(file[f"data/{name}"].attrs["num_samples"]) for name in demos_by_number]
        assert lengths == [6, 9] and sum(lengths) == file["data"].attrs["total"]
        first = file["data/demo_0"]
        shapes = {key: first[f"obs/{key}"].shape[1:] for key in sorted(first["obs"])}
        assert shapes["agentview_rgb"] == (16, 16, 3) and shapes["joint_states"] == (7,)
        assert first["actions"].shape[1] == 7 and first["states"].shape[1] == 40
        assert first.attrs["model_file"] == "<mujoco/>"
        window = file["data/demo_1/actions"][3 : 3 + 4].astype("float32")
        np.testing.assert_array_equal(window, originals[1].actions[3:7].astype("float32"))


def test_robot_states_hold_the_orientation_as_a_quaternion(task_file):
    path, originals = task_file
    with h5py.File(path, "r") as file:
        quaternions = file["data/demo_0/robot_states"][:, 5:]
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1)
    angles = np.linalg.norm(originals[0].proprio[:, 3:6], axis=1)
    np.testing.assert_allclose(quaternions[:, 3], np.cos(angles / 2))


def test_a_write_that_fails_leaves_nothing(tmp_path):
    broken = demonstration(attributes={"unstorable": object()})
    with pytest.raises(TypeError):
        demos.write_part(tmp_path / "demo_0.hdf5", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_whole_files(task_file, tmp_path):
    """Its own process, which HDF5 would crash: no file may grow beyond ever larger sizes there."""
    code = """
import resource, sys
from pathlib import Path
from studio import demos
from tests.unit.test_demos import demonstration

path, *parts = map(Path, sys.argv[1:])
for write in (
    lambda: demos.assemble(path, {}, [(part, demos.PART) for part in parts]),
    lambda: demos.write_file(path, {}, [demonstration(3 * demos.BLOCK)] * 2),
):
    write()
    size = path.stat().st_size
    path.unlink()
    for limit in range(0, size, size // 12):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        try:
            write()
        except OSError as error:
            assert f"File too large: '{path}'" in str(error), error
        else:
            raise AssertionError(f"{size} bytes in {limit}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
"""
    parts = sorted((tmp_path / "parts").iterdir())
    before = set(tmp_path.rglob("*"))
    command = [sys.executable, "-c", code, str(tmp_path / "full_demo.hdf5"), *map(str, parts)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(tmp_path.rglob("*")) == before


def test_pictures_may_come_step_by_step(tmp_path):
    whole = demonstration(demos.BLOCK + 3)
    with demos.one_file(tmp_path / "a_demo.hdf5", {"env_name": "x"}) as writer:
        for step in range(len(whole.actions)):
            writer.append({camera: images[step] for camera, images in whole.images.items()})
        writer.finish(replace(whole, images=None))
    demos.write_file(tmp_path / "b_demo.hdf5", {"env_name": "x"}, [whole])
    with h5py.File(tmp_path / "a_demo.hdf5") as one, h5py.File(tmp_path / "b_demo.hdf5") as other:
        assert dict(one["data"].attrs) == dict(other["data"].attrs)
        for key in demos.IMAGE_KEYS.values():
            found, expected = (file[f"data/demo_0/obs/{key}"] for file in (one, other))
            np.testing.assert_array_equal(found[:], expected[:])
    with (
        pytest.raises(ValueError, match="not as many pictures"),
        demos.one_file(tmp_path / "c_demo.hdf5", {}) as writer,
    ):
        writer.append({camera: images[0] for camera, images in whole.images.items()})
        writer.finish(replace(whole, images=None))
    assert not (tmp_path / "c_demo.hdf5").exists()


def test_what_a_killed_writer_left_is_swept_away(tmp_path):
    left, other = tmp_path / ".a.hdf5.7.tmp", tmp_path / ".b.hdf5.7.tmp"
    held = tmp_path / ".a.hdf5.8.tmp"
    young = tmp_path / ".a.hdf5.9.tmp"
    for path in (left, other, held, young):
        path.touch()
        os.utime(path, (1, 1) if path is not young else None)
    with held.open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with whole_hdf5(tmp_path / "a.hdf5") as file:
            file["something"] = [1]
    assert set(tmp_path.iterdir()) == {tmp_path / "a.hdf5", other, held, young}


def test_count_demos(task_file, tmp_path):
    assert demos.count_demos(task_file[0]) == 2
    assert demos.count_demos(tmp_path / "none_demo.hdf5") == 0
    other = tmp_path / "other_demo.hdf5"
    with h5py.File(other, "w") as file:
        file["something"] = [1]
    for content in (other.read_bytes(), b"no HDF5"):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=r"other_demo\.hdf5: not a LIBERO"):
            demos.count_demos(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"actions": np.zeros((5, 7))},
        {"images": {"agentview": np.zeros((6, 16, 16, 3), np.uint8)}},
    ],
    ids=["unequal lengths", "a camera is missing"],
)
def test_inconsistent_demonstrations_are_refused(changes):
    with pytest.raises(ValueError, match="demonstration: "):
        demonstration(**changes)


def test_nothing_to_assemble(tmp_path):
    with pytest.raises(ValueError, match="no episodes"):
        demos.assemble(tmp_path / "a_demo.hdf5", {}, [])


def test_header_needs_a_bddl_problem(tmp_path):
    path = tmp_path / "x.bddl"
    path.write_text("(define (something else))")
    with pytest.raises(ValueError, match="not a BDDL problem"):
        demos.task_header(path, "do it", "fast")
