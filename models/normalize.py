"""Scales of actions and proprioception, saved with the weights as dataset_statistics.json.

Actions: the range between the 0.5% and 99.5% quantile becomes [-1, 1]; the gripper (last) passes
through as ±1. Proprio: standardised. A dimension that hardly moves keeps a floor on its scale, so
that noise is not blown up to full range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ACTION_FLOOR = 0.05  # least half range, environment action units
PROPRIO_FLOOR = 1e-3  # least standard deviation, m or rad
MODE = "quantile_0.5_99.5"


@dataclass(frozen=True, slots=True)
class Statistics:
    """Affine scales: normalised = (value - centre) / scale. float32 [D] and [8]."""

    action_centre: np.ndarray
    action_scale: np.ndarray
    proprio_centre: np.ndarray
    proprio_scale: np.ndarray
    mode: str = MODE

    @classmethod
    def fit(cls, actions: np.ndarray, proprio: np.ndarray) -> Statistics:
        """Statistics of actions [n, D] (environment scale) and proprio [n, 8]."""
        low, high = np.quantile(actions, [0.005, 0.995], axis=0)
        centre, scale = (high + low) / 2, np.maximum((high - low) / 2, ACTION_FLOOR)
        centre[-1], scale[-1] = 0.0, 1.0
        return cls(
            action_centre=centre.astype(np.float32),
            action_scale=scale.astype(np.float32),
            proprio_centre=proprio.mean(0).astype(np.float32),
            proprio_scale=np.maximum(proprio.std(0), PROPRIO_FLOOR).astype(np.float32),
        )

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Environment scale -> normalised, float32, same shape [..., D]."""
        return ((actions - self.action_centre) / self.action_scale).astype(np.float32)

    def denormalize(self, actions: np.ndarray) -> np.ndarray:
        """Normalised -> environment scale, float32, same shape [..., D]; not clipped."""
        return (actions * self.action_scale + self.action_centre).astype(np.float32)

    def standardize(self, proprio: np.ndarray) -> np.ndarray:
        """Proprio in m and rad -> zero mean, unit variance, float32."""
        return ((proprio - self.proprio_centre) / self.proprio_scale).astype(np.float32)

    def to_json(self) -> dict:
        """The content of dataset_statistics.json."""
        return {
            "mode": self.mode,
            "action": {"centre": _floats(self.action_centre), "scale": _floats(self.action_scale)},
            "proprio": {
                "centre": _floats(self.proprio_centre),
                "scale": _floats(self.proprio_scale),
            },
        }

    @classmethod
    def from_json(cls, data: dict) -> Statistics:
        """Read `to_json`'s form. Raises ValueError when a part is missing, empty or not finite."""
        try:
            mode = data["mode"]
            parts = [
                np.asarray(data[part][key], dtype=np.float32)
                for part in ("action", "proprio")
                for key in ("centre", "scale")
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"dataset statistics: missing or malformed {error}") from None
        if mode != MODE:
            raise ValueError(f"dataset statistics: unknown normalisation mode {mode!r}")
        if (
            any(p.ndim != 1 or not np.isfinite(p).all() for p in parts)
            or min(parts[1].min(), parts[3].min()) <= 0
        ):
            raise ValueError("dataset statistics: values must be finite and scales positive")
        return cls(*parts, mode=mode)


def _floats(values: np.ndarray) -> list[float]:
    return [float(v) for v in values]


class Scaled:
    """What plans in the scales of its `statistics`."""

    statistics: Statistics

    def normalize(self, actions: np.ndarray) -> np.ndarray:
        """Environment scale -> normalised, [..., D]."""
        return self.statistics.normalize(actions)

    def denormalize(self, actions: np.ndarray) -> np.ndarray:
        """Normalised -> environment scale, [..., D]; not clipped."""
        return self.statistics.denormalize(actions)
