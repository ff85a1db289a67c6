"""Episodes on disk."""

import io
import json
import os
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from models.whole import whole_file
from studio.events import (
    Advance,
    Advice,
    LightPerturbation,
    LoadScene,
    Mark,
    RobotStart,
    Run,
    SceneSpec,
    SensorNoise,
    SetInstruction,
    SetLight,
    SetSensor,
    Status,
    StepEvent,
)
from studio.feed import MAX_PLANS, Feed
from studio.loop import ControlLoop
from studio.movie import write_mp4
from studio.recorder import NothingRecorded, Recorder, write_zip


@pytest.fixture
def recorded(point_mass, drifter):
    jpeg = io.BytesIO()
    Image.new("RGB", (256, 256), (200, 30, 30)).save(jpeg, "JPEG")
    point_mass.frames = lambda: {"agentview": jpeg.getvalue(), "wrist": jpeg.getvalue()}
    recorder, feed = Recorder({"checkpoint": "abc"}), Feed()
    loop = ControlLoop(point_mass, drifter, [recorder, feed], hz=0, frames="every")
    loop.apply(LoadScene(SceneSpec(init=4)))
    loop.apply(Run())
    loop.tick()
    loop.apply(SetInstruction("push the plate"))
    while loop.state.status is Status.RUNNING:
        loop.tick()
    return recorder, feed


def test_zip_holds_every_event_in_order(recorded, tmp_path):
    episode = recorded[0].episode()
    archive = zipfile.ZipFile(write_zip(episode, tmp_path / "episode.zip"))
    rows = [json.loads(line) for line in archive.read("episode.jsonl").splitlines()]
    kinds = [row["event"] for row in rows]
    assert kinds[0] == "episode" and kinds[-1] == "end"
    assert rows[0]["provenance"] == {"checkpoint": "abc"} and rows[0]["scene"]["init"] == 4
    assert (kinds.count("step"), kinds.count("plan"), kinds.count("mark")) == (40, 5, 1)
    assert rows[kinds.index("mark")]["text"] == "push the plate"
    steps = [row["step"] for row in rows if row["event"] == "step"]
    assert steps == list(range(1, 41))
    plans = np.load(io.BytesIO(archive.read("plans.npz")))
    assert plans["plan_004/energies"].shape == (16, 1)
    assert plans["plan_000/chunk"].shape == (8, 7)
    assert rows[-1]["mean_final_energy"] == pytest.approx(episode.mean_final_energy)


def test_an_episode_says_how_it_was_seen_and_how_it_started(point_mass, drifter, tmp_path):
    recorder = Recorder({})
    loop = ControlLoop(point_mass, drifter, [recorder], hz=0)
    loop.apply(SetLight(LightPerturbation(intensity=40)))
    loop.apply(SetSensor(SensorNoise("fog", 3)))
    loop.apply(LoadScene(SceneSpec(robot=RobotStart(0.2, 101), layout="swap")))
    loop.apply(Advance(1))
    loop.tick()
    archive = zipfile.ZipFile(write_zip(recorder.episode(), tmp_path / "episode.zip"))
    first = json.loads(archive.read("episode.jsonl").splitlines()[0])
    assert first["perturbation"]["light"]["intensity"] == 40
    assert first["perturbation"]["sensor"] == {"kind": "fog", "severity": 3}
    assert first["scene"]["robot"] == {"offset": 0.2, "direction": 101}
    assert first["scene"]["layout"] == "swap"


def test_what_the_expert_would_have_done_is_kept_with_its_plan(recorded, tmp_path):
    recorder = recorded[0]
    record = recorder.episode().plans[2]
    actions = np.full((8, 7), 0.25, np.float32)
    recorder.on_advice(record, Advice(actions, actions, 4.5, "pick milk_1"))
    other = replace(record, index=3, plan=replace(record.plan, seed=1))
    recorder.on_advice(other, Advice(actions, actions, 1.0, "of another episode"))
    archive = zipfile.ZipFile(write_zip(recorder.episode(), tmp_path / "episode.zip"))
    rows = [json.loads(line) for line in archive.read("episode.jsonl").splitlines()]
    asked = {row["index"]: row["expert_energy"] for row in rows if "expert_energy" in row}
    assert asked == {2: 4.5}
    plans = np.load(io.BytesIO(archive.read("plans.npz")))
    np.testing.assert_array_equal(plans["plan_002/expert"], actions)
    assert "plan_001/expert" not in plans


def test_what_is_done_to_a_finished_scene_is_no_part_of_its_episode(recorded):
    recorder, _ = recorded
    episode = recorder.episode()
    recorder.on_mark(Mark(40, "camera", "distance 120%"))
    recorder.on_frame(replace(episode.frames[-1], jpegs={}))
    assert recorder.episode().marks == episode.marks
    assert len(recorder.episode().frames) == len(episode.frames)
    recorder.on_frame(replace(episode.frames[-1], step=41))  # had the last step's been missing
    assert len(recorder.episode().frames) == len(episode.frames) + 1


def test_film_has_a_frame_per_step(recorded, tmp_path):
    import imageio.v3 as iio

    seen = []
    path = write_mp4(recorded[0].episode(), tmp_path / "episode.mp4", 5.2, seen.append)
    film = iio.imread(path)
    assert len(film) == 41 and seen[-1] == 1.0
    assert film[20, 100, 100, 0] > 150  # the camera's red
    assert list(tmp_path.iterdir()) == [path]


def test_feed_keeps_the_episode(recorded):
    snapshot = recorded[1].snapshot()
    assert [record.step for record in snapshot.plans] == [0, 8, 16, 24, 32]
    assert snapshot.episode == 1 and snapshot.marks[0].step == 1
    assert snapshot.frame.step == 40


def held_by(act):
    """Bytes that Python holds after `act` and did not before."""
    tracemalloc.start()
    act()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def test_a_long_episode_takes_no_memory(recorded, drifter, tmp_path):
    recorder, feed = recorded
    record, frame = recorder.episode().plans[0], recorder.episode().frames[0]
    image = np.zeros((128, 128, 3), np.uint8)
    seen = replace(record.plan.observation, images={"agentview": image, "wrist": image})

    def go_on(steps):
        for step in range(41, 41 + steps):
            zeros = np.zeros(8, np.float32)
            recorder.on_step(StepEvent(step, zeros[:7], zeros, False, driver="human"))
            recorder.on_frame(replace(frame, step=step))
            if step % 8 == 0:
                plan = replace(record.plan, observation=replace(seen, images=dict(seen.images)))
                recorder.on_plan(step, plan)
                feed.on_plan(step, plan)

    assert held_by(lambda: go_on(4000)) < 1_000_000
    assert len(recorder.episode().frames) == 41 + 4000
    assert len(recorder.episode().plans) == 5 + 500
    window = [record.index for record in feed.snapshot().plans]
    assert window == list(range(505 - MAX_PLANS, 505))
    path = tmp_path / "episode.zip"
    assert held_by(lambda: write_zip(recorder.episode(), path)) < 1_000_000
    archive = zipfile.ZipFile(path)
    kinds = [json.loads(line)["event"] for line in archive.read("episode.jsonl").splitlines()]
    assert (kinds.count("step"), kinds.count("plan")) == (4040, 505)
    plans = np.load(io.BytesIO(archive.read("plans.npz")))
    assert plans["plan_504/wrist"].shape == (128, 128, 3)


def test_a_full_disk_ends_the_keeping_and_not_the_episode(recorded, monkeypatch, tmp_path):
    recorder, _ = recorded

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    recorder.on_step(StepEvent(41, np.zeros(7), np.zeros(8), False))
    monkeypatch.undo()
    archive = zipfile.ZipFile(write_zip(recorder.episode(), tmp_path / "episode.zip"))
    rows = [json.loads(line) for line in archive.read("episode.jsonl").splitlines()]
    assert [row["event"] for row in rows].count("step") == 40
    assert rows[-2]["message"].startswith("No space left on device: steps from here on")


def test_nothing_recorded_says_so():
    with pytest.raises(NothingRecorded):
        Recorder({}).episode()


def test_files_have_the_mode_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.zip") as temporary:
            temporary.write_bytes(b"whole")
    finally:
        os.umask(before)
    assert (tmp_path / "a.zip").stat().st_mode & 0o777 == 0o640


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(OSError), whole_file(tmp_path / "a.zip") as temporary:
        temporary.write_bytes(b"half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
