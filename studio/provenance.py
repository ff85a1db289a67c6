"""What a recorded number depends on: the checkpoint, and the versions of what computed it."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from models.policy import Policy
from studio.sim import build

PACKAGES = ("torch", "gradio", "transformers", "numpy")


def versions() -> dict[str, str]:
    """Versions of everything that a recorded number depends on."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, **build.versions()}


def provenance(policy: Policy) -> dict[str, Any]:
    """Checkpoint and versions, as each row of an evaluation keeps them."""
    return {"checkpoint": policy.checkpoint.sha256, "versions": versions()}
