"""Collect scripted demonstrations: `python -m studio.collect --suite libero_object --out DIR`.

Worker processes (spawned; each owns one simulator) run `studio.sim.expert.Expert` under action
noise and keep what solved its task with a single grasp. Labels stay the expert's clean actions, so
the noise only widens the states that are covered (DART, Laskey et al. 2017). A finished episode is
a file of its own under `<out>/.parts` until its task is complete: an interrupted collection goes
on where it stopped, and one of which more is asked makes what is missing; where all attempts failed
it tries further scenes. The initial states 40-49 are left for evaluation. With `--dagger
CHECKPOINT` a policy drives first and the expert takes over where that led (`studio.dagger`); with
`--misses` it takes over after a grasp that failed (`studio.sim.expert_clumsy`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
from tqdm import tqdm

from models.evaluation import INCOMPLETE
from models.hold import hold
from models.ranges import parse_range
from models.whole import write_json
from studio import demos
from studio.arguments import cores, workers
from studio.events import SceneSpec
from studio.sim import catalog

if TYPE_CHECKING:
    from studio.dagger import Dagger

RECIPES = "collect.json"  # in OUT: by suite, what its episodes have in common
PARTS = ".parts"  # in OUT: finished episodes of tasks that are not complete yet
INITS = range(50)  # LIBERO's initial states
HELD_OUT = range(40, 50)  # of them: 40-44 evaluation, 45-49 kept untouched
HOPELESS = 24  # attempts at a task without a success, after which the others are spared


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """What to collect. Raises ValueError on values that cannot work."""

    out: Path
    suite: str = "libero_object"
    tasks: tuple[int, ...] = tuple(range(10))
    inits: tuple[int, ...] = tuple(range(HELD_OUT.start))
    per_task: int = 25
    noise: float = 0.12  # standard deviation of the action noise; half of it on rotations
    noise_fraction: float = 0.67  # of the episodes
    scene_seeds: int = 5  # fixtures are placed with the seeds 0 ... scene_seeds - 1 in turn
    attempts: int = 4  # per episode, each from another initial state
    workers: int = 1
    seed: int = 0
    other_scenes: bool = False  # each task where other tasks of the suite are at home
    dagger: Dagger | None = None  # the policy that drives before the expert does
    misses: bool = False  # each begins after a grasp that failed
    regrasps: bool = False  # keep episodes with a second grasp, too
    held_out: bool = False  # initial states of `HELD_OUT` may be among `inits`

    def __post_init__(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out: {self.out} is a file; choose a folder")
        count = len(catalog.tasks(self.suite))
        if not self.tasks or not set(self.tasks) <= set(range(count)):
            raise ValueError(f"--tasks: {self.suite} has the tasks 0-{count - 1}")
        if not self.inits or not set(self.inits) <= set(INITS):
            raise ValueError(f"--inits: LIBERO has the initial states 0-{INITS[-1]}")
        if not self.held_out and set(self.inits) & set(HELD_OUT):
            raise ValueError(
                f"--inits: {HELD_OUT[0]}-{HELD_OUT[-1]} are for evaluation, and a policy trained "
                "on them can't be judged there; the command's --held-out takes them"
            )
        for name in ("per_task", "scene_seeds", "attempts", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        homeless = [t for t in self.tasks if not self.scene_tasks(t)]
        if homeless:
            raise ValueError(
                f"--other-scenes: no other scene of {self.suite} has what task {homeless[0]} needs"
            )
        if self.misses and self.dagger:
            raise ValueError("--misses and --dagger: choose who leads")
        if not (0 <= self.noise <= 1 and 0 <= self.noise_fraction <= 1):
            raise ValueError("--noise and --noise-fraction must lie in [0, 1]")

    @property
    def recipe(self) -> dict[str, object]:
        """What the episodes of a folder have in common; the rest says how many and how fast."""
        dagger = self.dagger and {"checkpoint": self.dagger.sha256, "beta": self.dagger.beta}
        if self.dagger and self.dagger.relabel:
            dagger |= {"relabel": True}
        names = ("inits", "noise", "noise_fraction", "scene_seeds", "seed")
        names += ("other_scenes", "misses", "regrasps")
        recipe = {name: getattr(self, name) for name in names} | {"dagger": dagger}
        return json.loads(json.dumps(recipe))  # as a file has it

    def scene_tasks(self, task: int) -> tuple[int, ...]:
        """The tasks in whose scenes `task` is performed."""
        if not self.other_scenes:
            return (task,)
        known = range(len(catalog.tasks(self.suite)))
        return tuple(t for t in known if task in catalog.other_goals(self.suite, t))


@dataclass(frozen=True, slots=True)
class Episode:
    """One demonstration to be made: number `index` of its task."""

    config: CollectConfig
    task: int
    index: int

    @property
    def part(self) -> Path:
        """Where the finished episode waits until its task is complete."""
        return _parts_folder(self.config, self.task) / f"demo_{self.index}.hdf5"

    @property
    def noise(self) -> float:
        """Noise of this episode: the fraction is met evenly along the indices."""
        fraction = self.config.noise_fraction
        noisy = int((self.index + 1) * fraction) > int(self.index * fraction)
        return self.config.noise if noisy else 0.0

    @property
    def failed(self) -> int:
        """Attempts that failed in earlier runs."""
        return int(self._failures.read_text()) if self._failures.is_file() else 0

    def note_failed(self, attempts: int) -> None:
        """Remember so many more."""
        write_json(self._failures, self.failed + attempts)

    @property
    def _failures(self) -> Path:
        return self.part.with_suffix(".failed")

    def scenes(self) -> Iterator[tuple[SceneSpec, tuple[int, ...]]]:
        """Scene and entropy of the noise, attempt by attempt; others than those that failed."""
        c = self.config
        places, apart = c.scene_tasks(self.task), max(1, len(c.inits) // c.attempts)
        for attempt in range(self.failed, self.failed + c.attempts):
            turn = self.index + attempt
            skipped = attempt * apart + attempt * apart // len(c.inits)  # each round another way
            init = c.inits[(self.index + skipped) % len(c.inits)]
            seed = (turn + self.index // len(c.inits)) % c.scene_seeds  # another one each round
            place = places[turn % len(places)]
            scene = SceneSpec(c.suite, place, init, seed, goal=self.task)
            yield scene, (c.seed, self.task, self.index, attempt)


def collect(config: CollectConfig) -> Counter[str]:
    """Make what is missing under `config.out`; returns how many attempts ended how.

    Raises ValueError when another collection writes there or what is there was made otherwise,
    BrokenProcessPool when a worker died, or what a worker raised.
    """
    with hold(config.out):
        _note_recipe(config)
        for place in (config.out, *config.out.glob(f"{PARTS}/*/")):
            for left in (*place.glob(".*.hdf5.*.tmp"), *place.glob(".*.failed")):  # of a killed one
                left.unlink()
        return _collect(config)


def _note_recipe(config: CollectConfig) -> None:
    """Keep it with what it makes. Raises ValueError when the folder has another one."""
    file = config.out / RECIPES
    try:
        known = json.loads(file.read_text())
        before = known.get(config.suite, config.recipe)
    except FileNotFoundError:
        known, before = {}, config.recipe
    except (ValueError, AttributeError):
        raise ValueError(f"{file}: not a collection's settings; choose another --out") from None
    there = [f for task in config.tasks if (f := demo_file(config, task)).is_file()]
    if config.suite not in known and there:
        raise ValueError(f"{there[0]}: nothing says how it was made; choose another --out")
    if before != config.recipe:
        name = next(n for n, value in config.recipe.items() if value != before.get(n))
        option = f"--{name.replace('_', '-')}"
        raise ValueError(f"{config.out}: made with another {option}; choose another --out")
    write_json(file, known | {config.suite: before})


def _collect(config: CollectConfig) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    failures: Counter[int] = Counter()  # by task; of those with a success none
    hopeless: set[int] = set()
    left: dict[int, list[Episode]] = {}
    for task in config.tasks:
        if demos.count_demos(demo_file(config, task)) < config.per_task:
            known = _known(config, task)
            wanted = (Episode(config, task, i) for i in range(config.per_task))
            left[task] = [episode for episode in wanted if episode.index not in known]
            failures[task] = -math.inf if known else 0
    total, missing = len(left) * config.per_task, sum(map(len, left.values()))
    with tqdm(total=total, initial=total - missing, unit="demo", smoothing=0.05) as progress:
        for task in [t for t, episodes in left.items() if not episodes]:
            _finish(config, task)
        wanted = [e for es in left.values() for e in es]
        for episode, outcome in _make(wanted, config.workers, hopeless):
            task, kept = episode.task, outcome[-1] == "kept"
            verdicts.update(map(str, outcome))
            failures[task] += -math.inf if kept else len(outcome) - outcome.count("unneeded")
            if not kept:
                episode.note_failed(len(outcome))
            if failures[task] >= HOPELESS and task not in hopeless:
                hopeless.add(task)
                tqdm.write(f"task {task}: {HOPELESS} attempts without a success, given up")
            left[task].remove(episode)
            if not left[task]:
                _finish(config, task)
            progress.set_postfix_str(f"task {task}, {dict(verdicts)}")
            progress.update(kept)
    for task in hopeless:
        _finish(config, task)
    return verdicts


def demo_file(config: CollectConfig, task: int) -> Path:
    """The file that a task's demonstrations end up in."""
    return demos.demo_path(config.out, catalog.tasks(config.suite)[task].name)


def _parts_folder(config: CollectConfig, task: int) -> Path:
    return config.out / PARTS / catalog.tasks(config.suite)[task].name


def _known(config: CollectConfig, task: int) -> dict[int, tuple[Path, str]]:
    """File and group of a task's episodes so far, by their numbers: joined, or parts."""
    found, joined = {}, demo_file(config, task)
    if joined.is_file():
        with h5py.File(joined, "r") as file:
            for name, demo in file["data"].items():
                place = int(name.removeprefix("demo_"))
                number = demo.attrs.get("entropy", (0, 0, place))[2]  # another's file has none
                found[int(number)] = joined, f"data/{name}"
    for part in _parts_folder(config, task).glob("demo_*.hdf5"):
        if h5py.is_hdf5(part):
            found[int(part.stem.removeprefix("demo_"))] = part, demos.PART
    return dict(sorted(found.items()))


def _make(
    episodes: Sequence[Episode], workers: int, hopeless: Collection[int]
) -> Iterator[tuple[Episode, tuple[str, ...]]]:
    """Make episodes in worker processes; yields each with its attempts' verdicts as it ends.

    Those of tasks that become `hopeless` meanwhile are not begun.
    """
    if not episodes:
        return
    from studio import demonstrate  # imports the simulator

    os.environ["OMP_NUM_THREADS"] = "1"  # for the children
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(episodes)), context, initializer=demonstrate.start_worker
    ) as pool:
        futures = {}
        for episode in episodes:
            c = episode.config
            attempts = tuple(
                demonstrate.Attempt(scene, episode.noise, entropy, c.dagger, c.misses, c.regrasps)
                for scene, entropy in episode.scenes()
            )
            futures[pool.submit(demonstrate.make_part, episode.part, attempts)] = episode
        try:
            for future in as_completed(futures):
                if not future.cancelled():
                    yield futures[future], future.result()
                for other, episode in futures.items():
                    if episode.task in hopeless:
                        other.cancel()
        finally:
            pool.shutdown(cancel_futures=True)


def _finish(config: CollectConfig, task: int) -> None:
    """Join a task's episodes, however many there are, into LIBERO's file."""
    if known := _known(config, task):
        info = catalog.tasks(config.suite)[task]
        header = demos.task_header(info.bddl_file, info.instruction, demos.COLLECTED)
        demos.assemble(demo_file(config, task), header, list(known.values()))
        folder = _parts_folder(config, task)
        for number in known:
            for left in folder.glob(f"demo_{number}.*"):
                left.unlink()
        with contextlib.suppress(OSError):  # of others it is known that they failed
            folder.rmdir()


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(parse_range(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse(argv: Sequence[str] | None = None) -> CollectConfig:
    """The configuration on the command line; exits with code 2 and a message when it is wrong."""
    p = argparse.ArgumentParser(prog="python -m studio.collect", description=__doc__.split("\n")[0])
    p.add_argument("--suite", default="libero_object", help=", ".join(catalog.SUITES))
    p.add_argument("--out", type=Path, required=True, help="folder for <task>_demo.hdf5")
    p.add_argument("--tasks", type=_numbers, help="such as 0-9 (default: all)")
    p.add_argument("--inits", type=_numbers, default=_numbers("0-39"), help="initial states")
    p.add_argument("--held-out", action="store_true",
                   help="allow the initial states 40-49, which are for evaluation")  # fmt: skip
    p.add_argument("--per-task", type=int, default=25, help="demonstrations per task")
    p.add_argument("--noise", type=float, default=0.12, help="standard deviation on the actions")
    p.add_argument("--noise-fraction", type=float, default=0.67, help="of the episodes")
    p.add_argument("--scene-seeds", type=int, default=5, help="so many placements of fixtures")
    p.add_argument("--attempts", type=int, default=4, help="per demonstration")
    p.add_argument("--workers", type=workers, default="auto", help="processes, or auto")
    p.add_argument("--seed", type=int, default=0, help="of the noise")
    p.add_argument("--other-scenes", action="store_true",
                   help="each task in the scenes of other tasks that hold its objects, so that "
                   "the instruction decides and not the scene")  # fmt: skip
    p.add_argument(
        "--misses",
        action="store_true",
        help="each begins with a grasp that failed, which is not in it",
    )
    p.add_argument("--regrasps", action="store_true", help="keep those with a second grasp, too")
    p.add_argument("--dagger", type=Path, metavar="CHECKPOINT",
                   help="its policy drives first, the expert takes over")  # fmt: skip
    p.add_argument("--relabel", action="store_true",
                   help="it drives to the end, its steps get the expert's actions")  # fmt: skip
    p.add_argument("--beta", type=float, default=0.0, help="the expert's share of the plans before")
    arguments = vars(p.parse_args(argv))
    arguments["workers"] = arguments["workers"] or cores()
    checkpoint = arguments.pop("dagger")
    options = {name: arguments.pop(name) for name in ("beta", "relabel")}
    try:
        if arguments["tasks"] is None:
            arguments["tasks"] = tuple(range(len(catalog.tasks(arguments["suite"]))))
        config = CollectConfig(**arguments)
        for name, value in options.items() if checkpoint is None else ():
            if value:
                raise ValueError(f"--{name} goes with --dagger")
        leads = None if checkpoint is None else _dagger(checkpoint, options)
        return replace(config, dagger=leads)
    except ValueError as error:
        p.exit(2, f"collect: {error}\n")


def _dagger(checkpoint: Path, options: dict[str, Any]) -> Dagger:
    from studio.dagger import Dagger  # imports the model

    return Dagger.of(checkpoint, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit code: 2 on bad input, 3 when something is missing."""
    config = parse(argv)
    try:
        verdicts = collect(config)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except (BrokenProcessPool, MemoryError, OSError, RuntimeError, ValueError) as error:
        memory = isinstance(error, MemoryError | BrokenProcessPool)
        why = f"{error or 'no memory left'}; fewer --workers need less memory" if memory else error
        print(f"collect: {why}; finished episodes are kept, run it again", file=sys.stderr)
        return 2
    short = 0
    for task in config.tasks:
        count = demos.count_demos(demo_file(config, task))
        short += count < config.per_task
        print(f"{count:3d} demonstrations  {demo_file(config, task)}")
    print(f"attempts: {dict(verdicts)}" if verdicts else "nothing was missing")
    if short:
        print(f"{short} tasks have fewer than asked for; the same command tries other scenes")
    return INCOMPLETE if short else 0


if __name__ == "__main__":
    sys.exit(main())
