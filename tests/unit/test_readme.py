"""The README says what the shipped study says, and its commands are those that there are."""

import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from models.checkpoint import read_calibration, sha256
from studio import detection, results, success
from studio.measures import MEAN, PLAN

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHIPPED = ROOT / "assets/checkpoints/eb-vla-tiny"
STUDIES = {name: ROOT / f"assets/studies/eb-vla-tiny-{name}" for name in ("nominal", "moved")}
# Its names of scores, and whether their unit is each task's own spread.
SCORES = {
    "final energy, the paper's score": ("final_energy", False),
    "worst timestep of the final energy": ("max_timestep_energy", False),
    "distance to the read-out": ("readout_distance", False),
    "context distance": ("context_distance", False),
    "context distance, in units of each task": ("context_distance", True),
    "energy gap to the read-out": ("energy_gap", False),
}
COMMAND = re.compile(r"python (app\.py|-m [\w.]+)((?: (?!#)[^`\n]*)?)")
COMMANDS = sorted({found[0].strip() for found in COMMAND.finditer(README)})


@pytest.fixture(scope="module")
def rows():
    return {name: results.read_rows(folder) for name, folder in STUDIES.items()}


def test_the_study_is_of_the_shipped_weights(rows):
    weights = sha256(SHIPPED / "model.safetensors")
    assert {row["checkpoint"] for side in rows.values() for row in side} == {weights}
    known = read_calibration(SHIPPED)
    assert f"μ_v = {known.mu:.4f}, σ_v = {known.sigma:.4f}" in README
    record = json.loads((SHIPPED / "config.json").read_text())["training"]
    assert f"{record['samples']:,} samples" in (SHIPPED / "README.md").read_text()


def test_the_success_table(rows):
    for line in success.table(rows["nominal"]).splitlines():
        assert line in README


def test_the_detection_table(rows):
    told = dict(re.findall(r"^\| ([^|]+) \| (\d\.\d{3} .*) \|$", README, re.MULTILINE))
    assert told.keys() == SCORES.keys()
    by_rollout, by_plan = (
        {line.score: line for line in detection.compare(rows["nominal"], rows["moved"], unit)}
        for unit in (MEAN, PLAN)
    )
    for name, (score, own) in SCORES.items():
        cells = []
        for line in (by_rollout[score], by_plan[score]):
            group = line.per_task if own else line.pooled
            k = line.multiplier_per_task if own else line.multiplier
            accuracy = f"{group.held_out.balanced_accuracy:.1%}"
            if line is by_rollout[score]:
                cells.append(f"{group.auroc:.3f} ({group.low:.3f} – {group.high:.3f})")
                cells.append(f"{accuracy} (k = {k:g})")
            else:
                cells += [f"{group.auroc:.3f}", accuracy]
        assert told[name] == " | ".join(cells)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_the_options_that_it_is_given(command, capsys, monkeypatch):
    kind, given = COMMAND.match(command).groups()
    module = importlib.import_module("app" if kind == "app.py" else kind.removeprefix("-m "))
    if module.__name__ == "pytest":
        return
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    assert {word.partition("=")[0] for word in shlex.split(given) if word[:2] == "--"} <= known
