"""The lamps of a compiled scene: LIBERO's, and how a perturbation changes them.

LIBERO hangs spot lamps 3 m above the table and leaves MuJoCo's headlight on, a lamp that rides on
every camera. Both count: all of them dim and are coloured, and the spots (and the kitchen's
ceiling light) orbit the table as one rig. MuJoCo reads the lamps whenever it draws, so that a
change needs no new renderer.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np

from studio.events import LightPerturbation
from studio.sim.camera import PIVOT, orbit

_COLOURS = ("ambient", "diffuse", "specular")


def filter_colour(light: LightPerturbation) -> np.ndarray:
    """What reaches the scene of each of red, green and blue [3], 1 being LIBERO's own."""
    rgb = colorsys.hsv_to_rgb(light.hue / 360.0 % 1.0, light.saturation / 100.0, 1.0)
    return np.array(rgb) * (light.intensity / 100.0)


class Lamps:
    """The lamps of `model` as LIBERO has them; `apply` changes the model from there."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pos, self._dir = model.light_pos.copy(), model.light_dir.copy()
        self._colours = {
            name: (getattr(model, f"light_{name}").copy(), getattr(self._headlight, name).copy())
            for name in _COLOURS
        }

    @property
    def _headlight(self) -> Any:
        return self._model.vis.headlight

    def apply(self, light: LightPerturbation) -> None:
        """Make the model's lamps those of `light`; bit for bit LIBERO's when it is nominal."""
        colour = filter_colour(light)
        for name, (lamps, head) in self._colours.items():
            getattr(self._model, f"light_{name}")[:] = lamps * colour
            getattr(self._headlight, name)[:] = head * colour
        self._model.light_pos[:], self._model.light_dir[:] = self._pos, self._dir
        if light.azimuth or light.elevation:
            turn = orbit(light.azimuth, light.elevation)
            self._model.light_pos[:] = PIVOT + (self._pos - PIVOT) @ turn.T
            self._model.light_dir[:] = self._dir @ turn.T
