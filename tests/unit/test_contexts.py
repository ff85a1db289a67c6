"""How far a context lies from those of training."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from models import contexts
from models.checkpoint import (
    Calibration,
    CheckpointError,
    load_checkpoint,
    read_calibration,
    write_calibration,
)
from models.contexts import ContextStatistics
from models.data import Demonstrations
from models.fit_contexts import fit
from models.policy import Policy
from models.types import Observation
from tests.unit.conftest import room_for

TASKS = ("pick up the milk", "pick up the butter")


def test_the_distance_is_mahalanobis():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(500, 6)) * [1, 2, 3, 2, 1, 2] + 5
    statistics = ContextStatistics.fit(torch.from_numpy(seen))
    asked = rng.normal(5, 3, (4, 6)).astype(np.float32)
    inverse = np.linalg.inv(np.cov(seen.T) + 1e-3 * np.cov(seen.T).trace() / 6 * np.eye(6))
    wanted = [mahalanobis(row, seen.mean(0), inverse) / 6**0.5 for row in asked]
    np.testing.assert_allclose(statistics.distance(torch.from_numpy(asked)), wanted, rtol=1e-4)
    own = statistics.distance(torch.from_numpy(seen.astype(np.float32)))
    assert own.square().mean() == pytest.approx(1, rel=0.05)
    with pytest.raises(ValueError, match="two samples"):
        ContextStatistics.fit(torch.zeros(1, 6))


@pytest.fixture
def fitted(debug_checkpoint, tmp_path):
    """A checkpoint that knows samples of dark pictures; and their images."""
    rng = np.random.default_rng(0)
    n = 80
    images = rng.integers(0, 60, (n, 2, 128, 128, 3), np.uint8)
    data = Demonstrations(
        images,
        rng.normal(size=(n, 8)).astype(np.float32),
        np.zeros((n, 8, 7), np.float32),
        rng.integers(0, 2, n),
        np.arange(n),
        np.zeros(n, np.int64),
        np.arange(n),
        np.zeros(n, np.uint8),
        TASKS,
        ("libero_object",),
    )
    folder = shutil.copytree(debug_checkpoint, tmp_path / "checkpoint")
    fit(folder, data, np.arange(n), "cpu")
    return folder, images


def test_a_plan_says_how_unfamiliar_what_it_sees_is(fitted, debug_checkpoint):
    folder, images = fitted
    policy = Policy.from_pretrained(folder, "cpu")

    def away(pictures: np.ndarray) -> float:
        named = {"agentview": pictures[0], "wrist": pictures[1]}
        return policy.plan(Observation(named, np.zeros(8, np.float32), TASKS[0])).context_distance

    assert away(255 - images[0]) > 2 * away(images[0]) > 0
    unfitted = Policy.from_pretrained(debug_checkpoint, "cpu")
    blank = np.zeros((128, 128, 3), np.uint8)
    obs = Observation({"agentview": blank, "wrist": blank}, np.zeros(8, np.float32), TASKS[0])
    assert unfitted.plan(obs).context_distance is None


def test_a_level_of_earlier_statistics_goes_with_them(fitted):
    folder, images = fitted
    levels = {"context_distance": (1.0, 0.1), "energy_gap": (2.0, 0.2)}
    write_calibration(folder, Calibration(5.0, 0.5, levels=levels))
    data = Demonstrations(
        images, *(np.zeros((80, *shape), np.float32) for shape in ((8,), (8, 7))),
        *(np.zeros(80, np.int64) for _ in range(5)), TASKS, ("libero_object",),
    )  # fmt: skip
    fit(folder, data, np.arange(80), "cpu")
    assert read_calibration(folder).levels == {"energy_gap": [2.0, 0.2]}


def test_statistics_that_do_not_fit_are_named(fitted):
    file = fitted[0] / contexts.FILE
    contexts.write(fitted[0], ContextStatistics(torch.zeros(3), torch.zeros(3, 3)))
    with pytest.raises(CheckpointError, match="of another model"):
        load_checkpoint(fitted[0])
    file.write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="fit it again"):
        load_checkpoint(fitted[0])


def test_a_full_disk_is_an_os_error(tmp_path):
    with room_for(1000), pytest.raises(OSError, match="context_statistics"):
        contexts.write(tmp_path, ContextStatistics(torch.zeros(64), torch.zeros(64, 64)))
    assert not list(tmp_path.iterdir())
