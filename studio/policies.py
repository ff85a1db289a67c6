"""Which checkpoint drives which episode: a studio may change it while sessions run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.policy import Policy
from models.types import View
from studio.detection import DEFAULT_K
from studio.events import EpisodeEvent
from studio.state import Subscriber


def describe(policy: Policy) -> dict[str, object]:
    """The checkpoint's identity, as shown in the page and stored with every recorded number."""
    info = policy.checkpoint
    path = Path(info.path)
    of_a_run = path.name in ("best", "last")
    return {
        "name": f"{path.parent.name}/{path.name}" if of_a_run else path.name,
        "sha256": info.sha256,
        "server": info.server,
        "preset": info.preset,
        "head": policy.config.head,
        "pixels": info.pixels,
        "horizon": policy.config.horizon,
        "suites": list(info.suites),
        "train_steps": info.train_steps,
    }


def calibration(policy: Policy) -> dict[str, object] | None:
    """The checkpoint's calibration as JSON, or None."""
    return dataclasses.asdict(policy.calibration) if policy.calibration else None


def threshold(policy: Policy, k: float = DEFAULT_K) -> float | None:
    """T = μ_v + k·σ_v (EB-VLA Eq. 5), or None without a calibration."""
    known = policy.calibration
    return known.mu + k * known.sigma if known else None


def level(policy: Policy, score: str) -> tuple[float, float] | None:
    """(mu, sigma) of `score` over the calibration episodes, or None."""
    known = policy.calibration
    if known is None:
        return None
    return known.levels.get(score) or ((known.mu, known.sigma) if score == known.score else None)


class EpisodePolicy(Subscriber):
    """A session's policy: each episode keeps to its end the checkpoint that it began with.

    Stands for the `Policy` at hand, so that what is computed about a plan comes from the
    checkpoint that made it. Told of an episode before whoever records it, it writes its identity
    into their `provenance`. Whoever loads the episode's scene makes the choice (`choose`).
    """

    def __init__(self, newest: Callable[[], Policy], provenance: dict[str, object]) -> None:
        """`newest`: the studio's choice."""
        self._newest, self._provenance = newest, provenance
        self._next = newest()
        self._adopt()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)

    def choose(self) -> View:
        """The newest drives the episode whose scene loads now; returns how it wants to see it."""
        self._next = self._newest()
        return self._next.checkpoint.view

    def on_episode(self, event: EpisodeEvent) -> None:
        if event.outcome is None:
            self._adopt()

    def _adopt(self) -> None:
        self.current = self._next
        self._provenance["checkpoint"] = describe(self.current)
