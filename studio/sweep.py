"""How far may one thing change before the model stops trusting itself? Scores of one state.

`python -m studio.sweep --suite libero_object --task 0 --init 40 --out runs/sweep`
`python -m studio.sweep --over words --suite libero_goal --task 3 --out runs/words`

The scene stands at its initial state; nothing moves but the camera (`--over camera`: a grid of
horizontal orbit x distance) or the instruction (`--over words`: its own, paraphrases, and those of
the suite's other tasks). OUT/sweep.json receives every score of every point, the mean over
`--plans` plans of different noise; points that are there already are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models.config import SamplerConfig
from models.paraphrase import paraphrases
from models.policy import Policy
from models.run import StopSignal
from models.types import Observation, Plan
from models.whole import write_json
from studio.arguments import add_policy, open_policy
from studio.events import CAMERA_BOUNDS, CameraPerturbation, SceneSpec
from studio.helm import PolicyAway
from studio.scores import SCORES, plan_scores
from studio.sim import catalog
from studio.sim.process import SimCrashed, SimError, SimProcess

RESULT = "sweep.json"
WORDINGS = 12  # of the instruction, its own included
SAVE_EVERY = 10  # points


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to look at: where the camera stands and what is asked."""

    camera: CameraPerturbation
    instruction: str
    kind: str = "camera"  # "camera", or of the words: "own", "paraphrase", "other task"


def camera_points(
    instruction: str, orbit: tuple[float, float], distance: tuple[float, float], size: int
) -> list[Point]:
    """A `size` x `size` grid, row by row from the nearest. Raises ValueError out of range."""
    return [
        Point(CameraPerturbation(orbit_horizontal=round(o, 3), distance=round(d, 3)), instruction)
        for d in np.linspace(*distance, size).tolist()
        for o in np.linspace(*orbit, size).tolist()
    ]


def word_points(suite: str, task: int) -> list[Point]:
    """The task's instruction, other wordings of it, and the suite's other instructions."""
    own = catalog.task(suite, task).instruction
    said = {own: "own"}
    with suppress(ValueError):  # a suite, or a LIBERO, without any
        said.setdefault(catalog.paraphrase(suite, task), "paraphrase")
    for words in paraphrases(own, WORDINGS):
        said.setdefault(words, "paraphrase")
    for other in catalog.tasks(suite):
        said.setdefault(other.instruction, "other task")
    return [Point(CameraPerturbation(), words, kind) for words, kind in said.items()]


def look(
    sim: SimProcess, policy: Policy, points: Sequence[Point], plans: int, stop: StopSignal
) -> Iterator[dict[str, Any]]:
    """The scores of each point, in order, until `stop`: means over `plans` plans of other noise."""
    for point in points:
        sim.set_camera(point.camera)
        seen = sim.observe(point.instruction)
        rows = [plan_scores(plan) for plan in _patiently(policy, [seen] * plans, stop)]
        if stop():
            return
        yield asdict(point) | {name: _mean([row[name] for row in rows]) for name in SCORES}


def _patiently(policy: Policy, seen: list[Observation], stop: StopSignal) -> list[Plan]:
    """A plan for each, noise 0, 1, ...; waits for a policy that is away, none after `stop`."""
    told = ""
    while not stop():
        try:
            return policy.plan_batch(seen, SamplerConfig(), range(len(seen)))
        except PolicyAway as away:
            if str(away) != told:
                tqdm.write(told := str(away), file=sys.stderr)
            time.sleep(away.retry_s)
    return []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def read_sweep(folder: Path) -> dict[str, Any]:
    """A sweep's settings and `points`. Raises ValueError when there is none, or a broken one."""
    try:
        found = json.loads((folder / RESULT).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: holds no sweep ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("points"), list):
        raise ValueError(f"{folder}: {RESULT} is of another kind")
    return found


def sweep(args: argparse.Namespace, policy: Policy, stop: StopSignal) -> int:
    """Look at what is missing; returns how many points are left."""
    scene = SceneSpec(args.suite, args.task, args.init, args.seed)
    about = {
        "over": args.over, "scene": asdict(scene), "plans": args.plans,
        "checkpoint": policy.checkpoint.sha256,
    }  # fmt: skip
    points = make_points(args)
    known = _known(args.out, about)
    missing = [p for p in points if _key(asdict(p)) not in known]
    with (
        SimProcess(policy.checkpoint.view) as sim,
        tqdm(total=len(points), initial=len(points) - len(missing), unit="point") as bar,
    ):
        sim.load(scene)
        try:
            for row in look(sim, policy, missing, args.plans, stop):
                known[_key(row)] = row
                bar.update()
                if bar.n % SAVE_EVERY == 0:
                    _save(args.out, about, points, known)
        finally:
            if known:
                _save(args.out, about, points, known)
    return len(points) - bar.n


def _save(
    folder: Path, about: dict[str, Any], points: Sequence[Point], known: dict[str, dict[str, Any]]
) -> None:
    made = [known[k] for k in (_key(asdict(p)) for p in points) if k in known]
    write_json(folder / RESULT, {**about, "total": len(points), "points": made}, indent=None)


def _known(folder: Path, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The points of an earlier run of the same sweep."""
    if not (folder / RESULT).exists():
        return {}
    before = read_sweep(folder)
    if any(before.get(name) != value for name, value in about.items()):
        raise ValueError(f"{folder}: holds another sweep; choose another --out")
    return {_key(row): row for row in before["points"]}


def _key(row: dict[str, Any]) -> str:
    return json.dumps([row["camera"], row["instruction"]])


def make_points(args: argparse.Namespace) -> list[Point]:
    """What the command line asks to look at. Raises ValueError."""
    catalog.check_scene(SceneSpec(args.suite, args.task, args.init, args.seed))
    if args.plans < 1:
        raise ValueError("--plans must be at least 1")
    if args.over == "words":
        return word_points(args.suite, args.task)
    if args.size < 2:
        raise ValueError("--size must be at least 2")
    instruction = catalog.task(args.suite, args.task).instruction
    return camera_points(instruction, tuple(args.orbit), tuple(args.distance), args.size)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m studio.sweep", description=__doc__)
    add_policy(p)
    p.add_argument("--over", choices=("camera", "words"), default="camera")
    p.add_argument("--suite", default="libero_object")
    p.add_argument("--task", type=int, default=0)
    p.add_argument("--init", type=int, default=40)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--orbit", type=float, nargs=2, default=(-60.0, 60.0), metavar=("FROM", "TO"),
                   help=f"degrees, within {CAMERA_BOUNDS['orbit_horizontal']}")  # fmt: skip
    p.add_argument("--distance", type=float, nargs=2, default=(60.0, 180.0), metavar=("FROM", "TO"),
                   help=f"percent, within {CAMERA_BOUNDS['distance']}")  # fmt: skip
    p.add_argument("--size", type=int, default=13, help="points along each axis")
    p.add_argument("--plans", type=int, default=2, help="per point, of different noise")
    p.add_argument("--out", type=Path, required=True)
    return p.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Sweep; exit code 2 on bad input, 1 when the simulator failed, 143 or 130 when stopped."""
    args = parse_args(argv)
    try:
        make_points(args)  # complains before the model is loaded
        policy = open_policy(args)
        with StopSignal() as stop:
            left = sweep(args, policy, stop)
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except (SimError, SimCrashed) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if left:
        print(f"stopped, {left} points are left; the same command goes on")
        return 128 + stop.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
