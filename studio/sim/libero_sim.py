"""LiberoSim: one LIBERO scene, its physics and its cameras, without LIBERO's surprises.

Quirks of LIBERO, robosuite and MuJoCo that are handled, and where:
- `OffScreenRenderEnv.reset()` swallows every exception and loops for ever: the inner environment is
  used, and its placement sampler is retried a bounded number of times (here).
- Fixture poses are not in the initial state: `reset()` draws them into `model.body_pos` from
  NumPy's global generator, so it is seeded for each reset and given back (here, build.py).
- `hard_reset` compiles the XML twice per scene; soft resets keep what the last episode wrote into
  the model (fixture poses, the stove's glow), so those arrays are put back first (here).
- `reset()` leaves positions that the initial state then replaces; ten idle steps let things settle.
- The gripper's speed-limited command outlives a soft reset: it is zeroed (here).
- `env.step` updates all observables 25 times per control step, rendering included, computes
  positions and velocities three times per substep and tests the goal twice: physics.py does each
  once, with the identical trajectory.
- `env.step` returns observations taken after the first of its 25 substeps, 48 ms before the state
  that it leaves behind; here pictures and proprioception show the state itself.
- robosuite ends an episode after 1000 steps and then raises: `ignore_done` (build.py).
- The inner environment's `language_instruction` raises KeyError: the catalogue's is used.
- The end effector's orientation follows robosuite's `quat2axisangle` (no antipodal flip).
- Gripper actions: -1 opens, +1 closes.
- MuJoCo's pictures are upside down, its OpenGL set-up slow, its meshes finer than the pixels, its
  textures up to 4096 pixels wide (renderer.py, simplify.py).
- `MUJOCO_GL` must be chosen before the first import (gl.py); the original LIBERO asks a question at
  import, benchmarks print, initial states are pickled tensors (catalog.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.config import PIXELS, Pixels
from models.types import CAMERAS, Observation
from studio.events import CameraPerturbation, LightPerturbation, SceneSpec
from studio.sim import build, catalog
from studio.sim.camera import perturbed_pose
from studio.sim.light import Lamps
from studio.sim.physics import control_step
from studio.sim.renderer import RENDER_SIZE, SceneRenderer
from studio.sim.robot import move_arm

SETTLE_ACTION = np.array([0.0] * 6 + [-1.0])
SETTLE_STEPS = 10
ACTION_DIM = 7
_MJCF_CAMERAS = dict(zip(CAMERAS, ("agentview", "robot0_eye_in_hand"), strict=True))
_RESTORED = ("body_pos", "body_quat", "site_rgba", "geom_rgba")
_PLACEMENT_ATTEMPTS = 20


class NoPlace(RuntimeError):
    """The scene's fixtures find no place side by side, with this seed."""


@dataclass(frozen=True, slots=True)
class SceneInfo:
    """What was loaded. `max_steps`: control steps before a timeout; `n_inits`: initial states.

    `home`: where the initial state has the hand, m, however the scene's `robot` moves it.
    """

    instruction: str
    max_steps: int
    n_inits: int
    home: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """After one control step: the task's own success test, and proprioception float32 [8]."""

    success: bool
    proprio: np.ndarray


class LiberoSim:
    """A LIBERO task under physics; one thread owns it and its GL context.

    pixels: "fast" simplifies what is drawn (see simplify.py), "faithful" draws as LIBERO does.
    cache_dir: folder of the compiled models.
    Methods that need a scene raise ValueError before `load`.
    """

    def __init__(self, pixels: Pixels = "fast", cache_dir: Path | None = None) -> None:
        if pixels not in PIXELS:
            raise ValueError(f"pixels must be one of {', '.join(PIXELS)}, not {pixels!r}")
        self.pixels: Pixels = pixels
        self.env: Any = None
        self.camera = CameraPerturbation()
        folder = cache_dir or catalog.user_cache() / "models"
        self._cache = build.ModelCache(folder, fast=pixels == "fast")
        self._scene: SceneSpec | None = None
        self._renderer: SceneRenderer | None = None
        self._pictures: dict[tuple[str, int], np.ndarray] = {}

    # --- scene -----------------------------------------------------------------------------------

    def load(self, scene: SceneSpec) -> SceneInfo:
        """Put the task's scene up at its initial state, fixtures placed by `scene.seed`, settled.

        Camera and light return to nominal. Raises ValueError for an unknown suite, task or init, a
        layout that the suite does not have, and a goal that this scene has no objects for.
        """
        catalog.init_state(scene.suite, scene.task, scene.init, scene.layout)
        asked, place = _asked(scene), (scene.suite, scene.task, scene.layout)
        bddl_file = catalog.bddl_file(*place)
        current = self._scene
        if current is None or (current.suite, current.task, current.layout) != place:
            self.close()
            self.env = build.build_env(bddl_file, self._cache)
            self._remember_model()
        self._scene = scene
        build.ask(self.env, asked.bddl_file)
        self.reset()
        self.set_camera(CameraPerturbation())
        self.set_light(LightPerturbation())
        return SceneInfo(
            instruction=asked.instruction,
            max_steps=catalog.max_steps(scene.suite),
            n_inits=catalog.n_inits(*place),
            home=self._home,
        )

    def ask(self, instruction: str) -> int | None:
        """Let the goal of the task that is worded so count in this scene from now on.

        Returns that task's number in the suite; None, and all stays as it is, when no task that
        this scene has the objects for is worded so.
        """
        scene = self._loaded()
        for goal in (scene.task, *catalog.other_goals(scene.suite, scene.task)):
            info = catalog.task(scene.suite, goal)
            if info.instruction.lower() == " ".join(instruction.lower().split()):
                self._scene = replace(scene, goal=goal)
                build.ask(self.env, info.bddl_file)
                return goal
        return None

    def reset(self) -> None:
        """The same scene again, from its initial state; camera and light stay as they are."""
        scene = self._loaded()
        with build.seeded(scene.seed):
            self._place_fixtures()
        self.set_state(catalog.init_state(scene.suite, scene.task, scene.init, scene.layout))
        self._home = tuple(map(float, self.proprio()[:3]))
        if not scene.robot.nominal:
            move_arm(self.env, scene.robot)
        for _ in range(SETTLE_STEPS):
            self.step(SETTLE_ACTION)

    def _place_fixtures(self) -> None:
        from robosuite.utils.errors import RandomizationError

        for _ in range(_PLACEMENT_ATTEMPTS):
            for name, values in self._restored.items():
                getattr(self._model, name)[:] = values
            self.env.robots[0].gripper.current_action[:] = 0.0
            try:
                self.env.reset()
            except RandomizationError:
                continue
            return
        raise NoPlace(f"the fixtures of {self._scene} did not fit; try another seed")

    def _remember_model(self) -> None:
        import mujoco

        self._model, self._data = self.env.sim.model._model, self.env.sim.data._data
        self._restored = {name: getattr(self._model, name).copy() for name in _RESTORED}
        self._lamps = Lamps(self._model)
        self._camera_ids = {
            camera: self.env.sim.model.camera_name2id(name)
            for camera, name in _MJCF_CAMERAS.items()
        }
        agentview = self._camera_ids["agentview"]
        matrix = np.empty(9)
        mujoco.mju_quat2Mat(matrix, self._model.cam_quat[agentview])
        self._nominal_pose = self._model.cam_pos[agentview].copy(), matrix.reshape(3, 3)

    # --- physics ---------------------------------------------------------------------------------

    def step(self, action: np.ndarray) -> StepResult:
        """One control step (1/20 s) of physics and controller; draws nothing.

        action: [7], Δposition, Δrotation, gripper; within [-1, 1] (the controller clips the rest).
        Raises ValueError when it has another shape or is not finite.
        """
        self._loaded()
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise ValueError(f"an action is {ACTION_DIM} finite numbers, not {action!r}")
        self._pictures.clear()
        control_step(self.env, action)
        return StepResult(success=bool(self.env._check_success()), proprio=self.proprio())

    def proprio(self) -> np.ndarray:
        """float32 [8]: end-effector position (m), axis-angle (rad), two gripper joints (m)."""
        from robosuite.utils.transform_utils import convert_quat, quat2axisangle

        self._loaded()
        robot, data = self.env.robots[0], self.env.sim.data
        quat = convert_quat(data.get_body_xquat(robot.robot_model.eef_name), to="xyzw")
        fingers = data.qpos[robot._ref_gripper_joint_pos_indexes]
        position = data.site_xpos[robot.eef_site_id]
        return np.concatenate([position, quat2axisangle(quat), fingers]).astype(np.float32)

    def get_state(self) -> np.ndarray:
        """float64 [1 + nq + nv]: time, qpos, qvel, as LIBERO stores it.

        Not all that the next step depends on: see `snapshot`.
        """
        self._loaded()
        return self.env.sim.get_state().flatten()

    def snapshot(self) -> np.ndarray:
        """float64 [...]: all that `restore` needs to go on bit for bit with actions that turn.

        Beside `get_state`: the solver's warm start and the gripper's speed-limited command. The
        controller's goal of orientation, which actions without a rotation keep, is not in it.
        """
        import mujoco

        self._loaded()
        kind = mujoco.mjtState.mjSTATE_INTEGRATION.value
        state = np.empty(mujoco.mj_stateSize(self._model, kind))
        mujoco.mj_getState(self._model, self._data, state, kind)
        return np.append(state, self.env.robots[0].gripper.current_action)

    def restore(self, snapshot: np.ndarray) -> None:
        """Back to a `snapshot` of this scene. Raises ValueError when its length does not fit."""
        import mujoco

        self._loaded()
        kind = mujoco.mjtState.mjSTATE_INTEGRATION.value
        command = self.env.robots[0].gripper.current_action
        expected = mujoco.mj_stateSize(self._model, kind) + len(command)
        if np.shape(snapshot) != (expected,):
            raise ValueError(f"a snapshot of this scene has {expected} numbers")
        state, command[:] = np.split(snapshot, [expected - len(command)])
        self._pictures.clear()
        mujoco.mj_setState(self._model, self._data, state, kind)
        self.env.sim.forward()
        mujoco.mj_setState(self._model, self._data, state, kind)  # the warm start again
        self.env._post_process()

    def set_state(self, state: np.ndarray) -> None:
        """Set time, qpos and qvel (float64 [1 + nq + nv]) and what follows from them.

        Raises ValueError when the length does not fit the scene.
        """
        self._loaded()
        state = np.asarray(state, dtype=np.float64)
        expected = 1 + self._model.nq + self._model.nv
        if state.shape != (expected,):
            raise ValueError(f"a state of this scene has {expected} numbers, not {state.shape}")
        self._pictures.clear()
        self.env.sim.set_state_from_flattened(state)
        self.env.sim.forward()
        self.env._check_success()
        self.env._post_process()

    # --- cameras ---------------------------------------------------------------------------------

    def render(self, camera: str, size: int | None = None) -> np.ndarray:
        """Upright uint8 RGB [size, size, 3] of "agentview" or "wrist"; `RENDER_SIZE` by default.

        Fast pixels are drawn at `RENDER_SIZE` and area-averaged; faithful ones drawn at `size`.
        """
        self._loaded()
        size = size or RENDER_SIZE
        if camera not in _MJCF_CAMERAS:
            raise ValueError(f"unknown camera {camera!r}; choose one of {', '.join(CAMERAS)}")
        if not 1 <= size <= RENDER_SIZE:
            raise ValueError(f"size must lie in [1, {RENDER_SIZE}], not {size!r}")
        drawn = self._drawn(camera, RENDER_SIZE if self.pixels == "fast" else size)
        if size == drawn.shape[0]:
            return drawn.copy()
        return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA)

    def observe(self, instruction: str | None = None, size: int = 128) -> Observation:
        """What the policy sees now: both cameras at `size`, proprioception, the instruction."""
        scene = self._loaded()
        if instruction is None:
            instruction = _asked(scene).instruction
        images = {camera: self.render(camera, size) for camera in CAMERAS}
        return Observation(images=images, proprio=self.proprio(), instruction=instruction)

    def set_camera(self, camera: CameraPerturbation) -> None:
        """Move `agentview` from its nominal pose; takes effect with the next picture."""
        import mujoco

        self._loaded()
        pos, rot = perturbed_pose(*self._nominal_pose, camera)
        index = self._camera_ids["agentview"]
        self._model.cam_pos[index] = pos
        mujoco.mju_mat2Quat(self._model.cam_quat[index], rot.ravel())
        self._model.cam_fovy[index] = camera.fov
        mujoco.mj_camlight(self._model, self._data)
        self.camera = camera
        self._pictures.clear()

    def set_light(self, light: LightPerturbation) -> None:
        """Change the lamps from LIBERO's own; takes effect with the next picture."""
        import mujoco

        self._loaded()
        self._lamps.apply(light)
        mujoco.mj_camlight(self._model, self._data)
        self._pictures.clear()

    def camera_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """`agentview` now: position float64 [3] (m) and rotation [3, 3] (right, up, back)."""
        self._loaded()
        return perturbed_pose(*self._nominal_pose, self.camera)

    def nominal_camera_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """`agentview` where LIBERO puts it: position float64 [3] (m), rotation [3, 3]."""
        self._loaded()
        pos, rot = self._nominal_pose
        return pos.copy(), rot.copy()

    def _drawn(self, camera: str, side: int) -> np.ndarray:
        """The picture, drawn once per state, camera pose and light."""
        if (camera, side) not in self._pictures:
            if self._renderer is None:
                self._renderer = SceneRenderer(self._model, self._data, self.pixels)
            self._pictures[camera, side] = self._renderer.draw(self._camera_ids[camera], side)
        return self._pictures[camera, side]

    # --- housekeeping ----------------------------------------------------------------------------

    def versions(self) -> dict[str, str]:
        """Installed versions of mujoco, robosuite and LIBERO."""
        return build.versions()

    def close(self) -> None:
        """Drop the scene and free what it holds; `load` starts again."""
        if self._renderer is not None:
            self._renderer.close()
        if self.env is not None:
            self.env.close()
        self.env = self._scene = self._renderer = self._model = self._data = None
        self._pictures.clear()

    def _loaded(self) -> SceneSpec:
        if self._scene is None:
            raise ValueError("no scene is loaded; call load(SceneSpec(...)) first")
        return self._scene


def _asked(scene: SceneSpec) -> catalog.TaskInfo:
    """The task whose goal and instruction count in the scene. Raises ValueError if it can't be."""
    if scene.goal is None or scene.goal == scene.task:
        return catalog.task(scene.suite, scene.task)
    info = catalog.task(scene.suite, scene.goal)
    possible = catalog.other_goals(scene.suite, scene.task)
    if scene.goal not in possible:
        others = ", ".join(map(str, possible)) or "none"
        raise ValueError(
            f"the scene of {scene.suite} task {scene.task} can't be asked for the goal of task "
            f"{scene.goal}; possible: {others}"
        )
    return info
