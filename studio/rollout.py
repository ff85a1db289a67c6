"""One episode without the page: the same loop, the same files, one JSON line at the end.

`python -m studio.rollout --suite libero_object --task 0 --init 40 --seed 0 --out DIR`
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from models.config import SamplerConfig
from models.policy import EnergyPolicy
from studio.events import (
    CameraPerturbation,
    LoadScene,
    Outcome,
    Run,
    SceneSpec,
    SetCamera,
    SetInstruction,
    SetSampler,
    Status,
)
from studio.loop import ControlLoop
from studio.movie import write_mp4
from studio.policies import threshold
from studio.recorder import Episode, Recorder, write_zip
from studio.sim.process import SimCrashed, SimError, SimProcess
from studio.studio import Studio, check_scene

CAMERA_FIELDS = (
    "orbit_horizontal",
    "orbit_vertical",
    "distance",
    "turn_horizontal",
    "turn_vertical",
    "fov",
)


def run_episode(
    sim: SimProcess,
    policy: EnergyPolicy,
    scene: SceneSpec,
    *,
    camera: CameraPerturbation | None = None,
    instruction: str | None = None,
    sampler: SamplerConfig | None = None,
    provenance: dict[str, object] | None = None,
    frames: bool = False,
) -> Episode:
    """Drive `scene` with `policy` until success or timeout, as fast as the machine can.

    Raises ValueError on a bad scene, SimError or SimCrashed when the simulator fails.
    """
    recorder = Recorder(provenance or {})
    loop = ControlLoop(sim, policy, [recorder], hz=0, every_frame=frames, pictures=frames)
    loop.apply(SetCamera(camera or CameraPerturbation()))
    loop.apply(SetSampler(sampler or SamplerConfig()))
    loop.apply(LoadScene(scene))
    if instruction:
        loop.apply(SetInstruction(instruction))
    loop.apply(Run())
    while loop.state.status is Status.RUNNING:
        time.sleep(loop.tick())  # only a policy that is away makes it wait
    return recorder.episode()


def summary(episode: Episode) -> dict[str, object]:
    """Outcome, steps and energy of an episode: the line that the command prints."""
    end, scene = episode.end, episode.begin.scene
    return {
        "suite": scene.suite,
        "task": scene.task,
        "init": scene.init,
        "seed": scene.seed,
        "instruction": end.instruction,
        "outcome": str(end.outcome),
        "steps": end.steps,
        "plans": len(episode.plans),
        "mean_final_energy": round(episode.mean_final_energy, 6),
        "checkpoint": episode.provenance.get("checkpoint", {}).get("sha256"),
    }


def parse_camera(text: str) -> CameraPerturbation:
    """`orbit_h,orbit_v,distance,turn_h,turn_v[,fov]` in degrees and percent. Raises ValueError."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (5, 6):
        raise ValueError(f"--camera wants {','.join(CAMERA_FIELDS[:5])}[,fov], not {text!r}")
    return CameraPerturbation(**dict(zip(CAMERA_FIELDS, values, strict=False)))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    default = Path(__file__).parents[1] / "assets" / "checkpoints" / "eb-vla-tiny"
    parser = argparse.ArgumentParser(prog="python -m studio.rollout", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=default)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--task", type=int, default=0)
    parser.add_argument("--init", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--camera", help="20,0,100,0,0: orbit h,v; distance %; turn h,v [; fov]")
    parser.add_argument("--instruction", help="instead of the task's own")
    parser.add_argument("--out", type=Path, required=True, help="folder for episode.mp4 and .zip")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one episode; exit code 2 on bad input, 1 when the simulator failed."""
    args = parse_args(argv)
    sim = None
    try:
        camera = parse_camera(args.camera) if args.camera else CameraPerturbation()
        instruction = SetInstruction(args.instruction).text if args.instruction else None
        policy = EnergyPolicy.from_pretrained(args.checkpoint, device=args.device)
        studio = Studio(policy)
        scene = SceneSpec(args.suite, args.task, args.init, args.seed)
        check_scene(scene)
        sim = SimProcess(policy.checkpoint.pixels)
        provenance = {"checkpoint": studio.checkpoint, "versions": studio.versions}
        episode = run_episode(
            sim,
            policy,
            scene,
            camera=camera,
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
