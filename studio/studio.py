"""The studio as one object: the policy, the sessions and what the page needs to know of both."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.policy import Policy
from studio.batching import Together
from studio.events import LAYOUTS, Command, LoadScene
from studio.policies import describe
from studio.provenance import versions
from studio.session import SessionManager, SessionOptions
from studio.sim import catalog
from studio.workspace import shown

if TYPE_CHECKING:
    from studio.serving import ServerThread


def _way_back(policy: Policy) -> dict[str, str] | None:
    """`name`, `path` and `sha256` of a policy that can be loaded again; not of a server's."""
    info = policy.checkpoint
    if info.server:
        return None
    path = shown(Path(os.path.abspath(info.path)))
    return {"name": str(describe(policy)["name"]), "path": path, "sha256": info.sha256}


def _for_sessions(policy: Policy) -> Policy | Together:
    return Together(policy) if str(policy.device).startswith("cuda") else policy


class Studio:
    """What `app.py` builds and the page and the server read."""

    def __init__(
        self, policy: Policy, options: SessionOptions, served: ServerThread | None = None
    ) -> None:
        """`options` of its sessions; `served`: where others get the same policy."""
        self._served = served
        self.versions = versions()
        self.checkpoint = describe(policy)
        self.first = _way_back(policy)
        provenance = {"checkpoint": self.checkpoint, "versions": self.versions}
        self.sessions = SessionManager(_for_sessions(policy), provenance, options)
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
            catalog.check_scene(command.scene)

    def close(self) -> None:
        """Close every session, and answer what others have asked for."""
        self.sessions.close()
        if self._served:
            self._served.stop()
