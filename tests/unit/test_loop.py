"""The control loop's state machine, on a point mass."""

import threading
import time

import pytest

from models.config import SamplerConfig
from studio.events import (
    Advance,
    CameraPerturbation,
    LightPerturbation,
    LoadScene,
    Outcome,
    Pause,
    Reset,
    Run,
    SceneSpec,
    SensorNoise,
    SetCamera,
    SetInstruction,
    SetLight,
    SetSampler,
    SetSensor,
    SetSpeed,
    Status,
)
from studio.helm import plan_seed
from studio.loop import ControlLoop
from tests.helpers import wait_for


def run_to_end(loop, limit=1000):
    for _ in range(limit):
        if loop.state.status is not Status.RUNNING:
            return
        loop.tick()
    pytest.fail("the episode did not end")


def test_an_episode_times_out_after_its_steps(loop, listener, drifter):
    loop.apply(LoadScene(SceneSpec(init=3, seed=7)))
    assert loop.state.status is Status.PAUSED
    loop.apply(Run())
    run_to_end(loop)
    assert (loop.state.status, loop.state.outcome) == (Status.ENDED, Outcome.TIMEOUT)
    assert loop.state.step == 40 == len(listener.of("on_step"))
    assert len(drifter.seeds) == 5 == len(listener.of("on_plan"))
    begin, end = (args[0] for args in listener.of("on_episode"))
    assert begin.outcome is None and end.outcome is Outcome.TIMEOUT and end.steps == 40


def test_a_scene_stands_once_its_episode_and_picture_are_told(loop, listener):
    loop.apply(LoadScene(SceneSpec()))
    told = [name if name != "on_state" else args[0].status for name, args in listener.heard]
    assert told[-1] is Status.PAUSED and told.count(Status.PAUSED) == 1
    assert {"on_episode", "on_frame"} <= set(told)


def test_success_ends_the_episode(loop, point_mass):
    point_mass.goal = 1.05
    loop.apply(Run())  # loads the default scene by itself
    run_to_end(loop)
    assert loop.state.outcome is Outcome.SUCCESS
    assert loop.state.step == 11


def test_step_and_chunk_pause_again(loop):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(Advance(1))
    run_to_end(loop)
    assert (loop.state.step, loop.state.status) == (1, Status.PAUSED)
    loop.apply(Advance(chunk=True))
    run_to_end(loop)
    assert loop.state.step == 8  # what was left of the first chunk
    loop.apply(Advance(chunk=True))
    run_to_end(loop)
    assert loop.state.step == 16


def test_what_has_come_to_rest_is_seen_as_it_stands(loop, listener):
    """Pictures give way to control steps at this speed, but never that of the last one."""

    def seen():
        return listener.of("on_frame")[-1][0].step

    loop.apply(SetSpeed(0))
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(Advance(5))
    run_to_end(loop)
    assert seen() == loop.state.step == 5
    loop.apply(Run())
    for _ in range(4):
        loop.tick()
    loop.apply(Pause())
    loop.tick()
    assert seen() == loop.state.step == 9
    steps = [args[0].step for args in listener.of("on_frame")]
    assert len(steps) < 9
    loop.tick()
    assert len(listener.of("on_frame")) == len(steps)


def test_the_next_plan_uses_the_new_instruction(loop, drifter, listener):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(Advance(3))
    run_to_end(loop)
    loop.apply(SetInstruction("  push   the plate "))
    loop.apply(Advance(8))
    run_to_end(loop)
    assert drifter.instructions == ["reach the goal", "push the plate"]
    (mark,) = listener.of("on_mark")[0]
    assert (mark.step, mark.kind, mark.text) == (3, "instruction", "push the plate")


def test_a_retyped_instruction_survives_reset_but_not_another_task(loop):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(SetInstruction("push the plate"))
    loop.apply(Reset())
    assert loop.state.instruction == "push the plate"
    loop.apply(LoadScene(SceneSpec(task=1)))
    assert loop.state.instruction == "reach the goal"


def test_another_tasks_words_ask_for_its_goal(loop):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(SetInstruction("push the plate"))
    assert loop.state.scene.goal is None
    loop.apply(SetInstruction("reach the other goal"))
    assert loop.state.scene.goal == 3
    assert loop.state.task_instruction == loop.state.instruction == "reach the other goal"
    loop.apply(LoadScene(SceneSpec()))  # the scene's own again
    assert loop.state.scene.goal is None and loop.state.instruction == "reach the goal"


def test_words_of_one_task_are_not_carried_to_another_that_failed_to_load(loop):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(SetInstruction("push the plate"))
    with pytest.raises(ValueError, match="0-49"):
        loop.apply(LoadScene(SceneSpec(task=1, init=50)))
    loop.apply(LoadScene(SceneSpec(task=1)))
    assert loop.state.instruction == "reach the goal"


def test_camera_and_sampler_apply_and_leave_marks(loop, point_mass, drifter, listener):
    loop.apply(LoadScene(SceneSpec()))
    shown = len(listener.of("on_frame"))
    loop.apply(SetCamera(CameraPerturbation(orbit_horizontal=20)))
    assert point_mass.camera.orbit_horizontal == 20
    assert len(listener.of("on_frame")) == shown + 1  # a paused scene shows the move at once
    loop.apply(SetSampler(SamplerConfig(steps=4, chains=3)))
    loop.apply(Advance(1))
    run_to_end(loop)
    assert drifter.samplers[-1].chains == 3
    texts = [args[0].text for args in listener.of("on_mark")]
    assert texts == ["orbit horizontal 20°", "steps 4, chains 3"]


def test_light_and_sensor_apply_and_leave_marks(loop, point_mass, listener):
    loop.apply(LoadScene(SceneSpec()))
    shown = len(listener.of("on_frame"))
    loop.apply(SetLight(LightPerturbation(intensity=40)))
    assert point_mass.light.intensity == 40
    assert len(listener.of("on_frame")) == shown + 1
    loop.apply(SetSensor(SensorNoise("fog", 3)))
    loop.apply(SetSensor(SensorNoise("fog", 3)))  # nothing new
    marks = [(mark.kind, mark.text) for (mark,) in listener.of("on_mark")]
    assert marks == [("light", "intensity 40%"), ("sensor", "fog 3")]
    loop.apply(SetLight(LightPerturbation()))
    assert point_mass.light.nominal and listener.of("on_mark")[-1][0].text == "nominal light"


def test_what_the_policy_sees_is_noisy_and_the_same_each_time(loop, listener):
    loop.apply(SetSensor(SensorNoise("fog", 5)))
    for _ in range(2):
        loop.apply(LoadScene(SceneSpec(seed=4)))
        loop.apply(Advance(9))
        run_to_end(loop)
    seen = [plan.observation.images for _, plan in listener.of("on_plan")]
    assert len(seen) == 4
    assert (seen[0]["agentview"] == seen[2]["agentview"]).all()
    assert (seen[0]["agentview"] != seen[1]["agentview"]).any()  # it moves
    assert all((images["wrist"] == images["wrist"][0, 0]).all() for images in seen)  # clear


def test_camera_and_light_stay_when_the_scene_changes(loop, point_mass, listener):
    loop.apply(SetCamera(CameraPerturbation(distance=120)))
    loop.apply(SetLight(LightPerturbation(hue=30, saturation=50)))
    loop.apply(LoadScene(SceneSpec()))
    assert point_mass.camera.distance == 120 and point_mass.light.saturation == 50
    (begin,) = (args[0] for args in listener.of("on_episode"))
    assert begin.perturbation.kind == "camera+light"
    assert begin.perturbation.camera.distance == 120


def test_the_same_scene_draws_the_same_noise(loop, drifter):
    for _ in range(2):
        loop.apply(LoadScene(SceneSpec(init=1, seed=2)))
        loop.apply(Run())
        run_to_end(loop)
    assert drifter.seeds[:5] == drifter.seeds[5:]
    assert len(set(drifter.seeds[:5])) == 5
    assert plan_seed(SceneSpec(seed=0), 0) != plan_seed(SceneSpec(seed=1), 0)


def test_a_scene_left_behind_was_stopped(loop, listener):
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(LoadScene(SceneSpec(task=1)))
    outcomes = [args[0].outcome for args in listener.of("on_episode")]
    assert outcomes == [None, Outcome.STOPPED, None]


@pytest.fixture
def running(loop):
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    yield loop
    loop.close()
    thread.join(5)
    assert not thread.is_alive()


def test_what_still_waits_when_it_closes_is_left(point_mass, listener):
    loop = ControlLoop(point_mass, None, [listener], hz=0)
    for task in range(5):
        loop.submit(LoadScene(SceneSpec(task=task)))
    loop.close()
    loop.run()
    assert not listener.of("on_episode")


def test_too_many_requests_are_refused(loop, monkeypatch):
    monkeypatch.setattr("studio.inbox.MOST", 3)
    for _ in range(3):
        loop.submit(Run())
    with pytest.raises(ValueError, match="too many requests"):
        loop.submit(Run())


def test_a_crash_is_an_error_and_the_next_run_works(running, point_mass):
    point_mass.crash_at = 5
    running.submit(Run())
    wait_for(lambda: running.state.status is Status.ERROR)
    assert running.state.outcome is Outcome.ERROR
    assert "restarted" in running.state.message and point_mass.restarts == 1
    running.submit(Run())
    wait_for(lambda: running.state.outcome is Outcome.TIMEOUT)


def test_words_typed_after_a_fault_ask_for_their_goal(running, point_mass):
    point_mass.crash_at = 5
    running.submit(Run())
    wait_for(lambda: running.state.status is Status.ERROR)
    running.submit(SetInstruction("reach the other goal"))
    running.submit(Reset())
    wait_for(lambda: running.state.status is Status.PAUSED)
    assert running.state.scene.goal == 3
    assert running.state.task_instruction == running.state.instruction == "reach the other goal"


def test_a_bad_scene_is_a_message(running):
    running.submit(LoadScene(SceneSpec(init=50)))
    wait_for(lambda: running.state.status is Status.ERROR)
    assert "0-49" in running.state.message
    before = running.state.episode
    running.submit(Run())  # as the page sends after a load: the old scene is not what was asked for
    running.submit(SetSpeed(33))
    wait_for(lambda: running.state.hz == 33)
    assert running.state.status is Status.ERROR and "0-49" in running.state.message
    assert running.state.episode == before
    running.submit(LoadScene(SceneSpec(init=1)))
    wait_for(lambda: running.state.status is Status.PAUSED)


def test_pause_stops_at_once(running):
    running.submit(SetSpeed(100))
    running.submit(Run())
    wait_for(lambda: running.state.step > 3)
    running.submit(Pause())
    wait_for(lambda: running.state.status is Status.PAUSED)
    step = running.state.step
    time.sleep(0.05)
    assert running.state.step == step


def test_a_pause_while_the_policy_plans_comes_before_its_step(running, drifter, listener):
    plan = drifter.plan

    def planning(*given):
        if not drifter.seeds:
            running.submit(Pause())
        return plan(*given)

    drifter.plan = planning
    running.submit(Run())
    wait_for(lambda: listener.of("on_plan") and running.state.status is Status.PAUSED)
    assert running.state.step == 0
    running.submit(Advance(1))
    wait_for(lambda: running.state.step == 1)
    (event,) = listener.of("on_step")[0]
    assert event.plan is listener.of("on_plan")[0][1] and len(drifter.seeds) == 1


def test_speed_paces_the_steps(point_mass, drifter):
    loop = ControlLoop(point_mass, drifter, hz=50)
    began = time.monotonic()
    loop.apply(Run())
    while loop.state.status is Status.RUNNING:
        time.sleep(loop.tick())
    assert time.monotonic() - began >= 39 / 50


@pytest.mark.parametrize("text", ["", "  \n", "x" * 10_000])
def test_instructions_are_checked(text):
    with pytest.raises(ValueError, match="instruction"):
        SetInstruction(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9, "20", None, True])
def test_cameras_are_checked(value):
    with pytest.raises(ValueError, match="orbit_horizontal"):
        CameraPerturbation(orbit_horizontal=value)
