"""Heads without an energy: their equations, and the same training and planning around them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import contexts
from models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from models.config import SamplerConfig, preset
from models.contexts import ContextStatistics
from models.data import load_demonstrations
from models.denoising_head import PROCESSES, DenoisingHead, denoise
from models.energy_head import EnergyHead
from models.model import EBVLA
from models.normalize import Statistics
from models.policy import Policy
from models.schedule import TrainConfig
from models.trainer import Trainer
from studio.evaluate import calibrate
from studio.events import LoadScene, Outcome, Run, SceneSpec
from studio.extension import Query, plan_reply
from studio.loop import ControlLoop
from studio.policies import describe
from studio.recorder import Recorder, write_zip
from studio.results import episode_row
from studio.trial import Trial
from tests.unit.test_models_data import write_demos
from tests.unit.test_models_policy import observation

HEADS = tuple(PROCESSES)


@pytest.fixture(params=HEADS)
def policy(request, tmp_path) -> Policy:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    statistics = Statistics.fit(rng.uniform(-1, 1, (100, 7)), rng.normal(size=(100, 8)))
    model = EBVLA(replace(preset("debug"), head=request.param))
    folder = save_checkpoint(tmp_path / "other", model, statistics, TrainingRecord())
    contexts.write(folder, ContextStatistics.fit(torch.randn(100, model.config.hidden_size)))
    return Policy.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("name", HEADS)
def test_the_best_head_for_one_chunk_leads_to_it_from_any_noise(name, steps):
    chunk = torch.linspace(-1, 1, 56).view(1, 1, 8, 7)
    noise = torch.randn(2, 3, 8, 7, generator=torch.Generator().manual_seed(0))

    def head(actions, time):
        """What any noisy action must be made of, if the expert only ever does `chunk`."""
        t = time[..., None, None]
        if name == "flow":
            return (actions - chunk) / t
        signal = PROCESSES[name].mix(torch.ones(()), torch.zeros(()), t)[0]
        return (actions - signal * chunk) / (1 - signal.square()).sqrt()

    found = denoise(head, PROCESSES[name], noise, steps)
    assert torch.allclose(found, chunk.expand_as(found), atol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_the_best_head_for_a_gaussian_draws_from_it(name):
    """Of actions N(m, s²) the head that minimises the loss is linear; many steps give m and s."""
    mean, spread = 0.3, 0.2
    noise = torch.randn(1, 4000, 1, 1, generator=torch.Generator().manual_seed(0))

    def head(actions, time):
        t = time[..., None, None]
        process = PROCESSES[name]
        a, n = (process.mix(torch.tensor(x), torch.tensor(1.0 - x), t)[0] for x in (1.0, 0.0))
        beyond = (actions - a * mean) / (a.square() * spread**2 + n.square())
        expected_noise, expected_action = n * beyond, mean + a * spread**2 * beyond
        return expected_noise - expected_action if name == "flow" else expected_noise

    found = denoise(head, PROCESSES[name], noise, 100)
    assert abs(found.mean() - mean) < 0.02
    assert abs(found.std() - spread) < 0.02


@pytest.mark.parametrize("name", HEADS)
def test_time_runs_from_the_expert_to_noise(name):
    action, noise, process = torch.tensor(0.7), torch.tensor(-0.4), PROCESSES[name]
    assert process.mix(action, noise, torch.tensor(0.0))[0] == pytest.approx(0.7, abs=1e-4)
    assert process.mix(action, noise, torch.tensor(1.0))[0] == pytest.approx(-0.4, abs=0.02)
    drawn = process.time(torch.linspace(0, 0.999, 1000))
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_the_heads_are_of_one_size():
    def size(head):
        return sum(p.numel() for p in head.parameters())

    tiny = preset("eb-vla-tiny")
    energy = size(EnergyHead(tiny))
    for name in HEADS:
        assert energy < size(DenoisingHead(replace(tiny, head=name))) < 1.06 * energy


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="energy, diffusion, flow"):
        replace(preset("debug"), head="magic")


@pytest.fixture
def data(tmp_path):
    write_demos(tmp_path / "a_demo.hdf5")
    return load_demonstrations(tmp_path, 8)


@pytest.mark.parametrize("name", HEADS)
def test_training_fits_a_small_set(tmp_path, data, name):
    config = TrainConfig(steps=80, batch_size=8, lr=3e-3, warmup_steps=5, chains_per_sample=4)
    trainer = Trainer(replace(preset("debug"), head=name), config, data, tmp_path / "run")
    first = np.mean([trainer.train_step(0.0)["denoising"] for _ in range(5)])
    while trainer.step < 80:
        last = trainer.train_step(trainer.step / 80)
    assert last["denoising"] < 0.7 * first and "l1" not in last and "energy_gap" not in last
    trainer.save()
    assert math.isfinite(trainer.scores["val_l1"]) and "val_energy" not in trainer.scores
    last = tmp_path / "run" / "last"
    assert load_checkpoint(last).model.config.head == name
    assert f"a {name}" in (last / "README.md").read_text()


def test_another_head_begins_with_the_backbone_of_a_checkpoint(tmp_path, data):
    config = TrainConfig(steps=1, batch_size=4)
    first = Trainer(preset("debug"), config, data, tmp_path / "energy")
    first.save()
    other = Trainer(replace(preset("debug"), head="flow"), config, data, tmp_path / "flow")
    other.start_from(tmp_path / "energy" / "last")
    for a, b in zip(
        first.average.backbone.parameters(), other.model.backbone.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_the_contrastive_term_needs_an_energy(tmp_path, data):
    config = TrainConfig(steps=1, contrast=0.1)
    with pytest.raises(ValueError, match="--contrast needs --head energy"):
        Trainer(replace(preset("debug"), head="flow"), config, data, tmp_path / "run")


def test_a_plan_depends_on_its_seed_alone(policy):
    sampler = SamplerConfig(steps=4)
    seen = [observation(0), observation(1)]
    together = policy.plan_batch(seen, sampler, [5, 6])
    alone = policy.plan(seen[1], sampler, 6)
    assert np.allclose(together[1].actions, alone.actions, atol=1e-3)
    assert not np.allclose(alone.actions, policy.plan(seen[1], sampler, 7).actions)
    assert alone.actions.shape == (8, 7) and np.abs(alone.actions).max() <= 1


def test_what_has_no_energy_says_so(policy):
    plan = policy.plan(observation())
    assert plan.trace is None and plan.initial_energy is None and plan.final_energy is None
    for ask in (
        lambda: policy.energies(observation(), np.zeros((1, 8, 7), np.float32)),
        lambda: policy.explore(observation(), SamplerConfig()),
        lambda: policy.slice_2d(observation(), np.zeros((8, 7), np.float32)),
    ):
        with pytest.raises(ValueError, match="no energy; choose another checkpoint"):
            ask()


def test_an_episode_of_it_is_kept_and_calibrated(policy, point_mass, tmp_path):
    """The loop, the recorder, a results table and a server take plans without energy."""
    recorder = Recorder({"checkpoint": describe(policy), "versions": {}})
    loop = ControlLoop(point_mass, policy, [recorder], hz=0)
    loop.apply(LoadScene(SceneSpec()))
    loop.apply(Run())
    for _ in range(point_mass.max_steps):
        loop.tick()
    episode = recorder.episode()
    assert episode.end.outcome in (Outcome.SUCCESS, Outcome.TIMEOUT)
    assert write_zip(episode, tmp_path / "episode.zip").stat().st_size > 0
    row = episode_row(Trial(SceneSpec()), episode)
    assert row["final_energy"] == [None] * len(episode.plans)
    assert calibrate([row]).score == "context_distance"
    asked = Query(observation(), "plan", SamplerConfig(), 0, {"trace": True})
    told = plan_reply(episode.plans[0].plan, asked)["eb_vla"]
    assert told["final_energy"] is None and "trace" not in told
