"""ControlLoop: the state machine that drives one simulator with one controller.

One thread calls `tick()`; everybody else calls `submit()`. A tick applies the waiting commands and,
while running, advances the scene by one control step. Subscribers are told what happened and never
touch the loop. `run()` holds the loop's one error boundary: a fault becomes Status.ERROR with a
message, never a dead thread and never a failed episode.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from studio.describe import describe_camera, describe_light, describe_sampler, describe_sensor
from studio.events import (
    Advance,
    Command,
    Drive,
    Frame,
    LoadScene,
    NextInstruction,
    Outcome,
    Pause,
    Replan,
    Reset,
    Run,
    SceneSpec,
    SetAssists,
    SetCamera,
    SetDriver,
    SetGuard,
    SetInstruction,
    SetLight,
    SetSampler,
    SetSensor,
    SetSequence,
    SetSpeed,
    Status,
    StepEvent,
)
from studio.guard import Guard
from studio.helm import Controller, Helm, PolicyAway
from studio.inbox import Inbox
from studio.instructions import Instructing
from studio.pace import CONTROL_HZ, MAX_HZ, Pace
from studio.sequence import Sequence
from studio.sim.process import SimCrashed, SimProcess, StepReply
from studio.state import LoopState, Pose, Subscriber

log = logging.getLogger(__name__)

IDLE_S = 0.25  # how long an idle loop sleeps between looks at its queue


class ControlLoop(Instructing):
    """Drives `sim` with `controller` and tells `subscribers` (see the module docstring)."""

    def __init__(
        self,
        sim: SimProcess,
        controller: Controller,
        subscribers: Iterable[Subscriber] = (),
        *,
        hz: float = CONTROL_HZ,
        frames: Literal["none", "paced", "every"] = "paced",
        guard: Guard | None = None,
    ) -> None:
        """`frames`: which steps are drawn: none, those that time allows, or all (for recordings).

        What the controller looks at is drawn in any case.
        """
        super().__init__(LoopState(hz=hz), subscribers)
        self._sim, self._helm, self._limit = sim, Helm(controller, sim.observe), 0
        self._frames, self._guard = frames, guard
        self._inbox = Inbox()
        self._helps = 0  # requests for help in this episode
        self._until: int | None = None  # pause at this step (Advance)
        self._pace = Pace()

    # -- from any thread ----------------------------------------------------------------------
    def submit(self, command: Command) -> None:
        """Queue a command for the next tick. Raises ValueError when too many wait already."""
        self._inbox.put(command)

    def close(self) -> None:
        """Ask `run()` to end with the command in hand."""
        self._inbox.close()

    # -- the loop's own thread ----------------------------------------------------------------
    def run(self) -> None:
        """Tick until `close()`; the one place in the loop where any exception is caught."""
        wait = 0.0
        while True:
            try:
                if self._drain(wait):
                    return
                wait = self.tick()
            except SimCrashed as crash:
                self._recover(crash)
                wait = IDLE_S
            except Exception as error:
                self._fail(str(error) or type(error).__name__, error)
                wait = IDLE_S

    def tick(self) -> float:
        """One control step if running; returns the seconds until the next tick is due."""
        if self.state.status is not Status.RUNNING:
            if self.state.status in (Status.PAUSED, Status.ENDED):
                self._catch_up()
            return IDLE_S
        if (wait := self._pace.wait()) > 0:
            return wait
        try:
            if self._helm.rests(self.state, time.monotonic()):
                return self._rest()
            if not self._plan():
                return 0.0
            self._step()
        except PolicyAway as away:  # nothing has happened yet: the same step is tried again
            self._set(message=str(away))
            return away.retry_s
        return self._pace.stepped(self.state.hz)

    def _drain(self, timeout: float) -> bool:
        """Apply the waiting commands, sleeping up to `timeout` s for the first; True to end."""
        while (command := self._inbox.take(timeout)) is not None:
            self.apply(command)
            timeout = 0.0
        return self._inbox.closed

    def apply(self, command: Command) -> None:
        """Carry out one command now. Raises what the simulator raises (SimError, SimCrashed)."""
        handlers: dict[type, Callable] = {
            LoadScene: lambda c: self._load(c.scene),
            Reset: lambda c: self._load(self.state.scene),
            Run: lambda c: self._start(),
            Pause: lambda c: self._pause(),
            Advance: self._advance,
            SetSpeed: lambda c: self._set(hz=float(np.clip(c.hz, 0.0, MAX_HZ))),
            SetInstruction: self._instruct,
            SetCamera: lambda c: self._alter("camera", c.camera, describe_camera),
            SetLight: lambda c: self._alter("light", c.light, describe_light),
            SetSensor: lambda c: self._alter("sensor", c.sensor, describe_sensor),
            SetSampler: lambda c: self._alter("sampler", c.sampler, describe_sampler),
            SetDriver: self._hand_over,
            Drive: self._take,
            SetAssists: lambda c: self._set(assists=c.assists),
            SetGuard: lambda c: self._set(guard=c.guard),
            Replan: self._replan,
            SetSequence: lambda c: self._line_up(c.sequence),
            NextInstruction: lambda c: self._next_instruction(),
        }
        handlers[type(command)](command)

    # -- commands -----------------------------------------------------------------------------
    def _load(self, scene: SceneSpec) -> None:
        self._end(Outcome.STOPPED)
        if (scene.suite, scene.task) != (self.state.scene.suite, self.state.scene.task):
            self._set(instruction="", task_instruction="", sequence=Sequence())
        old = self.state
        building = {"status": Status.LOADING, "message": "Building the scene…"}
        self._set(**building, scene=scene, outcome=None, step=0)
        info = self._sim.load(scene)
        self._sim.set_camera(old.camera)
        self._sim.set_light(old.light)
        items = old.sequence.items
        retyped = not items and old.instruction not in ("", old.task_instruction)
        proprio = self._sim.proprio()
        self._helm.begin(proprio, info.home)
        self._forget_help()
        self._helps, self._limit, self._until = 0, info.max_steps, None
        self._set(
            task_instruction=info.instruction,
            instruction=old.instruction if retyped else info.instruction,
            sequence=Sequence(),
            max_steps=info.max_steps,
            n_inits=info.n_inits,
            episode=old.episode + 1,
            measured_hz=0.0,
            hand=tuple(map(float, proprio[:6])),
            nominal_pose=Pose.of(*self._sim.nominal_camera_pose()),
            pose=Pose.of(*self._sim.camera_pose()),
        )
        if retyped:
            self._ask(old.instruction)
        self._tell_episode(versions=self._sim.versions())
        if old.driver != "policy":
            self._mark("driver", old.driver)
        self._line_up(Sequence(items, old.sequence.after))
        self._look()
        self._set(status=Status.PAUSED, message="")  # last: whoever sees it has the episode

    def _start(self) -> None:
        if self.state.status in (Status.EMPTY, Status.ENDED, Status.ERROR):
            self._load(self.state.scene)  # Run after the end plays the episode again
        self._answer("continue")
        self._helm.pilot.release()
        self._until = None
        self._pace.restart()
        self._set(status=Status.RUNNING)

    def _pause(self) -> None:
        if self.state.status is Status.RUNNING:
            self._set(status=Status.PAUSED)

    def _advance(self, command: Advance) -> None:
        self._start()
        self._until = self.state.step + (self._helm.chunk_left if command.chunk else command.steps)

    def _instruct(self, command: SetInstruction) -> None:
        text = " ".join(command.text.split())
        if text != self.state.instruction:
            tested = self._say(text)
            self._set(sequence=self.state.sequence.reworded(text, tested))
        if self.state.help:
            self._answer("retype")
            self._helm.drop()
            self._start()

    # -- who drives ---------------------------------------------------------------------------
    def _hand_over(self, command: SetDriver) -> None:
        """Another driver, without a jump: see `studio.helm`."""
        asked, driver = self.state.help, command.driver
        if driver == self.state.driver:
            return
        self._helm.drop()
        self._helm.pilot.release()
        self._set(driver=driver, resting=False)
        self._mark("driver", driver)
        if asked:
            self._answer("take over")
            self._start()

    def _take(self, command: Drive) -> None:
        if self.state.driver != "policy":
            self._helm.pilot.receive(command.held, time.monotonic())

    def _rest(self) -> float:
        """A person drives and holds nothing: wait for the next command."""
        inputs = self._helm.pilot.inputs
        if not self.state.resting or inputs != self.state.inputs:
            self._set(resting=True, inputs=inputs, measured_hz=0.0)
        self._catch_up()
        self._pace.restart()
        return IDLE_S

    # -- help ---------------------------------------------------------------------------------
    def _call_for_help(self, reason: str) -> None:
        self._helps += 1
        self._set(status=Status.PAUSED, help=reason)
        self._mark("help", f"asks for help: {reason}")

    def _answer(self, choice: str) -> None:
        """What a person chose when the policy asked for help, if it did."""
        if self.state.help:
            self._forget_help()
            self._mark("help", choice)

    def _forget_help(self) -> None:
        if self._guard:
            self._guard.forget()
        if self.state.help:
            self._set(help="")

    def _replan(self, command: Replan) -> None:
        self._answer(f"replan with {command.chains} chains")
        self._helm.drop(command.chains)
        self._start()

    def _alter(self, name: str, value: object, describe: Callable[..., str]) -> None:
        """Change the camera, the light, the sensor or the sampler under a running scene."""
        if value == getattr(self.state, name):
            return
        move = {"camera": self._sim.set_camera, "light": self._sim.set_light}.get(name)
        if self.state.status in (Status.EMPTY, Status.ERROR):
            self._set(**{name: value})  # applied when the scene is loaded
            return
        if move:
            move(value)
        pose = {"pose": Pose.of(*self._sim.camera_pose())} if name == "camera" else {}
        self._set(**{name: value}, **pose)
        self._mark(name, describe(value))
        if move and (self.state.resting or self.state.status is not Status.RUNNING):
            self._look()

    # -- one control step ---------------------------------------------------------------------
    def _plan(self) -> bool:
        """The policy's next plan, when one is due; False when something comes before its step."""
        plan = self._helm.plan(self.state)
        if plan is None:
            return True
        self._tell("on_plan", self.state.step, plan)
        if self._guard and (reason := self._guard.see(plan, self.state.guard)):
            self._call_for_help(reason)
            return False
        return self._inbox.empty  # commands that came meanwhile count first; the chunk stays

    def _step(self) -> None:
        state, move = self.state, self._helm.move(self.state)
        now = time.monotonic()
        due = self._frames == "every" or self._pace.frame_is_due(now, state.hz)
        reply = self._sim.step(move.action, frames=due and self._frames != "none")
        self._helm.moved(move, reply.proprio)
        self._pace.count(now, bool(reply.jpegs))
        step = state.step + 1
        frame = Frame(step, reply.jpegs, time.time()) if reply.jpegs else None
        reached = state.sequence.reached(reply.success)
        done = (move.action, reply.proprio, reached, move.plan, frame, move.driver)
        self._tell("on_step", StepEvent(step, *done))
        self._set(
            step=step, max_steps=state.max_steps + (move.driver == "human"), message="",
            resting=False, inputs=self._helm.pilot.inputs, measured_hz=self._pace.measured_hz,
            hand=tuple(map(float, reply.proprio[:6])),
        )  # fmt: skip
        if frame:
            self._show(frame)
        self._look_round(reply)

    def _look(self) -> None:
        """A picture of the scene as it stands."""
        if self._frames != "none":
            self._show(Frame(self.state.step, self._sim.frames(), time.time()))

    def _catch_up(self) -> None:
        """Pictures give way to control steps; the last step's comes when nothing moves any more."""
        if self._drawn != self.state.step:
            self._look()

    def _look_round(self, reply: StepReply) -> None:
        """After a step: is the episode over, or the instruction?"""
        state, sequence = self.state, self.state.sequence
        over = sequence.done(reply.success)
        if over or state.step in (state.max_steps, self._until):
            self._catch_up()
        if sequence.over(state.step, reply.success):
            self._next_instruction()
        if over:
            self._end(Outcome.SUCCESS)
        elif state.step >= self.state.max_steps:
            self._end(Outcome.TIMEOUT)
        elif state.step == self._until:
            self._set(status=Status.PAUSED)

    def _end(self, outcome: Outcome, message: str = "") -> None:
        """Close the running episode, if one is."""
        if self.state.status not in (Status.RUNNING, Status.PAUSED):
            return
        if self._helps:
            self._mark("help", f"{outcome}; asked for help {self._helps}×")
        self._forget_help()
        status = Status.ERROR if outcome is Outcome.ERROR else Status.ENDED
        self._set(status=status, outcome=outcome, message=message)
        self._tell_episode(outcome=outcome, steps=self.state.step, message=message)

    # -- faults -------------------------------------------------------------------------------
    def _fail(self, message: str, error: Exception) -> None:
        log.error("control loop: %s", message, exc_info=error)
        if self.state.status in (Status.RUNNING, Status.PAUSED):
            self._end(Outcome.ERROR, message)
        else:
            self._set(status=Status.ERROR, outcome=Outcome.ERROR, message=message)

    def _recover(self, crash: SimCrashed) -> None:
        """A fresh simulator; the scene is loaded again on the next Run or Reset."""
        told = f"The simulator stopped ({crash})"
        try:
            self._sim.restart()
        except Exception as error:
            self._fail(f"{told} and could not be restarted: {error}", error)
        else:
            self._fail(f"{told}; it has been restarted.", crash)
