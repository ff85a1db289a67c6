"""The README says what the shipped study says, and its commands are those that there are."""

import importlib
import json
import re
import shlex
import sys
from collections import Counter

import pytest

from models.checkpoint import read_calibration, sha256
from studio import correlation, detection, failure, results, success
from studio.measures import MEAN, PLAN
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text()
PROSE = " ".join(README.split())
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
LABELS = {  # of the failure predictors
    "Slope Start": "Slope Start",
    "Slope Final": "Slope Final",
    "Level Final": "Level Final",
    "Level of the read-out distance": "distance to the read-out",
}
COMMAND = re.compile(r"python (app\.py|-m [\w.]+)((?: (?!#)[^`\n]*)?)")
COMMANDS = sorted({found[0].strip() for found in COMMAND.finditer(README)})


EVALUATIONS = {name: ROOT / f"assets/evaluations/{name}" for name in ("ten", "goal", "language")}


@pytest.fixture(scope="module")
def rows():
    return {name: results.read_rows(folder) for name, folder in (STUDIES | EVALUATIONS).items()}


def wins(rows: list[dict]) -> Counter[str]:
    """Successes by suite."""
    return Counter(row["suite"] for row in rows if row["outcome"] == "success")


def test_the_study_is_of_the_shipped_weights(rows):
    weights = sha256(SHIPPED / "model.safetensors")
    assert {row["checkpoint"] for side in rows.values() for row in side} == {weights}
    known = read_calibration(SHIPPED)
    assert f"μ_v = {known.mu:.4f}, σ_v = {known.sigma:.4f}" in README
    record = json.loads((SHIPPED / "config.json").read_text())["training"]
    assert f"{record['samples']:,} samples" in (SHIPPED / "README.md").read_text()


@pytest.mark.parametrize("name", ["nominal", "ten"])
def test_the_success_table(rows, name):
    for line in success.table(rows[name]).splitlines():
        assert line in README


def test_what_it_does_when_asked_for_another_task(rows):
    totals = [line for line in success.table(rows["goal"]).splitlines() if "**" in line]
    assert len(totals) == 2
    assert "| --- | --- | --- |\n" + "\n".join(totals) + "\n\n" in README


def test_what_it_does_when_told_in_other_words(rows):
    told, own = (
        wins([row for row in rows[name] if row["init"] in (40, 41)])
        for name in ("language", "nominal")
    )
    assert len(rows["language"]) == 60
    spatial, goal, thing = "libero_spatial", "libero_goal", "libero_object"
    assert (
        f"it solves {told.total()} of 60 where its own words solve {own.total()}: libero_spatial "
        f"{told[spatial]}, libero_goal {told[goal]} and libero_object {told[thing]} of 20 "
        f"({own[spatial]}, {own[goal]} and {own[thing]})"
    ) in PROSE


def test_what_moved_cameras_leave(rows):
    moved, nominal = wins(rows["moved"]).total(), wins(rows["nominal"]).total()
    told = (
        f"Moved cameras let {moved} of 300 episodes succeed, of the nominal ones {nominal} of 150"
    )
    assert told in PROSE


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
            k = line.k_per_task if own else line.k
            accuracy = f"{group.held_out.balanced_accuracy:.1%}"
            if line is by_rollout[score]:
                cells.append(f"{group.auroc:.3f} ({group.low:.3f} – {group.high:.3f})")
                cells.append(f"{accuracy} (k = {k:g})")
            else:
                cells += [f"{group.auroc:.3f}", accuracy]
        assert told[name] == " | ".join(cells)


def test_the_table_of_failure_predictors(rows):
    sides = [*rows["nominal"], *rows["moved"]], rows["nominal"], rows["moved"]
    told = re.findall(r"^\| ((?:Slope|Level) [^|]*) \| (.*) \|$", README, re.MULTILINE)
    assert len(told) == len(failure.PREDICTORS)
    for name, predictor in failure.PREDICTORS.items():
        [cells] = [cells for label, cells in told if LABELS[name] in label]
        whole, *each = (failure.predict(side, predictor).best for side in sides)
        rates = [whole.held_out, whole.running, *(step.held_out for step in each)]
        first, running, *rest = (f"{rate.balanced_accuracy:.1%}" for rate in rates)
        assert cells == " | ".join([first, running, str(whole.step), f"{whole.warning_s} s", *rest])


def test_how_scores_go_with_failure(rows):
    told = correlation.table([*rows["nominal"], *rows["moved"]])
    for name, start in (
        ("final energy", "failure only weakly: −Spearman "),
        ("energy gap", "energy gap does best with "),
    ):
        cells = re.search(rf"^\| {name} \| (\S+) \| (\S+) \|$", told, re.MULTILINE)
        said = re.search(re.escape(start) + r"(\S+?),? (?:and |−Pearson )(\S+)", PROSE)
        assert said.groups() == cells.groups()


def test_the_papers_threshold(rows):
    [line] = re.findall(
        r"^\| 1\.0σ \| \S+ \| \S+ \| (\S+) \| (\S+) \| (\S+) \|",
        detection.operating_table(
            detection.study(detection.measure(rows["nominal"], rows["moved"]))
        ),
        re.MULTILINE,
    )
    balanced, caught, false = line
    said = f"{balanced} balanced accuracy over all episodes (the paper: 84.5%), {caught} caught"
    assert f"{said}, {false} false alarms" in PROSE


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
