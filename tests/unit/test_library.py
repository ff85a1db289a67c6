"""The library of recordings: listed, kept, trimmed, thrown away, gathered, and its routes."""

from __future__ import annotations

import io
import json
import threading
import time
import tracemalloc
import zipfile
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.data import HUMAN, POLICY, load_demonstrations
from models.policy import Policy
from studio import lerobot, recording, recording_routes, rescore
from studio.events import EpisodeEvent, Outcome, SceneSpec
from studio.gather import gather, held_out, segments
from studio.library import Library
from studio.rescore import starts
from studio.tape import TAPE, Tape
from studio.workshop import Workshop
from tests.unit.recordings import SCENE, WORDS, Counter, develop, drive, record


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "recordings")


def change(folder: Path, **fields: object) -> None:
    """Rewrite fields of a tape's first line."""
    first, *rest = (folder / TAPE).read_text().splitlines()
    first = json.dumps(json.loads(first) | fields)
    (folder / TAPE).write_text("\n".join([first, *rest]) + "\n")


# -- the list -----------------------------------------------------------------------------------


def test_a_row_tells_what_was_done_by_whom(library):
    name = record(library.path, "pphhhp", words={4: "put it down"})
    (row,) = library.all()
    assert row["id"] == name and row["steps"] == 6 and row["human"] == 3
    assert row["runs"] == [("policy", 2), ("human", 3), ("policy", 1)]
    assert row["instructions"] == (WORDS, "put it down") and row["task"] == WORDS
    assert (row["outcome"], row["kept"], row["writing"]) == (Outcome.SUCCESS, False, False)
    assert row["versions"] == {} and row["replay"]["faithful"] and row["thumb"] and row["demo"]


def test_an_empty_library_and_strangers_in_its_folder(library):
    assert library.all() == []
    record(library.path, "h")
    (library.path / "notes.txt").write_text("mine")
    (library.path / "20260101-000000-abcdef").mkdir()
    assert len(library.all()) == 1
    for name in ("../x", "20260101-000000-abcdef", "", "notes.txt"):
        with pytest.raises(ValueError, match="no such recording"):
            library.folder(name)


def test_other_versions_and_damage_are_shown(library):
    old, newer, cut, odd = (record(library.path, "hh", developed=False) for _ in range(4))
    change(library.path / odd, provenance=None)
    change(library.path / old, versions={"mujoco": "2.3.7"})
    change(library.path / newer, format=99)
    tape = library.path / cut / TAPE
    tape.write_bytes(tape.read_bytes()[:-30])
    rows = {row["id"]: row for row in library.all()}
    assert rows[old]["versions"]["mujoco"][0] == "2.3.7" and rows[old]["steps"] == 2
    assert "newer studio" in rows[newer]["error"] and "damaged" in rows[odd]["error"]
    assert rows[cut]["outcome"] is None and rows[cut]["message"] == recording.CUT_SHORT


def test_trimming_counts_some_steps_and_changes_no_tape(library):
    name = record(library.path, "h" * 10)
    before = (library.path / name / TAPE).read_bytes()
    library.trim(name, 2, 7)
    library.keep(name)
    assert library.span(name) == (2, 7) and library.note(name).kept
    library.trim(name, 0, 10)
    assert library.span(name) == (0, 10) and library.note(name).last is None
    assert (library.path / name / TAPE).read_bytes() == before
    for first, last in ((5, 5), (-1, 4), (0, 11), (7, 2)):
        with pytest.raises(ValueError, match="within 0 and 10"):
            library.trim(name, first, last)


def test_what_was_thrown_away_can_be_taken_back(library):
    one, two = record(library.path, "h"), record(library.path, "hh")
    library.throw_away([one, two])
    assert library.all() == [] and len(library.all(trash=True)) == 2
    library.take_back([one])
    assert [row["id"] for row in library.all()] == [one]
    library.delete([one, two, "..", "nothing"])
    assert library.all(trash=True) == [] and [row["id"] for row in library.all()] == [one]
    with pytest.raises(ValueError, match="no such recording"):
        library.take_back([two])


def test_only_what_was_asked_about_is_deleted(library):
    asked, later = record(library.path, "h"), record(library.path, "hh")
    library.throw_away([asked, later])
    library.delete([asked])
    assert [row["id"] for row in library.all(trash=True)] == [later]


def test_what_is_being_recorded_is_not_thrown_away(library):
    tape = Tape(library.path, Counter(), {})
    drive(tape, "hh", outcome=None)
    name = tape.status()["id"]
    assert library.all()[0]["writing"]
    with pytest.raises(ValueError, match="being recorded"):
        library.throw_away([name])
    tape.let_go(name)
    library.throw_away([name])


def test_two_sessions_record_at_once(library):
    tapes = [Tape(library.path, Counter(), {}) for _ in range(2)]
    for tape in tapes:
        drive(tape, "hhh", outcome=None)
    for tape in tapes:
        tape.on_episode(EpisodeEvent(SCENE, WORDS, Outcome.TIMEOUT, 3))
    assert [row["steps"] for row in library.all()] == [3, 3]
    assert len({row["id"] for row in library.all()}) == 2


# -- as training data ---------------------------------------------------------------------------


def test_an_episode_is_parted_where_other_words_were_said(library):
    name = record(library.path, "hhhhhh", words={3: "put it down"})
    parts = list(segments(library.path / name, 1, 5))
    assert [(p.instruction, p.first, p.last) for p in parts] == [
        (WORDS, 1, 3),
        ("put it down", 3, 5),
    ]


def test_each_part_ends_as_its_own_words_did(library):
    """The first instruction of a sequence was carried out, the second was not."""
    name = record(library.path, "hhhhhh", words={3: "wave"}, won=(3,), outcome=Outcome.TIMEOUT)
    assert [part.success for part in segments(library.path / name, 0, 6)] == [True, False]


def test_what_begins_as_evaluations_do_is_counted(library):
    names = [record(library.path, "hhh") for _ in range(3)]
    for name, init in zip(names, (39, 40, 49), strict=True):
        change(library.path / name, scene=asdict(replace(SCENE, init=init)))
    assert held_out(library, names) == 2


def test_gathered_recordings_load_as_demonstrations_with_their_drivers(library, tmp_path):
    one = record(library.path, "pppphhhhhhhhhh")
    two = record(library.path, "hhhh", words={2: "put it down"})
    library.trim(one, 2, 14)
    assert gather(library, [one, two], tmp_path / "data") == 3
    data = load_demonstrations(tmp_path / "data", horizon=8)
    assert set(data.instructions) == {WORDS, "put it down"}
    assert len(data) == 12 + 0 + 2  # what was under way when other words were said has no end
    assert data.suites == ("libero_object",)
    trimmed = data.demo == data.demo[np.flatnonzero(data.source == POLICY)[0]]
    assert data.source[trimmed].tolist() == [POLICY] * 2 + [HUMAN] * 10
    assert data.images[trimmed][:, 0, 0, 0, 0].tolist() == list(range(2, 14))
    with h5py.File(next((tmp_path / "data").glob("pick*.hdf5"))) as file:
        assert file["data"].attrs["num_demos"] == 2
        first = file["data/demo_0"]
        assert first.attrs["recording"] == one and first.attrs["first_step"] == 2
        assert first["rewards"][-1] == 1 and file["data/demo_1/rewards"][-1] == 0  # cut in two

    lerobot.export(tmp_path / "data", tmp_path / "lerobot", drivers=True)
    again = load_demonstrations(tmp_path / "lerobot", horizon=8)
    np.testing.assert_array_equal(again.source, data.source)
    np.testing.assert_array_equal(again.actions, data.actions)


def test_a_long_recording_is_gathered_and_exported_in_little_memory(library, tmp_path):
    name = record(library.path, "h" * 700, developed=False)
    develop(library.path / name, side=64)
    pictures = 700 * 2 * 64 * 64 * 3
    peaks = []
    for act in (
        lambda: gather(library, [name], tmp_path / "data"),
        lambda: lerobot.export(tmp_path / "data", tmp_path / "lerobot", drivers=True),
    ):
        tracemalloc.start()
        act()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < pictures / 2
    data = load_demonstrations(tmp_path / "data", horizon=8)
    assert data.images[:, 1, 5, 5, 2].tolist() == [t % 256 for t in range(700)]


def test_one_instruction_in_two_scenes_becomes_two_files(library, tmp_path):
    names = [record(library.path, "hh", scene=SceneSpec(task=task)) for task in (0, 1)]
    gather(library, names, tmp_path / "data")
    assert len(list((tmp_path / "data").glob("*.hdf5"))) == 2


def test_what_can_not_be_gathered_leaves_nothing(library, tmp_path):
    good, blank = record(library.path, "hh"), record(library.path, "hh", developed=False)
    for names, words in (([good, blank], "replay it first"), ([], "choose some")):
        with pytest.raises(ValueError, match=words):
            gather(library, names, tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["recordings"]
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        gather(library, [good], tmp_path / "data")


def test_chunks_begin_at_the_plans_and_every_horizon_between():
    class Planned(list):
        plans = tuple({"step": step} for step in (0, 8, 30, 40))

    assert starts(Planned(range(40)), 8) == [0, 8, 16, 24, 30, 38]


# -- over HTTP ----------------------------------------------------------------------------------


@pytest.fixture
def session(library):
    return SimpleNamespace(tape=Tape(library.path, Counter(), {}))


@pytest.fixture
def client(tmp_path, session, debug_checkpoint):
    policy = Policy.from_pretrained(debug_checkpoint, device="cpu")
    sessions = SimpleNamespace(policy=policy, get={"t": session}.get)
    app = FastAPI()
    workshop = Workshop(tmp_path / "runs")
    app.include_router(recording_routes.router(workshop, SimpleNamespace(sessions=sessions)))
    with TestClient(app) as client:
        yield client


def post(client, path: str, **body: object) -> dict:
    return client.post(f"/recordings{path}", json=body).json()


def test_the_list_and_its_pictures(client, library):
    name = record(library.path, "hhh")
    answer = client.get("/recordings").json()
    assert [row["id"] for row in answer["recordings"]] == [name] and answer["work"] == {}
    shot = {"name": name, "camera": "wrist", "step": 2}
    for path, query in (("/picture.jpg", shot), ("/thumb.jpg", {"name": name})):
        reply = client.get(f"/recordings{path}", params=query)
        assert reply.headers["content-type"] == "image/jpeg" and reply.content[:2] == b"\xff\xd8"
    for bad in ({"step": 3}, {"camera": "sky"}, {"name": "../x"}):
        assert client.get("/recordings/picture.jpg", params=shot | bad).status_code == 404
    described = client.get("/recordings/tape", params={"name": name}).json()
    assert described["instructions"] == [[0, WORDS]]


def test_decisions_over_http_and_none_from_another_site(client, library):
    name = record(library.path, "hhh")
    assert post(client, "/trim", name=name, first=1, last=2) == {}
    assert post(client, "/keep", names=[name]) == {}
    assert (library.note(name).kept, library.span(name)) == (True, (1, 2))
    assert post(client, "/keep", names=[name], kept=False) == {}
    assert (library.note(name).kept, library.span(name)) == (False, (1, 2))
    foreign = {"origin": "http://evil.example"}
    reply = client.post("/recordings/discard", json={"names": [name]}, headers=foreign)
    assert reply.status_code == 403 and library.all()
    assert post(client, "/discard", names=[name]) == {} and not library.all()
    assert post(client, "/restore", names=[name]) == {} and library.all()
    assert "no such" in post(client, "/discard", names=["nothing"])["error"]
    assert "actions or states" in post(client, "/replay", name=name, source="air")["error"]


def test_live_asks_for_its_tape_keeps_and_discards(client, library, session):
    assert client.get("/recordings/live?token=other").json() == {}
    assert "run the scene" in post(client, "/live/keep", token="t", episode=0)["error"]
    drive(session.tape, "pp", outcome=None)
    shown = client.get("/recordings/live?token=t").json()
    assert (shown["id"], shown["episode"]) == (None, 1)
    name = post(client, "/live/keep", token="t", episode=1)["id"]
    assert library.note(name).kept and library.all()[0]["writing"]
    assert post(client, "/live/discard", token="t", episode=1) == {"id": name}
    assert not library.all() and library.all(trash=True)
    assert post(client, "/live", token="t", every=True)["every"]
    assert "reload" in post(client, "/live", token="other")["error"]


def test_what_is_decided_late_is_not_done_to_the_next_episode(client, library, session):
    drive(session.tape, "hh")
    drive(session.tape, "hh", outcome=None)
    for path in ("/live/keep", "/live/discard"):
        assert "another episode" in post(client, path, token="t", episode=1)["error"]
    assert len(library.all()) == 2 and not library.all(trash=True)


def test_gathering_over_http_makes_new_folders(client, library, tmp_path):
    name = record(library.path, "hhh")
    for number in (1, 2):
        found = post(client, "/gather", names=[name])
        assert found == {
            "data": str(tmp_path / f"data/recordings-{number}"),
            "demonstrations": 1,
            "held_out": 0,
        }


@pytest.mark.parametrize("format", ["libero", "lerobot"])
def test_exports_are_archives(client, library, format):
    name = record(library.path, "pphh")
    asked = {"names": [name], "format": format}
    reply = client.post("/recordings/export", json=asked)
    saved = f"recordings-{format}-tiny-{date.today()}.zip"
    assert saved in reply.headers["content-disposition"]
    archive = zipfile.ZipFile(io.BytesIO(reply.content))
    (file,) = [n for n in archive.namelist() if n.endswith((".hdf5", "file-000.parquet"))][-1:]
    if format == "libero":
        with h5py.File(io.BytesIO(archive.read(file))) as h5:
            assert h5["data/demo_0/driver"][:].tolist() == [0, 0, 1, 1]
    else:
        table = next(n for n in archive.namelist() if "/data/chunk-000" in n)
        rows = pq.read_table(io.BytesIO(archive.read(table)))
        assert rows["driver"].to_pylist() == [0, 0, 1, 1]
        assert "`driver`" in archive.read("lerobot/README.md").decode()
    bad = client.post("/recordings/export", json=asked | {"format": "tar"})
    assert "libero or lerobot" in bad.json()["error"]


def test_energies_are_computed_beside_and_kept(client, library):
    name = record(library.path, "h" * 20)
    assert client.get("/recordings/energies", params={"name": name}).json() == {}
    assert post(client, "/score", name=name) == {}
    rest(client)
    found = client.get("/recordings/energies", params={"name": name}).json()
    assert [score["step"] for score in found["scores"]] == [0, 8, 16]
    assert all(np.isfinite([s["done"], s["plan"]]).all() for s in found["scores"])
    blank = record(library.path, "h", developed=False)
    assert "replay the recording first" in post(client, "/score", name=blank)["error"]
    assert "no such checkpoint" in post(client, "/score", name=name, checkpoint="/etc")["error"]


def rest(client) -> None:
    """Wait until nothing is worked on."""
    deadline = time.monotonic() + 120
    while client.get("/recordings").json()["work"]:
        assert time.monotonic() < deadline, "it was never done"
        time.sleep(0.05)


def test_what_is_worked_on_is_not_thrown_away(client, library, monkeypatch):
    go_on = threading.Event()

    def held(*arguments):
        assert go_on.wait(120)
        return scored(*arguments)

    scored = rescore.rescore
    monkeypatch.setattr(rescore, "rescore", held)
    name = record(library.path, "h" * 16)
    assert post(client, "/score", name=name) == {}
    assert "under way" in post(client, "/discard", names=[name])["error"]
    assert "under way" in post(client, "/score", name=name)["error"]
    go_on.set()
    rest(client)
    assert post(client, "/discard", names=[name]) == {}


def test_a_recording_that_can_not_be_replayed_says_why(client, library):
    name = record(library.path, "h", developed=False)
    change(library.path / name, format=99)
    assert "newer studio" in post(client, "/replay", name=name)["error"]
