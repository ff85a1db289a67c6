"""The simulator in a process of its own: `SimProcess` speaks for a `LiberoSim` on the other side.

The child is a fresh interpreter (never a fork: EGL and CUDA in one process abort), started with
`python -m studio.sim.process` so that the caller's main module is not imported a second time. It
ends when its connection does, however its parent went, and leaves Ctrl-C and SIGTERM to its parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.types import CAMERAS, Observation, View
from studio.events import CameraPerturbation, LightPerturbation, SceneSpec
from studio.jpeg import encode_jpeg
from studio.places import ROOT
from studio.sim.renderer import RENDER_SIZE

if TYPE_CHECKING:
    from studio.sim.foresight import ExpertChunk
    from studio.sim.libero_sim import LiberoSim, SceneInfo

JPEG_QUALITY = 85
PATIENCE_S = 120.0  # a child that is silent for so long hangs; a first visit takes 4
_EXIT_S = 5.0  # how long a child may take to end by itself
_REAP_S = 10.0  # from its connection's end to its own, on a busy machine

log = logging.getLogger(__name__)


class SimError(RuntimeError):
    """The simulator refused or failed a request; it lives on. The text is the child's own."""


class SimCrashed(RuntimeError):
    """The simulator's process is gone, or hung and was ended; `restart()` starts another."""


@dataclass(frozen=True, slots=True)
class StepReply:
    """After one control step; `jpegs` per camera name when frames were asked for."""

    success: bool
    proprio: np.ndarray  # float32 [8]
    jpegs: dict[str, bytes] | None = None


class SimProcess:
    """A `LiberoSim` in a child process; see there for what the methods do.

    Each method raises SimError with the child's message when the request fails (the child goes
    on), SimCrashed when the child is gone. Calls from several threads are served one by one.
    `view` may be a function, asked as each scene loads; another renderer takes another child.
    """

    def __init__(
        self, view: View | Callable[[], View] | None = None, cache_dir: Path | None = None
    ) -> None:
        self._choose = view if callable(view) else lambda: view or View()
        self._view = self._choose()
        self._cache_dir = cache_dir and Path(cache_dir).resolve()
        self._lock = threading.Lock()
        self._life, self._closed = threading.Lock(), False
        self._start()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def load(self, scene: SceneSpec) -> SceneInfo:
        """Put a scene up, settled, camera and light nominal."""
        before, self._view = self._view, self._choose()
        if self._view.pixels != before.pixels:
            with self._lock:  # nobody is in the middle of a request
                self.restart()
        return self._call("load", scene)

    def ask(self, instruction: str) -> int | None:
        """Let the goal of the task that is worded so count; None if there is none here."""
        return self._call("ask", instruction)

    def step(self, action: np.ndarray, frames: bool = False) -> StepReply:
        """One control step; with `frames`, both cameras are drawn after it."""
        return self._call("step", action, frames)

    def frames(self) -> dict[str, bytes]:
        """Both cameras now, as JPEG."""
        return self._call("frames")

    def observe(self, instruction: str | None = None, noted: bool = True) -> Observation:
        """What the policy sees now; a moment that is `noted` can be asked about (`ask_expert`)."""
        size = min(self._view.side, RENDER_SIZE)
        return self._call("observe", instruction, size, noted)

    def proprio(self) -> np.ndarray:
        """float32 [8]: end-effector position (m), axis-angle (rad), two gripper joints (m)."""
        return self._call("proprio")

    def ask_expert(self, step: int, instruction: str, horizon: int) -> int:
        """Begin to find out what the scripted expert would do at a control step of this episode.

        `step` counts from the last `load`; the policy must have looked then, with `instruction`
        (`observe`), and the goal of that time counts. Returns a ticket for `expert_answer`; the
        scene goes on meanwhile, undisturbed.
        """
        return self._call("ask_expert", step, instruction, horizon)

    def expert_answer(self, ticket: int) -> ExpertChunk | None:
        """The expert's next `horizon` actions, None until they are known.

        Raises SimError when the expert has no answer, for a task that it has no skill for say.
        """
        return self._call("expert_answer", ticket)

    def set_camera(self, camera: CameraPerturbation) -> None:
        """Move `agentview`."""
        self._call("set_camera", camera)

    def set_light(self, light: LightPerturbation) -> None:
        """Change the scene's lamps."""
        self._call("set_light", light)

    def camera_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] and rotation [3, 3] of `agentview` now."""
        return self._call("camera_pose")

    def nominal_camera_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] and rotation [3, 3] of `agentview` where LIBERO puts it."""
        return self._call("nominal_camera_pose")

    def get_state(self) -> np.ndarray:
        """float64 [1 + nq + nv]: time, qpos, qvel, without the gripper's speed-limited command."""
        return self._call("get_state")

    def versions(self) -> dict[str, str]:
        """Versions of mujoco, robosuite and LIBERO."""
        return self._call("versions")

    def restart(self) -> None:
        """End the child, if it lives, and start a fresh one without a scene.

        Raises SimError once this is closed.
        """
        with self._life:
            if self._closed:
                raise SimError("the simulator is closed")
            self._end()
            self._start()

    def close(self) -> None:
        """End the child; waits for it, and kills it when it does not go. Safe to call twice."""
        with self._life:
            self._closed = True
            self._end()

    def _end(self) -> None:
        self._connection.close()
        try:
            self._child.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> SimProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        drawn = [self._view.pixels, str(self._cache_dir or "")]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), *drawn],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        self._connection = Connection(ours.detach())

    def _call(self, method: str, *arguments: object) -> Any:
        with self._lock:
            try:
                self._connection.send((method, arguments))
                if not self._connection.poll(PATIENCE_S):
                    self._child.kill()
                    raise SimCrashed(f"its process was silent for {PATIENCE_S:g} s and was ended")
                failed, value = self._connection.recv()
            except (EOFError, OSError, TypeError) as error:
                if isinstance(error, TypeError) and not self._connection.closed:
                    raise  # else: closed by another thread while this one waited
                raise SimCrashed(self._epitaph()) from error
        if failed:
            raise SimError(value)
        return value

    def _epitaph(self) -> str:
        """How the child ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._child.wait(_REAP_S)
            if code < 0:
                return f"its process was ended by {signal.Signals(-code).name}"
            return f"its process ended with exit code {code}"
        return "its connection is closed"


class _Server:
    """The child's side: carries requests out, by its own methods or else its `LiberoSim`'s."""

    def __init__(self, sim: LiberoSim) -> None:
        from studio.sim.foresight import Foresight

        self._sim, self._foresight = sim, Foresight(sim)
        self._steps, self._last_action = 0, np.zeros(7)

    def load(self, scene: SceneSpec) -> SceneInfo:
        info = self._sim.load(scene)
        self._steps, self._last_action = 0, np.zeros(7)
        self._foresight.forget()
        return info

    def observe(self, instruction: str | None, size: int, noted: bool) -> Observation:
        observation = self._sim.observe(instruction, size)
        if noted:
            self._foresight.note(self._steps, observation.instruction, self._last_action)
        return observation

    def ask_expert(self, step: int, instruction: str, horizon: int) -> int:
        return self._foresight.ask(step, instruction, horizon)

    def expert_answer(self, ticket: int) -> ExpertChunk | None:
        return self._foresight.answer(ticket)

    def step(self, action: np.ndarray, frames: bool) -> StepReply:
        result = self._sim.step(action)
        self._steps, self._last_action = self._steps + 1, np.asarray(action)
        return StepReply(result.success, result.proprio, self.frames() if frames else None)

    def frames(self) -> dict[str, bytes]:
        return {camera: encode_jpeg(self._sim.render(camera), JPEG_QUALITY) for camera in CAMERAS}

    def answer(self, method: str, arguments: tuple) -> tuple[bool, Any]:
        """(failed, value or error text). Any error of a request is answered, not fatal."""
        try:
            return False, getattr(self if hasattr(self, method) else self._sim, method)(*arguments)
        except ValueError as error:
            return True, str(error)
        except Exception as error:
            log.exception("simulator: %s failed", method)
            return True, f"{type(error).__name__}: {error}"


def main(descriptor: str, pixels: str, cache_dir: str) -> None:
    """Serve requests from the connection on file `descriptor` until it closes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # to the whole group: its parent decides
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(descriptor))
    os.register_at_fork(after_in_child=connection.close)  # its end must show when this one ends
    from studio.sim.libero_sim import LiberoSim

    server = _Server(LiberoSim(pixels, Path(cache_dir) if cache_dir else None))
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(server.answer(*connection.recv()))


if __name__ == "__main__":
    from studio.sim.process import main as serve  # so that StepReply pickles under its real name

    serve(*sys.argv[1:])
