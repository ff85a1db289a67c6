"""The policy server and clients that ask for what it can't give, too much, or leave: each gets its
own answer, and the others don't notice."""

from __future__ import annotations

import threading
import tracemalloc
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import msgpack
import numpy as np
import pytest
from websockets import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from studio import openpi
from studio.openpi import BadRequest
from studio.serving import MAX_MESSAGE, PolicyServer, ServerThread
from tests.helpers import wait_for
from tests.unit.protocol_client import Client, element, get, to_map


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def broken(**changes):
    request = {**element(), **changes}
    return {key: value for key, value in request.items() if value is not None}


IMAGE = element()["observation/image"]
BAD = {
    "has no 'prompt'": broken(prompt=None),
    "has no 'observation/wrist_image'": broken(**{"observation/wrist_image": None}),
    "unknown key 'observation/depth'": broken(**{"observation/depth": IMAGE}),
    "'prompt' must be": broken(prompt=""),
    "at most 500 characters": broken(prompt="x" * 501),
    "hold finite numbers": broken(**{"observation/state": np.full(8, np.nan)}),
    "hold finite numbers; it": broken(**{"observation/state": np.full(8, 1e300)}),
    r"shape \(8\), not \(9,\)": broken(**{"observation/state": np.zeros(9)}),
    "array of numbers": broken(**{"observation/state": "still"}),
    "must be a uint8 array": broken(**{"observation/image": IMAGE.astype(np.float32)}),
    r"square RGB.*not \(224, 112, 3\)": broken(**{"observation/image": IMAGE[:, ::2].copy()}),
    r"square RGB.*not \(8, 8, 3\)": broken(**{"observation/image": IMAGE[:8, :8].copy()}),
    "one size": broken(**{"observation/image": IMAGE[::2, ::2].copy()}),
    "must be a map": broken(eb_vla=3),
    "kind must be one of plan": broken(eb_vla={"kind": "train"}),
    "has no field 'colour'": broken(eb_vla={"colour": "red"}),
    "steps must lie in": broken(eb_vla={"sampler": {"steps": 10**9}}),
    "steps must lie in .* not inf": broken(eb_vla={"sampler": {"steps": float("inf")}}),
    "8 finite numbers": broken(**{"observation/state": np.full(8, 3e38)}),
    r"must be one of plan, .*, not 'x+\.\.\.x+'$": broken(eb_vla={"kind": "x" * 10_000}),
    r"must be one of plan, .*, not \[\[": broken(eb_vla={"kind": nested(900)}),
    r"steps must be a number, not \[\[": broken(eb_vla={"sampler": {"steps": nested(900)}}),
    "a map of steps, .*grad_cutoff$": broken(eb_vla={"sampler": nested(900)}),
    "numbers(?#nested)": broken(**{"observation/state": nested(900)}),
    "array of numbers(?#a text)": broken(**{"observation/state": [0.0] * 7 + ["x"]}),
    "'trace' must be true or false": broken(eb_vla={"trace": np.ones(2)}),
    "below 1e": broken(
        eb_vla={"kind": "energies", "actions": np.full((1, 8, 7), 3e38, np.float32)}
    ),
    r"range must lie in \(0, 1000\]": broken(
        eb_vla={"kind": "slice_2d", "centre": np.zeros((8, 7)), "span": 1e300}
    ),
    "'sampler' must be a map of steps": broken(eb_vla={"sampler": {"colour": 1}}),
    "'seed' must": broken(eb_vla={"seed": -1}),
    "'seed' must be a whole": broken(eb_vla={"seed": "x"}),
    r"'actions' must have the shape \(N, 8, 7\)": broken(
        eb_vla={"kind": "energies", "actions": np.zeros((1, 7, 7))}
    ),
    "'centre' must be": broken(eb_vla={"kind": "slice_2d"}),
    "at most 4096 chunks": broken(
        eb_vla={"kind": "energies", "actions": np.zeros((4097, 8, 7), np.float32)}
    ),
    "grid must have 2 to 120": broken(
        eb_vla={"kind": "slice_2d", "centre": np.zeros((8, 7)), "grid": 10**6}
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_a_bad_request_is_told_and_the_connection_goes_on(client, words):
    with pytest.raises(RuntimeError, match=f"^BadRequest: .*{words}"):
        client.infer(BAD[words])
    assert client.infer(element())["actions"].shape == (8, 7)


def array(dtype: str, data: bytes = b"\0" * 8, shape: tuple = (1,)) -> bytes:
    return msgpack.packb(
        {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": list(shape)}
    )


FRAMES = {
    "binary frames": "hello",
    "no msgpack": b"\xc1 nonsense",
    "no objects": array("|O"),
    "no objects, void": array("|V8"),
    "no objects, structured": array("f4,f4"),
    "no objects, no name": msgpack.packb({b"__ndarray__": True, b"data": b"", b"shape": [0]}),
    "data don't fit": array("<f4"),
    "data don't fit, negative": array("<f8", shape=(-1,)),
    "a scalar's data don't fit": msgpack.packb(
        {b"__npgeneric__": True, b"dtype": "|S1", b"data": 50_000_000_000}
    ),
    "more than 10000 parts": msgpack.packb([[{}] * 9_000] * 2),
    "more than 10000 parts, numbers": msgpack.packb([[0] * 9_000] * 2),
    "an extension of msgpack": msgpack.packb([msgpack.ExtType(5, b"")]),
    "no msgpack, extension": msgpack.packb([msgpack.ExtType(5, b"12")]),
    "no msgpack, timestamp": msgpack.packb([msgpack.Timestamp(1)]),
    "__ctrl__' must be a text": msgpack.packb({"__ctrl__": bytes(1000)}),
    "no msgpack, too long": msgpack.packb([None] * 20_000),
    "a request is a map": msgpack.packb([1, 2]),
    "no msgpack, cut short": msgpack.packb(element(), default=to_map)[:-9],
}


@pytest.mark.parametrize("words", FRAMES)
def test_frames_that_are_no_requests(client, words):
    with pytest.raises(RuntimeError, match=words.split(",")[0]):
        client.exchange(FRAMES[words])
    assert client.infer(element())["actions"].shape == (8, 7)


def test_texts_in_place_of_numbers_take_no_memory():
    """NumPy would make each of them as wide as the longest."""
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="array of numbers"):
            openpi.numbers("state", ["x" * 10_000] + [""] * 9_000, (None,))
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_state_that_no_robot_has_is_no_part_of_a_batch(client, policy):
    policy.sizes.clear()
    with pytest.raises(RuntimeError, match="8 finite numbers"):
        client.infer(element() | {"observation/state": np.full(8, 3e38)})
    assert policy.sizes == []


def test_an_oversized_message_ends_its_connection_only(port, client):
    glutton = Client(port)
    with pytest.raises(ConnectionClosed, match="1009"):
        glutton.exchange(bytes(MAX_MESSAGE + 1))
    assert client.infer(element())["actions"].shape == (8, 7)


def test_a_client_that_takes_no_reply_is_dropped_and_holds_nothing_up(policy, monkeypatch):
    monkeypatch.setattr("studio.serving.SEND_S", 0.3)
    reply = {"actions": bytes(MAX_MESSAGE // 2)}
    monkeypatch.setattr("studio.extension.plan_reply", lambda *_: reply)
    server = ServerThread(PolicyServer(policy, max_queue=1), "127.0.0.1", 0)
    deaf, other = Client(server.port), Client(server.port)
    frame = msgpack.packb(element(), default=to_map)

    def talk() -> None:
        with pytest.raises(ConnectionClosed):
            while True:  # the socket's own buffer of frames is full before long
                deaf.socket.send(frame)

    talking = threading.Thread(target=talk)
    talking.start()
    talking.join(120)
    assert not talking.is_alive()
    assert len(other.infer(element())["actions"]) == MAX_MESSAGE // 2  # the only place is free
    server.stop()


def test_a_descent_may_have_its_limit(policy):
    server = ServerThread(PolicyServer(policy, max_updates=30), "127.0.0.1", 0)
    client = Client(server.port)
    for kind in ("plan", "explore"):
        for chains, refused in ((2, False), (3, True)):
            asked = {"kind": kind, "sampler": {"steps": 15, "chains": chains}}
            if refused:
                with pytest.raises(RuntimeError, match="steps times chains must be at most 30"):
                    client.infer(element() | {"eb_vla": asked})
            else:
                assert client.infer(element() | {"eb_vla": asked})
    server.stop()


def test_a_page_of_some_site_is_refused(port):
    with pytest.raises(InvalidStatus, match="403"):
        connect(f"ws://127.0.0.1:{port}", origin="https://example.org", legacy=True)


def test_a_full_queue_is_told(policy):
    server = ServerThread(PolicyServer(policy, max_queue=1), "127.0.0.1", 0)
    policy.gate.clear()
    policy.entered.clear()
    first, second = Client(server.port), Client(server.port)
    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(first.infer, element())
        assert policy.entered.wait(120)
        with pytest.raises(RuntimeError, match=r"^Busy: 1 requests are waiting"):
            second.infer(element())
        assert second.infer({"__ctrl__": "episode_end"}) == {"__ack__": "episode_end"}
        policy.gate.set()
        assert taken.result(120)["actions"].shape == (8, 7)
    assert second.infer(element())["actions"].shape == (8, 7)
    server.stop()


def test_more_clients_than_there_is_room_for_are_told(policy, monkeypatch):
    monkeypatch.setattr("studio.serving.MAX_CLIENTS", 1)
    server = ServerThread(PolicyServer(policy), "127.0.0.1", 0)
    first = Client(server.port)
    with pytest.raises(InvalidStatus, match="503"):
        Client(server.port)
    assert get(server.port, "/healthz") == "OK\n"
    first.socket.close()
    wait_for(lambda: "eb_vla_connections 0.0" in get(server.port, "/metrics"))
    assert Client(server.port).infer(element())["actions"].shape == (8, 7)
    server.stop()


def test_a_plan_that_nobody_waits_for_is_broken_off(policy, monkeypatch):
    begun, stopped = threading.Event(), threading.Event()

    def long(observations, sampler, seeds, stop):
        begun.set()
        wait_for(stop)
        stopped.set()
        raise InterruptedError

    server = ServerThread(PolicyServer(policy), "127.0.0.1", 0)
    with monkeypatch.context() as slow:
        slow.setattr(policy, "plan_batch", long, raising=False)
        leaving = Client(server.port)
        leaving.socket.send(msgpack.packb(element(), default=to_map))
        assert begun.wait(120)
        leaving.socket.close()
        assert stopped.wait(120)
    assert Client(server.port).infer(element())["actions"].shape == (8, 7)
    assert get(server.port, "/healthz") == "OK\n"
    server.stop()


def test_the_api_key(policy):
    server = ServerThread(PolicyServer(policy, api_key="sésame"), "127.0.0.1", 0)
    for key in (None, "open"):
        with pytest.raises(InvalidStatus, match="401"):
            Client(server.port, key)
    with pytest.raises(InvalidStatus, match="401"):
        headers = [("Authorization", "Api-Key sesame"), ("Authorization", "Api-Key sesame")]
        connect(f"ws://127.0.0.1:{server.port}", additional_headers=headers, legacy=True)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(server.port, "/metrics")
    assert get(server.port, "/healthz") == "OK\n"
    server.stop()
    server = ServerThread(PolicyServer(policy, api_key="sesame\n"), "127.0.0.1", 0)  # of a file
    client = Client(server.port, "sesame")
    assert client.infer(element())["actions"].shape == (8, 7)
    assert "eb_vla_plans" in get(server.port, "/metrics", Authorization="Api-Key sesame")
    server.stop()
    with pytest.raises(ConnectionClosed, match="1001"):
        client.infer(element())
