"""Drawing a compiled model off screen: `fast` for live views and policies, `faithful` as LIBERO.

Quirks handled here: an OpenGL context costs seconds, so one serves the whole process and every
model only gets a new MuJoCo context in it; MuJoCo's pictures come upside down; camera moves need
`mj_camlight` before they show; LIBERO draws geom group 1 only, with 4x multisampling, and draws
every scene a second time for the reflections of its floor; MuJoCo draws what is out of view too.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from models.config import Pixels
from studio.sim.gl import choose_backend, context_class

RENDER_SIZE = 256  # side of the largest pictures, those for people, in pixels
_MAX_GEOMS = 1000  # robosuite's own limit
_UNSEEN_GROUP = 5  # of MuJoCo's six geom groups, LIBERO uses 0 (collision) and 1 (visual)
_gl_context: Any = None


def _current_gl_context() -> Any:
    """The process's one OpenGL context, made current in the calling thread."""
    global _gl_context
    if _gl_context is None:
        _gl_context = context_class(choose_backend())(640, 480)
    _gl_context.make_current()
    return _gl_context


class SceneRenderer:
    """Draws `data` of `model` from its fixed cameras; use it from one thread."""

    def __init__(self, model: Any, data: Any, pixels: Pixels) -> None:
        _current_gl_context()
        import mujoco

        self._model, self._data = model, data
        self._fast = fast = pixels == "fast"
        if fast:
            model.vis.quality.offsamples = 0
        # Robosuite's buffer, which RENDER_SIZE fits into.
        model.vis.global_.offwidth, model.vis.global_.offheight = 640, 480
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        if fast:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision geoms
        self._options.geomgroup[_UNSEEN_GROUP] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._finalizer = weakref.finalize(self, _free, self._context)

    def draw(self, camera_id: int, side: int) -> np.ndarray:
        """Upright uint8 RGB [side, side, 3] from camera `camera_id`; `side` <= RENDER_SIZE."""
        import mujoco

        _current_gl_context()
        self._camera.fixedcamid = camera_id
        view = mujoco.MjrRect(0, 0, side, side)
        with self._unseen_left_out(camera_id) if self._fast else nullcontext():
            mujoco.mjv_updateScene(
                self._model,
                self._data,
                self._options,
                None,
                self._camera,
                mujoco.mjtCatBit.mjCAT_ALL,
                self._scene,
            )
        mujoco.mjr_render(view, self._scene, self._context)
        pixels = np.empty((side, side, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(pixels, None, view, self._context)
        return np.ascontiguousarray(pixels[::-1])

    @contextmanager
    def _unseen_left_out(self, camera_id: int) -> Iterator[None]:
        """Geoms whose box lies beside or behind the camera's square view are not drawn.

        G geoms, S = 5 sides of the view; x to the right, y up, z to the back of the camera.
        """
        model, data = self._model, self._data
        slope = math.tan(math.radians(model.cam_fovy[camera_id]) / 2)
        outward = np.array(
            [[1, 0, slope], [-1, 0, slope], [0, 1, slope], [0, -1, slope], [0, 0, 1]]
        )
        outward_S3 = outward @ data.cam_xmat[camera_id].reshape(3, 3).T
        axes_G33 = data.geom_xmat.reshape(-1, 3, 3)
        middle_G3, half_G3 = np.split(model.geom_aabb, 2, axis=1)
        middle_G3 = data.geom_xpos + (axes_G33 @ middle_G3[..., None])[..., 0]
        distance_GS = (middle_G3 - data.cam_xpos[camera_id]) @ outward_S3.T
        reach_GS = (abs(outward_S3 @ axes_G33) @ half_G3[..., None])[..., 0]
        plane_G = model.geom_rbound == 0  # endless
        unseen = (distance_GS > reach_GS).any(axis=1) & ~plane_G
        groups = model.geom_group[unseen]
        model.geom_group[unseen] = _UNSEEN_GROUP
        try:
            yield
        finally:
            model.geom_group[unseen] = groups

    def close(self) -> None:
        """Free the buffers on the graphics side."""
        self._finalizer()


def _free(context: Any) -> None:
    _current_gl_context()
    context.free()
