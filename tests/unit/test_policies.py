"""A studio that changes its checkpoint: episodes keep theirs, what is recorded says which."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from models.checkpoint import Calibration, CheckpointInfo, TrainingRecord
from models.config import preset
from models.types import View
from studio.events import LoadScene, Reset, Run, SceneSpec
from studio.loop import ControlLoop
from studio.policies import EpisodePolicy, calibration, describe, threshold
from studio.recorder import Recorder


def policy(drifter, path: str):
    info = CheckpointInfo(path, "5ha", "debug", TrainingRecord())
    return SimpleNamespace(
        plan=drifter.plan,
        config=preset("debug"),
        checkpoint=info,
        calibration=Calibration(5.0, 0.5),
        path=path,
    )


@pytest.fixture
def studio(drifter):
    return SimpleNamespace(policy=policy(drifter, "assets/checkpoints/eb-vla-tiny"))


def test_an_episode_keeps_its_checkpoint_and_the_next_takes_the_newest(studio, drifter, point_mass):
    provenance = {"versions": {"python": "3"}}
    driver = EpisodePolicy(lambda: studio.policy, provenance)
    recorder = Recorder(provenance)
    loop = ControlLoop(point_mass, driver, [driver, recorder], hz=0)
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(Run())
    loop.tick()
    first = studio.policy
    studio.policy = policy(drifter, "runs/tiny-1/best")
    loop.tick()
    assert driver.choose() == View("fast", 128)  # as the simulator does when it loads a scene
    assert driver.current is first
    before = recorder.episode()
    assert before.provenance["checkpoint"]["name"] == "eb-vla-tiny"
    loop.apply(Reset())
    loop.apply(Run())
    loop.tick()
    assert driver.current is studio.policy and driver.path == "runs/tiny-1/best"
    after = recorder.episode().provenance
    assert after["checkpoint"]["name"] == "tiny-1/best" and after["versions"] == {"python": "3"}
    assert before.provenance["checkpoint"]["name"] == "eb-vla-tiny"


def test_threshold_and_identity(studio):
    assert threshold(studio.policy, k=2) == 6.0
    assert calibration(studio.policy)["sigma"] == 0.5
    assert describe(studio.policy)["preset"] == "debug"
    studio.policy.calibration = None
    assert threshold(studio.policy) is None and calibration(studio.policy) is None
