"""A client of openpi's policy protocol, written from the protocol alone, for `test_serve`."""

from __future__ import annotations

import urllib.request

import msgpack
import numpy as np
from websockets.sync.client import connect


def to_map(value):
    if isinstance(value, np.ndarray):
        head = {b"__ndarray__": True, b"data": value.tobytes()}
        return {**head, b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def from_map(found):
    if b"__ndarray__" in found:
        return np.ndarray(found[b"shape"], np.dtype(found[b"dtype"]), found[b"data"])
    if b"__npgeneric__" in found:
        return np.dtype(found[b"dtype"]).type(found[b"data"])
    return found


class Client:
    """Metadata first, then one reply per request; a text frame is an error."""

    def __init__(self, port: int, key: str | None = None) -> None:
        headers = {"Authorization": f"Api-Key {key}"} if key else None
        self.socket = connect(
            f"ws://127.0.0.1:{port}",
            legacy=True,
            compression=None,
            max_size=None,
            additional_headers=headers,
        )
        self.metadata = msgpack.unpackb(self.socket.recv(60), object_hook=from_map)

    def infer(self, request: dict) -> dict:
        return self.exchange(msgpack.packb(request, default=to_map))

    def exchange(self, frame: str | bytes) -> dict:
        self.socket.send(frame)
        reply = self.socket.recv(120)
        if isinstance(reply, str):
            raise RuntimeError(reply)
        return msgpack.unpackb(reply, object_hook=from_map)


def robosuite_images(seed: int) -> dict[str, np.ndarray]:
    """Images as robosuite hands them out: the bottom row of the scene comes first."""
    rng = np.random.default_rng(seed)
    return {
        camera: rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)
        for camera in ("agentview", "wrist")
    }


def element(seed: int = 0, prompt: str = "pick up the milk") -> dict:
    """What openpi's LIBERO example sends: images turned by 180°, float64 state."""
    images = robosuite_images(seed)
    turned = {name: np.ascontiguousarray(image[::-1, ::-1]) for name, image in images.items()}
    return {
        "observation/image": turned["agentview"],
        "observation/wrist_image": turned["wrist"],
        "observation/state": np.random.default_rng(seed).normal(size=8),
        "prompt": prompt,
    }


def get(port: int, path: str, **headers: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read().decode()


# -- what is answered ------------------------------------------------------------------------------
