"""Units, halves and the study of Table III over episodes."""

import json

import numpy as np
import pytest
from sklearn import metrics

from studio import detection
from studio.confusion import plain
from studio.events import CameraPerturbation
from studio.measures import UNITS, Scored, choosing_half, per_task
from studio.sim import catalog

NOWHERE = {"orbit_horizontal": 0.0, "orbit_vertical": 0.0, "distance": 100.0,
           "turn_horizontal": 0.0, "turn_vertical": 0.0, "fov": 45.0}  # fmt: skip


def row(task, energies, init=40, suite="s", outcome="success", difficulty=None, **camera):
    return {
        "suite": suite, "task": task, "init": init, "outcome": outcome,
        "kind": "camera" if camera else "none", "camera": NOWHERE | camera,
        "difficulty": difficulty, "final_energy": list(energies),
        "energy_gap": [e and e / 2 for e in energies],
    }  # fmt: skip


def study_of(nominal, perturbed, **how):
    return detection.study(detection.measure(nominal, perturbed, **how))


@pytest.fixture
def sides():
    """Two suites of three tasks; orbits lift the energy by 2, turns by nothing."""
    rng = np.random.default_rng(6)

    def energies(lift):
        return rng.normal(rng.normal(10 + lift, 0.5), 0.3, rng.integers(6, 30))

    places = [(suite, task, init) for suite in "ab" for task in range(3) for init in range(40, 48)]
    nominal = [row(task, energies(0), init, suite) for suite, task, init in places]
    perturbed = [
        row(task, energies(lift), init, suite, difficulty=level, **camera)
        for suite, task, init in places
        for lift, level, camera in ((2, 3, {"orbit_vertical": 30}), (0, 1, {"turn_vertical": -5}))
    ]
    return nominal, perturbed


def test_units_reduce_what_was_planned():
    rows = [row(0, [3.0, 1.0, 2.0]), row(0, [1.0, 2.0, 3.0, 4.0, 5.0, 60.0])]
    rows[0]["final_energy"].append(None)
    plans = Scored.of(rows, "final_energy").values
    values = {unit: reduce(plans) for unit, reduce in UNITS.items() if unit != "plan"}
    assert {unit: v.ravel().tolist() for unit, v in values.items()} == {
        "mean": [2.0, 12.5], "max": [3.0, 60.0], "first": [3.0, 1.0], "last": [2.0, 60.0],
        "mean of the first 5": [2.0, 3.0],
    }  # fmt: skip
    sides = detection.measure(rows, rows, unit="plan")
    assert sides.nominal_values.tolist() == [3, 1, 2, 1, 2, 3, 4, 5, 60]


def test_what_crashed_was_stopped_or_never_planned_is_no_data():
    rows = [row(0, [1.0], outcome=outcome) for outcome in ("error", "stopped", "timeout")]
    rows += [row(0, []), {"suite": "s", "task": 0, "outcome": "error"}, row(0, [None])]
    assert Scored.of(rows, "final_energy").rows == rows[2:3]
    for perturbed in (rows, []):
        with pytest.raises(detection.TooFew, match="two nominal episodes"):
            study_of(rows, perturbed)
    with pytest.raises(ValueError, match="unknown unit"):
        study_of(rows, rows, unit="median")


def test_standardising_by_task_finds_what_the_tasks_hide():
    """Two tasks 100 apart; perturbation adds 10 to both."""
    nominal = [row(t, [100 * t + e, 100 * t + e + 1]) for t in (0, 1) for e in (0.0, 1.0, 2.0)]
    perturbed = [row(t, [100 * t + 10.0]) for t in (0, 1)]
    assert study_of(nominal, perturbed).everything.auroc < 0.8
    assert study_of(nominal, perturbed, scaled=True).everything.auroc == 1.0


def test_an_episode_is_measured_by_the_others_of_its_task():
    nominal = [row(0, [0.0, 1.0]), row(0, [2.0, 3.0]), row(0, [7.0]), row(1, [5.0, 6.0])]
    perturbed = [row(0, [9.0, None, 4.0]), row(1, [9.0]), row(2, [1.0])]  # 1: one nominal, alone
    left, right = per_task(*(Scored.of(side, "final_energy") for side in (nominal, perturbed)))
    assert left.rows == nominal[:3] and right.rows == perturbed[:1]
    others, everyone = np.array([2.0, 3.0, 7.0]), np.array([0.0, 1.0, 2.0, 3.0, 7.0])
    expected = (np.array([0.0, 1.0]) - others.mean()) / others.std(ddof=1)
    assert left.values[0] == pytest.approx(expected)
    expected = (np.array([9.0, np.nan, 4.0]) - everyone.mean()) / everyone.std(ddof=1)
    assert right.values[0] == pytest.approx(expected, nan_ok=True)


def test_halves_are_disjoint_paired_and_even_in_every_task(sides):
    masks = choosing_half(*sides)
    again = choosing_half(*(side[::-1] for side in sides))
    assert all((mask == other[::-1]).all() for mask, other in zip(masks, again, strict=True))
    states = [set(), set()]
    for side, mask in zip(sides, masks, strict=True):
        for episode, chosen in zip(side, mask, strict=True):
            states[int(chosen)].add((episode["suite"], episode["task"], episode["init"]))
        for task in {(episode["suite"], episode["task"]) for episode in side}:
            mine = [(episode["suite"], episode["task"]) == task for episode in side]
            assert mask[mine].mean() == 0.5
    assert states[0] and states[1] and not states[0] & states[1]


def test_one_state_per_task_still_makes_two_halves():
    rows = [row(task, [0.0]) for task in range(4)]
    assert choosing_half(rows)[0].tolist() == [True, False, True, False]


@pytest.mark.parametrize("unit", ["mean", "plan"])
def test_a_study_is_what_scikit_learn_finds(sides, unit):
    values = detection.measure(*sides, unit=unit)
    study = detection.study(values)
    scores = np.concatenate([values.nominal_values, values.perturbed_values])
    truth = np.arange(len(scores)) >= len(values.nominal_values)
    assert study.everything.auroc == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert study.everything.low < study.everything.auroc < study.everything.high
    assert metrics.auc(study.curve.fpr, study.curve.tpr) == pytest.approx(study.everything.auroc)
    assert study.sigma == pytest.approx(np.std(values.nominal_values, ddof=1))
    assert [point.k for point in study.operating] == list(detection.KS)
    for point in study.operating:
        flagged = scores > study.mu + point.k * study.sigma
        assert point.confusion.balanced_accuracy == pytest.approx(
            metrics.balanced_accuracy_score(truth, flagged)
        )


def test_k_is_chosen_without_the_half_it_is_reported_on(sides):
    nominal, perturbed = sides
    before = study_of(nominal, perturbed)
    for episode, chosen in zip(perturbed, choosing_half(*sides)[1], strict=True):
        if not chosen:
            episode["final_energy"] = [-1.0]
    after = study_of(nominal, perturbed)
    assert after.chosen == before.chosen
    assert before.everything.held_out.true_positive_rate > 0.4
    assert after.everything.held_out.true_positive_rate == 0.0


def test_groups_show_which_moves_are_seen(sides):
    nominal, perturbed = sides
    groups = {(g.kind, g.label): g for g in study_of(nominal, perturbed).groups}
    assert set(groups) == {
        ("all", "all"), ("suite", "a"), ("suite", "b"), ("perturbation", "camera"),
        ("difficulty", "1"), ("difficulty", "3"), ("move", "orbit"), ("move", "turn"),
    }  # fmt: skip
    assert (groups["suite", "a"].nominal, groups["suite", "a"].perturbed) == (24, 48)
    assert (
        groups["all", "all"].held_out.true_positives + groups["all", "all"].held_out.false_negatives
        == len(perturbed) // 2
    )
    assert groups["move", "orbit"].auroc > 0.95 > 0.65 > groups["move", "turn"].auroc
    only_a = [episode for episode in perturbed if episode["suite"] == "a"]
    study = study_of(nominal, only_a)
    c = study.operating[0].confusion
    assert study.everything.nominal == c.true_negatives + c.false_positives == 24
    with pytest.raises(detection.TooFew, match="same suite"):
        study_of([e for e in nominal if e["suite"] == "b"], only_a)


def test_a_view_is_of_the_kind_that_it_mostly_moves():
    assert detection.camera_move(NOWHERE) is None
    assert detection.camera_move(NOWHERE | {"orbit_vertical": -3, "turn_vertical": 5}) == "turn"
    assert detection.camera_move(NOWHERE | {"orbit_vertical": 40, "distance": 130.0}) == "orbit"
    assert detection.camera_move(NOWHERE | {"orbit_vertical": 4, "distance": 50.0}) == "distance"
    fields = CameraPerturbation.__dataclass_fields__
    views = [{f: getattr(v.camera, f) for f in fields} for v in catalog.libero_plus_views()]
    moved = [detection.camera_move(view) for view in views]
    assert {move: moved.count(move) for move in set(moved)} == {
        "orbit": 992, "distance": 313, "turn": 294
    }  # fmt: skip


def test_scores_stand_side_by_side(sides):
    lines = detection.compare(*sides)
    assert [line.score for line in lines] == ["final_energy", "energy_gap"]
    assert lines[0].pooled == study_of(*sides).everything
    assert lines[0].per_task == study_of(*sides, scaled=True).everything
    assert lines[0].difficulties["3"] > 0.95
    assert lines[0].pooled.auroc == pytest.approx(lines[1].pooled.auroc)  # half is as good
    with pytest.raises(detection.TooFew):
        detection.compare(sides[0][:1], sides[1])


def test_tables_and_json(sides):
    table = detection.table(*sides).splitlines()
    assert table[0].endswith("| AUROC, difficulty 1 | AUROC, difficulty 3 |")
    assert table[2].startswith("| final energy | 0.") and len(table) == 4
    study = study_of(*sides)
    assert detection.operating_table(study).splitlines()[2].startswith("| 0.2σ |")
    assert "| move orbit | 48 | 48 |" in detection.groups_table(study)
    told = json.loads(json.dumps(plain([study, detection.compare(*sides)[0]])))
    assert told[0]["operating"][5]["confusion"]["false_positives"] >= 0
    assert told[1]["pooled"]["held_out"]["balanced_accuracy"] > 0.5


def test_few_episodes_are_told_apart_but_not_held_out():
    nominal = [row(0, [e]) for e in (0.0, 1.0)]
    study = study_of(nominal, [row(0, [5.0], orbit_vertical=9)])
    assert study.everything.auroc == 1.0 and study.everything.held_out is None
    assert "| 1.000 (0.207 – 1.000) | – |" in detection.groups_table(study)
