"""openpi's policy protocol: msgpack with NumPy arrays in it, and what its LIBERO client sends.

An array is a map with the byte keys `__ndarray__` (true), `data` (its bytes in C order), `dtype`
(such as "<f4") and `shape`; a NumPy scalar is one with `__npgeneric__`, `data` and `dtype`. Only
booleans, numbers and strings are read: no object is ever unpickled.

The client turns robosuite's images by 180°. Those are upside down (their rows run upwards), so a
turned one stands upright but is mirrored, left for right: what it shows at column x is at
column -x of ours. Mirroring the columns converts both ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from reprlib import repr as short
from typing import Any, NoReturn

import msgpack
import numpy as np

from models.types import Observation
from studio.sequence import MAX_INSTRUCTION

IMAGES = {"agentview": "observation/image", "wrist": "observation/wrist_image"}
STATE, PROMPT = "observation/state", "prompt"
KEYS = frozenset({*IMAGES.values(), STATE, PROMPT})
API_KEY = "EB_VLA_API_KEY"  # variable of the environment, which other users don't see
STATE_SIZE = 8  # end-effector position (m), axis-angle (rad), two gripper joints (m)
MIN_SIDE, MAX_SIDE = 16, 1024  # pixels of an image; openpi's client sends 224
MAX_PARTS = 10_000  # in all maps and lists of a message: numbers come as arrays

DTYPE = re.compile(r"[<>|=]?[biufSU]\d{1,4}")
SCALARS = {"S": bytes, "U": str}  # by kind of dtype; numbers otherwise


class BadRequest(ValueError):
    """A client sent what can't be answered; the text says what was expected."""


def pack(value: object) -> bytes:
    """msgpack of plain values, arrays and NumPy scalars. Raises BadRequest on other objects."""
    try:
        return msgpack.packb(value, default=_pack_array)
    except (TypeError, OverflowError) as error:
        raise BadRequest(f"this can't be sent ({error})") from None


def unpack(data: bytes) -> Any:
    """The value in `data`; its arrays are read-only. Raises BadRequest if it is malformed."""
    parts = 0

    def counted(part: Any) -> Any:
        nonlocal parts
        parts += 1 + len(part)
        if parts > MAX_PARTS:
            raise BadRequest(f"the message has more than {MAX_PARTS} parts")
        return part

    try:
        return msgpack.unpackb(
            data,
            object_hook=lambda found: _unpack_array(counted(found)),
            list_hook=counted,
            ext_hook=_refuse_extension,
            max_map_len=MAX_PARTS,
            max_array_len=MAX_PARTS,
            max_ext_len=0,  # of timestamps, which no hook sees
        )
    except BadRequest:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadRequest(f"the message is no msgpack as openpi sends it ({error})") from None


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise BadRequest(f"the message has an extension of msgpack, of type {code}")


def _pack_array(value: object) -> dict[bytes, object]:
    if not isinstance(value, np.ndarray | np.generic) or not DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip())
    if isinstance(value, np.ndarray):
        head = {b"__ndarray__": True, b"data": value.tobytes()}
        return {**head, b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _unpack_array(found: dict) -> object:
    if b"__ndarray__" in found:
        dtype, data, shape = _dtype(found), found.get(b"data"), found.get(b"shape")
        sizes = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        if not isinstance(data, bytes) or not sizes or prod(shape) * dtype.itemsize != len(data):
            raise BadRequest("an array's data don't fit its shape and dtype")
        return np.frombuffer(data, dtype).reshape(shape)
    if b"__npgeneric__" in found:
        dtype, data = _dtype(found), found.get(b"data")
        # A number where a text belongs would be its length.
        if not isinstance(data, SCALARS.get(dtype.kind, bool | int | float)):
            raise BadRequest("a scalar's data don't fit its dtype")
        with np.errstate(over="ignore"):
            value = dtype.type(data)
        return float(value) if dtype.kind == "f" else value.item()
    return found


def _dtype(found: dict) -> np.dtype:
    name = found.get(b"dtype")
    if not isinstance(name, str) or not DTYPE.fullmatch(name):
        found = short(name)
        raise BadRequest(f"dtype {found}: arrays hold booleans, numbers or strings, no objects")
    return np.dtype(name)


def mirrored(image: np.ndarray) -> np.ndarray:
    """Left for right, [S, S, 3]: an upright image as openpi's client sends it, and back."""
    return np.ascontiguousarray(image[:, ::-1])


def to_request(obs: Observation) -> dict[str, Any]:
    """What openpi's LIBERO client sends for `obs`."""
    images = {key: mirrored(obs.images[camera]) for camera, key in IMAGES.items()}
    return {**images, STATE: obs.proprio, PROMPT: obs.instruction}


def to_observation(request: Mapping[str, Any]) -> Observation:
    """The observation in a request, its images upright. Raises BadRequest if something is amiss."""
    if missing := sorted(KEYS - request.keys()):
        raise BadRequest(f"the request has no {missing[0]!r}")
    images = {camera: mirrored(_image(key, request[key])) for camera, key in IMAGES.items()}
    if len({image.shape for image in images.values()}) > 1:
        raise BadRequest("both images must have one size")
    prompt = request[PROMPT]
    if not isinstance(prompt, str) or not 0 < len(prompt.strip()) <= MAX_INSTRUCTION:
        raise BadRequest(f"'{PROMPT}' must be a text of at most {MAX_INSTRUCTION} characters")
    return Observation(images, numbers(STATE, request[STATE], (STATE_SIZE,)), prompt)


def _image(key: str, image: object) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise BadRequest(f"{key!r} must be a uint8 array")
    side = image.shape[0] if image.ndim else 0
    if image.shape != (side, side, 3) or not MIN_SIDE <= side <= MAX_SIDE:
        raise BadRequest(f"{key!r} must be square RGB, such as (224, 224, 3), not {image.shape}")
    return image


def numbers(key: str, value: object, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` as finite float32 of `shape` (None: any length but 0). Raises BadRequest."""
    try:
        if not isinstance(value, np.ndarray) and not _nested(value, len(shape)):
            raise TypeError
        with np.errstate(over="ignore"):
            array = np.asarray(value).astype(np.float32, casting="same_kind")
    except (TypeError, ValueError):
        raise BadRequest(f"{key!r} must be an array of numbers") from None
    fits = len(array.shape) == len(shape) and all(
        length > 0 if wanted is None else length == wanted
        for length, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("N" if n is None else str(n) for n in shape)
        raise BadRequest(f"{key!r} must have the shape ({wanted}), not {array.shape}")
    if not np.isfinite(array).all():
        raise BadRequest(f"{key!r} must hold finite numbers; it has one that is not")
    return array


def _nested(value: object, depth: int) -> bool:
    """Whether it is numbers in so many lists: of texts NumPy would make an array of the longest."""
    if not depth:
        return isinstance(value, int | float)
    return isinstance(value, list) and all(_nested(part, depth - 1) for part in value)
