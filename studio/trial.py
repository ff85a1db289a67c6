"""One episode of an evaluation: a scene, and at most one thing that is not nominal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from studio.events import Perturbation, SceneSpec

NOMINAL = "none"


@dataclass(frozen=True, slots=True)
class Trial:
    """One episode to run; `kind` names what is perturbed, `difficulty` is LIBERO-Plus's 1 - 5."""

    scene: SceneSpec
    kind: str = NOMINAL
    perturbation: Perturbation = field(default_factory=Perturbation)
    instruction: str | None = None  # instead of the scene's own
    difficulty: int | None = None

    def row(self) -> dict[str, Any]:
        """The columns that say which trial a result is of."""
        return {
            **asdict(self.scene),
            **asdict(self.perturbation),
            "kind": self.kind,
            "instruction": self.instruction,
            "difficulty": self.difficulty,
        }

    @property
    def key(self) -> str:
        """Tells this trial from every other; the same for its result (`key_of`)."""
        return key_of(self.row())


def key_of(row: Mapping[str, Any]) -> str:
    """The key of the trial that a result is of."""
    return json.dumps([row.get(name) for name in Trial(SceneSpec()).row()], sort_keys=True)
