"""Reading LIBERO's HDF5, and the scales fitted on it."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from models.data import (
    DEMONSTRATED,
    HUMAN,
    POLICY,
    Demonstrations,
    chunks,
    demonstration_files,
    load_demonstrations,
    training_rows,
)
from models.normalize import Statistics
from models.schedule import TrainConfig

H = 8


def write_demos(
    file: Path,
    instruction="pick up the milk",
    demos=2,
    steps=6,
    side=32,
    convention="opengl",
    pixels=None,
) -> Path:
    """A small file in LIBERO's format; the upright images have their top row white."""
    rng = np.random.default_rng(0)
    with h5py.File(file, "w") as h5:
        data = h5.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": f'"{instruction}"'})
        data.attrs["bddl_file_name"] = "some/where/libero_object/task.bddl"
        data.attrs["macros_image_convention"] = convention
        if pixels:
            data.attrs["pixels"] = pixels
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


def distinct_samples(folder: Path) -> Demonstrations:
    """Two tasks of two demonstrations; no sample is like another, so that a mix-up shows."""
    write_demos(folder / "a_demo.hdf5")
    write_demos(folder / "b_demo.hdf5", instruction="pick up the soup")
    data, rng = load_demonstrations(folder, H), np.random.default_rng(0)
    return replace(
        data,
        images=rng.integers(0, 256, data.images.shape, np.uint8),
        proprio=rng.normal(size=data.proprio.shape).astype(np.float32),
        actions=rng.uniform(-1, 1, data.actions.shape).astype(np.float32),
    )


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


def test_no_picture_lies_in_memory_twice(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5", demos=20, steps=50, side=64)
    tracemalloc.start()
    try:
        images = load_demonstrations(tmp_path, H).images
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert images.nbytes > 20e6 and peak < 1.5 * images.nbytes


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


def test_what_begins_as_the_held_out_does_is_held_out(tmp_path):
    with h5py.File(write_demos(tmp_path / "a_demo.hdf5", demos=5), "a") as h5:
        for i, scene in enumerate((7, 8, 9, 7, 8)):
            h5[f"data/demo_{i}/obs/agentview_rgb"][0] = scene
    data = load_demonstrations(tmp_path, H)
    train, held = data.split(0.05)
    assert set(data.demo[held]) == {1, 4} and set(data.demo[train]) == {0, 2, 3}


# -- files of others ------------------------------------------------------------------------------


def write_official(file: Path, steps=(3, 4, 2)) -> list[np.ndarray]:
    """As LIBERO's create_dataset.py leaves them, attribute by attribute; returns the actions."""
    rng = np.random.default_rng(1)
    bddl = "chiliocosm/bddl_files/libero_goal/open_the_middle_drawer.bddl"
    actions = [rng.uniform(-1, 1, (n, 7)) for n in steps]
    with h5py.File(file, "w") as h5:
        data = h5.create_group("data")
        data.attrs["env_name"] = "Libero_Tabletop_Manipulation"
        data.attrs["problem_info"] = json.dumps(
            {
                "problem_name": "libero_tabletop_manipulation",
                "domain_name": "robosuite",
                "language_instruction": list('"open the middle drawer"'),
            }
        )
        data.attrs["bddl_file_name"] = bddl
        data.attrs["bddl_file_content"] = "b'(define (problem ...))'"
        data.attrs["env_args"] = json.dumps({"type": 1, "bddl_file": bddl, "env_kwargs": {}})
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["tag"] = "libero-v1"
        data.attrs["num_demos"], data.attrs["total"] = len(steps), sum(steps)
        for i, rows in enumerate(actions):
            n = len(rows)
            demo = data.create_group(f"demo_{i}")
            obs = demo.create_group("obs")
            ee = rng.normal(size=(n, 6))
            obs.create_dataset("ee_states", data=ee)
            obs.create_dataset("ee_pos", data=ee[:, :3])
            obs.create_dataset("ee_ori", data=ee[:, 3:])
            obs.create_dataset("gripper_states", data=np.full((n, 2), 0.04))
            obs.create_dataset("joint_states", data=rng.normal(size=(n, 7)))
            for key in ("agentview_rgb", "eye_in_hand_rgb"):
                pictures = np.zeros((n, 128, 128, 3), np.uint8)
                pictures[:, -1] = 10 * i + np.arange(n)[:, None, None] + 1  # the top row
                obs.create_dataset(key, data=pictures)
            demo.create_dataset("actions", data=rows)
            demo.create_dataset("states", data=rng.normal(size=(n, 79)))
            demo.create_dataset("robot_states", data=rng.normal(size=(n, 9)))
            for key in ("rewards", "dones"):
                demo.create_dataset(key, data=(np.arange(n) == n - 1).astype(np.uint8))
            demo.attrs["num_samples"] = str(n)
            demo.attrs["model_file"] = "<mujoco/>"
            demo.attrs["init_state"] = np.zeros(79)
    return actions


def test_the_official_demonstrations_train_as_they_are(tmp_path):
    actions = write_official(tmp_path / "open_the_middle_drawer_demo.hdf5")
    data = load_demonstrations(tmp_path, H)
    assert data.instructions == ("open the middle drawer",) and data.suites == ("libero_goal",)
    assert data.demo.tolist() == [0] * 3 + [1] * 4 + [2] * 2
    np.testing.assert_array_equal(data.actions[:, 0], np.concatenate(actions).astype(np.float32))
    assert data.images[:, 1, 0, 0, 0].tolist() == [1, 2, 3, 11, 12, 13, 14, 21, 22]  # upright
    assert not data.images[:, :, 1:].any()
    with h5py.File(tmp_path / "open_the_middle_drawer_demo.hdf5") as h5:
        obs = h5["data/demo_1/obs"]
        wanted = np.concatenate([obs["ee_states"], obs["gripper_states"]], axis=1)
    np.testing.assert_array_equal(data.proprio[3:7], wanted.astype(np.float32))


def test_a_robomimic_file_may_hold_masks_gaps_and_next_observations(tmp_path):
    file = tmp_path / "drawer_demo.hdf5"
    actions = write_official(file)
    with h5py.File(file, "r+") as h5:
        data = h5["data"]
        data.move("demo_1", "demo_10")  # comes after demo_2 by number, before it by name
        for name in list(data):
            data.copy(f"{name}/obs", data[name], name="next_obs")
        train = [b"demo_0", b"demo_10"]
        h5.create_dataset("mask/train", data=np.array(train))
        h5.create_dataset("mask/valid", data=np.array([b"demo_2"]))
        for key in ("num_demos", "bddl_file_name", "macros_image_convention"):
            del data.attrs[key]
        for name in data:
            compressed = data[name]["obs/agentview_rgb"][()]
            del data[name]["obs/agentview_rgb"]
            data[name].create_dataset("obs/agentview_rgb", data=compressed, compression="gzip")
    found = load_demonstrations(tmp_path, H)
    wanted = np.concatenate([actions[i] for i in (0, 2, 1)])
    np.testing.assert_array_equal(found.actions[:, 0], wanted.astype(np.float32))
    assert found.images[:, 0, 0, 0, 0].tolist() == [1, 2, 3, 21, 22, 11, 12, 13, 14]
    assert found.suites == ("unknown",)


def test_files_say_which_renderer_drew_them(tmp_path):
    write_official(tmp_path / "drawer_demo.hdf5")
    assert load_demonstrations(tmp_path, H).renderer() == "faithful"
    with h5py.File(tmp_path / "drawer_demo.hdf5", "r+") as h5:
        h5["data"].attrs["pixels"] = "fast"
    assert load_demonstrations(tmp_path, H).renderer() == "fast"
    write_official(tmp_path / "other_demo.hdf5")
    mixed = load_demonstrations(tmp_path, H)
    assert mixed.pixels == ("faithful", "fast")
    with pytest.raises(ValueError, match="two renderers"):
        mixed.renderer()


def test_a_demonstration_that_is_there_twice_counts_once(tmp_path, capsys):
    first = write_demos(tmp_path / "a.hdf5")
    once = load_demonstrations(tmp_path, H)
    assert not capsys.readouterr().out
    (tmp_path / "b.hdf5").write_bytes(first.read_bytes())
    twice = load_demonstrations(tmp_path, H)
    assert len(twice) == len(once) and twice.digest() == once.digest()
    assert "2 demonstrations are there again" in capsys.readouterr().out


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "elsewhere" / ".parts").mkdir(parents=True)
    write_demos(tmp_path / "elsewhere" / "a.hdf5")
    write_demos(tmp_path / "elsewhere" / ".parts" / "b.hdf5")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "data")
    assert demonstration_files(tmp_path / "data") == [tmp_path / "data" / "link" / "a.hdf5"]


def test_grippers_of_another_convention_are_told(tmp_path):
    with h5py.File(write_demos(tmp_path / "a.hdf5"), "r+") as h5:
        actions = h5["data/demo_1/actions"]
        actions[:, -1] = actions[:, -1] > 0
    with pytest.raises(
        ValueError, match=r"a.hdf5: /data/demo_1: the gripper's actions are 0 and 1"
    ):
        load_demonstrations(tmp_path, H)


def test_other_samples_have_another_digest(tmp_path):
    data = distinct_samples(tmp_path)
    assert data.digest() == replace(data).digest()
    assert data.digest() != replace(data, actions=data.actions[::-1]).digest()
    assert data.digest() != replace(data, instructions=("pick up the milk", "eat it")).digest()


# -- bad files -----------------------------------------------------------------------------------


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


def test_more_pictures_than_memory_are_told_before_they_are_read(tmp_path, monkeypatch):
    write_demos(tmp_path / "a_demo.hdf5", steps=11)
    sample = 2 * 32 * 32 * 3  # bytes; 6 samples of each of the two demonstrations
    for free, processes, fits in (
        (12 * sample, 1, True),
        (12 * sample - 1, 1, False),
        (24 * sample - 1, 2, False),
    ):
        told = SimpleNamespace(available=free)
        monkeypatch.setattr("psutil.virtual_memory", lambda told=told: told)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        if fits:
            assert len(load_demonstrations(tmp_path, H, stride=2)) == 12
        else:
            with pytest.raises(MemoryError, match="pictures of 12 samples"):
                load_demonstrations(tmp_path, H, stride=2)


def test_damage_within_a_file_is_one_clear_line(tmp_path):
    """h5py tells of it by OSError, KeyError and RuntimeError, depending on where it is."""
    file, rng, told = write_demos(tmp_path / "a_demo.hdf5"), np.random.default_rng(0), 0
    whole = file.read_bytes()
    for _ in range(150):
        at = int(rng.integers(8, 4000))  # the groups' tables
        file.write_bytes(whole[:at] + rng.bytes(64) + whole[at + 64 :])
        try:
            load_demonstrations(tmp_path, H)
        except ValueError as error:
            told += 1
            assert file.name in str(error) and "\n" not in str(error)
    assert told > 10


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


def recorded(file: Path, driver: list[int]) -> Path:
    """A recording of these drivers, places in DRIVERS."""
    write_demos(file, demos=1, steps=len(driver))
    with h5py.File(file, "a") as h5:
        h5["data/demo_0/driver"] = np.array(driver, np.uint8)
    return file


def test_a_chunk_is_a_persons_when_they_drove_all_of_it(tmp_path):
    recorded(tmp_path / "a_demo.hdf5", [0, 0, 1, 1, 2, 2, 0, 1, 1])
    write_demos(tmp_path / "b_demo.hdf5", demos=1, steps=3)
    data = load_demonstrations(tmp_path, horizon=3)
    whose = [POLICY] * 2 + [HUMAN] * 2 + [POLICY] * 3 + [HUMAN] * 2 + [DEMONSTRATED] * 3
    assert data.source.tolist() == whose


@pytest.mark.parametrize(("success", "samples"), [(0, 3), (1, 5)])
def test_what_came_after_a_cut_is_not_learnt(tmp_path, success, samples):
    with h5py.File(recorded(tmp_path / "a_demo.hdf5", [1] * 5), "a") as h5:
        h5["data/demo_0/rewards"] = np.array([0, 0, 0, 0, success], np.uint8)
    data = load_demonstrations(tmp_path, horizon=3)
    assert len(data) == len(data.images) == samples
    if not success:
        with pytest.raises(ValueError, match="none of these recordings holds a chunk of 8 steps"):
            load_demonstrations(tmp_path, H)


def test_weights_decide_how_often_a_chunk_is_drawn(tmp_path):
    recorded(tmp_path / "a_demo.hdf5", [0] * 100 + [1] * 300)
    write_demos(tmp_path / "b_demo.hdf5", demos=1, steps=20)
    data = load_demonstrations(tmp_path, horizon=1)
    rows = np.arange(len(data))

    def counts(human: float, policy: float) -> list[int]:
        drawn = data.source[data.drawn(rows, human, policy, seed=0)]
        return [int((drawn == source).sum()) for source in (DEMONSTRATED, HUMAN, POLICY)]

    assert counts(1, 1) == [20, 300, 100]
    assert counts(1, 0) == [20, 300, 0]  # HG-DAgger
    assert counts(3, 0) == [20, 900, 0]
    half = counts(2.5, 0.1)
    assert half[0] == 20 and 700 < half[1] < 800 and 2 <= half[2] <= 20
    assert counts(2.5, 0.1) == half  # of the seed alone


def test_balance_draws_a_small_task_as_often_as_a_large_one(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5", "pick up the milk", demos=9, steps=20)
    write_demos(tmp_path / "b_demo.hdf5", "open the drawer", demos=1, steps=20)
    recorded(tmp_path / "c_demo.hdf5", [0] * 500)  # the policy's own counts nothing here
    data = load_demonstrations(tmp_path, horizon=1)
    rows = np.arange(len(data))

    def counts(balance: float) -> list[int]:
        drawn = data.drawn(rows, human=1, policy=0, seed=0, balance=balance)
        assert set(drawn) == set(rows[data.source == DEMONSTRATED])
        return [int((data.demo[drawn] < 9).sum()), int((data.demo[drawn] == 9).sum())]

    assert counts(0) == [180, 20]
    assert counts(0.5)[0] == 180 and 55 <= counts(0.5)[1] <= 65
    assert counts(1) == [180, 180]


def test_a_first_chunk_can_be_drawn_more_often(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5", demos=3, steps=20)
    recorded(tmp_path / "b_demo.hdf5", [1] * 10)  # a person's recording has no opening
    data = load_demonstrations(tmp_path, horizon=4, stride=2)
    drawn = data.drawn(np.arange(len(data)), human=1, policy=1, seed=0, opening=3)
    times = np.bincount(drawn, minlength=len(data)).reshape(-1, 5)
    opening, later = [3, 3, 1, 1, 1], [1] * 5
    assert times.tolist() == [opening, later] * 3 + [later]
    assert data.step[:11].tolist() == [*range(0, 20, 2), 0]


def test_training_rows_without_weights_are_the_split_itself(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5", demos=4)
    data = load_demonstrations(tmp_path, H)
    config = TrainConfig(steps=1, human_weight=7, policy_weight=3)
    plain = data.split(config.val_fraction)
    for rows, expected in zip(training_rows(data, config), plain, strict=True):
        assert rows.tolist() == expected.tolist()


def test_recordings_that_only_the_policy_drove_say_what_to_do(tmp_path):
    recorded(tmp_path / "a_demo.hdf5", [0] * 9)
    data = load_demonstrations(tmp_path, H)
    with pytest.raises(ValueError, match="--policy-weight"):
        training_rows(data, TrainConfig(steps=1))
    assert len(training_rows(data, TrainConfig(steps=1, policy_weight=1))[0]) == 9


@pytest.mark.parametrize("driver", [[0, 1], [0, 1, 9]])
def test_drivers_that_do_not_fit_are_told(tmp_path, driver):
    file = recorded(tmp_path / "a_demo.hdf5", [0, 0, 0])
    with h5py.File(file, "a") as h5:
        del h5["data/demo_0/driver"]
        h5["data/demo_0/driver"] = driver
    with pytest.raises(ValueError, match=r"a_demo\.hdf5.*driver must be 3 numbers below 3"):
        load_demonstrations(tmp_path, H)
