"""Imports point one way (see the README's architecture)."""

import ast
from pathlib import Path

import pytest

from tests.helpers import ROOT

SIMULATOR = {"mujoco", "robosuite", "libero"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def violations(paths: list[Path], banned: set[str]) -> list[str]:
    """`file: module` for every import of a banned package or module."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in paths
        for name in imports(path)
        if any(name == bad or name.startswith(bad + ".") for bad in banned)
    ]


def test_models_know_nothing_of_the_studio():
    assert violations(files("models"), {"studio", "gradio", *SIMULATOR}) == []


def test_only_the_page_imports_gradio():
    paths = [p for p in files("studio") if (ROOT / "studio/ui") not in p.parents]
    assert violations(paths, {"gradio", "studio.ui"}) == []


def test_only_the_simulator_imports_the_simulator():
    paths = [p for p in files("studio") if (ROOT / "studio/sim") not in p.parents]
    assert violations(paths, SIMULATOR) == []


def test_figures_are_pure():
    banned = {"torch", "gradio", "studio.sim", "studio.session", "studio.server", "models.policy"}
    assert violations(files("studio/viz"), banned) == []


def test_the_simulator_knows_nothing_of_model_and_page():
    banned = {"torch.nn", "gradio", "models.policy", "studio.ui", "studio.server", "studio.loop"}
    assert violations(files("studio/sim"), banned) == []


def test_types_carry_no_torch():
    assert violations([ROOT / "models/types.py", ROOT / "models/config.py"], {"torch"}) == []


@pytest.mark.parametrize(
    "path", [*files("models", "studio", "benchmarks"), ROOT / "app.py"], ids=str
)
def test_files_are_short_and_documented(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module says what it is for"
