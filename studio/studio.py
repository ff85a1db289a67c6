"""The studio as one object: the policy, the sessions and what the page needs to know of both."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from models.policy import Policy
from studio.batching import Together
from studio.events import LAYOUTS, Command, LoadScene, SceneSpec
from studio.policies import describe
from studio.session import IDLE_S, LINGER_S, RECORDINGS, SessionManager
from studio.sim import build, catalog

if TYPE_CHECKING:
    from studio.serving import ServerThread

PACKAGES = ("torch", "gradio", "transformers", "numpy")
MAX_SEED = 2**32  # NumPy's, which places the fixtures


def versions() -> dict[str, str]:
    """Versions of everything that a recorded number depends on."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, **build.versions()}


def check_scene(scene: SceneSpec) -> None:
    """Raises ValueError unless suite, task, initial state, layout and goal exist there."""
    catalog.init_state(scene.suite, scene.task, scene.init, scene.layout)
    goals = (None, scene.task, *catalog.other_goals(scene.suite, scene.task))
    if scene.goal not in goals:
        raise ValueError(f"{scene.suite} task {scene.task}: the scene can't have goal {scene.goal}")
    if not 0 <= scene.seed < MAX_SEED:
        raise ValueError(f"the seed must lie in [0, {MAX_SEED}), not {scene.seed}")


def _for_sessions(policy: Policy) -> Policy | Together:
    return Together(policy) if str(policy.device).startswith("cuda") else policy


class Studio:
    """What `app.py` builds and the page and the server read."""

    def __init__(
        self,
        policy: Policy,
        *,
        cap: int = 4,
        scene: SceneSpec | None = None,
        autorun: bool = False,
        linger_s: float = LINGER_S,
        idle_s: float = IDLE_S,
        recordings: Path = RECORDINGS,
        served: ServerThread | None = None,
    ) -> None:
        """Sessions as in `SessionManager`; `served`: where others get the same policy."""
        self._served = served
        self.versions = versions()
        self.checkpoint = describe(policy)
        provenance = {"checkpoint": self.checkpoint, "versions": self.versions}
        self.sessions = SessionManager(
            _for_sessions(policy),
            provenance,
            cap=cap,
            scene=scene,
            autorun=autorun,
            linger_s=linger_s,
            idle_s=idle_s,
            recordings=recordings,
        )
        self.suites = {
            suite: [task.instruction for task in catalog.tasks(suite)] for suite in catalog.SUITES
        }
        self.layouts = {
            suite: [name for name in LAYOUTS if catalog.has_layout(suite, name)]
            for suite in catalog.SUITES
        }

    def use_checkpoint(self, path: Path) -> None:
        """Plan with another checkpoint: every session from its next episode on.

        Raises ValueError when it cannot be used here; the one before stays.
        """
        before = self.sessions.policy
        policy = Policy.from_pretrained(path, str(before.device), before.precision)
        if self._served and policy.checkpoint.sha256 != before.checkpoint.sha256:
            raise ValueError(
                "others plan with this checkpoint, too (--serve), and can't change in mid-episode; "
                f"start app.py with --checkpoint {path}"
            )
        self.checkpoint = describe(policy)
        self.sessions.policy = _for_sessions(policy)
        if isinstance(before, Together):
            before.close()

    def views(self, suite: str, task: int) -> list[dict[str, float]]:
        """LIBERO-Plus camera views of a task: camera fields and difficulty."""
        return [
            dataclasses.asdict(view.camera) | {"difficulty": view.difficulty}
            for view in catalog.libero_plus_views()
            if (view.suite, view.task) == (suite, task)
        ]

    def check(self, command: Command) -> None:
        """Raise ValueError for a scene that does not exist, before the simulator is asked."""
        if isinstance(command, LoadScene):
            check_scene(command.scene)

    def close(self) -> None:
        """Close every session, and answer what others have asked for."""
        self.sessions.close()
        if self._served:
            self._served.stop()
