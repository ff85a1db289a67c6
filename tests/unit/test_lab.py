"""The OOD lab's answers and routes, on rows whose truth is known."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.checkpoint import Calibration, read_calibration, write_calibration
from studio import failure, lab, lab_routes, report, results
from studio.lab import Question, Selection
from studio.rows import run_rows
from studio.scores import SCORES
from studio.sweep import camera_points, word_points
from studio.trials import from_other_views, nominal
from studio.workshop import Workshop, router
from tests.unit.test_results import row_of

SHIFT = 3.0  # σ between nominal and perturbed


def episode(trial, rng, shift):
    """Energies around 5, higher where perturbed; the perturbed fail and last longer."""
    outcome = "timeout" if shift and trial.scene.init % 2 else "success"
    plans = 12 if outcome == "timeout" else 8
    energies = rng.normal(5 + 0.4 * shift, 0.4, plans).tolist()
    return row_of(
        trial, outcome, step=[8 * i for i in range(plans)], latency_s=[0.1] * plans,
        timestep_energies=[[e] * 8 for e in energies],
        **dict.fromkeys(SCORES, energies),
    )  # fmt: skip


def write_runs(root: Path) -> tuple[Path, Path]:
    """A nominal run of 50 episodes and a perturbed one of 60 in a workspace."""
    rng = np.random.default_rng(0)
    scenes = nominal("libero_object", range(10), range(40, 45))
    sides = {"nominal": (scenes, 0.0), "moved": (from_other_views(scenes, 60, range(1, 6)), SHIFT)}
    for name, (trials, shift) in sides.items():
        with results.Journal(root / name) as journal:
            for trial in trials:
                journal.write(episode(trial, rng, shift))
        perturb = "camera" if shift else "none"
        about = {"sha256": "abc", "total": len(trials), "suite": "libero_object"}
        about |= {"perturb": perturb, "checkpoint": "elsewhere"}
        (root / name / results.SETTINGS).write_text(json.dumps(about))
    return root / "nominal", root / "moved"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("workspace") / "runs")


@pytest.fixture(scope="module")
def client(folders):
    with serving(folders[0].parent, SimpleNamespace(use_checkpoint=lambda path: None)) as client:
        yield client


def serving(runs, live):
    workshop, app = Workshop(runs), FastAPI()
    app.include_router(router(workshop, live))
    app.include_router(lab_routes.router(workshop, live))
    return TestClient(app)


BOTH = {"runs": "nominal,moved"}


def test_a_study_and_its_operating_point(folders):
    found = lab.answer(Question(Selection(folders), k=1.5))
    assert (found["nominal"], found["perturbed"]) == (50, 60)
    assert found["mu"] == pytest.approx(5, abs=0.1)
    assert found["threshold"] == pytest.approx(found["mu"] + 1.5 * found["sigma"])
    counts = found["confusion"]
    assert counts["true_positives"] + counts["false_negatives"] == 60
    assert counts["balanced_accuracy"] > 0.9
    assert found["figures"].keys() == {"histogram", "roc", "episodes"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_an_episode_of_two_runs_counts_once_and_other_samplers_not_at_all(folders, tmp_path):
    twice = Selection((*folders, folders[0]))
    assert len(twice.rows()) == 110
    other = tmp_path / "other"
    shutil.copytree(folders[0], other)
    settings = json.loads((other / results.SETTINGS).read_text()) | {"chains": 8}
    (other / results.SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"numbers of chains \(1: moved; 8: other\)"):
        Selection((other, folders[1])).rows()
    for file in (results.JOURNAL, results.TABLE):  # one that has only begun is no hindrance
        (other / file).unlink(missing_ok=True)
    assert len(Selection((other, folders[1])).rows()) == 60


def test_of_a_run_that_goes_on_only_new_episodes_are_read(folders, tmp_path, monkeypatch):
    whole, run = (
        (folders[0] / results.JOURNAL).read_bytes().splitlines(keepends=True),
        tmp_path / "run",
    )
    run.mkdir()
    journal, starts = run / results.JOURNAL, []
    read = results.read_more
    monkeypatch.setattr(results, "read_more", lambda *a: starts.append(a[1]) or read(*a))
    journal.write_bytes(b"".join(whole[:20]) + whole[20][:9])  # one is being written
    first = run_rows(run)
    assert len(first) == 20 and run_rows(run) is first and starts == [0]
    with journal.open("r+b") as file:
        file.seek(0, 2)
        file.write(whole[20][9:] + whole[21])
    more = run_rows(run)
    assert len(more) == 22 and all(a is b for a, b in zip(first, more[:20], strict=True))
    assert starts == [0, len(b"".join(whole[:20]))]
    journal.unlink()
    journal.write_bytes(b"".join(whole[:5]))  # shorter than what was read
    assert len(run_rows(run)) == 5
    journal.write_bytes(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="no JSON"):
            run_rows(run)
    (run / results.SETTINGS).write_text('{"sha256": "def"}')  # another checkpoint's now
    journal.write_bytes(whole[0])
    assert run_rows(run) == []


def test_the_threshold_moves_the_verdicts(folders):
    caught = [
        lab.answer(Question(Selection(folders), k=k))["confusion"]["true_positives"]
        for k in (-3.0, 1.0, 8.0, 40.0)
    ]
    assert caught == sorted(caught, reverse=True) and caught[0] == 60 and caught[-1] == 0


def test_another_k_leaves_out_what_stays(client):
    whole = client.get("/lab/study", params=BOTH | {"k": 2}).json()
    moved = client.get("/lab/study", params=BOTH | {"k": 2, "moved": True}).json()
    assert {**moved, "figures": None} == {**whole, "figures": None}
    for name, figure in whole["figures"].items():
        assert figure | moved["figures"][name] == figure
    assert (
        "data" not in moved["figures"]["episodes"] and "data" not in moved["figures"]["histogram"]
    )


def test_filters_keep_the_nominal_episodes_of_what_is_left(folders):
    hard = Selection(folders, difficulty="5").rows()
    assert {row["difficulty"] for row in hard} == {None, 5}
    one = Selection(folders, task="3", move="orbit").rows()
    assert {row["task"] for row in one} == {3}
    assert {lab.camera_move(row["camera"]) for row in one} == {None, "orbit"}
    assert lab.answer(Question(Selection(folders, suite="libero_goal")))["problem"]


def test_every_episode_can_be_played_again(folders):
    figure = lab.answer(Question(Selection(folders)))["figures"]["episodes"]
    scenes = [json.loads(text) for trace in figure["data"] for text in trace["customdata"]]
    assert len(scenes) == 110
    moved = [scene for scene in scenes if "camera" in scene]
    assert len(moved) == 60 and all(scene["scene"]["suite"] == "libero_object" for scene in scenes)


def test_tables_hold_what_the_papers_report_beside_our_own(folders):
    found = lab.tables(Question(Selection(folders)))
    assert {line["score"] for line in found["scores"]} == set(SCORES)
    assert found["study"]["groups"][0]["auroc"] > 0.95
    assert found["published"]["study"]["rows"][5][3] == "84.5%"
    whole = [rate for rate in found["success"]["nominal"] if rate["task"] is None]
    assert [(r["successes"], r["episodes"]) for r in whole] == [(50, 50)]
    assert set(found["failure"]) == set(failure.PREDICTORS) > {"Slope Start", "Slope Final"}
    predicted = found["failure"]["Slope Final"]
    assert predicted["best"] in [step["step"] for step in predicted["steps"]]
    alone = lab.tables(Question(Selection(folders[:1])))
    assert "scores" not in alone and "two nominal episodes" in alone["problem"]


def test_runs_of_different_checkpoints_are_not_mixed(folders, tmp_path):
    with results.Journal(tmp_path) as journal:
        journal.write(row_of(nominal("libero_object", [0], [40])[0], checkpoint="def"))
    with pytest.raises(ValueError, match="different checkpoints"):
        lab.answer(Question(Selection((*folders, tmp_path))))


def test_plans_as_csv_tell_runs_and_checkpoints_apart(client, folders):
    reply = client.get("/lab/plans.csv", params=BOTH)
    name = f"plans-abc-{date.today()}.csv"
    assert reply.headers["content-disposition"] == f'attachment; filename="{name}"'
    lines = list(csv.DictReader(io.StringIO(reply.text)))
    rows = Selection(folders).rows()
    assert (
        len(lines) == sum(len(row["step"]) for row in rows) and float(lines[0]["final_energy"]) > 3
    )
    assert {line["run"] for line in lines} == {"nominal", "moved"}
    assert {line["checkpoint"] for line in lines} == {"abc"}
    assert len({line["episode"] for line in lines}) == len(rows)
    about = {name: lines[0][name] for name in ("suite", "layout", "instruction")}
    words = "pick up the alphabet soup and place it in the basket"
    assert about == {"suite": "libero_object", "layout": "libero", "instruction": words}
    assert json.loads(lines[0]["robot"]) == rows[0]["robot"]
    other = lab.plans_csv([rows[0] | {"checkpoint": "def"}])
    assert next(csv.DictReader(io.StringIO(other)))["episode"] != lines[0]["episode"]


def test_routes_answer_in_json_or_with_one_line(client):
    assert client.get("/lab/options").json()["paper"] == "final_energy"
    assert client.get("/lab/study", params=BOTH | {"k": 0.5}).json()["perturbed"] == 60
    assert client.get("/lab/tables", params=BOTH | {"unit": "first"}).json()["scores"]
    assert client.get("/lab/study", params=BOTH | {"score": "luck"}).status_code == 400
    assert client.get("/lab/study", params={"runs": "../x"}).status_code == 400
    assert client.get("/lab/study", params=BOTH | {"k": "nan"}).status_code in (400, 422)
    assert client.get("/lab/sweep", params={"run": "moved"}).status_code == 400
    jobs = {job["name"]: job for job in client.get("/jobs").json()["jobs"]}
    assert jobs["moved"]["summary"] == {
        "done": 60, "successes": jobs["moved"]["summary"]["successes"], "errors": 0,
        "total": 60, "progress": 1.0, "sha256": "abc", "chains": 1,
    }  # fmt: skip


def planned(client, kind, **values):
    return client.post("/lab/planned", json={"kind": kind, "values": values}).json()


def test_a_form_says_how_much_it_asks_for(client):
    assert planned(client, "evaluate") == {"planned": "50 episodes"}
    one = {"suite": "libero_goal,libero_90", "tasks": "3", "inits": "0", "episodes": 1}
    assert planned(client, "evaluate", **one) == {"planned": "1 episode"}
    moved = {"perturb": "camera", "views": 30, "difficulty": "5"}
    assert planned(client, "evaluate", **moved) == {"planned": "30 episodes"}
    assert planned(client, "evaluate", views=30) == {"planned": "50 episodes"}  # as its command
    assert planned(client, "sweep", size=5) == {"planned": "25 points, 2 plans each"}
    assert planned(client, "sweep", over="words", plans=1)["planned"].endswith(
        "points, 1 plan each"
    )
    assert planned(client, "evaluate", inits="50") == {"planned": ""}  # as the preview says
    assert planned(client, "collect") == {"planned": ""}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"suite": ""}, "choose at least one suite"),
        ({"inits": "48-50"}, "initial states 0 to 49"),
        ({"difficulty": "1-7"}, "not within 1-5"),
        ({"suite": "libero_goal,libero_90", "perturb": "camera"}, "no views of libero_90"),
        ({"suite": "libero_90", "perturb": "swap"}, "no swap layout"),
        ({"tasks": "10"}, "tasks 0-9"),
    ],
)
def test_episodes_that_there_are_not_are_refused_before_they_are_run(client, values, words):
    told = client.post("/jobs/preview", json={"kind": "evaluate", "values": values}).json()
    assert words in told["error"] and "\n" not in told["error"]


def test_calibrating_refuses_what_it_cannot_stand_for(client):
    def refused(*runs, **headers):
        return client.post("/lab/calibrate", json={"runs": [*runs]}, headers=headers)

    assert "no such checkpoint" in refused("nominal").json()["error"]
    assert "choose nominal runs" in refused().json()["error"]
    assert refused("nominal", origin="http://evil.example").status_code == 403


def evaluated(folders, tmp_path) -> tuple[Path, Path, str]:
    """A checkpoint, the folder of runs with a nominal one of it, and the digest of its weights."""
    best, runs = tmp_path / "runs/trained/best", tmp_path / "runs"
    best.mkdir(parents=True)
    (best / "model.safetensors").write_bytes(b"weights")
    own = hashlib.sha256(b"weights").hexdigest()
    with results.Journal(runs / "nominal") as journal:
        for row in Selection(folders[:1]).rows():
            journal.write({**row, "checkpoint": own})
    about = {"sha256": own, "checkpoint": str(best), "perturb": "none"}
    (runs / "nominal" / results.SETTINGS).write_text(json.dumps(about))
    return best, runs, own


@pytest.mark.parametrize(
    ("sha256", "server", "used"),
    [("same", None, True), ("other", None, False), ("same", "ws://elsewhere", False)],
)
def test_a_calibration_reaches_live_only_where_it_plans_with_these_weights(
    folders, tmp_path, sha256, server, used
):
    (best, runs, own), loaded = evaluated(folders, tmp_path), []
    now = {"sha256": own if sha256 == "same" else sha256, "server": server}
    with serving(runs, SimpleNamespace(use_checkpoint=loaded.append, checkpoint=now)) as client:
        found = client.post("/lab/calibrate", json={"runs": ["nominal"]}).json()
    assert found["checkpoint"] == str(best) and found["used"] is used
    assert loaded == ([best] if used else [])
    assert json.loads((best / "calibration.json").read_text())["episodes"] == 50


def test_a_calibration_replaces_another_only_when_told_to(folders, tmp_path):
    (best, runs, own), loaded = evaluated(folders, tmp_path), []
    write_calibration(best, Calibration(mu=-1.0, sigma=0.5, episodes=7))
    now = {"sha256": own, "server": None}
    with serving(runs, SimpleNamespace(use_checkpoint=loaded.append, checkpoint=now)) as client:

        def save(**fields) -> dict:
            return client.post("/lab/calibrate", json={"runs": ["nominal"], **fields}).json()

        asked = save()
        assert asked["before"] == {"mu": -1.0, "sigma": 0.5, "episodes": 7}
        assert asked["episodes"] == 50 and "used" not in asked and not loaded
        assert read_calibration(best).episodes == 7
        assert save(replace=True)["used"] and loaded == [best]
        assert read_calibration(best).episodes == 50
        assert save()["used"]  # the same once more: nothing to ask about


def test_files_of_too_little_are_refused_in_a_sentence(client):
    reply = client.get("/lab/report.html", params={"runs": "nominal"})
    assert reply.status_code == 400 and "two nominal episodes" in reply.json()["error"]


def test_the_report_needs_nothing_else(folders, tmp_path):
    out = tmp_path / "report.html"
    assert report.main([*map(str, folders), "--out", str(out), "--k", "1.2"]) == 0
    text = out.read_text()
    assert "Plotly" in text and text.count('<figure id="figure-') == 3
    assert f"runs moved, nominal; written on {date.today()}" in text
    outside = re.findall(r"<(?:link|img|script)[^>]+(?:src|href)=", text)
    assert outside == []
    assert report.main([str(folders[0]), "--out", str(tmp_path / "none.html")]) == 2
    assert not (tmp_path / "none.html").exists()


def sweep_of(points, over):
    rows = [
        {"camera": {"orbit_horizontal": p.camera.orbit_horizontal, "distance": p.camera.distance},
         "instruction": p.instruction, "kind": p.kind, **dict.fromkeys(SCORES, float(i))}
        for i, p in enumerate(points)
    ]  # fmt: skip
    scene = {"suite": "libero_goal", "task": 3, "init": 40}
    return {"over": over, "scene": scene, "total": len(points), "points": rows}


def test_a_sweep_of_the_camera_is_a_map_row_by_row():
    points = camera_points("x", (-10, 10), (80, 120), 3)
    figure = lab.sweep_answer(sweep_of(points, "camera"), "final_energy")["figure"]
    heat = figure["data"][0]
    assert (heat["x"], heat["y"]) == ([-10, 0, 10], [80, 100, 120])
    assert heat["z"] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    half = lab.sweep_answer(sweep_of(points[:4], "camera"), "final_energy")["figure"]
    assert half["data"][0]["z"] == [[0, 1, 2], [3, None, None]]


def test_a_head_without_an_energy_is_told_by_what_it_has(folders, tmp_path):
    lacks = dict.fromkeys(set(SCORES) - {"context_distance"})
    both = tuple(tmp_path / folder.name for folder in folders)
    for folder, without in zip(folders, both, strict=True):
        with results.Journal(without) as journal:
            for row in results.read_rows(folder):
                journal.write(row | {name: [None] * len(row["step"]) for name in lacks})
    found = lab.answer(Question(Selection(both)))
    assert found["score"] == "context_distance" and found["figures"]
    assert lab.tables(Question(Selection(both)))["study"]["score"] == "context_distance"
    told = lab.answer(Question(Selection(both), "final_energy"))
    assert told["problem"] == "these episodes have no final energy; choose another score"
    assert lab.answer(Question(Selection(folders)))["score"] == "final_energy"
    assert "context distance" in report.report(Question(Selection(both)))

    sweep = sweep_of(camera_points("x", (-10, 10), (80, 120), 3), "camera")
    sweep["points"] = [point | lacks for point in sweep["points"]]
    assert lab.sweep_answer(sweep, "")["score"] == "context_distance"
    with pytest.raises(ValueError, match="these points have no energy gap"):
        lab.sweep_answer(sweep, "energy_gap")


def test_a_sweep_of_words_tells_paraphrases_from_other_tasks():
    points = word_points("libero_goal", 3)
    kinds = [p.kind for p in points]
    assert kinds[0] == "own" and kinds.count("other task") == 9 and "paraphrase" in kinds
    figure = lab.sweep_answer(sweep_of(points, "words"), "energy_gap")["figure"]
    bars, axis = figure["data"][0], figure["layout"]["yaxis"]
    assert [text.replace("<br>", " ") for text in axis["ticktext"]] == axis["tickvals"] == bars["y"]
    assert max(len(line) for text in axis["ticktext"] for line in text.split("<br>")) <= 30
    assert bars["y"][-1] == points[0].instruction and len(bars["y"]) == len(points)
    assert bars["text"] == kinds[::-1]
