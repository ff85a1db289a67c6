"""The page's messages."""

import json
import struct

import numpy as np
import pytest

from models.config import SamplerConfig
from studio import wire
from studio.analysis import AnalysisRequest
from studio.events import (
    Advance,
    CameraPerturbation,
    Drive,
    Frame,
    LightPerturbation,
    LoadScene,
    NextInstruction,
    Replan,
    RobotStart,
    SceneSpec,
    SensorNoise,
    SetAssists,
    SetCamera,
    SetDriver,
    SetGuard,
    SetLight,
    SetSensor,
    SetSequence,
)
from studio.guard import GuardSettings
from studio.sequence import Sequence
from studio.state import LoopState
from studio.teleop import Assists, DriveInput
from studio.wheel import WheelState

LOAD = {"type": "load", "suite": "libero_goal", "task": 3, "init": 41, "seed": 2}


def test_commands_by_name():
    assert wire.parse_command(LOAD) == LoadScene(SceneSpec("libero_goal", 3, 41, 2))
    assert wire.parse_command({"type": "advance", "chunk": True}) == Advance(1, True)
    camera = wire.parse_command({"type": "camera", "fov": 60, "distance": 90.0})
    assert camera == SetCamera(CameraPerturbation(fov=60.0, distance=90.0))
    light = wire.parse_command({"type": "light", "intensity": 50})
    assert light == SetLight(LightPerturbation(intensity=50.0))
    noise = wire.parse_command({"type": "sensor", "kind": "fog", "severity": 3.0})
    assert noise == SetSensor(SensorNoise("fog", 3))
    start = {"robot": {"offset": 0.2, "direction": 150}, "layout": "swap", "goal": 2}
    assert wire.parse_command(LOAD | start) == LoadScene(
        SceneSpec("libero_goal", 3, 41, 2, 2, RobotStart(0.2, 150), "swap")
    )
    assert wire.parse_command({"type": "sampler", "steps": 20.0}).sampler == SamplerConfig(steps=20)
    assert wire.parse_command({"type": "nonsense"}) is None
    assert wire.parse_command({"type": []}) is None


def test_driving_commands_by_name():
    held = {"type": "drive", "number": 7, "x": -1, "go": True, "speed": 0.3, "frame": "camera"}
    assert wire.parse_command(held) == Drive(
        DriveInput(7, x=-1.0, go=True, speed=0.3, frame="camera")
    )
    assert wire.parse_command({"type": "driver", "driver": "human"}) == SetDriver("human")
    assists = wire.parse_command({"type": "assists", "upright": True, "limit": 0.5})
    assert assists == SetAssists(Assists(upright=True, limit=0.5))
    guard = wire.parse_command({"type": "guard", "on": True, "k": 2, "plans": 4, "rule": "slope"})
    assert guard == SetGuard(GuardSettings(on=True, k=2.0, plans=4, rule="slope"))
    assert wire.parse_command({"type": "replan", "chains": 4}) == Replan(4)
    items = {"type": "sequence", "items": ["open it", "close it"], "after": 40}
    assert wire.parse_command(items) == SetSequence(Sequence(("open it", "close it"), 40))
    assert wire.parse_command({"type": "next"}) == NextInstruction()


def test_the_wheel_as_each_page_sees_it():
    state = WheelState(driver=1, asking=2)
    driver, asker, third = (wire.wheel_message(state, page) for page in (1, 2, 3))
    assert driver == {"mine": True, "taken": False, "asking": False, "asked": True}
    assert asker == {"mine": False, "taken": True, "asking": True, "asked": False}
    assert third == {"mine": False, "taken": True, "asking": False, "asked": False}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "load", "suite": "libero_goal", "task": 0.5, "init": 0, "seed": 0},
        {"type": "load", "suite": "libero_goal", "task": 0},
        {"type": "load", "suite": "libero_goal", "task": True, "init": 0, "seed": 0},
        {"type": "speed", "hz": float("nan")},
        {"type": "speed", "hz": "fast"},
        {"type": "speed", "hz": 10**400},
        {**LOAD, "seed": 10**400},
        {"type": "camera", "distance": 1e12},
        {"type": "light", "intensity": -1},
        {"type": "light", "hue": "red"},
        {"type": "sensor", "kind": "snow"},
        {"type": "sensor", "kind": 3},
        {"type": "sensor", "kind": "fog", "severity": 2.5},
        {**LOAD, "robot": 0.1},
        {**LOAD, "robot": {"offset": 9}},
        {**LOAD, "robot": {"direction": 1.5}},
        {**LOAD, "layout": "mirrored"},
        {"type": "sampler", "steps": 1e9},
        {"type": "sampler", "steps": 1.5},
        {"type": "instruction", "text": ""},
        {"type": "instruction", "text": "half \ud83d"},
        {"type": "driver", "driver": "nobody"},
        {"type": "driver"},
        {"type": "drive", "x": 2},
        {"type": "drive", "x": "left"},
        {"type": "drive", "go": 1},
        {"type": "drive", "frame": "moon"},
        {"type": "assists", "limit": 0},
        {"type": "guard", "plans": 0},
        {"type": "guard", "score": "mood"},
        {"type": "replan", "chains": 1000},
        {"type": "sequence"},
        {"type": "sequence", "items": "open it"},
        {"type": "sequence", "items": [3]},
        {"type": "sequence", "items": ["x" * 501]},
        {"type": "sequence", "items": ["wave"] * 21},
    ],
)
def test_bad_commands_say_so(message):
    with pytest.raises(ValueError):
        wire.parse_command(message)


def test_analysis_requests():
    message = {"type": "slice", "stamp": 4, "plan": 2, "dims": [2, 5], "span": 2, "grid": 30}
    request = wire.parse_analysis(message)
    assert request == AnalysisRequest("slice", 4, 2, dims=(2, 5), span=2.0, grid=30)


@pytest.mark.parametrize(
    "fields",
    [
        {"span": -1},
        {"span": float("inf")},
        {"chains": 1000},
        {"plan": None},
        {"dims": 3},
    ],
)
def test_bad_analyses_say_so(fields):
    with pytest.raises(ValueError):
        wire.parse_analysis({"type": "descent", "stamp": 1, "plan": 0, **fields})


def test_frames_unpack():
    frame = Frame(7, {"agentview": b"abc", "wrist": b"de"}, 1.5)
    seen = {"agentview": np.zeros((8, 8, 3), np.uint8)}
    data = wire.frame_message(frame, 2, seen)
    (length,) = struct.unpack("<I", data[:4])
    header, body = json.loads(data[4 : 4 + length]), data[4 + length :]
    assert header["cameras"] == ["agentview", "wrist", "policy_agentview"]
    assert sum(header["sizes"]) == len(body) and body.startswith(b"abcde")
    assert (header["step"], header["episode"]) == (7, 2)


def test_state_is_json():
    message = json.loads(json.dumps(wire.state_message(LoopState())))
    assert message["sampler"]["steps"] == 15
    assert message["light"]["intensity"] == 100 and message["sensor"]["kind"] == "none"
    assert message["scene"]["robot"] == {"offset": 0, "direction": 1}
