"""Bad input on the command line: one clear line on stderr and exit code 2."""

import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import WebSocketDenialResponse

import app
from studio import evaluate, rollout, sweep
from studio.arguments import parse_args, trusted_hosts
from studio.ports import check_port, web_address
from studio.web import same_origin
from tests.helpers import ROOT, complaint, free_port
from tests.unit.protocol_client import Client, element


@pytest.fixture
def port():
    return str(free_port())


COMMANDS = (
    "app", "models.train", "models.fit_contexts", "studio.collect", "studio.evaluate",
    "studio.lerobot", "studio.replay", "studio.report", "studio.rollout", "studio.serve",
    "studio.sweep",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(command).main(["--help"])
    typed = "python app.py" if command == "app" else f"python -m {command}"
    assert ended.value.code == 0 and typed in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(f.stem for f in (ROOT / "benchmarks").glob("[a-z]*.py")))
def test_a_benchmark_finds_what_it_measures(name, monkeypatch):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    if hasattr(module, "main"):
        with pytest.raises(SystemExit, match="0"):  # by the parser, before minutes of measuring
            module.main()


def test_a_port_in_use(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert app.main(["--port", str(other.getsockname()[1])]) == 2
    assert "--port" in complaint(capsys)


@pytest.mark.parametrize(
    ("host", "number", "says"),
    [("127.0.0.1", 99_999, "0 to 65535"), ("nowhere.invalid", 80, "--host nowhere.invalid")],
)
def test_where_nobody_can_listen(host, number, says):
    with pytest.raises(OSError, match=says):
        check_port(host, number)


def test_ipv6_can_be_listened_on(port):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    check_port("::1", int(port))
    assert web_address("::1", 7860) == "[::1]:7860"


def test_a_training_that_is_launched_may_download():
    """Only this process keeps away from the hub: what it starts inherits the environment."""
    told = "import os, app; print(os.environ.get('HF_HUB_OFFLINE'))"
    bare = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    ended = subprocess.run([sys.executable, "-c", told], cwd=ROOT, env=bare, capture_output=True)
    assert ended.stdout.decode().strip() == "None", ended.stderr


def test_a_policy_server_has_no_folder_to_calibrate_and_must_answer(
    capsys, monkeypatch, port, tmp_path
):
    monkeypatch.setattr("studio.remote.FIRST_S", 0)
    away = ["--policy", f"ws://127.0.0.1:{port}", "--out", str(tmp_path)]
    assert evaluate.main([*away, "--calibrate"]) == 2
    assert "leave --policy out" in complaint(capsys)
    assert evaluate.main(away) == 2 and rollout.main(away) == 2
    for line in capsys.readouterr().err.strip().splitlines():
        assert "ConnectionError" in line and port in line


def test_no_checkpoint(capsys, port, tmp_path):
    assert app.main(["--port", port, "--checkpoint", str(tmp_path / "none")]) == 2
    assert "no such checkpoint folder" in complaint(capsys)


def test_a_truncated_checkpoint(capsys, port, debug_checkpoint, tmp_path):
    for file in debug_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert app.main(["--port", port, "--checkpoint", str(tmp_path)]) == 2
    assert "truncated" in complaint(capsys)


def test_a_checkpoint_of_another_architecture(capsys, port, debug_checkpoint, tmp_path):
    for file in debug_checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"]["head_blocks"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert app.main(["--port", port, "--checkpoint", str(tmp_path)]) == 2
    assert "does not fit" in complaint(capsys)


def test_a_studio_on_localhost_answers_to_no_other_name():
    """A site that gives itself this machine's address is none of its pages (DNS rebinding)."""

    async def page(socket):
        await socket.accept()
        await socket.close()

    def client(host, *options):
        hosts = trusted_hosts(parse_args(list(options)))
        routes = [Route("/", lambda request: Response()), WebSocketRoute("/ws", page)]
        guarded = TrustedHostMiddleware(Starlette(routes=routes), allowed_hosts=hosts)
        return TestClient(guarded, headers={"host": host})

    for host in ("localhost:7860", "127.0.0.1:7860", "[::1]:7860"):
        assert client(host).get("/").status_code == 200
        with client(host).websocket_connect("/ws"):
            pass
    assert client("evil.example:7860").get("/").status_code == 400
    with pytest.raises(WebSocketDenialResponse):
        client("evil.example:7860").websocket_connect("/ws").__enter__()
    assert client("lab.example", "--trust-host", "lab.example").get("/").status_code == 200
    assert client("lab.example", "--host", "0.0.0.0").get("/").status_code == 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "libero_moon"], "libero_spatial"),
        (["--task", "77"], "tasks 0 to 9"),
        (["--init", "50"], "initial states 0 to 49"),
        (["--device", "cuda:9"], "cuda:9"),
    ],
)
def test_scenes_and_devices_that_do_not_exist(capsys, port, debug_checkpoint, arguments, says):
    assert app.main(["--port", port, "--checkpoint", str(debug_checkpoint), *arguments]) == 2
    assert says in complaint(capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--camera", "1,2"], "--camera"),
        (["--camera", "0,0,nan,0,0"], "distance"),
        (["--instruction", " "], "instruction"),
        (["--instruction", "x" * 10_000], "at most"),
        (["--seed", "-1"], "seed"),
        (["--light", "bright"], "intensity,azimuth"),
        (["--light", "900"], "[0, 300]"),
        (["--sensor", "snow,3"], "gaussian_blur"),
        (["--sensor", "fog,2.5"], "kind,severity"),
        (["--robot", "0.1,0"], "[1, 500]"),
        (["--robot", "0.1,1,2"], "offset,direction"),
        (["--layout", "swap", "--suite", "libero_90"], "no swap layout"),
    ],
)
def test_rollout(capsys, tmp_path, debug_checkpoint, arguments, says):
    command = ["--out", str(tmp_path), "--checkpoint", str(debug_checkpoint), *arguments]
    assert rollout.main(command) == 2
    assert says in complaint(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_camera_that_turns_the_other_way():
    args = rollout.parse_args(["--out", "x", "--camera=-20,0,100,0,0"])
    assert rollout.perturbation_of(args).camera.orbit_horizontal == -20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--inits", "forty"], "0-9"),
        (["--chains", "0"], "--chains must be at least 1"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--perturb", "camera", "--views", "-1"], "--views must be at least 1"),
        (["--views", "7"], "--perturb"),
    ],
)
def test_evaluate(capsys, tmp_path, arguments, says):
    assert evaluate.main(["--out", str(tmp_path), "--dry-run", *arguments]) == 2
    assert says in complaint(capsys)


def test_sweep(capsys, tmp_path):
    assert sweep.main(["--out", str(tmp_path), "--plans", "0"]) == 2
    assert "--plans must be at least 1" in complaint(capsys)
    with pytest.raises(SystemExit):
        parse_args(["--sessions", "0"])
    assert "from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "says"), [("ws://127.0.0.1:1", "studio.serve"), ("localhost:8000", "ws://")]
)
def test_no_policy_server(capsys, monkeypatch, port, url, says):
    monkeypatch.setattr("studio.remote.FIRST_S", 0)
    assert app.main(["--port", port, "--policy", url]) == 2
    assert says in complaint(capsys)


def test_no_request_fills_memory_or_disk(debug_checkpoint, tmp_path):
    options = ["--checkpoint", str(debug_checkpoint), "--workspace", str(tmp_path)]
    application = app.build(parse_args([*options, "--device", "cpu"]))
    with TestClient(application, base_url="http://127.0.0.1") as page:
        assert page.post("/jobs/preview", content=b" " * 2**21).status_code == 413
        assert page.get("/").status_code == 200
        for size in (100, 2**21):
            answer = page.post("/gradio_api/upload", files={"files": ("a.txt", b"x" * size)})
            assert answer.status_code == 413


def test_a_public_studio_keeps_what_is_shared_to_its_owner(debug_checkpoint, tmp_path, monkeypatch):
    options = ["--checkpoint", str(debug_checkpoint), "--workspace", str(tmp_path)]
    assert not parse_args(options).public
    monkeypatch.setenv("SPACE_ID", "lab/studio")
    assert not parse_args([*options, "--no-public"]).public
    application = app.build(parse_args([*options, "--device", "cpu"]))
    with TestClient(application, base_url="http://127.0.0.1") as page:
        for path in ("/jobs/launch", "/jobs/use", "/lab/calibrate", "/recordings/discard"):
            refused = page.post(path, json={})
            assert refused.status_code == 403 and "its owner's" in refused.json()["error"], path
        assert page.get("/recordings").status_code == 403
        assert page.post("/recordings/live/keep", json={}).status_code == 403
        for path in ("/", "/jobs", "/recordings/live?token=abc"):
            assert page.get(path).status_code == 200, path
        assert "st-notice" in page.get("/").text
        asked = {"kind": "train", "values": {}}
        assert page.post("/jobs/preview", json=asked).status_code == 200
    monkeypatch.setenv("EB_VLA_PUBLIC", "0")
    assert not parse_args(options).public


def test_a_studio_that_serves_keeps_its_checkpoint_and_ends_with_its_page(
    debug_checkpoint, tmp_path, port
):
    shutil.copytree(ROOT / "assets/checkpoints/eb-vla-tiny", tmp_path / "mine" / "last")
    (tmp_path / "mine" / "metrics.jsonl").touch()
    options = ["--checkpoint", str(debug_checkpoint), "--workspace", str(tmp_path)]
    application = app.build(parse_args([*options, "--device", "cpu", "--serve", str(port)]))
    with TestClient(application, base_url="http://127.0.0.1") as page:
        robot = Client(port)
        assert robot.infer(element())["actions"].shape[1] == 7
        used = page.post("/jobs/use", json={"path": str(tmp_path / "mine" / "last")})
        assert used.status_code == 400 and "--serve" in used.text
        assert robot.infer(element(1))["actions"].shape[1] == 7
    with pytest.raises(OSError, match="refused"):
        Client(port)


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({}, True),  # no browser
        ({"origin": "http://127.0.0.1:7860", "host": "127.0.0.1:7860"}, True),
        ({"origin": "https://evil.example", "host": "127.0.0.1:7860"}, False),
        ({"origin": "https://lab-studio.hf.space", "host": "10.0.0.7:7860"}, True),  # a Space
        ({"origin": "https://huggingface.co", "host": "10.0.0.7:7860"}, False),
        (
            {"origin": "https://x.example", "host": "a", "x-forwarded-host": "b, X.example"},
            True,
        ),
        ({"origin": "null", "host": "127.0.0.1:7860"}, False),  # a sandboxed frame
    ],
)
def test_whose_page_it_is(headers, own, monkeypatch):
    monkeypatch.setenv("SPACE_HOST", "lab-studio.hf.space")
    assert same_origin(SimpleNamespace(headers=headers)) is own


def test_an_evaluation_of_a_damaged_checkpoint_is_one_line(debug_checkpoint, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(debug_checkpoint, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    argv = ["--checkpoint", str(copy), "--inits", "40", "--out", str(tmp_path / "out")]
    assert evaluate.main(argv) == 2
    assert "truncated" in complaint(capsys) and not (tmp_path / "out" / "journal.jsonl").exists()


def test_an_evaluation_without_memory_says_what_needs_less(monkeypatch, tmp_path, capsys):
    def full(args):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(evaluate, "open_policy", full)
    assert evaluate.main(["--inits", "40", "--out", str(tmp_path / "out")]) == 2
    assert "fewer --workers or --chains" in complaint(capsys)
