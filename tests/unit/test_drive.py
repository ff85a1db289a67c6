"""Who drives, help and sequences in the control loop, on a point mass."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from studio.events import (
    CameraPerturbation,
    Drive,
    LoadScene,
    NextInstruction,
    Outcome,
    Replan,
    Reset,
    RobotStart,
    Run,
    SceneSpec,
    SetAssists,
    SetCamera,
    SetDriver,
    SetGuard,
    SetInstruction,
    SetSequence,
    Status,
)
from studio.guard import Guard, GuardSettings
from studio.loop import ControlLoop
from studio.sequence import Sequence
from studio.teleop import REACH, REST_STEPS, Assists, DriveInput

FREE = Assists(workspace=False)  # a point mass has metres to go


@pytest.fixture
def driven(loop, monkeypatch):
    monkeypatch.setattr("studio.teleop.STALE_S", math.inf)  # however slow the test is
    loop.apply(SetAssists(FREE))
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(Run())
    return loop


def steps(loop, count):
    for _ in range(count):
        loop.tick()


def texts(listener, kind):
    return [(mark.step, mark.text) for (mark,) in listener.of("on_mark") if mark.kind == kind]


def drivers(listener):
    return [event.driver for (event,) in listener.of("on_step")]


def hold(loop, **held):
    loop.apply(Drive(DriveInput(loop.state.inputs + 1, **held)))


def test_a_person_drives_and_the_policy_plans_anew(driven, drifter, point_mass, listener):
    steps(driven, 3)
    driven.apply(SetDriver("human"))
    hold(driven, y=1.0, speed=1.0)
    steps(driven, 4)
    driven.apply(SetDriver("policy"))
    steps(driven, 2)
    assert drivers(listener) == ["policy"] * 3 + ["human"] * 4 + ["policy"] * 2
    assert np.allclose(point_mass.x[:2], [0.5, 4.0])
    assert [step for step, _ in listener.of("on_plan")] == [0, 7]
    assert texts(listener, "driver") == [(3, "human"), (7, "policy")]


def test_the_gripper_stays_as_it_was(driven, drifter, listener):
    plan = drifter.plan

    def closing(*args):
        made = plan(*args)
        made.actions[:, 6] = 0.3
        return made

    drifter.plan = closing
    steps(driven, 1)
    driven.apply(SetDriver("human"))
    steps(driven, 2)
    hold(driven, gripper=-1.0)
    steps(driven, 1)
    hold(driven)
    steps(driven, 1)
    grips = [event.action[6] for (event,) in listener.of("on_step")]
    assert np.allclose(grips, [0.3, 1, 1, -1, -1])


def test_the_workspace_stays_where_the_scene_is(loop, point_mass):
    """However the arm starts: from outside it comes back in, and goes no further out."""
    point_mass.start = REACH[1, 0] + 0.25
    loop.apply(LoadScene(SceneSpec(robot=RobotStart(0.5, 1))))
    loop.apply(SetDriver("human"))
    loop.apply(Run())
    ways = []
    for forward in (0.0, 1.0, -1.0, 1.0):
        before = point_mass.x[0]
        hold(loop, x=forward, speed=0.3)
        steps(loop, 1)
        ways.append(point_mass.x[0] - before)
    assert np.allclose(ways, [0, 0, -0.3, 0.3])


def test_an_idle_person_uses_no_steps(driven, listener):
    driven.apply(SetDriver("human"))
    steps(driven, 3 * REST_STEPS)
    assert driven.state.resting and driven.state.status is Status.RUNNING
    assert driven.state.step == REST_STEPS
    shown = len(listener.of("on_frame"))
    driven.apply(SetCamera(CameraPerturbation(distance=120)))
    assert len(listener.of("on_frame")) == shown + 1  # a scene at rest shows the move at once
    hold(driven, x=1.0)
    steps(driven, 1)
    assert not driven.state.resting and driven.state.step == REST_STEPS + 1


def test_the_limit_counts_the_policys_steps(driven):
    driven.apply(SetDriver("human"))
    for _ in range(100):
        hold(driven, x=0.1)
        steps(driven, 1)
    assert driven.state.max_steps == 140 and driven.state.status is Status.RUNNING
    driven.apply(SetDriver("policy"))
    steps(driven, 40)
    assert driven.state.outcome is Outcome.TIMEOUT and driven.state.step == 140


def test_a_person_can_reach_the_goal(driven, point_mass):
    point_mass.goal = 0.9
    driven.apply(SetDriver("human"))
    hold(driven, x=1.0, speed=1.0)
    steps(driven, 1)
    assert driven.state.outcome is Outcome.SUCCESS


def test_shared_adds_to_the_policys_chunk(driven, point_mass, listener):
    driven.apply(SetDriver("shared"))
    steps(driven, 1)
    hold(driven, y=1.0, x=1.0, speed=1.0)
    steps(driven, 1)
    actions = [event.action for (event,) in listener.of("on_step")]
    assert np.allclose(actions[0][:2], [0.1, 0]) and drivers(listener) == ["policy", "shared"]
    assert np.allclose(actions[1][:2], [0.1 + np.sqrt(0.5), np.sqrt(0.5)])
    hold(driven, x=1.0, speed=1.0)
    steps(driven, 1)
    assert listener.of("on_step")[-1][0].action[0] == 1.0  # clipped


def test_a_tap_while_the_policy_plans_counts_for_the_step_that_comes(driven, drifter, listener):
    driven.apply(SetDriver("shared"))
    hold(driven, y=1.0, speed=1.0)
    plan = drifter.plan

    def slow(*asked):
        driven.submit(Drive(DriveInput(99)))  # the key is let go of meanwhile
        return plan(*asked)

    drifter.plan = slow
    for _ in range(4):
        driven._drain(0)
        driven.tick()
    given = drivers(listener)
    assert given[0] == "shared" and set(given[1:]) == {"policy"}


def test_a_gated_policy_goes_on_while_a_key_is_held(driven, listener):
    driven.apply(SetAssists(replace(FREE, gate=True)))
    driven.apply(SetDriver("shared"))
    steps(driven, 3)
    assert driven.state.step == 0 and driven.state.resting
    hold(driven, go=True)
    steps(driven, 3)
    assert driven.state.step == 3 and drivers(listener) == ["policy"] * 3
    hold(driven)
    steps(driven, 3)
    assert driven.state.step == 3 and driven.state.resting


def test_nothing_held_before_run_moves_the_arm(loop, point_mass):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(SetDriver("human"))
    hold(loop, x=1.0)
    loop.apply(Run())
    steps(loop, 3)
    assert point_mass.x[0] == 0


def test_the_driver_outlives_a_reset_and_is_marked(driven, listener):
    driven.apply(SetDriver("human"))
    driven.apply(Reset())
    assert driven.state.driver == "human"
    assert texts(listener, "driver") == [(0, "human"), (0, "human")]


# -- help -------------------------------------------------------------------------------------


@pytest.fixture
def guarded(point_mass, drifter, listener):
    """The drifter's final energies are 5.1, 5.2, …; help is asked for at the second above 5.15."""
    loop = ControlLoop(
        point_mass, drifter, [listener], hz=0, guard=Guard(lambda score: (5.15, 0.1))
    )
    loop.apply(SetAssists(FREE))
    loop.apply(SetGuard(GuardSettings(on=True, k=0.0, plans=2, rule="level")))
    loop.apply(Run())
    while loop.state.status is Status.RUNNING:
        loop.tick()
    return loop


def test_the_policy_stops_and_says_why(guarded, listener):
    assert (guarded.state.status, guarded.state.step) == (Status.PAUSED, 16)
    assert guarded.state.help == "2 plans in a row above 5.15, the last one at 5.30"
    assert texts(listener, "help") == [(16, f"asks for help: {guarded.state.help}")]
    assert len(listener.of("on_plan")) == 3


def test_continue_carries_the_plan_out(guarded, listener):
    guarded.apply(Run())
    steps(guarded, 1)
    assert guarded.state.help == "" and guarded.state.step == 17
    assert len(listener.of("on_plan")) == 3 and listener.of("on_step")[-1][0].plan
    assert texts(listener, "help")[-1] == (16, "continue")


def test_replan_with_more_chains_this_once(guarded, drifter):
    guarded.apply(Replan(6))
    steps(guarded, 9)
    assert [sampler.chains for sampler in drifter.samplers[-2:]] == [6, 1]
    assert guarded.state.step == 24 and guarded.state.help  # two more above


def test_retype_plans_for_the_new_words(guarded, drifter, listener):
    guarded.apply(SetInstruction("push the plate"))
    steps(guarded, 1)
    assert guarded.state.status is Status.RUNNING and drifter.instructions[-1] == "push the plate"
    assert texts(listener, "help")[-1] == (16, "retype")


def test_take_over_and_the_outcome_is_told(guarded, point_mass, listener):
    guarded.apply(SetDriver("human"))
    assert guarded.state.status is Status.RUNNING and not guarded.state.help
    point_mass.goal = point_mass.x[0]
    hold(guarded, x=1.0)
    steps(guarded, 1)
    assert texts(listener, "help")[1:] == [
        (16, "take over"),
        (17, "success; asked for help 1×"),
    ]


# -- sequence ---------------------------------------------------------------------------------


def test_words_without_a_goal_of_their_own_end_no_episode(driven, point_mass, listener):
    driven.apply(SetSequence(Sequence(("reach the other goal", "wave"))))
    steps(driven, 2)
    point_mass.goal = 0.25  # the first's, which still holds when the second is asked for
    steps(driven, 3)
    assert driven.state.sequence.at == 1 and driven.state.status is Status.RUNNING
    success = [event.success for (event,) in listener.of("on_step")]
    assert success == [False, False, True, False, False]


def test_the_words_that_a_sequence_ended_with_still_have_no_goal(driven, point_mass):
    driven.apply(SetSequence(Sequence(("wave", "reach the goal"))))
    point_mass.goal = 0.0  # the scene's
    driven.apply(SetSequence(Sequence()))
    driven.apply(SetInstruction("wave with both fingers"))
    steps(driven, 2)
    assert driven.state.status is Status.RUNNING
    driven.apply(SetInstruction("reach the goal"))
    steps(driven, 1)
    assert driven.state.outcome is Outcome.SUCCESS


def test_instructions_follow_each_other(driven, point_mass, listener):
    driven.apply(SetSequence(Sequence(("reach the other goal", "wave", "reach the goal"))))
    steps(driven, 2)
    point_mass.goal = 0.25  # the first has a goal of its own
    steps(driven, 1)
    assert driven.state.sequence.at == 1 and driven.state.instruction == "wave"
    steps(driven, 3)  # the goal still holds, but these words have none
    assert driven.state.sequence.at == 1
    driven.apply(NextInstruction())
    assert driven.state.instruction == "reach the goal"
    steps(driven, 1)
    assert driven.state.outcome is Outcome.SUCCESS
    assert [text for _, text in texts(listener, "instruction")] == [
        "reach the other goal",
        "wave",
        "reach the goal",
    ]


def test_each_has_its_steps(driven):
    driven.apply(SetSequence(Sequence(("wave", "bow"), after=30)))
    steps(driven, 30)
    assert driven.state.instruction == "bow" and driven.state.max_steps == 70
    steps(driven, 40)
    assert driven.state.outcome is Outcome.TIMEOUT


def test_a_reset_begins_with_the_first(driven):
    driven.apply(SetSequence(Sequence(("wave", "bow"))))
    driven.apply(NextInstruction())
    driven.apply(SetInstruction("bow deeply"))
    assert driven.state.sequence.items == ("wave", "bow deeply")
    driven.apply(Reset())
    assert (driven.state.instruction, driven.state.sequence.at) == ("wave", 0)
    driven.apply(LoadScene(SceneSpec(task=1)))
    assert driven.state.sequence == Sequence() and driven.state.instruction == "reach the goal"


def test_silence_lets_go(driven, point_mass, monkeypatch):
    driven.apply(SetDriver("human"))
    hold(driven, x=1.0, speed=1.0)
    steps(driven, 1)
    moved = point_mass.x[0]
    assert moved > 0
    monkeypatch.setattr("studio.teleop.STALE_S", 0.05)
    time.sleep(0.1)
    steps(driven, 2)
    assert point_mass.x[0] == moved
