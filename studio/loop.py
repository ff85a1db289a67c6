"""ControlLoop: the state machine that drives one simulator with one controller.

One thread calls `tick()`; everybody else calls `submit()`. A tick applies the waiting commands and,
while running, advances the scene by one control step. Subscribers are told what happened and never
touch the loop. `run()` holds the studio's one error boundary: a fault becomes Status.ERROR with a
message, never a dead thread and never a failed episode.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from models.config import SamplerConfig
from models.types import Observation, Plan
from studio.describe import describe_camera, describe_light, describe_sampler, describe_sensor
from studio.events import (
    Advance,
    Command,
    EpisodeEvent,
    Frame,
    LoadScene,
    Mark,
    Outcome,
    Pause,
    Reset,
    Run,
    SceneSpec,
    SetCamera,
    SetInstruction,
    SetLight,
    SetSampler,
    SetSensor,
    SetSpeed,
    Status,
    StepEvent,
)
from studio.sensor import corrupted
from studio.sim.process import SimCrashed, SimProcess
from studio.state import LoopState, Pose

log = logging.getLogger(__name__)

IDLE_S = 0.25  # how long an idle loop sleeps between looks at its queue
MAX_HZ = 200.0
MAX_DEBT_S = 0.25  # what a late loop makes up for (a plan's time), so that the mean rate holds
FRAME_PERIOD_S = 0.045  # people see at most ~22 frames a second,
LATE_FRAME_PERIOD_S = 0.12  # and at least 8 while the loop is behind


class Controller(Protocol):
    """Whatever turns an observation into a plan: the policy, or a person."""

    def plan(self, obs: Observation, sampler: SamplerConfig, seed: int) -> Plan: ...


class PolicyAway(Exception):
    """A controller can't plan just now; its text says why. Ask again after `retry_s` seconds."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Subscriber(Protocol):
    """Told of everything that happens, on the loop's own thread. Must return quickly."""

    def on_state(self, state: LoopState) -> None: ...
    def on_episode(self, event: EpisodeEvent) -> None: ...
    def on_step(self, event: StepEvent) -> None: ...
    def on_plan(self, step: int, plan: Plan) -> None: ...
    def on_frame(self, frame: Frame) -> None: ...
    def on_mark(self, mark: Mark) -> None: ...


def plan_seed(scene: SceneSpec, index: int) -> int:
    """The sampler's seed of an episode's index-th plan: the same scene draws the same noise."""
    return int(np.random.SeedSequence([scene.seed, scene.init, index]).generate_state(1)[0])


class ControlLoop:
    """Drives `sim` with `controller` and tells `subscribers` (see the module docstring)."""

    def __init__(
        self,
        sim: SimProcess,
        controller: Controller,
        subscribers: Sequence[Subscriber] = (),
        *,
        hz: float = 20.0,
        replan_every: int = 8,
        every_frame: bool = False,
        pictures: bool = True,
    ) -> None:
        """`every_frame` renders a frame at each step, whatever it costs (for recordings);
        `pictures=False` renders none but what the controller looks at."""
        self._sim, self._controller = sim, controller
        self._subscribers = list(subscribers)
        self._replan_every = replan_every
        self._every_frame, self._pictures = every_frame, pictures
        self._commands: queue.Queue[Command | None] = queue.Queue()
        self._chunk: deque[np.ndarray] = deque()
        self._plans = 0
        self._until: int | None = None  # pause at this step (Advance)
        self._next_step = 0.0  # monotonic time of the next control step
        self._last_frame = 0.0
        self._recent: deque[float] = deque(maxlen=24)  # monotonic times of the latest steps
        self.state = LoopState(hz=hz)

    # -- from any thread ----------------------------------------------------------------------
    def submit(self, command: Command) -> None:
        """Queue a command for the next tick."""
        self._commands.put(command)

    def close(self) -> None:
        """Ask `run()` to end; commands already queued are applied first."""
        self._commands.put(None)

    # -- the loop's own thread ----------------------------------------------------------------
    def run(self) -> None:
        """Tick until `close()`; the one place where any exception is caught."""
        wait = 0.0
        while True:
            try:
                if self._drain(wait):
                    return
                wait = self.tick()
            except SimCrashed as crash:
                self._fail(f"The simulator stopped ({crash}); it has been restarted.", crash)
                wait = self._recover()
            except Exception as error:
                self._fail(str(error) or type(error).__name__, error)
                wait = IDLE_S

    def tick(self) -> float:
        """One control step if running; returns the seconds until the next tick is due."""
        if self.state.status is not Status.RUNNING:
            return IDLE_S
        now = time.monotonic()
        if now < self._next_step:
            return self._next_step - now
        try:
            self._step()
        except PolicyAway as away:  # nothing has happened yet: the same step is tried again
            self._set(message=str(away))
            return away.retry_s
        period = 1.0 / min(self.state.hz, MAX_HZ) if self.state.hz > 0 else 0.0
        self._next_step = max(self._next_step + period, time.monotonic() - MAX_DEBT_S)
        return max(0.0, self._next_step - time.monotonic())

    def _drain(self, wait: float) -> bool:
        """Apply the waiting commands, sleeping up to `wait` for the first; True to end."""
        timeout = wait
        while True:
            try:
                command = self._commands.get(block=timeout > 0, timeout=timeout)
            except queue.Empty:
                return False
            if command is None:
                return True
            self.apply(command)
            timeout = 0.0

    def apply(self, command: Command) -> None:
        """Carry out one command now. Raises what the simulator raises (SimError, SimCrashed)."""
        handlers: dict[type, Callable] = {
            LoadScene: lambda c: self._load(c.scene),
            Reset: lambda c: self._load(self.state.scene),
            Run: lambda c: self._start(None),
            Pause: lambda c: self._pause(),
            Advance: self._advance,
            SetSpeed: lambda c: self._set(hz=float(np.clip(c.hz, 0.0, MAX_HZ))),
            SetInstruction: self._instruct,
            SetCamera: lambda c: self._alter("camera", c.camera, describe_camera),
            SetLight: lambda c: self._alter("light", c.light, describe_light),
            SetSensor: lambda c: self._alter("sensor", c.sensor, describe_sensor),
            SetSampler: lambda c: self._alter("sampler", c.sampler, describe_sampler),
        }
        handlers[type(command)](command)

    # -- commands -----------------------------------------------------------------------------
    def _load(self, scene: SceneSpec) -> None:
        self._end(Outcome.STOPPED)
        old = self.state
        self._set(status=Status.LOADING, outcome=None, message="Building the scene…", step=0)
        info = self._sim.load(scene)
        self._sim.set_camera(old.camera)
        self._sim.set_light(old.light)
        same_task = (scene.suite, scene.task) == (old.scene.suite, old.scene.task)
        retyped = same_task and old.instruction and old.instruction != old.task_instruction
        self._chunk.clear()
        self._plans, self._until = 0, None
        self._set(
            status=Status.PAUSED,
            message="",
            scene=scene,
            task_instruction=info.instruction,
            instruction=old.instruction if retyped else info.instruction,
            max_steps=info.max_steps,
            n_inits=info.n_inits,
            episode=old.episode + 1,
            measured_hz=0.0,
            nominal_pose=Pose.of(*self._sim.nominal_camera_pose()),
            pose=Pose.of(*self._sim.camera_pose()),
        )
        self._tell_episode(versions=self._sim.versions())
        if self._pictures:
            self._show(self._sim.frames())

    def _start(self, until: int | None) -> None:
        if self.state.status in (Status.EMPTY, Status.ENDED, Status.ERROR):
            self._load(self.state.scene)  # Run after the end plays the episode again
        self._until = until
        self._next_step = time.monotonic()
        self._recent.clear()
        self._set(status=Status.RUNNING)

    def _pause(self) -> None:
        if self.state.status is Status.RUNNING:
            self._set(status=Status.PAUSED)

    def _advance(self, command: Advance) -> None:
        self._start(None)
        self._until = self.state.step + (self._chunk_left() if command.chunk else command.steps)

    def _chunk_left(self) -> int:
        return len(self._chunk) or self._replan_every

    def _instruct(self, command: SetInstruction) -> None:
        text, state = " ".join(command.text.split()), self.state
        if text == state.instruction:
            return
        # Another task's words ask for that task's goal, if the scene has what it needs.
        loaded = state.status not in (Status.EMPTY, Status.ERROR)
        goal = self._sim.ask(text) if loaded else None
        if goal is not None:
            self._set(scene=replace(state.scene, goal=goal), task_instruction=text)
        self._set(instruction=text)
        self._mark("instruction", text)

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
        if move and self.state.status is not Status.RUNNING:
            self._show(self._sim.frames())

    # -- one control step ---------------------------------------------------------------------
    def _step(self) -> None:
        state, plan = self.state, None
        if not self._chunk:
            seed = plan_seed(state.scene, self._plans)
            seen = corrupted(self._sim.observe(state.instruction), state.sensor, seed)
            plan = self._controller.plan(seen, state.sampler, seed)
            self._plans += 1
            self._chunk.extend(plan.actions[: self._replan_every])
            self._tell("on_plan", state.step, plan)
        action = self._chunk.popleft()
        last = state.step + 1 in (self._until, state.max_steps)
        now = time.monotonic()
        wanted = self._pictures and (self._every_frame or last or self._frame_is_due(now))
        reply = self._sim.step(action, frames=wanted)
        self._recent.append(time.monotonic())
        step = state.step + 1
        frame = Frame(step, reply.jpegs, time.time()) if reply.jpegs else None
        self._tell("on_step", StepEvent(step, action, reply.proprio, reply.success, plan, frame))
        self._set(step=step, measured_hz=self._measured_hz(), message="")
        if frame:
            self._last_frame = now
            self._tell("on_frame", frame)
        elif reply.success and self._pictures:
            self._show(self._sim.frames())
        if reply.success:
            self._end(Outcome.SUCCESS)
        elif step >= state.max_steps:
            self._end(Outcome.TIMEOUT)
        elif step == self._until:
            self._set(status=Status.PAUSED)

    def _frame_is_due(self, now: float) -> bool:
        """Pictures give way to control steps when the machine can't do both."""
        behind = self.state.hz > 0 and now - self._next_step > 1.0 / self.state.hz
        return now - self._last_frame >= (LATE_FRAME_PERIOD_S if behind else FRAME_PERIOD_S)

    def _measured_hz(self) -> float:
        if len(self._recent) < 2:
            return 0.0
        return (len(self._recent) - 1) / (self._recent[-1] - self._recent[0])

    def _end(self, outcome: Outcome, message: str = "") -> None:
        """Close the running episode, if one is."""
        if self.state.status not in (Status.RUNNING, Status.PAUSED):
            return
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

    def _recover(self) -> float:
        """A fresh simulator after a crash; the scene is loaded again on the next Run or Reset."""
        try:
            self._sim.restart()
        except Exception as error:
            self._fail(f"The simulator could not be restarted: {error}", error)
        return IDLE_S

    # -- telling ------------------------------------------------------------------------------
    def _set(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)
        self._tell("on_state", self.state)

    def _tell_episode(self, **event: object) -> None:
        state = self.state
        about = {"instruction": state.instruction, "perturbation": state.perturbation}
        self._tell("on_episode", EpisodeEvent(state.scene, **about, **event))

    def _mark(self, kind: str, text: str) -> None:
        self._tell("on_mark", Mark(self.state.step, kind, text))

    def _show(self, jpegs: dict[str, bytes]) -> None:
        self._tell("on_frame", Frame(self.state.step, jpegs, time.time()))

    def _tell(self, method: str, *args: object) -> None:
        for subscriber in self._subscribers:
            getattr(subscriber, method)(*args)
