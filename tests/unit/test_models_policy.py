"""Checkpoints, and the policy that is loaded from one."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import contexts
from models.checkpoint import (
    Calibration,
    CheckpointError,
    TrainingRecord,
    load_checkpoint,
    read_calibration,
    save_checkpoint,
    write_calibration,
)
from models.config import SamplerConfig, preset
from models.contexts import ContextStatistics
from models.model import EBVLA
from models.normalize import Statistics
from models.policy import Policy
from models.types import Observation


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    statistics = Statistics.fit(
        np.random.default_rng(0).uniform(-0.5, 0.5, (100, 7)), np.zeros((100, 8))
    )
    record = TrainingRecord(suites=("libero_object",), instructions=("a",), train_steps=7)
    return save_checkpoint(tmp_path / "tiny", EBVLA(preset("debug")), statistics, record)


def observation(seed: int = 0, instruction: str = "pick up the milk") -> Observation:
    rng = np.random.default_rng(seed)
    images = {c: rng.integers(0, 255, (32, 32, 3), dtype=np.uint8) for c in ("agentview", "wrist")}
    return Observation(images, rng.normal(size=8).astype(np.float32) * 1e-3, instruction)


def test_checkpoint_round_trip(folder):
    loaded = load_checkpoint(folder)
    again = save_checkpoint(folder, loaded.model, loaded.statistics, loaded.info.training)
    for name, value in load_checkpoint(again).model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])
    assert loaded.info.preset == "debug" and loaded.info.train_steps == 7
    assert loaded.info.suites == ("libero_object",) and loaded.info.pixels == "fast"
    assert len(loaded.info.sha256) == 64 and "debug" in (folder / "README.md").read_text()
    assert [p.name for p in folder.parent.iterdir()] == ["tiny"]  # nothing temporary is left


def test_a_plan_that_stops_early_tells_no_more_than_it_did(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    seen = [observation(i) for i in range(4)]
    norms = [policy.plan(obs, seed=0).trace.grad_norms[5:, 0].min() for obs in seen]
    sampler = SamplerConfig(grad_cutoff=float(np.median(norms)))
    together = policy.plan_batch(seen, sampler, [0] * 4)
    lengths = {len(plan.trace.grad_norms) for plan in together}
    assert len(lengths) > 1 and min(lengths) < 15
    for obs, plan in zip(seen, together, strict=True):
        trace, alone = plan.trace, policy.plan(obs, sampler, 0).trace
        assert len(trace.actions) == len(trace.energies) == len(trace.grad_norms) + 1
        assert len(alone.energies) == len(trace.energies)
        np.testing.assert_allclose(alone.energies, trace.energies, atol=1e-4)
        np.testing.assert_allclose(
            plan.final_energy, policy.energies(obs, trace.actions[-1])[0].min(), atol=1e-4
        )


def test_policies_beside_each_other_plan_at_once_and_as_alone(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    words = [f"pick up thing {i}" for i in range(8)]  # each has to be embedded first
    expected = [policy.plan(observation(0, text), seed=3).actions for text in words]
    fresh = [Policy.from_pretrained(folder, device="cpu")]
    fresh.append(fresh[0].beside())
    with fresh[0]._lock, ThreadPoolExecutor(2) as pool:  # the other does not wait for this one
        assert pool.submit(fresh[1].plan, observation(0)).result(timeout=60)
    with ThreadPoolExecutor(2) as pool:
        asked = [
            [pool.submit(one.plan, observation(0, text), seed=3) for one in fresh] for text in words
        ]
        for futures, alone in zip(asked, expected, strict=True):
            for future in futures:
                np.testing.assert_array_equal(future.result().actions, alone)


def test_calibration_round_trip(folder):
    assert read_calibration(folder) is None
    write_calibration(folder, Calibration(mu=5.869, sigma=0.407, episodes=120))
    assert load_checkpoint(folder).calibration == Calibration(5.869, 0.407, "final_energy", 120)
    (folder / "calibration.json").write_text('{"mu": 1}')
    with pytest.raises(CheckpointError, match="calibrate again"):
        load_checkpoint(folder)


def _edit_config(folder, **changes):
    data = json.loads((folder / "config.json").read_text())
    data["model"] |= changes
    (folder / "config.json").write_text(json.dumps(data))


def _cut_statistics(folder, of, part):
    file = folder / "dataset_statistics.json"
    data = json.loads(file.read_text())
    data[of][part] = data[of][part][: 3 if of == "proprio" else 1]
    file.write_text(json.dumps(data))


def _as_a_run(folder):
    """The folder of a run, which holds its checkpoints and a config.json of its own."""
    (folder / "last").mkdir()
    (folder / "config.json").rename(folder / "last" / "config.json")
    (folder / "config.json").write_text('{"preset": "tiny"}')


BREAKAGES = {
    "no such": lambda f: f.rename(f.with_name("moved")),
    "config.json: missing": lambda f: (f / "config.json").unlink(),
    "safetensors: missing": lambda f: (f / "model.safetensors").unlink(),
    "statistics.json: missing": lambda f: (f / "dataset_statistics.json").unlink(),
    "not valid JSON": lambda f: (f / "config.json").write_text("{"),
    "truncated": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:5000]
    ),
    "has shape": lambda f: _edit_config(f, ffn_size=80),
    "lacks": lambda f: _edit_config(f, layers=3, layers_extracted=4),
    "malformed": lambda f: _edit_config(f, colour="red"),
    "no multiple": lambda f: _edit_config(f, heads=5),
    "action dimensions": lambda f: _edit_config(f, action_dim=6),
    "3 proprio dimensions": lambda f: _cut_statistics(f, "proprio", "scale"),
    "1 action dimensions": lambda f: _cut_statistics(f, "action", "centre"),
    "choose .*/last in it": lambda f: _as_a_run(f),
}


@pytest.mark.parametrize("words", BREAKAGES)
def test_a_broken_checkpoint_says_what_is_wrong(folder, words):
    BREAKAGES[words](folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(folder)
    assert "tiny" in str(caught.value)


def test_same_seed_same_plan_and_shapes(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    sampler = SamplerConfig(chains=3, steps=4)
    a, b = (policy.plan(observation(), sampler, seed=11) for _ in range(2))
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)
    assert not np.array_equal(policy.plan(observation(), sampler, 12).actions, a.actions)
    assert a.trace.actions.shape == (5, 3, 8, 7) and a.trace.energies.shape == (5, 3)
    assert a.trace.timestep_energies.shape == (5, 3, 8)
    assert a.trace.grad_norms.shape == (4, 3) and a.trace.step_sizes.shape == (4, 3, 8)
    assert a.actions.shape == (8, 7) and np.abs(a.actions).max() <= 1
    assert a.chain == a.trace.energies[-1].argmin() and a.seed == 11 and a.latency_s > 0
    np.testing.assert_allclose(
        policy.denormalize(a.trace.actions[-1, a.chain]).clip(-1, 1), a.actions
    )


def test_recorded_energies_are_those_of_the_recorded_actions(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    plan = policy.plan(observation(), SamplerConfig(chains=2, steps=3), seed=1)
    for k in range(4):
        energy, per_step = policy.energies(observation(), plan.trace.actions[k])
        np.testing.assert_allclose(plan.trace.energies[k], energy, atol=1e-5)
        np.testing.assert_allclose(plan.trace.timestep_energies[k], per_step, atol=1e-5)
    readout_energy, _ = policy.energies(observation(), plan.readout[None])
    assert plan.energy_gap == pytest.approx(readout_energy[0] - plan.final_energy, abs=1e-5)


def test_exploring_finds_the_chains_of_a_plan(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    sampler = SamplerConfig(chains=3, steps=4)
    plan, trace = policy.plan(observation(), sampler, 7), policy.explore(observation(), sampler, 7)
    np.testing.assert_allclose(trace.actions, plan.trace.actions, atol=1e-5)
    np.testing.assert_allclose(trace.energies, plan.trace.energies, atol=1e-5)


def test_what_is_looked_into_again_is_not_mistaken_for_another(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    actions = np.zeros((1, 8, 7), np.float32)
    first, second = observation(), observation(1)
    energies = [policy.energies(obs, actions)[0][0] for obs in (first, first, second, first)]
    assert energies[0] == energies[1] == energies[3] != energies[2]


def test_a_batch_plans_and_tells_what_each_observation_does_alone(folder):
    size = preset("debug").hidden_size
    contexts.write(folder, ContextStatistics(torch.zeros(size), torch.eye(size)))
    policy = Policy.from_pretrained(folder, device="cpu")
    observations = [observation(0), observation(1, "open the drawer"), observation(2)]
    together = policy.plan_batch(observations, SamplerConfig(), [3, 4, 5])
    for obs, plan, seed in zip(observations, together, (3, 4, 5), strict=True):
        alone = policy.plan(obs, seed=seed)
        assert plan.observation is obs and plan.seed == seed
        np.testing.assert_allclose(plan.actions, alone.actions, atol=1e-4)
        np.testing.assert_allclose(plan.readout, alone.readout, atol=1e-5)
        assert plan.energy_gap == pytest.approx(alone.energy_gap, abs=1e-4)
        assert plan.context_distance == pytest.approx(alone.context_distance, rel=1e-5)


def test_in_bfloat16_it_plans_nearly_the_same_and_energies_stay_float32(folder):
    exact, coarse = (Policy.from_pretrained(folder, "cpu", p) for p in ("float32", "bfloat16"))
    half = [p.element_size() for p in coarse._model.backbone.parameters()]
    assert set(half) == {2} and coarse._model.head.energy.weight.dtype == torch.float32
    assert coarse._model.backbone.language.rotary_emb.inv_freq.dtype == torch.float32
    for seed in range(4):
        plan, other = (policy.plan(observation(seed), seed=seed) for policy in (exact, coarse))
        spread = np.ptp(plan.trace.energies)
        np.testing.assert_allclose(other.trace.energies, plan.trace.energies, atol=0.05 * spread)
        assert np.abs(other.actions - plan.actions).max() < 0.05
        assert np.unique(other.trace.timestep_energies).size > 100  # no steps of bfloat16
        np.testing.assert_allclose(other.readout, plan.readout, atol=0.05)


def test_in_bfloat16_a_slice_is_that_of_the_rounded_weights_in_float32(folder):
    coarse = Policy.from_pretrained(folder, "cpu", "bfloat16")
    exact = Policy.from_pretrained(folder, "cpu")
    exact._model.load_state_dict(coarse._model.state_dict())
    centre = np.zeros((8, 7), np.float32)
    found, wanted = (p.slice_2d(observation(), centre).energies for p in (coarse, exact))
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)  # but for the encoding
    rough = np.abs(np.diff(found, 2, axis=1)).max()
    assert rough < 1.5 * np.abs(np.diff(wanted, 2, axis=1)).max()  # and as smooth


def test_an_exploration_stops_when_it_is_told(folder):
    policy, asked = Policy.from_pretrained(folder, device="cpu"), []
    with pytest.raises(InterruptedError):
        policy.explore(
            observation(), SamplerConfig(), stop=lambda: bool(asked.append(1)) or len(asked) > 3
        )
    assert len(asked) == 4


def test_instruction_and_image_change_the_energy(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    actions = np.zeros((1, 8, 7), np.float32)
    values = [
        policy.energies(obs, actions)[0][0]
        for obs in (observation(), observation(instruction="open the drawer"), observation(1))
    ]
    assert len(set(values)) == 3


def test_slice_passes_through_the_energies_of_its_points(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    centre = np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32)
    out = policy.slice_2d(observation(), centre, timestep=2, dims=(1, 4), span=(0.5, 2.0), grid=5)
    assert out.energies.shape == (5, 5) and out.u[2] == pytest.approx(centre[2, 1])
    point = centre.copy()
    point[2, 1], point[2, 4] = out.u[3], out.v[0]
    energy, _ = policy.energies(observation(), point[None])
    assert out.energies[0, 3] == pytest.approx(energy[0], abs=1e-5)
    with pytest.raises(InterruptedError):
        policy.slice_2d(observation(), centre, stop=lambda: True)


def test_bad_input_is_a_clear_error(folder):
    policy = Policy.from_pretrained(folder, device="cpu")
    good = observation()
    for bad, words in (
        (replace(good, images={"agentview": good.images["agentview"]}), "no image of camera wrist"),
        (replace(good, proprio=np.zeros(7, np.float32)), "8 finite numbers"),
        (replace(good, proprio=np.full(8, np.nan, np.float32)), "8 finite numbers"),
        (replace(good, images={c: v / 255 for c, v in good.images.items()}), "uint8"),
    ):
        with pytest.raises(ValueError, match=words):
            policy.plan(bad)
    with pytest.raises(ValueError, match="shape"):
        policy.energies(good, np.zeros((8, 7)))
    for options, words in (
        ({"timestep": 8}, "8 actions"),
        ({"timestep": -1}, "8 actions"),
        ({"dims": (0, 0)}, "different dimensions out of 0-6"),
        ({"dims": (0, 9)}, "different"),
        ({"dims": (0, 1, 2)}, "different"),
        ({"grid": 1}, "grid must have 2 to 120 points"),
        ({"grid": 100_000}, "grid"),
        ({"span": 0}, "range"),
        ({"span": (1.0, float("inf"))}, "range"),
        ({"span": (1.0, 1.0, 1.0)}, "range"),
    ):
        with pytest.raises(ValueError, match=words):
            policy.slice_2d(good, np.zeros((8, 7), np.float32), **options)
