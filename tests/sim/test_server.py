"""The WebSocket and the downloads, over the real simulator."""

import json
import math
import struct
import time
import zipfile

import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from models.policy import Policy
from studio.events import SceneSpec
from studio.server import create_app
from studio.session import SessionOptions
from studio.studio import Studio

TOKEN = "a" * 32


@pytest.fixture(scope="module")
def client(debug_checkpoint):
    policy = Policy.from_pretrained(debug_checkpoint, device="cpu")
    studio = Studio(policy, SessionOptions(cap=1, scene=SceneSpec("libero_object", 0, 40, 0)))
    with TestClient(create_app(studio)) as client:
        yield client


class Page:
    """A page that acknowledges frames and remembers messages."""

    def __init__(self, socket):
        self.socket, self.frames = socket, []

    def send(self, **message):
        self.socket.send_text(json.dumps(message))

    def until(self, condition, seconds=180):
        """The first JSON message that fulfils `condition`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            data = self.socket.receive()
            if data.get("bytes"):
                (length,) = struct.unpack("<I", data["bytes"][:4])
                self.frames.append(json.loads(data["bytes"][4 : 4 + length]))
                self.send(type="ack")
            elif data.get("text") and condition(message := json.loads(data["text"])):
                return message
        pytest.fail("it never came")

    def until_state(self, **fields):
        return self.until(
            lambda m: m["type"] == "state" and all(m[k] == v for k, v in fields.items())
        )


@pytest.fixture
def page(client):
    with client.websocket_connect(f"/live/ws?token={TOKEN}") as socket:
        page = Page(socket)
        hello = page.until(lambda m: m["type"] == "hello")
        assert hello["checkpoint"]["preset"] == "debug"
        if hello["state"]["status"] != "paused":
            page.until_state(status="paused")
        yield page


def test_a_chunk_a_slice_and_a_descent(page):
    page.send(type="reset")
    page.until(lambda m: m["type"] == "episode")
    page.send(type="sampler", steps=3)
    page.send(type="advance", chunk=True)
    plan = page.until(lambda m: m["type"] == "plan")
    assert plan["index"] == 0 and plan["thumb"].startswith("data:image/jpeg")
    page.until_state(status="paused", step=8)
    assert {"agentview", "wrist"} == set(page.frames[-1]["cameras"])
    page.send(type="slice", stamp=1, plan=0, timestep=2, dims=[0, 6], span=1.0, grid=9)
    answer = page.until(lambda m: m["type"] == "slice")
    assert answer["stamp"] == 1 and answer["figure"]["data"]
    assert answer["expert"] == {"known": True, "text": "pick alphabet_soup_1"}
    expert = next(row for row in answer["reading"] if row["kind"] == "expert")
    page.send(type="descent", stamp=2, plan=0, chains=4, grid=9)
    answer = page.until(lambda m: m["type"] == "descent")
    assert answer["steps"] == 3 and len(answer["figure"]["frames"]) == 4
    assert expert["energy"] == answer["reading"][-1]["energy"]  # asked once per plan


@pytest.mark.parametrize(
    "message",
    [
        {"type": "load", "suite": "libero_object", "task": 0, "init": 50, "seed": 0},
        {"type": "load", "suite": "nowhere", "task": 0, "init": 0, "seed": 0},
        {"type": "load", "suite": "libero_object", "task": 0, "init": 0, "seed": -1},
        {"type": "camera", "distance": 1e9},
        {"type": "instruction", "text": "x" * 10_000},
        {"type": "what"},
        {"type": "speed", "hz": "9" * 60_000},
        {"type": ["load"]},
        [1, 2],
        b"binary",
        "[" * 30_000,
    ],
)
def test_bad_requests_are_answered_and_the_page_goes_on(page, message):
    if isinstance(message, bytes):
        page.socket.send_bytes(message)
    else:
        page.socket.send_text(message if isinstance(message, str) else json.dumps(message))
    answer = page.until(lambda m: m["type"] == "error")
    assert answer["message"]
    kind = message.get("type") if isinstance(message, dict) else None
    assert answer["refused"] == (kind if isinstance(kind, str) else None)
    assert len(answer["message"]) < 500
    page.send(type="speed", hz=15)
    page.until_state(hz=15.0)
    page.send(type="speed", hz=20)
    page.until_state(hz=20.0)


@pytest.mark.parametrize("fields", [{"dims": [2, 2]}, {"dims": 3}, {"grid": 1}, {"grid": None}])
def test_a_question_that_cannot_be_asked_is_answered_in_its_pane(page, fields):
    page.send(type="slice", stamp=7, plan=0, **fields)
    answer = page.until(lambda m: m["type"] in ("slice", "error"))
    assert (answer["type"], answer["stamp"]) == ("slice", 7) and answer["error"]


def test_a_dragged_camera_leaves_its_last_mark(page):
    page.send(type="reset")
    page.until(lambda m: m["type"] == "episode")
    for angle in (5, 10):
        page.send(type="camera", orbit_horizontal=angle)
        mark = page.until(lambda m: m["type"] == "mark")
        assert mark["text"] == f"orbit horizontal {angle}°"
    page.send(type="camera")
    assert page.until(lambda m: m["type"] == "mark")["text"] == "nominal camera"


def test_health(client, page):
    assert client.get("/healthz").json() == {"status": "ok", "sessions": 1}


def test_broken_json(page):
    page.socket.send_text("{")
    assert page.until(lambda m: m["type"] == "error")


def test_a_reload_finds_the_episode_again(client, page):
    page.send(type="reset")
    page.until(lambda m: m["type"] == "episode")
    page.send(type="advance", chunk=True)
    page.until(lambda m: m["type"] == "plan")
    page.until_state(status="paused")
    with client.websocket_connect(f"/live/ws?token={TOKEN}") as again:
        hello = Page(again).until(lambda m: m["type"] == "hello")
    assert hello["state"]["step"] == 8 and len(hello["plans"]) == 1


def test_one_page_drives_and_the_other_asks_to(client, page, monkeypatch):
    for limit in ("FREE_S", "ASKS_S"):  # however slow the test is
        monkeypatch.setattr(f"studio.wheel.{limit}", math.inf)
    page.send(type="driver", driver="human")
    page.until(lambda m: m["type"] == "wheel" and m["mine"])
    with client.websocket_connect(f"/live/ws?token={TOKEN}") as socket:
        other = Page(socket)
        other.until(lambda m: m["type"] == "wheel" and m["taken"])
        other.send(type="reset")
        assert "wheel" in other.until(lambda m: m["type"] == "error")["message"]
        other.send(type="wheel", ask=True)
        page.until(lambda m: m["type"] == "wheel" and m["asked"])
        page.send(type="wheel")
        other.until(lambda m: m["type"] == "wheel" and m["mine"])
        page.until(lambda m: m["type"] == "wheel" and m["taken"])
    page.until(lambda m: m["type"] == "wheel" and not m["taken"])  # the other one is gone
    page.send(type="driver", driver="policy")
    page.until_state(driver="policy")


def test_a_guard_needs_a_calibration(page):
    page.send(type="guard", on=True)
    assert "no calibration" in page.until(lambda m: m["type"] == "error")["message"]


def test_a_second_page_queues(client, page):
    with client.websocket_connect(f"/live/ws?token={'b' * 32}") as other:
        message = Page(other).until(lambda m: m["type"] == "queue")
    assert message == {"type": "queue", "position": 1, "cap": 1}


def test_downloads(client, page, tmp_path):
    page.send(type="reset")
    page.until(lambda m: m["type"] == "episode")
    assert client.get(f"/live/export/episode.mp4?token={TOKEN}").status_code == 409
    page.send(type="advance", steps=2)
    page.until_state(status="paused", step=2)
    answer = client.get(f"/live/export/episode.zip?token={TOKEN}")
    assert "libero_object-00-init40-seed0.zip" in answer.headers["content-disposition"]
    (tmp_path / "e.zip").write_bytes(answer.content)
    assert zipfile.ZipFile(tmp_path / "e.zip").namelist() == ["episode.jsonl", "plans.npz"]
    film = client.get(f"/live/export/episode.mp4?token={TOKEN}")
    assert film.headers["content-type"] == "video/mp4" and len(film.content) > 1000
    assert client.get("/live/export/episode.zip?token=../../etc").status_code == 404


def test_no_other_sites_page_is_promised_anything(client):
    """The browser asks before it sends a header such as X-Forwarded-Host from another site."""
    asked = {"origin": "http://elsewhere.example", "access-control-request-method": "POST",
             "access-control-request-headers": "x-forwarded-host"}  # fmt: skip
    for path in ("/jobs/launch", "/recordings/delete", "/"):
        answer = client.options(path, headers=asked)
        assert answer.status_code == 403
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [("token=short", {}, 4400), (f"token={TOKEN}", {"origin": "http://elsewhere.example"}, 4403)],
)
def test_strangers_are_turned_away(client, query, headers, code):
    with (
        client.websocket_connect(f"/live/ws?{query}", headers=headers) as socket,
        pytest.raises(WebSocketDisconnect) as gone,
    ):
        socket.receive_text()
    assert gone.value.code == code
