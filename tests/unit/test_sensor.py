"""LIBERO-Plus's sensor noise on a picture with edges and texture."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from models.types import Observation
from studio.events import SENSOR_KINDS, SensorNoise
from studio.sensor import corrupt, corrupted

KINDS = SENSOR_KINDS[1:]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Patches of random colours under fine texture, uint8 RGB [128, 128, 3], none very bright."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 160, (20, 20, 3), dtype=np.uint8)
    patches = cv2.resize(patches, (128, 128), interpolation=cv2.INTER_NEAREST)
    return patches + rng.integers(0, 40, (128, 128, 3), dtype=np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_no_noise_leaves_the_picture_alone(picture):
    assert corrupt(picture, SensorNoise(), 0) is picture


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_of_its_kind_drawn_by_its_seed(picture, kind):
    before = picture.copy()
    noisy = corrupt(picture, SensorNoise(kind, 4), 7)
    assert noisy.shape == picture.shape and noisy.dtype == np.uint8
    np.testing.assert_array_equal(picture, before)
    np.testing.assert_array_equal(noisy, corrupt(picture, SensorNoise(kind, 4), 7))
    random = kind in ("motion_blur", "glass_blur", "fog")
    assert (noisy != corrupt(picture, SensorNoise(kind, 4), 8)).any() == random
    others = [corrupt(picture, SensorNoise(other, 4), 7) for other in KINDS if other != kind]
    assert min(distance(noisy, other) for other in others) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_difficulty_is_further_from_the_picture(picture, kind):
    """Two severities each: LIBERO-Plus's table for glass is not monotone within them."""
    far = [
        np.mean([distance(corrupt(picture, SensorNoise(kind, s), seed), picture)
                 for s in (2 * d - 1, 2 * d) for seed in range(4)])
        for d in range(1, 6)
    ]  # fmt: skip
    assert far[0] > 2
    assert all(b > a for a, b in pairwise(far))


@pytest.mark.parametrize("kind", ["motion_blur", "gaussian_blur", "zoom_blur"])
def test_lengths_scale_with_the_picture(picture, kind):
    """A picture twice as large looks the same behind the same blur."""
    large = cv2.resize(picture, (256, 256), interpolation=cv2.INTER_CUBIC)
    near, far = (corrupt(p, SensorNoise(kind, 6), 1) for p in (picture, large))
    shrunk = cv2.resize(far, (128, 128), interpolation=cv2.INTER_AREA)
    assert distance(shrunk, near) < 0.35 * distance(picture, near)


@pytest.mark.parametrize("kind", KINDS)
def test_details_fade_and_no_light_is_added(picture, kind):
    noisy = corrupt(picture, SensorNoise(kind, 6), 3)
    details = [np.abs(np.diff(p.astype(float), axis=1)).mean() for p in (noisy, picture)]
    assert details[0] < 0.7 * details[1]
    assert noisy.max() <= picture.max()
    if kind != "fog":
        assert abs(noisy.mean() - picture.mean()) < 4


def test_only_the_fixed_camera_is_noisy(picture):
    images = {"agentview": picture, "wrist": picture}
    clear = Observation(images, np.zeros(8, np.float32), "pick")
    assert corrupted(clear, SensorNoise(), 0) is clear
    noisy = corrupted(clear, SensorNoise("fog", 2), 0)
    assert noisy.images["wrist"] is picture and clear.images["agentview"] is picture
    assert (noisy.images["agentview"] != picture).any()
    assert (noisy.instruction, noisy.proprio is clear.proprio) == ("pick", True)
