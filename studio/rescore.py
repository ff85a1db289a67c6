"""The energy of a recording under any checkpoint, at the starts of its chunks.

Where the policy planned, its observation, sampler and seed are those of the tape, so the checkpoint
that drove gives its own numbers again. Where a person drove there is a chunk every H steps. Two
energies each: E(what was done, C), of the next H actions as they were executed, and E(plan, C), of
the chunk that this checkpoint would have taken instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from models.config import SamplerConfig
from models.data import chunks
from models.policy import Policy
from models.types import Observation
from models.whole import write_json
from studio.demos import IMAGE_KEYS
from studio.policies import describe, threshold
from studio.recording import Recording
from studio.replay import DEMO
from studio.sensor import corrupted


@dataclass(frozen=True, slots=True)
class ChunkEnergies:
    """Energies at one step: of the actions that were executed, and of the policy's own plan."""

    step: int
    done: float
    plan: float


def starts(tape: Recording, horizon: int) -> list[int]:
    """First steps of the chunks: those of the plans on the tape, and every `horizon` between."""
    planned = sorted({plan["step"] for plan in tape.plans if plan["step"] < len(tape)})
    found, step = [], 0
    while step < len(tape):
        found.append(step)
        step = next((p for p in planned if step < p < step + horizon), step + horizon)
    return found


def rescore(
    folder: Path, tape: Recording, policy: Policy, tell: Callable[[int, int], None]
) -> list[ChunkEnergies]:
    """Scores of a replayed recording; `tell` hears (done, total). Raises OSError without demo."""
    plans = {plan["step"]: plan for plan in tape.plans}
    where = starts(tape, policy.config.horizon)
    done = chunks(tape.actions.astype(np.float32), np.array(where), policy.config.horizon)
    scores = []
    with h5py.File(folder / DEMO, "r") as file:
        demo = file["data/demo_0"]
        for i, step in enumerate(where):
            known = plans.get(step, {"seed": 0, "sampler": {}})
            seen = _observation(demo, tape, step, known["seed"])
            plan = policy.plan(seen, SamplerConfig(**known["sampler"]), known["seed"])
            energies, _ = policy.energies(seen, policy.normalize(done[i : i + 1]))
            scores.append(ChunkEnergies(step, float(energies[0]), plan.final_energy))
            tell(i + 1, len(where))
    return scores


def _observation(demo: h5py.Group, tape: Recording, step: int, seed: int) -> Observation:
    """What the policy saw, or would have seen, before a step."""
    obs, view = demo["obs"], tape.view(step)
    images = {camera: obs[key][step][::-1] for camera, key in IMAGE_KEYS.items()}
    parts = [obs[key][step] for key in ("ee_pos", "ee_ori", "gripper_states")]
    proprio = np.concatenate(parts).astype(np.float32)
    return corrupted(Observation(images, proprio, view.instruction), view.sensor, seed)


def path(folder: Path, sha256: str) -> Path:
    """Where the scores of a recording by the checkpoint of these weights are kept."""
    return folder / f"energies-{sha256[:12]}.json"


def write(folder: Path, policy: Policy, scores: list[ChunkEnergies]) -> None:
    """Keep scores beside the tape. Raises OSError when the disk is full."""
    found: dict[str, Any] = {
        "checkpoint": describe(policy),
        "threshold": threshold(policy),
        "scores": [asdict(score) for score in scores],
    }
    write_json(path(folder, policy.checkpoint.sha256), found, indent=None)
