"""When the policy asks for help, and the instructions that follow each other."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from studio.guard import Guard, GuardSettings, alarm
from studio.sequence import Sequence

LEVEL = (10.0, 1.0)  # T = 11 at k = 1


def settings(rule="either", plans=3, **more):
    return GuardSettings(on=True, rule=rule, plans=plans, **more)


def test_n_plans_in_a_row_above_the_threshold():
    assert "3 plans in a row above 11.00" in alarm([9, 12, 12, 12], settings("level"), LEVEL)
    assert alarm([12, 12, 10.9, 12], settings("level"), LEVEL) is None
    assert alarm([12, 12], settings("level"), LEVEL) is None
    assert alarm([12], settings("level", plans=1), LEVEL)
    assert alarm([12, 12, 12], settings("level", k=2.5), LEVEL) is None


def test_a_slope_that_leads_above_it():
    rising = [8.0, 9.0, 10.0]
    assert "rising by 1.00 a plan" in alarm(rising, settings("slope"), LEVEL)
    assert alarm(rising, settings("level"), LEVEL) is None
    assert alarm(rising[::-1], settings("slope"), LEVEL) is None
    assert alarm([10.0, 10.2, 10.4], settings("slope"), LEVEL) is None  # less than the noise
    assert alarm(rising[1:], settings("slope"), LEVEL) is None


def plan(energy):
    trace = SimpleNamespace(energies=np.array([[20.0], [energy]]))
    return SimpleNamespace(trace=trace, chain=0, final_energy=energy, initial_energy=20.0)


def test_an_answer_starts_the_count_anew():
    guard = Guard(lambda score: LEVEL)
    plans = [guard.see(plan(12), settings("level", plans=2)) for _ in range(2)]
    assert plans[0] is None and plans[1]
    guard.forget()
    assert guard.see(plan(12), settings("level", plans=2)) is None


def test_no_calibration_no_guard():
    guard = Guard(lambda score: None)
    assert guard.see(plan(1e6), settings("level", plans=1)) is None
    assert Guard(lambda score: LEVEL).see(plan(1e6), GuardSettings(plans=1)) is None  # off


@pytest.mark.parametrize("fields", [{"plans": 0}, {"k": 99.0}, {"rule": "mood"}, {"on": 1}])
def test_bad_settings_are_refused(fields):
    with pytest.raises(ValueError, match=f"guard: {next(iter(fields))}"):
        GuardSettings(**fields)


def test_the_next_instruction_starts_on_success_or_after_its_steps():
    first = Sequence(("open", "close"), after=10, began=5)
    assert first.more and first.text == "open"
    assert first.over(6, success=True) and first.over(15, success=False)
    assert not first.over(14, success=False)
    assert not replace(first, tested=False).over(14, success=True)  # words without a goal
    assert not replace(first, at=1).over(15, success=True)  # the last
    assert replace(first, at=1).reworded("shut", True).items == ("open", "shut")
    assert not first.reworded("wave", tested=False).tested
    assert Sequence().reworded("wave", tested=False) == Sequence()


@pytest.mark.parametrize("bad", [{"items": ("a", " ")}, {"items": ("a",) * 21}, {"after": -1}])
def test_bad_sequences_are_refused(bad):
    with pytest.raises(ValueError, match=r"instruction|sequence"):
        Sequence(**bad)
