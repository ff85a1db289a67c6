"""Success rates, the energy's calibration, and what it says of perturbed episodes; headless.

`python -m studio.evaluate --suite libero_object --inits 40-44 --out runs/object`
`python -m studio.evaluate --perturb camera --views 60 --out runs/moved --against runs/object`

`--perturb` changes one thing: `camera` (LIBERO-Plus views), `light`, `sensor` or `robot` (see
`studio.perturbations`), `swap` (LIBERO-PRO's layout), `language` (LIBERO-PRO's paraphrases) or
`goal` (another task of the suite is asked for in the scene). OUT receives every finished episode
(`studio.results`); the same command again goes on where an interrupted run stopped. SIGTERM and
Ctrl-C end the run after the episodes under way. `--calibrate` writes the mean and spread of the
final energies of these episodes into the checkpoint (μ_v, σ_v of EB-VLA Eq. 5); `--against` prints
how well scores tell these episodes from those of a nominal run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models.checkpoint import Calibration, check_weights, write_calibration
from models.config import SamplerConfig
from models.evaluation import INCOMPLETE
from models.hold import hold
from models.policy import Policy
from models.ranges import parse_range
from models.run import StopSignal, no_memory
from models.whole import write_json
from studio import detection, measures, results, success, trials
from studio.arguments import add_policy, cores, open_policy, workers
from studio.events import Outcome
from studio.fleet import LocalFleet, RayFleet
from studio.scores import PAPER, SCORES
from studio.sim import catalog
from studio.trial import Trial, key_of

Fleet = LocalFleet | RayFleet


def run(
    fleet: Fleet, sha256: str, wanted: Sequence[Trial], out: Path, stop: StopSignal
) -> list[dict[str, Any]]:
    """Run what is missing of `wanted`; the rows of all that are there, earlier runs' among them.

    Whatever ends this, finished episodes are in the journal and in the table.
    """
    known = results.of_checkpoint(results.read_rows(out), sha256)
    done = {key_of(row): row for row in known}
    missing = [trial for trial in wanted if trial.key not in done]
    try:
        with (
            results.Journal(out) as journal,
            tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="episode") as bar,
        ):
            for row in fleet.run(missing, stop):
                journal.write(row)
                done[key_of(row)] = row
                bar.set_postfix_str(_tally(done.values()))
                bar.update()
    finally:
        results.write_table(out, done.values())
    return [done[trial.key] for trial in wanted if trial.key in done]


def _tally(rows: Sequence[dict[str, Any]]) -> str:
    outcomes = [row["outcome"] for row in rows]
    errors = outcomes.count(Outcome.ERROR)
    wins = f"success {outcomes.count(Outcome.SUCCESS)}/{len(outcomes) - errors}"
    return f"{wins}, {errors} errors" if errors else wins


def calibrate(rows: Sequence[dict[str, Any]]) -> Calibration:
    """μ_v and σ_v of every score over the plans of nominal episodes.

    The paper's is the main one; of a head without an energy, the first that there is.

    Raises ValueError with fewer than two plans.
    """
    levels = {}
    for name in SCORES:
        values = [v for row in rows for v in row.get(name, ()) if v is not None]
        if len(values) > 1:
            levels[name] = float(np.mean(values)), float(np.std(values, ddof=1))
    if not levels:
        raise ValueError("calibration needs at least two plans; evaluate some episodes first")
    main = PAPER if PAPER in levels else next(iter(levels))
    mu, sigma = levels[main]
    return Calibration(mu=mu, sigma=sigma, score=main, episodes=len(rows), levels=levels)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m studio.evaluate", description=__doc__)
    add_policy(parser)
    parser.add_argument("--suite", default="libero_object", help="one, or several with commas")
    parser.add_argument("--tasks", default="", help="such as 0-9 (default: all)")
    parser.add_argument("--inits", default="40-44", help="initial states")
    parser.add_argument("--episodes", type=int, help="so many of these at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chains", type=int, default=1, help="of the sampler")
    parser.add_argument(
        "--workers", type=workers, default="auto", help="simulators at a time, or auto"
    )
    parser.add_argument("--dry-run", action="store_true", help="say how many episodes, run none")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster (or auto, local)")
    parser.add_argument("--perturb", choices=trials.KINDS, default=trials.NOMINAL)
    parser.add_argument("--views", type=int, help="so many perturbations (camera: all views)")
    parser.add_argument("--difficulty", default="1-5", help="of LIBERO-Plus")
    parser.add_argument("--calibrate", action="store_true", help="write calibration.json")
    parser.add_argument("--against", type=Path, help="folder of a nominal run to be told from")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


def make_trials(args: argparse.Namespace) -> list[Trial]:
    """The episodes that the command line asks for. Raises ValueError."""
    for name in ("episodes", "views", "chains"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1")
    if args.views and args.perturb == trials.NOMINAL:
        raise ValueError("--views counts perturbations: say of which kind with --perturb")
    suites, inits = args.suite.split(","), parse_range(args.inits)
    known = {suite: range(len(catalog.tasks(suite))) for suite in suites}
    tasks = {s: parse_range(args.tasks) if args.tasks else known[s] for s in suites}
    # initial state by initial state over all tasks, so that few episodes are spread evenly
    scenes = [
        t for init in inits for s in suites for t in trials.nominal(s, tasks[s], [init], args.seed)
    ]
    difficulties = parse_range(args.difficulty)
    found = trials.perturbed(args.perturb, scenes, difficulties, args.views)
    return list({trial.key: trial for trial in found}.values())[: args.episodes]


def make_fleet(args: argparse.Namespace, policy: Policy) -> Fleet:
    """Workers here, or on a cluster. Raises ValueError."""
    sampler = SamplerConfig(chains=args.chains)
    if args.ray:
        address = None if args.ray == "local" else args.ray
        checkpoint = (args.checkpoint, args.device)
        return RayFleet(address, *checkpoint, sampler, args.workers, args.precision)
    return LocalFleet(policy, sampler, args.workers or cores())


def main(argv: list[str] | None = None) -> int:
    """Evaluate and print the tables.

    Exit code 2 on bad input, 3 when episodes ended in an error, 143 or 130 when stopped.
    """
    args = parse_args(argv)
    try:
        return _evaluate(args)
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not no_memory(error):
            raise
        told = " ".join(str(error).split())[:120]
        print(f"out of memory; fewer --workers or --chains need less ({told})", file=sys.stderr)
        return 2


def _evaluate(args: argparse.Namespace) -> int:
    if args.calibrate and args.perturb != trials.NOMINAL:
        raise ValueError("--calibrate needs nominal episodes: leave --perturb out")
    if args.calibrate and args.chains > 1:
        raise ValueError("--calibrate is for plans of one chain, as Live makes them")
    if args.policy and (args.calibrate or args.ray):
        raise ValueError("--calibrate and --ray need a checkpoint's folder: leave --policy out")
    wanted = make_trials(args)
    if args.dry_run:
        print(f"{len(wanted)} episodes")
        return 0
    policy = open_policy(args)
    nominal = _nominal(args, policy.checkpoint.sha256) if args.against else []
    fleet = make_fleet(args, policy)
    with hold(args.out), StopSignal() as stop:
        _check_settings(args, policy)
        _write_settings(args, policy, len(wanted))
        rows = run(fleet, policy.checkpoint.sha256, wanted, args.out, stop)
    print(success.table(rows))
    if stop() and len(rows) < len(wanted):
        print(f"stopped after {len(rows)} of {len(wanted)}; the same command goes on")
        return 128 + stop.number
    if args.against:
        print(detection.table(nominal, rows))
    if errors := len(rows) - len(measures.finished(rows)):
        print(f"{errors} episodes ended in an error; the same command runs them again")
        return INCOMPLETE
    if args.calibrate:
        calibration = calibrate(rows)
        check_weights(args.checkpoint, policy.checkpoint.sha256)
        write_calibration(args.checkpoint, calibration)
        print(f"calibration: μ_v = {calibration.mu:.4f}, σ_v = {calibration.sigma:.4f}")
    return 0


def _nominal(args: argparse.Namespace, sha256: str) -> list[dict[str, Any]]:
    """The episodes that others are told from.

    Raises ValueError without any of this checkpoint, and when others than these chains made them.
    """
    own = results.of_checkpoint(results.read_rows(args.against), sha256)
    rows = [row for row in own if row["kind"] == trials.NOMINAL]
    if len(rows) < 2:
        raise ValueError(f"--against {args.against}: holds no nominal episodes of this checkpoint")
    chains = results.read_settings(args.against).get("chains", 1)
    if chains != args.chains:  # the least of N energies falls as N grows
        raise ValueError(
            f"--against {args.against}: made with --chains {chains}, not {args.chains}"
        )
    return rows


def _samplers(folder: Path) -> dict[str, dict[str, Any]]:
    """Chains and precision by the checkpoints whose episodes a folder holds."""
    told = results.read_settings(folder)
    newest = {name: told[name] for name in ("chains", "precision") if name in told}
    return told.get("samplers", {}) | ({told["sha256"]: newest} if "sha256" in told else {})


def _check_settings(args: argparse.Namespace, policy: Policy) -> None:
    """Raises ValueError where what is there was made with another sampler or precision."""
    for name, before in _samplers(args.out).get(policy.checkpoint.sha256, {}).items():
        if before != getattr(args, name):
            raise ValueError(
                f"{args.out}: holds episodes with --{name} {before}; choose another --out"
            )


def _write_settings(args: argparse.Namespace, policy: Policy, total: int) -> None:
    """What this run is, for whoever reads its folder."""
    asked = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    own = {policy.checkpoint.sha256: {"chains": args.chains, "precision": args.precision}}
    asked |= {"sha256": policy.checkpoint.sha256, "total": total}
    asked["samplers"] = _samplers(args.out) | own
    write_json(args.out / results.SETTINGS, asked)


if __name__ == "__main__":
    sys.exit(main())
