"""The page's language: JSON messages to commands, feed contents to JSON messages and frames."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import struct

import cv2
import numpy as np

from models.config import SamplerConfig
from studio.analysis import AnalysisRequest
from studio.events import (
    Advance,
    CameraPerturbation,
    Command,
    Drive,
    Frame,
    LightPerturbation,
    LoadScene,
    NextInstruction,
    Pause,
    Replan,
    Reset,
    RobotStart,
    Run,
    SceneSpec,
    SensorNoise,
    SetAssists,
    SetCamera,
    SetDriver,
    SetGuard,
    SetInstruction,
    SetLight,
    SetSampler,
    SetSensor,
    SetSequence,
    SetSpeed,
)
from studio.feed import PlanRecord
from studio.guard import GuardSettings
from studio.jpeg import encode_jpeg
from studio.scores import plan_scores
from studio.sequence import Sequence
from studio.state import LoopState
from studio.teleop import Assists, DriveInput
from studio.wheel import WheelState

SIMPLE = {"run": Run, "pause": Pause, "reset": Reset, "next": NextInstruction}
FORMS = {  # commands that hold what a form on the page says
    "camera": (SetCamera, CameraPerturbation),
    "light": (SetLight, LightPerturbation),
    "sensor": (SetSensor, SensorNoise),
    "sampler": (SetSampler, SamplerConfig),
    "drive": (Drive, DriveInput),
    "assists": (SetAssists, Assists),
    "guard": (SetGuard, GuardSettings),
}
ANALYSES = ("slice", "descent")
THUMB_WIDTH = 96  # pixels


class BadMessage(ValueError):
    """The page sent something that is no request."""


def parse_command(message: dict) -> Command | None:
    """A page's message as a command, or None when it is none. Raises ValueError on bad values."""
    kind = message.get("type")
    if not isinstance(kind, str):
        return None
    fields = {name: value for name, value in message.items() if name != "type"}
    if kind in SIMPLE:
        return SIMPLE[kind]()
    try:
        if kind in FORMS:
            command, form = FORMS[kind]
            return command(_form(form, fields))
        match kind:
            case "load":
                return LoadScene(_scene(fields))
            case "advance":
                return Advance(_whole(fields.get("steps", 1)), bool(fields.get("chunk", False)))
            case "speed":
                return SetSpeed(_finite(fields["hz"]))
            case "instruction":
                return SetInstruction(str(fields["text"]))
            case "driver":
                return SetDriver(str(fields["driver"]))
            case "replan":
                return Replan(_whole(fields.get("chains", Replan().chains)))
            case "sequence":
                return SetSequence(_sequence(fields))
    except KeyError as missing:
        raise BadMessage(f"{kind}: the field {missing} is missing") from None
    return None


def parse_analysis(message: dict) -> AnalysisRequest:
    """A page's message of a type in `ANALYSES` as a request. Raises ValueError on bad values."""
    known = {f.name for f in dataclasses.fields(AnalysisRequest)} - {"kind"}
    fields = {name: value for name, value in message.items() if name in known}
    try:
        for name in ("stamp", "plan", "timestep", "grid", "chains"):
            if name in fields:
                fields[name] = _whole(fields[name])
        if "dims" in fields:
            fields["dims"] = tuple(_whole(d) for d in fields["dims"])
        if "span" in fields:
            fields["span"] = _finite(fields["span"])
        return AnalysisRequest(kind=message["type"], **fields)
    except TypeError as error:
        raise BadMessage(f"{message['type']}: {error}") from None


def _scene(fields: dict) -> SceneSpec:
    """The scene of a `load`; where it does not say how robot and objects start, LIBERO does."""
    robot, layout = fields.get("robot", {}), fields.get("layout", SceneSpec().layout)
    if not isinstance(robot, dict):
        raise BadMessage(f"load: robot is an object of offset and direction, not {robot!r}")
    goal = None if fields.get("goal") is None else _whole(fields["goal"])
    numbers = (_whole(fields[name]) for name in ("task", "init", "seed"))
    return SceneSpec(str(fields["suite"]), *numbers, goal, _form(RobotStart, robot), str(layout))


def _sequence(fields: dict) -> Sequence:
    """What to do one after the other; it begins with the first."""
    items = fields["items"]
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise BadMessage("sequence: items is a list of instructions")
    return Sequence(tuple(items), _whole(fields.get("after", 0)))


def _form(form: type, fields: dict) -> object:
    """A dataclass from fields by name; numbers that are whole become int where it wants int."""
    values = {}
    for f in dataclasses.fields(form):
        if f.name not in fields or f.type in ("str", "bool"):
            values[f.name] = fields.get(f.name, f.default)
            continue
        value = _finite(fields[f.name])
        values[f.name] = int(value) if f.type == "int" and value == int(value) else value
    return form(**values)


def _finite(value: object) -> float:
    with contextlib.suppress(OverflowError):  # an integer beyond every float
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    raise BadMessage(f"a finite number is needed, not {value!r}")


def _whole(value: object) -> int:
    number = _finite(value)
    if number != int(number):
        raise BadMessage(f"a whole number is needed, not {value!r}")
    return int(number)


def state_message(state: LoopState) -> dict:
    """STATE: everything the page's controls show."""
    plain = dataclasses.asdict(state)
    pose, nominal = plain.pop("pose"), plain.pop("nominal_pose")
    if pose and nominal:
        pose |= {"nominal_position": nominal["position"], "nominal_look": nominal["look"]}
    return {**plain, "pose": pose}


def plan_message(record: PlanRecord) -> dict:
    """PLAN: one point of the energy trace and its thumbnail."""
    plan = record.plan
    return {
        "index": record.index,
        "step": record.step,
        "initial": plan.initial_energy,
        "final": plan.final_energy,
        "scores": plan_scores(plan),
        "latency_ms": 1000 * plan.latency_s,
        "round_trip_ms": None if plan.round_trip_s is None else 1000 * plan.round_trip_s,
        "instruction": plan.observation.instruction,
        "thumb": thumbnail(plan.observation.images["agentview"]),
    }


def wheel_message(state: WheelState, page: int) -> dict:
    """WHEEL: whether this page drives, another one does, and who asks to."""
    return {
        "mine": state.driver == page,
        "taken": state.driver not in (None, page),
        "asking": state.asking == page,
        "asked": state.driver == page and state.asking is not None,
    }


def thumbnail(image: np.ndarray) -> str:
    """A small JPEG of `image` (uint8 RGB) as a data URI."""
    scale = THUMB_WIDTH / image.shape[1]
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small, 80)).decode()


def frame_message(frame: Frame, episode: int, seen: dict[str, np.ndarray] | None) -> bytes:
    """Length-prefixed JSON header, then the JPEGs; `seen` adds what the policy last saw."""
    pictures = dict(frame.jpegs)
    if seen:
        pictures |= {f"policy_{name}": encode_jpeg(image, 95) for name, image in seen.items()}
    header = json.dumps(
        {
            "step": frame.step,
            "episode": episode,
            "time": frame.time,
            "cameras": list(pictures),
            "sizes": [len(jpeg) for jpeg in pictures.values()],
        }
    ).encode()
    return b"".join([struct.pack("<I", len(header)), header, *pictures.values()])
