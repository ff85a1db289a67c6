"""The studio as one object: the policy, the sessions and what the page needs to know of both."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from pathlib import Path

from models.policy import EnergyPolicy
from studio.events import Command, LoadScene, SceneSpec
from studio.session import IDLE_S, LINGER_S, SessionManager
from studio.sim import catalog
from studio.wire import state_message

PACKAGES = ("torch", "mujoco", "robosuite", "gradio", "transformers", "numpy")
MAX_SEED = 2**32  # NumPy's, which places the fixtures
DEFAULT_K = 1.0  # σ multiplier of the threshold (EB-VLA Eq. 5; Table III's recommendation)


def versions() -> dict[str, str]:
    """Versions of everything that a recorded number depends on."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def describe(policy: EnergyPolicy) -> dict[str, object]:
    """The checkpoint's identity, as shown in the page and stored with every recorded number."""
    info = policy.checkpoint
    return {
        "name": Path(info.path).name,
        "sha256": info.sha256,
        "preset": info.preset,
        "pixels": info.pixels,
        "horizon": policy.config.horizon,
        "suites": list(info.suites),
        "train_steps": info.train_steps,
    }


def check_scene(scene: SceneSpec) -> None:
    """Raises ValueError unless the suite, the task and the initial state exist."""
    catalog.init_state(scene.suite, scene.task, scene.init)
    if not 0 <= scene.seed < MAX_SEED:
        raise ValueError(f"the seed must lie in [0, {MAX_SEED}), not {scene.seed}")


class Studio:
    """What `app.py` builds and the page and the server read."""

    def __init__(
        self,
        policy: EnergyPolicy,
        *,
        cap: int = 4,
        scene: SceneSpec | None = None,
        autorun: bool = False,
        linger_s: float = LINGER_S,
        idle_s: float = IDLE_S,
    ) -> None:
        """Sessions as in `SessionManager`."""
        self.versions = versions()
        self.checkpoint = describe(policy)
        self.calibration = dataclasses.asdict(policy.calibration) if policy.calibration else None
        provenance = {"checkpoint": self.checkpoint, "versions": self.versions}
        self.sessions = SessionManager(
            policy,
            provenance,
            cap=cap,
            scene=scene,
            autorun=autorun,
            linger_s=linger_s,
            idle_s=idle_s,
        )
        self.suites = {
            suite: [task.instruction for task in catalog.tasks(suite)] for suite in catalog.SUITES
        }

    def threshold(self, k: float = DEFAULT_K) -> float | None:
        """T = μ_v + k·σ_v (EB-VLA Eq. 5), or None without a calibration."""
        if self.calibration is None:
            return None
        return self.calibration["mu"] + k * self.calibration["sigma"]

    def views(self, suite: str, task: int) -> list[dict[str, float]]:
        """LIBERO-Plus camera views of a task: camera fields and difficulty."""
        return [
            dataclasses.asdict(view.camera) | {"difficulty": view.difficulty}
            for view in catalog.libero_plus_views()
            if (view.suite, view.task) == (suite, task)
        ]

    def snapshot(self, token: str) -> dict | None:
        """STATE of a running session, or None."""
        session = self.sessions.get(token)
        return state_message(session.feed.snapshot().state) if session else None

    def check(self, command: Command) -> None:
        """Raise ValueError for a scene that does not exist, before the simulator is asked."""
        if isinstance(command, LoadScene):
            check_scene(command.scene)

    def close(self) -> None:
        """Close every session."""
        self.sessions.close()
