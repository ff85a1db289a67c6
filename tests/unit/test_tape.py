"""What is written while an episode runs, and read back whole, cut off or of another version."""

from __future__ import annotations

import json
import resource
import signal
import tracemalloc

import numpy as np
import pytest

from studio import recording, replay
from studio.events import (
    Advance,
    CameraPerturbation,
    Comparison,
    EpisodeEvent,
    Frame,
    LoadScene,
    Outcome,
    RobotStart,
    Run,
    SceneSpec,
    SetCamera,
    SetInstruction,
    Status,
    StepEvent,
)
from studio.loop import ControlLoop
from studio.tape import TAPE, THUMB, Tape, pack, unpack
from tests.unit.conftest import room_for


class Source:
    """A simulator whose state counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def get_state(self) -> np.ndarray:
        self.asked += 1
        return np.array([self.asked, np.pi])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "recordings"


@pytest.fixture
def tape(folder):
    return Tape(folder, Source(), {"checkpoint": {"name": "tiny"}})


def drive(tape: Tape, drivers: str, outcome: Outcome | None = Outcome.SUCCESS) -> None:
    """An episode; a letter per step: p the policy, h a person, s both."""
    names = {"p": "policy", "h": "human", "s": "shared"}
    tape.on_episode(EpisodeEvent(SceneSpec(init=3), "reach", versions={"mujoco": "1"}))
    tape.on_frame(Frame(0, {"agentview": b"first"}, 0.0))
    for step, letter in enumerate(drivers, 1):
        action = np.full(7, step / 3, np.float32)
        tape.on_step(StepEvent(step, action, np.zeros(8, np.float32), False, driver=names[letter]))
    tape.on_frame(Frame(len(drivers), {"agentview": b"last"}, 0.0))
    if outcome:
        tape.on_episode(EpisodeEvent(SceneSpec(init=3), "reach", outcome, len(drivers)))


def only(folder):
    (found,) = folder.iterdir()
    return found


def test_an_episode_that_a_person_touched_is_recorded_whole(tape, folder):
    drive(tape, "pphhsp")
    found = only(folder)
    assert tape.status()["id"] == found.name and tape.status()["human"] == 3
    read = recording.read(found)
    assert read.runs() == [("policy", 2), ("human", 2), ("shared", 1), ("policy", 1)]
    assert read.scene == SceneSpec(init=3) and read.outcome is Outcome.SUCCESS
    assert read.states.tolist() == [[i, np.pi] for i in range(1, 8)]
    assert (read.actions[4] == np.full(7, 5 / 3, np.float32)).all()
    assert read.provenance["checkpoint"] == {"name": "tiny"}
    assert (found / THUMB).read_bytes() == b"last"
    assert not recording.being_written(found)


def test_the_policys_own_episodes_are_recorded_when_asked_for(tape, folder):
    drive(tape, "ppp")
    assert not folder.exists() and tape.status()["id"] is None
    assert len(recording.read(folder / tape.save(1))) == 3  # afterwards
    drive(tape, "pp", None)
    tape.record_every(True)  # in the middle
    drive(tape, "pppp")
    lengths = sorted(len(recording.read(f)) for f in folder.iterdir())
    assert lengths == [2, 3, 4]


def test_nothing_to_record_says_so(tape):
    with pytest.raises(ValueError, match="run the scene"):
        tape.save(0)


def test_a_tape_is_held_while_it_is_written_and_marked_when_the_page_closes(tape, folder):
    drive(tape, "hh", None)
    found = only(folder)
    assert recording.being_written(found) and (found / THUMB).read_bytes() == b"first"
    assert recording.read(found).outcome is None  # so far
    tape.on_comparison(Comparison(1, human=7.5, policy=6.0))
    tape.close()
    assert not recording.being_written(found)
    read = recording.read(found)
    assert read.comparisons == (Comparison(1, human=7.5, policy=6.0),)
    assert (read.outcome, read.message) == (Outcome.STOPPED, "the page was closed")


def test_a_discarded_recording_is_written_no_more(tape, folder):
    drive(tape, "hh", None)
    found = only(folder)
    tape.let_go(found.name)
    size = (found / TAPE).stat().st_size
    tape.on_step(StepEvent(3, np.zeros(7), np.zeros(8), False, driver="human"))
    assert (found / TAPE).stat().st_size == size and tape.status()["id"] is None


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_tape_that_was_cut_off_holds_what_came_before(tape, folder, cut):
    drive(tape, "hhhhhh", None)
    path = only(folder) / TAPE
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    read = recording.read(path.parent)
    lost = 1 + whole[-cut:-1].count(b"\n")
    assert len(read) == 6 - lost and len(read.states) == 7 - lost
    assert read.outcome is None and read.message == recording.CUT_SHORT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "newer studio"),
        ({"event": "tape"}, "no beginning"),
        ({"scene": {"suite": "libero_object"}}, "damaged"),
        ({"state": "???"}, "damaged"),
    ],
)
def test_another_version_is_refused_with_its_reason(tape, folder, change, words):
    drive(tape, "h")
    path = only(folder) / TAPE
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]) + "\n")
    with pytest.raises(recording.Unreadable, match=words):
        recording.read(path.parent)


def test_a_replay_that_is_ended_tidies_up(tmp_path, monkeypatch):
    tidied = []

    def develop(*_):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            tidied.append(True)

    monkeypatch.setattr(replay, "develop", develop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="ended by SIGTERM"):
        replay.main([str(tmp_path)])
    assert tidied and signal.getsignal(signal.SIGTERM) is before


def test_a_folder_without_a_tape_is_told_in_one_line(tmp_path, capsys):
    assert replay.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"replay: {tmp_path}: no recording here, tape.jsonl is missing"


def test_a_full_disk_ends_the_recording_and_not_the_episode(tape, folder):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, old[1]))
    try:
        drive(tape, "h" * 40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, before)
    assert tape.status()["steps"] == 40 and "too large" in tape.status()["problem"]
    path = only(folder) / TAPE
    assert path.read_bytes().endswith(b"}\n")
    read = recording.read(path.parent)
    assert 3 < len(read) < 40
    assert f"at step {len(read) + 1}:" in tape.status()["problem"]


def test_a_long_recording_takes_no_more_memory(tape, folder):
    drive(tape, "h" * 100, None)
    tracemalloc.start()
    zeros = np.zeros(8, np.float32)
    for step in range(101, 3101):
        tape.on_step(StepEvent(step, zeros[:7], zeros, False, driver="human"))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000 < (only(folder) / TAPE).stat().st_size


def test_states_are_kept_bit_for_bit():
    values = np.random.default_rng(0).normal(size=50)
    assert unpack(pack(values)).tobytes() == values.tobytes()


def test_a_tape_in_the_loop_knows_how_the_scene_was_seen(point_mass, drifter, folder):
    point_mass.get_state = lambda: point_mass.x.astype(float)
    tape = Tape(folder, point_mass, {})
    tape.record_every(True)
    loop = ControlLoop(point_mass, drifter, [tape], hz=0)
    loop.apply(LoadScene(SceneSpec(robot=RobotStart(0.1, 7))))
    for command in (Advance(3), SetInstruction("push the plate"), Run()):
        loop.apply(command)
        while loop.state.status is Status.RUNNING:
            loop.tick()
    loop.apply(SetCamera(CameraPerturbation(distance=120)))  # the episode has ended
    read = recording.read(only(folder))
    assert read.scene.robot == RobotStart(0.1, 7) and read.outcome is Outcome.TIMEOUT
    assert [(v.step, v.instruction) for v in read.views] == [
        (0, "reach the goal"),
        (3, "push the plate"),
    ]
    assert read.view(2).instruction == "reach the goal"
    assert read.view(3).instruction == read.instructions[1] == "push the plate"
    assert [plan["step"] for plan in read.plans] == [0, 8, 16, 24, 32]
    assert read.states[:, 0] == pytest.approx(0.1 * np.arange(41), abs=1e-5)
    assert (read.proprio == read.states[1:].astype(np.float32)).all()


def test_an_episode_that_found_no_room_is_still_at_hand(tape, folder):
    with room_for(3000):
        drive(tape, "p" * 40, None)
        with pytest.raises(ValueError, match="Make room, then press Keep"):
            tape.save(1)
        assert tape.status()["id"] is None and not list(folder.iterdir())
        tape.on_step(StepEvent(41, np.zeros(7), np.zeros(8), False, driver="policy"))
    assert tape.save(1) == only(folder).name
    assert len(recording.read(only(folder))) == 41 and not tape.status()["problem"]


def test_what_is_discarded_while_it_runs_has_an_end(tape, folder):
    drive(tape, "hhh", None)
    tape.let_go(only(folder).name)
    assert recording.read(only(folder)).message == "discarded while it ran"
    assert tape.status()["discarded"] and tape.status()["id"] is None
    drive(tape, "h", None)
    assert not tape.status()["discarded"] and len(list(folder.iterdir())) == 2
