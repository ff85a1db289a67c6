"""The page's scripts: versioned by content, nothing else within reach."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio import static


@pytest.fixture
def client():
    app = FastAPI()
    app.include_router(static.router)
    return TestClient(app)


def test_every_script_is_served_and_kept(client):
    for path in static.FOLDER.iterdir():
        answer = client.get("/" + static.address(path.name))
        assert answer.content == path.read_bytes()
        assert "immutable" in answer.headers["cache-control"]
        for imported in re.findall(rb'from "\./([^"]+)"', answer.content):
            assert (static.FOLDER / imported.decode()).exists()  # relative: the same version


def test_another_version_is_not_kept(client):
    answer = client.get(f"/{static.PREFIX}/0123456789ab/main.js")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["nothing.js", "..%2f..%2fapp.py", "%2e%2e"])
def test_nothing_else_is_served(client, name):
    assert client.get(f"/{static.PREFIX}/{static.version()}/{name}").status_code == 404


def test_the_version_follows_the_content(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "FOLDER", tmp_path)
    versions = set()
    for text in ("one", "two"):
        (tmp_path / "main.js").write_text(text)
        versions.add(static.version.__wrapped__())
    assert len(versions) == 2
