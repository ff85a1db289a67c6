"""Forms to command lines, folders of the workspace, and the routes of Train and Collect."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models import train
from models.run import SETTINGS
from models.schedule import TrainConfig
from studio import collect, collecting, evaluate, evaluating, lerobot, sweep, sweeping, training
from studio.forms import fill, options
from studio.jobs import METRICS, JobState
from studio.workshop import Workshop, router
from studio.workspace import STUDIES, shown
from tests.helpers import wait_for
from tests.unit.test_models_data import write_demos


@pytest.fixture
def workshop(tmp_path):
    (tmp_path / "data" / "milk").mkdir(parents=True)
    write_demos(tmp_path / "data" / "milk" / "milk_demo.hdf5")
    return Workshop(tmp_path / "runs")


@pytest.fixture
def used():
    return []


@pytest.fixture
def client(workshop, used, tmp_path):
    first = {"name": "mine", "path": str(tmp_path / "mine"), "sha256": "abc"}
    app = FastAPI()
    app.include_router(router(workshop, SimpleNamespace(use_checkpoint=used.append, first=first)))
    with TestClient(app) as client:
        yield client


def milk(workshop) -> str:
    return str(workshop.workspace.roots[0] / "milk")


def preview(client, kind: str, **values) -> dict:
    return client.post("/jobs/preview", json={"kind": kind, "values": values}).json()


# -- forms --------------------------------------------------------------------------------------


def test_the_training_command_says_what_the_form_says(workshop):
    values = {
        "data": milk(workshop),
        "preset": "debug",
        "steps": 40.0,
        "lr": 0.00025,
        "alpha_max": 0.3,
        "threads": 1,
        "eval_every": 20,
        "eval_tasks": "0,3",
        "gradient_checkpointing": True,
        "compile": True,
        "minutes": None,
        "name": "",
    }
    argv = training.command(values, workshop.workspace, "a")
    assert argv[:3] == [sys.executable, "-m", "models.train"]
    parsed = vars(train.parser().parse_args(argv[3:]))
    expected = values | {"data": Path(milk(workshop)), "steps": 40}
    del expected["name"]
    assert {name: parsed[name] for name in expected} == expected
    assert parsed["out"] == workshop.workspace.runs / "a"
    untouched = vars(train.parser().parse_args(["--data", "x", "--out", "y"]))
    assert all(parsed[n] == v for n, v in untouched.items() if n not in {*expected, "out"})


def test_the_settings_of_a_run_on_the_command_line_fill_a_form(workshop):
    values = {"preset": "debug", "data": milk(workshop), "steps": 2, "batch_size": 2, "ema": 0.9}
    out = workshop.workspace.runs / "outside"
    settings = {name: values[name] for name in ("preset", "data")} | {"init": None, "digest": "a"}
    out.mkdir(parents=True)
    (out / METRICS).touch()
    config = TrainConfig(steps=2, batch_size=2, ema=0.9)
    (out / SETTINGS).write_text(json.dumps(settings | {"train": asdict(config)}))
    found = training.settings(workshop.jobs.get("outside"))
    assert found.items() >= values.items() and "digest" not in found
    argv = [training.command(form, workshop.workspace, "a") for form in (found, values)]
    assert argv[0] == argv[1]


def test_every_field_of_the_form_is_an_option(workshop):
    known = vars(train.parser().parse_args(["--data", "x", "--out", "y"]))
    assert set(training.TUNED) <= set(known)


def test_pretrained_parts_are_of_the_hub_or_a_folder(workshop):
    values = {"data": milk(workshop), "steps": 5, "preset": "eb-vla-0.5b"}
    own = shown(workshop.workspace.runs / "parts")
    for parts, given in (("hub", "hub"), (own, own)):
        argv = training.command(values | {"pretrained": parts}, workshop.workspace, "a")
        assert train.parser().parse_args(argv[3:]).pretrained == given


def test_the_collection_command_says_what_the_form_says(workshop):
    values = {"suite": "libero_goal", "tasks": "0-2", "per_task": 3, "noise": 0.05, "workers": 2}
    values["misses"] = True
    argv = collecting.command(values, workshop.workspace, "a")
    config = collect.parse(argv[3:])
    assert config == collecting.CollectForm(**values).config(workshop.workspace.runs / "a")
    assert (
        config.tasks == (0, 1, 2) and config.per_task == 3 and config.workers == 2 and config.misses
    )


@pytest.mark.parametrize("kind", ["evaluate", "sweep"])
def test_a_form_begins_with_the_command_s_own_defaults(kind):
    """What equals a form's default is not on its command line."""
    form, options, parse = {
        "evaluate": (evaluating.EvaluateForm, evaluating.OPTIONS, evaluate.parse_args),
        "sweep": (sweeping.SweepForm, sweeping.OPTIONS, sweep.parse_args),
    }[kind]
    shown = {name: value for name, value in asdict(form()).items() if name in options}
    own = vars(parse(["--out", "here"]))
    assert {n: own[n] for n, value in shown.items() if value is not None} == {
        n: value for n, value in shown.items() if value is not None
    }


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("train", {"data": ""}, "choose a folder"),
        ("train", {"steps": None}, "--steps or --minutes"),
        ("train", {"preset": "huge"}, "eb-vla-tiny"),
        ("train", {"lr": 7}, "--lr must lie in"),
        ("train", {"lr": "fast"}, "lr: a number is needed"),
        ("train", {"batch_size": 1.5}, "whole number"),
        ("train", {"lr": float("inf")}, "number"),
        ("train", {"k_min": 20}, "range"),
        ("train", {"init": "/etc"}, "no such checkpoint"),
        ("train", {"stride": 0}, "at least 1"),
        ("train", {"preset": "eb-vla-0.5b"}, "write hub, or their folder"),
        ("train", {"preset": "eb-vla-0.5b", "pretrained": "/etc"}, "outside"),
        ("collect", {"suite": "libero_moon"}, "libero_spatial"),
        ("collect", {"tasks": "77"}, "tasks 0-9"),
        ("collect", {"tasks": "some"}, "0-9"),
        ("collect", {"per_task": 0}, "per-task"),
        ("collect", {"beta": 0.5}, "policy"),
        ("collect", {"dagger": "any", "misses": True}, "choose one"),
    ],
)
def test_a_bad_form_is_one_clear_line(workshop, kind, values, words):
    good = {"data": milk(workshop), "steps": 5} if kind == "train" else {}
    module = training if kind == "train" else collecting
    with pytest.raises(ValueError, match=words) as caught:
        module.command(good | values, workshop.workspace, "a")
    assert "\n" not in str(caught.value)


def test_an_empty_box_is_the_default():
    form = fill(training.TrainForm, {"stride": None, "name": "", "preset": " debug ", "other": 1})
    assert form == training.TrainForm(preset="debug")
    assert options(form) == ["--preset", "debug"]
    assert training.suggestion({"preset": "debug", "head": "flow"}) == "debug-flow"
    with pytest.raises(ValueError, match="energy, diffusion, flow"):
        fill(training.TrainForm, {"head": "magic"})


# -- the workspace ------------------------------------------------------------------------------


def test_data_folders_are_found_and_paths_stay_inside(workshop, tmp_path):
    space = workshop.workspace
    assert [(f.path, f.files) for f in space.data_folders()] == [(milk(workshop), 1)]
    (tmp_path / "runs" / "soup").mkdir(parents=True)
    write_demos(tmp_path / "runs" / "soup" / "soup_demo.hdf5")
    (tmp_path / "data" / "lerobot" / "meta").mkdir(parents=True)
    (tmp_path / "data" / "lerobot" / "meta" / "info.json").write_text("{}")
    found = {Path(f.path).name: f.files for f in space.data_folders()}
    assert found == {"lerobot": 0, "milk": 1, "data": 1, "soup": 1}
    for text in ("/etc", str(tmp_path / "data/../../x"), "../data", "data\0"):
        with pytest.raises(ValueError, match="outside"):
            space.inside(text)


# -- routes -------------------------------------------------------------------------------------


def test_what_a_half_filled_form_lacks_is_told(client, workshop):
    assert "choose a folder" in preview(client, "train", steps=5)["error"]
    answer = preview(client, "train", steps=5, data=milk(workshop))
    assert answer["name"] == "tiny-1" and "--steps 5" in answer["command"]
    assert "no kind" in preview(client, "dance")["error"]
    assert "letters" in preview(client, "train", name="../x")["error"]


def test_another_site_starts_nothing(client, workshop):
    form = {"kind": "train", "values": {"data": milk(workshop), "steps": 5}}
    reply = client.post("/jobs/launch", json=form, headers={"origin": "http://evil.example"})
    assert reply.status_code == 403 and workshop.jobs.all() == []


def test_contents_and_pictures_of_a_folder(client, workshop):
    folder = {"folder": milk(workshop)}
    rows = client.get("/jobs/contents", params=folder).json()["tasks"]
    assert rows == [
        {"file": "milk_demo.hdf5", "instruction": "pick up the milk", "demos": 2, "steps": 12}
    ]
    shot = {**folder, "file": "milk_demo.hdf5", "instruction": "pick up the milk", "demo": 1}
    reply = client.get("/jobs/strip.jpg", params=shot)
    assert reply.headers["content-type"] == "image/jpeg" and reply.content[:2] == b"\xff\xd8"
    assert client.get("/jobs/strip.jpg", params=shot | {"demo": 9}).status_code == 404
    assert client.get("/jobs/strip.jpg", params=shot | {"file": "../x"}).status_code == 404
    assert client.get("/jobs/contents", params={"folder": "/etc"}).status_code == 400


def test_contents_and_pictures_of_a_lerobot_dataset(client, workshop):
    folder = workshop.workspace.data
    lerobot.export(folder / "milk", folder / "theirs")
    rows = client.get("/jobs/contents", params={"folder": str(folder)}).json()["tasks"]
    info = "theirs/meta/info.json"
    task = {"instruction": "pick up the milk", "demos": 2, "steps": 12}
    assert rows == [{"file": f, **task} for f in ("milk/milk_demo.hdf5", info)]
    shot = {"folder": str(folder), "file": info, "instruction": "pick up the milk", "demo": 1}
    assert client.get("/jobs/strip.jpg", params=shot).content[:2] == b"\xff\xd8"
    for wrong in ({"demo": 2}, {"instruction": "pick up the soup"}):
        assert client.get("/jobs/strip.jpg", params=shot | wrong).status_code == 404
    (folder / "theirs/meta/info.json").write_text("{}")
    rows = client.get("/jobs/contents", params={"folder": str(folder)}).json()["tasks"]
    assert rows[1]["instruction"] == "theirs" and "is missing" in rows[1]["error"]


def test_a_dataset_in_the_copying_is_read_again_when_it_is_whole(client, workshop):
    folder = workshop.workspace.data
    lerobot.export(folder / "milk", folder.parent / "whole")

    def tasks() -> list[dict]:
        asked = {"folder": str(folder / "theirs")}
        return client.get("/jobs/contents", params=asked).json()["tasks"]

    shutil.copytree(folder.parent / "whole", folder / "theirs")
    shutil.rmtree(folder / "theirs/meta/episodes")
    assert "names no episodes" in tasks()[0]["error"]
    shutil.copytree(folder.parent / "whole/meta/episodes", folder / "theirs/meta/episodes")
    assert tasks()[0]["demos"] == 2


def test_a_broken_file_is_listed_with_its_error(client, workshop):
    (Path(milk(workshop)) / "bad_demo.hdf5").write_bytes(b"nonsense")
    rows = client.get("/jobs/contents", params={"folder": milk(workshop)}).json()["tasks"]
    assert rows[0]["demos"] == 0 and rows[0]["error"]


def test_a_training_from_launch_to_use(client, workshop, used):
    values = {"data": milk(workshop), "preset": "debug", "steps": 2, "batch_size": 2, "threads": 1}
    form = {"kind": "train", "values": {**values, "log_every": 1}}
    assert client.post("/jobs/launch", json=form).json()["state"] == "running"
    best = workshop.workspace.runs / "debug-1" / "best"
    assert client.post("/jobs/use", json={"path": shown(best)}).status_code == 400
    wait_for(lambda: workshop.jobs.get("debug-1").state is not JobState.RUNNING, 300)
    (job,) = client.get("/jobs").json()["jobs"]
    assert job["state"] == "finished", workshop.jobs.get("debug-1").log()
    assert job["summary"]["step"] == 2 and job["summary"]["l1"] > 0
    assert job["checkpoints"] == ["best", "last"]
    rows = client.get("/jobs/metrics", params={"name": "debug-1"}).json()
    assert rows["rows"][0]["step"] == 1
    assert "samples" in client.get("/jobs/log", params={"name": "debug-1"}).json()["lines"][0]
    assert client.post("/jobs/use", json={"path": shown(best)}).status_code == 200
    assert used == [best]
    assert preview(client, "train", **values)["name"] == "debug-2"
    assert client.post("/jobs/resume", json={"name": "debug-1"}).status_code == 400


def test_the_way_back_is_to_the_first_checkpoint_alone(client, used, tmp_path):
    first = client.get("/jobs/choices").json()["first"]
    assert first["path"] == str(tmp_path / "mine")
    for path in ("/etc", str(tmp_path), first["path"] + "/..", ""):
        assert client.post("/jobs/use", json={"path": path}).status_code == 400
    assert used == []
    assert client.post("/jobs/use", json={"path": first["path"]}).status_code == 200
    assert used == [tmp_path / "mine"]


def test_a_number_that_json_does_not_know_spoils_no_page(client, workshop):
    run = workshop.workspace.runs / "nan"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 1, "l1": 0.5}\n{"step": 2, "l1": NaN}\n')
    (job,) = (job for job in client.get("/jobs").json()["jobs"] if job["name"] == "nan")
    assert job["summary"] == {"step": 2, "l1": 0.5}


def test_a_success_rate_comes_with_its_interval(client, workshop):
    run = workshop.workspace.runs / "judged"
    run.mkdir(parents=True)
    row = {"step": 20, "success_rate": 0.4, "successes": 8, "episodes": 20}
    (run / "metrics.jsonl").write_text(f'{{"step": 10}}\n{json.dumps(row)}\n')
    (job,) = client.get("/jobs").json()["jobs"]
    assert job["summary"].pop("success_interval") == pytest.approx([0.219, 0.613], abs=1e-3)
    assert job["summary"] == row


@pytest.mark.parametrize("value", ["NaN", "1e999", '"\\ud800"', "[1]"])
def test_what_json_can_t_carry_on_is_no_form(client, workshop, value):
    body = '{"kind": "train", "values": {"x": ' + value + "}}"
    assert client.post("/jobs/launch", content=body).status_code == 422
    assert client.get("/jobs").json() == {"jobs": []}


def test_a_number_beyond_every_float_is_told(client, workshop):
    told = preview(client, "train", data=milk(workshop), steps=10**400)
    assert "steps: a number is needed" in told["error"] and len(told["error"]) < 100


def test_a_spoilt_record_spoils_no_list(client, workshop):
    run = workshop.workspace.runs / "old"
    run.mkdir(parents=True)
    (run / "job.json").write_text('{"kind": "train", "values": {"x": NaN}, "ended": 1}')
    (job,) = client.get("/jobs").json()["jobs"]
    assert job["values"] == {"x": None}


def test_what_can_t_be_read_spoils_no_list(client, workshop):
    runs = workshop.workspace.runs
    for name in ("closed", "damaged", "good"):
        (runs / name).mkdir(parents=True)
    (runs / "closed/metrics.jsonl").symlink_to("metrics.jsonl")  # leads nowhere: an OSError
    (runs / "good/metrics.jsonl").write_text('{"step": 1}\n')
    record = {"kind": "collect", "values": {"per_task": 0}, "ended": 1, "started": 0}
    (runs / "damaged/job.json").write_text(json.dumps(record))
    jobs = {job["name"]: job for job in client.get("/jobs").json()["jobs"]}
    assert jobs.keys() == {"damaged", "good"}
    assert "per-task" in jobs["damaged"]["problem"] and jobs["damaged"]["summary"] == {}
    assert jobs["good"]["summary"] == {"step": 1} and not jobs["good"]["problem"]


def test_a_collection_counts_its_demonstrations(workshop, tmp_path):
    values = {"suite": "libero_object", "tasks": "0-1", "per_task": 2}
    code = "print('50%|# | 2/4 [00:30<01:05, 15.0s/demo, task 1]')"
    workshop.jobs.launch("collect", "a", [sys.executable, "-S", "-c", code], values)
    folder = workshop.workspace.runs / "a"
    write_demos(folder / "first_demo.hdf5")
    (folder / ".parts/second").mkdir(parents=True)
    (folder / ".parts/second/demo_1.hdf5").write_bytes(b"")
    wait_for(lambda: workshop.jobs.get("a").state is not JobState.RUNNING)
    expected, job = {"done": 3, "total": 4, "progress": 0.75}, workshop.jobs.get("a")
    assert collecting.summary(job) == expected
    running = replace(job, state=JobState.RUNNING)
    assert collecting.summary(running) == {**expected, "eta_s": 65}
    assert json.loads((folder / "job.json").read_text())["values"] == values


def test_a_job_that_has_ended_is_read_once_until_its_folder_changes(workshop, monkeypatch):
    reads = []
    monkeypatch.setattr(collecting, "summary", lambda job: reads.append(job.name) or {})
    folder = workshop.workspace.runs / "a"
    folder.mkdir(parents=True)
    record = {"kind": "collect", "values": {}, "exit_code": 0, "ended": 1, "started": 0}
    (folder / "job.json").write_text(json.dumps(record))
    for _ in range(3):
        assert workshop.describe(workshop.jobs.get("a"))["state"] == "finished"
    assert len(reads) == 1
    (folder / "soup_demo.hdf5").touch()
    workshop.describe(workshop.jobs.get("a"))
    assert len(reads) == 2


def test_the_shipped_study_is_there_until_a_run_takes_its_name(tmp_path):
    workshop = Workshop(tmp_path / "runs", STUDIES.glob("*/"))
    shown = {job.name: workshop.describe(job) for job in workshop.jobs.all()}
    assert shown.keys() == {"eb-vla-tiny-nominal", "eb-vla-tiny-moved"}
    for job in shown.values():
        assert job["state"] == "shipped" and not job["resumable"]
        assert job["summary"]["done"] == job["summary"]["total"] >= 120
        with pytest.raises(ValueError, match="does not run"):
            workshop.jobs.stop(job["name"])
        with pytest.raises(ValueError, match="nothing to resume"):
            workshop.resume(job["name"])
    own = tmp_path / "runs" / "eb-vla-tiny-moved"
    own.mkdir(parents=True)
    (own / "evaluation.json").write_text('{"total": 5}')
    names = [(job.name, job.state) for job in workshop.jobs.all()]
    assert names == [("eb-vla-tiny-moved", "outside"), ("eb-vla-tiny-nominal", "shipped")]
    assert workshop.jobs.get("eb-vla-tiny-moved").folder == own
