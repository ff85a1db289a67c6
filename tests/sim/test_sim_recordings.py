"""A recording of the real simulator: replayed bit for bit, read by other code, trained on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from models.config import SamplerConfig
from models.policy import Policy
from studio import recording, rescore
from studio.events import (
    Advance,
    CameraPerturbation,
    LightPerturbation,
    LoadScene,
    Outcome,
    RobotStart,
    SceneSpec,
    SetCamera,
    SetInstruction,
    SetLight,
    SetSampler,
    Status,
)
from studio.loop import ControlLoop
from studio.sim.process import SimCrashed, SimProcess
from studio.tape import TAPE, Tape
from tests.helpers import ROOT

SCENE = SceneSpec("libero_object", 1, 41, 3, robot=RobotStart(0.1, 7))


@pytest.fixture(scope="module")
def sim():
    with SimProcess() as sim:
        yield sim


@pytest.fixture(scope="module")
def policy(debug_checkpoint):
    return Policy.from_pretrained(debug_checkpoint, device="cpu")


def play(loop: ControlLoop, *commands: object) -> None:
    for command in commands:
        loop.apply(command)
        while loop.state.status is Status.RUNNING:
            loop.tick()


@pytest.fixture(scope="module")
def recorded(sim, policy, tmp_path_factory) -> Path:
    """24 steps; the camera and the light move and other words are said on the way."""
    tape = Tape(tmp_path_factory.mktemp("recordings"), sim, {"checkpoint": {"sha256": "abc"}})
    tape.record_every(True)
    loop = ControlLoop(sim, policy, [tape], hz=0, frames="none")
    play(
        loop,
        SetSampler(SamplerConfig(steps=2)),
        LoadScene(SCENE),
        Advance(10),
        SetCamera(CameraPerturbation(orbit_horizontal=30)),
        SetLight(LightPerturbation(intensity=50)),
        SetInstruction("pick up something else"),
        Advance(14),
    )
    tape.close()
    return tape._folder / tape.status()["id"]


@pytest.fixture(scope="module")
def replayed(recorded) -> dict:
    return replay(recorded)


def replay(folder: Path, *options: str) -> dict:
    """The last line that the command prints."""
    command = [sys.executable, "-m", "studio.replay", str(folder), *options]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(told.stdout.splitlines()[-1])


def test_recorded_actions_make_the_recorded_states_again(recorded, replayed):
    tape = recording.read(recorded)
    assert len(tape) == 24 and tape.outcome is Outcome.STOPPED
    assert replayed["differs"] is None and replayed["by"] == 0 and replayed["versions"] == {}
    with h5py.File(recorded / "demo.hdf5") as file:
        demo = file["data/demo_0"]
        np.testing.assert_array_equal(demo["states"], tape.states[:-1])
        np.testing.assert_array_equal(demo["actions"], tape.actions)


def test_other_code_reads_what_was_seen_and_who_drove(recorded, replayed):
    with h5py.File(recorded / "demo.hdf5") as file:
        assert file["data"].attrs["total"] == 24 and file["data"].attrs["num_demos"] == 1
        problem = json.loads(file["data"].attrs["problem_info"])
        assert problem["language_instruction"] == "pick up something else"
        demo = file["data/demo_0"]
        assert demo["obs/agentview_rgb"].shape == (24, 128, 128, 3)
        assert demo["driver"][:].tolist() == [0] * 24
        assert not demo.attrs["success"] and demo["rewards"][-1] == 0 and demo["dones"][-1] == 1
        told = json.loads(demo.attrs["instructions"])
        assert [step for step, _ in told][-1] == 10 and told[-1][1] == "pick up something else"
        before, after = demo["camera_pose"][9], demo["camera_pose"][10]
        assert before.shape == (3, 4) and np.linalg.det(before[:, :3]) == pytest.approx(1)
        assert np.linalg.norm(before[:, 3] - after[:, 3]) > 0.1  # it has moved
        light = demo["obs/agentview_rgb"][[9, 10]].mean((1, 2, 3))
        assert light[1] < 0.8 * light[0]


def test_states_alone_show_what_was_seen(recorded, replayed):
    def seen() -> dict[str, np.ndarray]:
        with h5py.File(recorded / "demo.hdf5") as file:
            return {name: values[:] for name, values in file["data/demo_0/obs"].items()}

    before = seen()
    assert replay(recorded, "--states")["source"] == "states"
    after = seen()
    np.testing.assert_array_equal(before["joint_states"], after["joint_states"])
    apart = np.abs(before["agentview_rgb"].astype(int) - after["agentview_rgb"])
    assert apart.mean() < 1  # positions lag by one substep of physics


def test_a_tape_of_other_physics_is_followed_by_its_states(recorded, tmp_path):
    rows = [json.loads(line) for line in (recorded / TAPE).read_text().splitlines()]
    rows[0]["versions"]["mujoco"] = "2.3.7"
    steps = [row for row in rows if row["event"] == "step"]
    steps[4]["action"][0] += 0.5  # what happened then is not what this action does
    (tmp_path / TAPE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = replay(tmp_path)
    assert found["differs"] == 5 and found["by"] > 1e-4
    assert found["versions"]["mujoco"][0] == "2.3.7"
    with h5py.File(tmp_path / "demo.hdf5") as file:
        states = recording.read(recorded).states[:-1]
        np.testing.assert_array_equal(file["data/demo_0/states"], states)


def test_a_recording_trains(recorded, replayed, tmp_path):
    command = [sys.executable, "-m", "models.train", "--preset", "debug", "--data", str(recorded)]
    command += ["--out", str(tmp_path / "run"), "--steps", "2", "--batch-size", "2"]
    command += ["--policy-weight", "1", "--stride", "1", "--device", "cpu", "--log-every", "1"]
    subprocess.run([*command, "--threads", "1"], cwd=ROOT, check=True)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(row)["step"] for row in rows} == {1, 2}


def test_scored_again_a_recording_s_plans_have_the_energies_they_had(recorded, policy):
    replay(recorded)  # from its actions: the very pictures
    tape = recording.read(recorded)
    known = {plan["step"]: plan["final"] for plan in tape.plans}
    scores = rescore.rescore(recorded, tape, policy, lambda done, total: None)
    again = {score.step: score.plan for score in scores}
    assert len(known) >= 3 and again.keys() >= known.keys()
    for step, energy in known.items():
        assert again[step] == pytest.approx(energy, abs=1e-4), step


def test_a_killed_simulator_leaves_what_was_recorded(policy, tmp_path):
    with SimProcess() as sim:
        tape = Tape(tmp_path, sim, {})
        tape.record_every(True)
        loop = ControlLoop(sim, policy, [tape], hz=0, frames="none")
        play(loop, SetSampler(SamplerConfig(steps=1)), LoadScene(SCENE), Advance(5))
        os.kill(sim.pid, signal.SIGKILL)
        with pytest.raises(SimCrashed):
            play(loop, Advance(5))
    (folder,) = tmp_path.iterdir()
    assert len(recording.read(folder)) >= 5
