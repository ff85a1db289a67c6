"""LIBERO-Plus's sensor noise: what lens and air do to a picture before the policy gets it.

Five kinds, as in ImageNet-C (Hendrycks & Dietterich 2019), with LIBERO-Plus's ten severities and,
like there, on `agentview` alone: the wrist camera stays clear. LIBERO-Plus's lengths are pixels of
a picture 256 wide; here they scale with the picture, so that one of 128 looks as blurred. People's
own views stay clear too: theirs is the scene, and "what the policy sees" shows this beside it.

Letters: S side of the picture (pixels), s severity 1 - 10.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from models.types import Observation
from studio.events import SensorNoise

CAMERA = "agentview"
REFERENCE_SIDE = 256.0  # pixels, LIBERO-Plus's pictures
# By severity. Radius and sigma (pixels) of the exposure's trail:
MOTION = (
    (5, 2),
    (8, 3),
    (10, 4),
    (12, 5),
    (15, 6),
    (18, 8),
    (20, 10),
    (25, 12),
    (30, 15),
    (35, 20),
)
# How much fog, and how fast its octaves fade: the smoother, the larger.
FOG = ((0.5, 3.0), (1.0, 2.8), (1.5, 2.5), (2.0, 2.2), (2.5, 2.0),
       (3.0, 1.8), (3.5, 1.6), (4.0, 1.5), (4.5, 1.4), (5.0, 1.3))  # fmt: skip
# Sigma (pixels) of the glass's blur, how far a pixel strays at a time (pixels), how often.
GLASS = ((0.5, 1, 3), (0.7, 1, 3), (0.9, 2, 3), (1.0, 2, 2), (1.1, 3, 2),
         (1.3, 3, 2), (1.5, 4, 2), (1.8, 4, 2), (2.2, 5, 1), (2.5, 5, 1))  # fmt: skip
ZOOMS = 12  # pictures that a zooming exposure is the mean of
_OCTAVES = 8


def corrupted(observation: Observation, noise: SensorNoise, seed: int) -> Observation:
    """`observation` as a policy behind this noise gets it; the same seed draws the same noise."""
    if noise.nominal:
        return observation
    picture = corrupt(observation.images[CAMERA], noise, seed)
    return replace(observation, images={**observation.images, CAMERA: picture})


def corrupt(picture: np.ndarray, noise: SensorNoise, seed: int) -> np.ndarray:
    """`picture` (uint8 RGB [S, S, 3], left alone) behind `noise`."""
    if noise.nominal:
        return picture
    rng = np.random.default_rng(seed)
    return _KINDS[noise.kind](picture, noise.severity, rng)


def _motion_blur(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A trail of Gaussian weight to one side, at a random angle within 45° of level."""
    scale = picture.shape[0] / REFERENCE_SIDE
    radius, sigma = (length * scale for length in MOTION[severity - 1])
    angle = np.radians(rng.uniform(-45, 45))
    reach = int(np.ceil(2 * radius))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    along = np.arange(reach + 1)
    rows = np.rint(reach + along * np.sin(angle)).astype(int)
    columns = np.rint(reach + along * np.cos(angle)).astype(int)
    np.add.at(kernel, (rows, columns), np.exp(-((along / sigma) ** 2) / 2))
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _gaussian_blur(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: sigma = s pixels."""
    return _blurred(picture, severity)


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by `sigma` pixels of the reference picture."""
    sigma *= picture.shape[0] / REFERENCE_SIDE
    return cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _zoom_blur(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of the picture and of itself enlarged by up to 5% (s + 1)."""
    side = picture.shape[0]
    centre = (side - 1) / 2
    total = picture.astype(np.float32)
    for zoom in np.linspace(1.0, 1.05 + 0.05 * severity, ZOOMS):
        enlarge = np.array([[zoom, 0, centre * (1 - zoom)], [0, zoom, centre * (1 - zoom)]])
        total += cv2.warpAffine(picture, enlarge, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return _as_picture(total / (ZOOMS + 1))


def _glass_blur(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Frosted glass: blurred, every pixel from somewhere near, blurred again."""
    side = picture.shape[0]
    sigma, stray, times = GLASS[severity - 1]
    strays = rng.uniform(-stray, stray, (times, 2, side, side)).sum(axis=0)
    strays *= side / REFERENCE_SIDE
    y, x = (np.indices((side, side)) + strays).astype(np.float32)
    shuffled = cv2.remap(
        _blurred(picture, sigma), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return _blurred(shuffled, sigma)


def _fog(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A cloud over the picture, which keeps the brightness of its brightest point."""
    amount, fading = FOG[severity - 1]
    brightest = picture.max() / 255.0
    cloud = amount * _cloud(picture.shape[0], fading, rng)[..., None]
    foggy = (picture / 255.0 + cloud) * brightest / (brightest + amount)
    return _as_picture(255.0 * foggy)


def _cloud(side: int, fading: float, rng: np.random.Generator) -> np.ndarray:
    """Plasma in [0, 1], float32 [S, S]: octaves of random heights, each finer and `fading`
    times as weak as the one before.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(_OCTAVES):
        heights = rng.uniform(-1, 1, (2**octave + 1,) * 2).astype(np.float32)
        total += cv2.resize(heights, (side, side)) / fading**octave
    total -= total.min()
    return total / total.max()


def _as_picture(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_KINDS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "motion_blur": _motion_blur,
    "gaussian_blur": _gaussian_blur,
    "zoom_blur": _zoom_blur,
    "glass_blur": _glass_blur,
    "fog": _fog,
}
