"""One episode without the page: the same loop, the same files, one JSON line at the end.

`python -m studio.rollout --suite libero_object --task 0 --init 40 --seed 0 --out DIR`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from models.config import SamplerConfig
from models.policy import Policy
from studio.arguments import add_policy, open_policy
from studio.events import (
    LAYOUTS,
    SENSOR_KINDS,
    CameraPerturbation,
    LightPerturbation,
    LoadScene,
    Outcome,
    Perturbation,
    RobotStart,
    Run,
    SceneSpec,
    SensorNoise,
    SetCamera,
    SetInstruction,
    SetLight,
    SetSampler,
    SetSensor,
    Status,
)
from studio.loop import ControlLoop
from studio.movie import write_mp4
from studio.policies import describe, threshold
from studio.provenance import versions
from studio.recorder import Episode, Recorder, write_zip
from studio.sim.catalog import check_scene
from studio.sim.process import SimCrashed, SimError, SimProcess

Form = TypeVar("Form")
_TYPES = {"str": str, "int": int, "float": float}  # of the fields of forms


def run_episode(
    sim: SimProcess,
    policy: Policy,
    scene: SceneSpec,
    *,
    perturbation: Perturbation | None = None,
    instruction: str | None = None,
    sampler: SamplerConfig | None = None,
    provenance: dict[str, object] | None = None,
    frames: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Episode:
    """Drive `scene` with `policy` until success or timeout, as fast as the machine can.

    A policy that is away is waited for, and stderr says so, until `stop()`.
    Raises ValueError on a bad scene, SimError or SimCrashed when the simulator fails,
    InterruptedError when stopped while the policy was away.
    """
    seen = perturbation or Perturbation()
    recorder = Recorder(provenance or {})
    loop = ControlLoop(sim, policy, [recorder], hz=0, frames="every" if frames else "none")
    for command in (SetCamera(seen.camera), SetLight(seen.light), SetSensor(seen.sensor)):
        loop.apply(command)
    loop.apply(SetSampler(sampler or SamplerConfig()))
    loop.apply(LoadScene(scene))
    if instruction:
        loop.apply(SetInstruction(instruction))
    loop.apply(Run())
    told = ""
    while loop.state.status is Status.RUNNING:
        if wait_s := loop.tick():  # only a policy that is away makes it wait
            if loop.state.message != told:
                tqdm.write(told := loop.state.message, file=sys.stderr)
            if stop():
                raise InterruptedError(told)
            time.sleep(wait_s)
    return recorder.episode()


def summary(episode: Episode) -> dict[str, object]:
    """Outcome, steps and energy of an episode: the line that the command prints."""
    end, scene = episode.end, episode.begin.scene
    return {
        "suite": scene.suite,
        "task": scene.task,
        "init": scene.init,
        "seed": scene.seed,
        "robot": scene.robot.offset,
        "layout": scene.layout,
        "perturbation": episode.begin.perturbation.kind,
        "instruction": end.instruction,
        "outcome": str(end.outcome),
        "steps": end.steps,
        "plans": len(episode.plans),
        "mean_final_energy": episode.mean_final_energy,
        "checkpoint": episode.provenance.get("checkpoint", {}).get("sha256"),
    }


def parse_form(option: str, text: str | None, form: type[Form], least: int = 1) -> Form:
    """The dataclass `form` from its first fields, in their order and with commas between them.

    None is the nominal one. Raises ValueError for fewer than `least` or for what does not fit.
    """
    if text is None:
        return form()
    known, parts = fields(form), text.split(",")
    try:
        if not least <= len(parts) <= len(known):
            raise ValueError
        values = [_TYPES[f.type](part) for f, part in zip(known, parts, strict=False)]
    except ValueError:
        wanted = ",".join(f.name for f in known)
        raise ValueError(f"--{option} wants {wanted}, not {text!r}") from None
    return form(*values)


def perturbation_of(args: argparse.Namespace) -> Perturbation:
    """How the command line wants the scene seen. Raises ValueError."""
    return Perturbation(
        parse_form("camera", args.camera, CameraPerturbation, least=5),
        parse_form("light", args.light, LightPerturbation),
        parse_form("sensor", args.sensor, SensorNoise),
    )


def scene_of(args: argparse.Namespace) -> SceneSpec:
    """The scene that the command line asks for. Raises ValueError for one that does not exist."""
    robot = parse_form("robot", args.robot, RobotStart)
    scene = SceneSpec(args.suite, args.task, args.init, args.seed, robot=robot, layout=args.layout)
    check_scene(scene)
    return scene


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m studio.rollout", description=__doc__)
    add_policy(parser)
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--init", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--camera",
        help="20,0,100,0,0: orbit h,v; distance %%; turn h,v [; fov]; --camera=-20,… where the "
        "first is negative",
    )
    parser.add_argument("--light", help="50,0,0,30,20: intensity %%; azimuth, elevation; hue, %%")
    parser.add_argument("--sensor", help=f"fog,3: {', '.join(SENSOR_KINDS)}; severity 1 to 10")
    parser.add_argument("--robot", help="0.1,7: the arm's start moved, rad; direction 1 to 500")
    parser.add_argument("--layout", default="libero", help=f"of the objects: {', '.join(LAYOUTS)}")
    parser.add_argument("--instruction", help="instead of the task's own")
    parser.add_argument("--out", type=Path, required=True, help="folder for episode.mp4 and .zip")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one episode; exit code 2 on bad input, 1 when the simulator failed."""
    args = parse_args(argv)
    sim = None
    try:
        perturbation, scene = perturbation_of(args), scene_of(args)
        instruction = SetInstruction(args.instruction).text if args.instruction else None
        policy = open_policy(args)
        sim = SimProcess(policy.checkpoint.view)
        provenance = {"checkpoint": describe(policy), "versions": versions()}
        episode = run_episode(
            sim,
            policy,
            scene,
            perturbation=perturbation,
            instruction=instruction,
            provenance=provenance,
            frames=True,
        )
        write_zip(episode, args.out / "episode.zip")
        write_mp4(episode, args.out / "episode.mp4", threshold(policy))
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except (SimError, SimCrashed) as error:
        print(f"{Outcome.ERROR}: {error}", file=sys.stderr)
        return 1
    finally:
        if sim:
            sim.close()
    print(json.dumps(summary(episode)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
