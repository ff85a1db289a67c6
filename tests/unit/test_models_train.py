"""Training: schedules, exact resume, the command line, and the presets' shapes."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_models_data import distinct_samples

from benchmarks.train import naive_loss, random_batch
from models import vision
from models.backbone import Backbone
from models.checkpoint import load_checkpoint
from models.config import SamplerConfig, preset
from models.energy_head import EnergyHead
from models.evaluation import Evaluation
from models.losses import choose_precision, contrastive_loss, descent_loss, training_loss
from models.model import EBVLA
from models.policy import Policy
from models.run import read_state, write_state
from models.schedule import Draw, Schedule, TrainConfig
from models.trainer import Trainer

CONFIG = TrainConfig(steps=6, batch_size=4, val_every=3, log_every=1, warmup_steps=2)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "demos").mkdir()
    return distinct_samples(tmp_path / "demos")


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return {line["step"]: line["loss"] for line in lines(folder) if "loss" in line}


def test_resume_equals_the_uninterrupted_run(tmp_path, data):
    whole = Trainer(preset("debug"), CONFIG, data, tmp_path / "whole")
    whole.run()
    first = Trainer(preset("debug"), CONFIG, data, tmp_path / "parts")
    while first.step < 3:
        first.train_step(first.schedule.progress(first.step, 0))
    first.save()
    second = Trainer(preset("debug"), replace(CONFIG), data, tmp_path / "parts")
    second.resume()
    assert second.step == 3
    second.run()
    expected, got = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert set(expected) == {1, 2, 3, 4, 5, 6} and set(got) == {4, 5, 6}
    assert all(got[step] == expected[step] for step in got)
    for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_term_that_is_given_up_on_resuming_spoils_no_line(tmp_path, data):
    config = replace(CONFIG, contrast=0.1, log_every=4, val_every=100)
    first = Trainer(preset("debug"), config, data, tmp_path / "run")
    first.train_step(0.0)
    first.window.append({"l1": 1.0, "contrast": 1.0})
    first.save()
    second = Trainer(preset("debug"), replace(config, contrast=0.0), data, tmp_path / "run")
    second.resume()
    second.run()
    assert not any("contrast" in line for line in lines(tmp_path / "run"))


def test_a_run_leaves_metrics_and_checkpoints_that_plan(tmp_path, data):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    trainer.run()
    first, line, *_ = (line for line in lines(tmp_path / "run") if "loss" in line)
    assert first["step"] == 1 and "eta_s" not in first  # one step is no measure
    assert {
        "step",
        "loss",
        "l1",
        "readout_l1",
        "energy_gap",
        "lr",
        "samples_per_s",
        "eta_s",
        "cpu_percent",
        "memory_mb",
    } <= set(line)
    assert any("val_l1" in line for line in lines(tmp_path / "run"))
    for name in ("last", "best"):
        policy = Policy.from_pretrained(tmp_path / "run" / name, device="cpu")
        assert policy.checkpoint.training.instructions == data.instructions
    assert policy.checkpoint.suites == ("libero_object",)


def test_training_fits_a_small_set(tmp_path, data):
    """Sixty steps on a handful of samples: the descent must land nearer to the expert."""
    config = TrainConfig(
        steps=60, batch_size=8, lr=3e-3, warmup_steps=10, val_fraction=0, val_every=1000,
        warm_fraction=1.0, log_every=20,
    )  # fmt: skip
    Trainer(preset("debug"), config, data, tmp_path / "run").run()
    first, *_, last = (line for line in lines(tmp_path / "run") if "loss" in line)
    assert last["l1"] < 0.97 * first["l1"] and last["readout_l1"] < 0.85 * first["readout_l1"]
    assert last["energy_gap"] > 0


def test_fine_tuning_starts_from_the_weights_of_a_checkpoint(tmp_path, data, debug_checkpoint):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    trainer.start_from(debug_checkpoint)
    checkpoint = load_checkpoint(debug_checkpoint)
    source, scales = checkpoint.model, checkpoint.statistics.to_json()
    assert trainer.statistics.to_json() == trainer.batches.statistics.to_json() == scales
    trainer.save()
    again = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    assert again.statistics.to_json() != scales
    again.resume()
    assert again.batches.statistics.to_json() == scales
    for own in (trainer.model, trainer.average):
        for a, b in zip(own.parameters(), source.parameters(), strict=True):
            assert torch.equal(a, b)
    other = Trainer(replace(preset("debug"), ffn_size=96), CONFIG, data, tmp_path / "other")
    with pytest.raises(ValueError, match="another architecture"):
        other.start_from(debug_checkpoint)


def test_resume_takes_new_settings(tmp_path, data):
    Trainer(preset("debug"), CONFIG, data, tmp_path / "run").save()
    other = Trainer(preset("debug"), replace(CONFIG, weight_decay=0.3), data, tmp_path / "run")
    other.resume()
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.3, 0.0]


def test_best_is_of_the_papers_k(tmp_path, data):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    trainer.run(stop=lambda: trainer.step == 3)  # validated, with few MCMC steps so far
    assert (tmp_path / "run" / "last").is_dir() and not (tmp_path / "run" / "best").exists()
    trainer.run()
    assert load_checkpoint(tmp_path / "run" / "best").info.train_steps == 6


def test_best_is_of_the_least_validation_loss_also_of_a_run_that_was_resumed(
    tmp_path, data, monkeypatch
):
    found = iter([0.5, 0.3, 0.4])
    monkeypatch.setattr(Trainer, "validate", lambda _: {"val_l1": next(found)})
    config = replace(CONFIG, val_every=2, warm_fraction=0)
    first = Trainer(preset("debug"), config, data, tmp_path / "run")
    first.run(stop=lambda: first.step == 5)
    second = Trainer(preset("debug"), config, data, tmp_path / "run")
    second.resume()
    second.run()
    best, last = (load_checkpoint(tmp_path / "run" / name).info for name in ("best", "last"))
    assert best.train_steps == 4 and best.training.val_l1 == 0.3
    assert last.train_steps == 6 and last.training.val_l1 == 0.4


def test_the_average_follows_the_weights_and_is_what_is_saved(tmp_path, data):
    config = replace(CONFIG, ema=0.2, lr=0.01)  # the second step reaches 0.2; it starts with less
    trainer = Trainer(preset("debug"), config, data, tmp_path / "run")

    def weights():
        return [p.detach().clone() for p in trainer.model.parameters()]

    expected = weights()
    for decay in (2 / 11, 0.2, 0.2):
        trainer.train_step(0.5)
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights(), strict=True)]
        torch.testing.assert_close(list(trainer.average.parameters()), expected)
    trainer.save(validate=False)
    models = load_checkpoint(tmp_path / "run" / "last").model, trainer.average, trainer.model
    for saved, average, own in zip(*(m.head.parameters() for m in models), strict=True):
        assert torch.equal(saved, average) and not torch.equal(saved, own)


def test_validation_is_spread_over_all_tasks(tmp_path, data, monkeypatch):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    seen, plain = [], trainer.batches.plain
    monkeypatch.setattr(trainer.batches, "plain", lambda rows: (seen.extend(rows), plain(rows))[1])
    trainer.validate(limit=7)
    assert len(seen) == 7 and set(data.task[seen]) == {0, 1}
    assert {trainer.val_rows[0], trainer.val_rows[-1]} <= set(seen)


def test_a_state_of_an_earlier_version_says_so(tmp_path, data):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    trainer.save()
    state = read_state(tmp_path / "run", "cpu")
    del state["window"]
    write_state(tmp_path / "run", state)
    with pytest.raises(ValueError, match=r"earlier version, without window; .* --init .*last"):
        trainer.resume()


def test_a_run_says_which_weights_it_began_with(tmp_path, data):
    first = Trainer(preset("debug"), CONFIG, data, tmp_path / "first")
    first.run()
    begun = load_checkpoint(tmp_path / "first" / "last").info
    assert begun.training.init == "" and begun.training.k_range == (8, 15)
    second = Trainer(preset("debug"), CONFIG, data, tmp_path / "second")
    second.start_from(tmp_path / "first" / "last")
    second.save()
    resumed = Trainer(preset("debug"), CONFIG, data, tmp_path / "second")
    resumed.resume()
    resumed.save()
    folder = tmp_path / "second" / "last"
    assert load_checkpoint(folder).info.training.init == begun.sha256
    card = (folder / "README.md").read_text()
    assert begun.sha256[:12] in card and "K in [8, 15], α in [0.05, 0.4]" in card


def test_without_a_successful_evaluation_the_last_weights_are_best(tmp_path, data, monkeypatch):
    monkeypatch.setattr(Evaluation, "run", lambda self, step, stop: {})
    Trainer(preset("debug"), replace(CONFIG, eval_every=3), data, tmp_path / "run").run()
    assert load_checkpoint(tmp_path / "run" / "best").info.train_steps == CONFIG.steps


def test_resume_without_or_with_other_state_says_so(tmp_path, data):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    with pytest.raises(ValueError, match="nothing to resume"):
        trainer.resume()
    trainer.save()
    other = Trainer(replace(preset("debug"), ffn_size=96), CONFIG, data, tmp_path / "run")
    with pytest.raises(ValueError, match="another model"):
        other.resume()
    (tmp_path / "run" / "trainer_state.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match="truncated"):
        trainer.resume()


def test_encoding_once_changes_neither_loss_nor_gradient():
    """Against the benchmark's loop, which encodes the observations anew at every MCMC step."""
    torch.manual_seed(0)
    model, sampler = EBVLA(preset("debug")), SamplerConfig()
    batch, found = random_batch(model, 4), []
    for loss_of in (naive_loss, training_loss):
        model.zero_grad()
        generator = torch.Generator().manual_seed(0)
        loss, _ = loss_of(model, batch, Draw(5, 0.22, 1), sampler, generator, "float32")
        loss.backward()
        found.append((loss, [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


def test_the_contrastive_term_is_infonce_both_ways():
    """Against the definition, sample by sample: E(a, C_j) = |a - j| of one-dimensional actions."""
    actions = torch.tensor([0.3, 1.1, 1.6, 3.2, 4.5]).view(5, 1, 1)

    def energy(points):
        return (points[..., 0] - torch.arange(5.0).view(5, 1, 1)).abs()

    def cross_entropy(own, others):
        return np.log(np.exp([-e for e in [own, *others]]).sum()) + own

    a = actions.flatten().tolist()
    e = [[abs(a[i] - j) for j in range(5)] for i in range(5)]  # of action i in context j
    terms = []
    for k in range(5):
        terms.append(cross_entropy(e[k][k], [e[(k + i) % 5][k] for i in (1, 2, 3)]))
        terms.append(cross_entropy(e[k][k], [e[k][(k - i) % 5] for i in (1, 2, 3)]))
    assert contrastive_loss(energy, actions).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_a_mismatched_picture_must_cost_energy():
    actions = torch.zeros(3, 8, 7)

    def energy(points):
        return torch.zeros(points.shape[:3])

    def costly(points, cost=2.0):
        return torch.full(points.shape[:3], cost)

    costly.size = 2
    plain = contrastive_loss(energy, actions).item()
    more = contrastive_loss(energy, actions, costly).item() - plain
    assert more == pytest.approx(np.log1p(np.exp(-2.0)), rel=1e-5)


def test_the_descent_of_training_starts_at_noise_of_the_samplers_width():
    """On a flat energy it stays there."""

    class Flat:
        def __call__(self, points):
            return 0 * points.sum(-1)

        def detach(self):
            return self

        float = detach

    batch = random_batch(EBVLA(preset("debug")), 4)
    generator = torch.Generator().manual_seed(0)
    start = 2 * batch.normal(batch.actions, torch.Generator().manual_seed(0))
    sampler = SamplerConfig(init_std=2.0)
    _, parts = descent_loss(Flat(), batch, Draw(3, 0.2, 1), sampler, generator, "float32")
    assert parts["l1"] == pytest.approx((start - batch.actions).abs().mean().item(), rel=1e-6)


def test_a_contrastive_step_trains_every_part(tmp_path, data):
    trainer = Trainer(preset("debug"), replace(CONFIG, contrast=0.2), data, tmp_path / "run")
    before = [p.detach().clone() for p in trainer.model.head.parameters()]
    assert np.isfinite(trainer.train_step(0.9)["contrast"])
    after = trainer.model.head.parameters()
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_schedule_follows_steps_or_minutes_and_ends_with_the_papers_range():
    config = TrainConfig(steps=1000, minutes=10)
    schedule = Schedule(config)
    assert schedule.progress(100, 300) == 0.5 and schedule.progress(900, 300) == 0.9
    assert schedule.learning_rate(0, 0) < config.lr / 100
    assert schedule.learning_rate(300, 0) == config.lr
    assert schedule.learning_rate(999, 1) == pytest.approx(0.01 * config.lr)
    for progress, low, high in ((0.1, 3, 6), (0.9, 8, 15)):
        draws = [schedule.draw(progress, np.random.default_rng(i)) for i in range(200)]
        assert {d.steps for d in draws} == set(range(low, high + 1))
        assert all(0.05 <= d.step_size <= 0.4 for d in draws)
    with pytest.raises(ValueError, match="--steps or --minutes"):
        TrainConfig()
    with pytest.raises(ValueError, match="range"):
        TrainConfig(steps=1, k_min=9, k_max=8)


# -- the simulator, frozen towers ---------------------------------------------------------------


def test_best_is_the_most_successful(tmp_path, data, monkeypatch):
    """The studio's evaluation, replaced by a program of its own: two episodes and an error."""
    program = (
        "import sys, json, pathlib\n"
        "out = pathlib.Path(sys.argv[1])\n"
        "wins = {'step_2': 1, 'step_4': 2, 'step_6': 0}[out.name]\n"
        "asked = {'suite': 'libero_object', 'init': 40}\n"
        "ends = ['success' if i < wins else 'timeout' for i in range(2)] + ['error']\n"
        "rows = [{**asked, 'task': i, 'outcome': end} for i, end in enumerate(ends)]\n"
        "rows = [{**rows[0], 'outcome': 'error'}, *rows, {**rows[1], 'init': 7}]\n"
        "(out / 'journal.jsonl').write_text(''.join(json.dumps(r) + chr(10) for r in rows))\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(Evaluation, "command", lambda self, step: [
        sys.executable, "-c", program, str(self.out.resolve() / "eval" / f"step_{step}")
    ])  # fmt: skip
    trainer = Trainer(preset("debug"), replace(CONFIG, eval_every=2), data, tmp_path / "run")
    trainer.run()
    found = {r["step"]: r["success_rate"] for r in lines(tmp_path / "run") if "success_rate" in r}
    assert found == {2: 0.5, 4: 1.0, 6: 0.0}
    assert load_checkpoint(tmp_path / "run" / "best").info.train_steps == 4
    assert load_checkpoint(tmp_path / "run" / "last").info.train_steps == 6


def test_an_evaluation_that_was_interrupted_is_made_by_the_resumed_run(tmp_path, data, monkeypatch):
    asked = []

    def evaluation(self, step, stop):
        asked.append(step)
        return {} if stop() else {"success_rate": 0.5}

    monkeypatch.setattr(Evaluation, "run", evaluation)
    config = replace(CONFIG, steps=4, eval_every=2)
    first = Trainer(preset("debug"), config, data, tmp_path / "run")
    assert not first.run(stop=lambda: bool(asked))  # it comes during the first evaluation
    assert asked == [2] and first.step == 2
    for _ in range(2):  # the second time there is nothing left to do
        again = Trainer(preset("debug"), config, data, tmp_path / "run")
        again.resume()
        assert again.run()
    assert asked == [2, 2, 4]
    found = [line["step"] for line in lines(tmp_path / "run") if "success_rate" in line]
    assert found == [2, 4]


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(tmp_path, data, monkeypatch):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    trainer.run(stop=lambda: trainer.step == 2)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    nan = torch.tensor(float("nan"))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: nan)
    with pytest.raises(FloatingPointError, match=r"step 3: .*--resume with a smaller --lr"):
        trainer.run()
    assert trainer.step == 2
    assert all(torch.equal(before[name], v) for name, v in trainer.model.state_dict().items())
    trainer.resume()
    assert trainer.step == 2


def test_frozen_towers_train_from_cached_features(tmp_path, data, monkeypatch):
    """The path of eb-vla-0.5b in miniature: towers, adapters, recomputed activations."""
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
    monkeypatch.setattr(vision, "DINOV2", {**tower, "image_size": 28, "num_register_tokens": 1})
    monkeypatch.setattr(vision, "SIGLIP", {**tower, "intermediate_size": 32})
    small = replace(
        preset("debug"), vision="dinov2+siglip", image_size=28, tokens_per_view=4, lora_rank=2
    )
    config = replace(CONFIG, cache_features=1, precision="float32", gradient_checkpointing=True)
    config = replace(config, contrast=0.1)
    trainer = Trainer(small, config, data, tmp_path / "run")
    frozen = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    assert any("dino" in name for name in frozen) and any("base_layer" in name for name in frozen)
    trained = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert trained + len(frozen) == len(list(trainer.model.parameters()))
    left = tmp_path / "run" / ".features.npy.tmp"
    left.write_bytes(b"of a run that was killed")
    assert not trainer.run(stop=lambda: True) and trainer.step == 0
    assert not left.exists() and not trainer.batches.features.file.exists()
    trainer.resume()
    assert trainer._cache(lambda: False)
    draw = trainer.batches.features.draw
    rows = trainer.train_rows[[9, 1, 4]]
    cached = draw(rows, torch.Generator(), slice(None), 3)
    images = torch.from_numpy(data.images[rows])
    proprio, text = torch.zeros(3, 8), trainer.batches.text[:3]
    with torch.no_grad():
        a, b = (trainer.model.backbone(x, proprio, text).vision[-1] for x in (images, cached))
    torch.testing.assert_close(a, b, atol=5e-3, rtol=0)
    monkeypatch.setattr(trainer.model.backbone.vision.dino, "forward", None)
    during_backward = []
    trainer.model.backbone.language.layers[0].mlp.register_forward_pre_hook(
        lambda *_: during_backward.append(torch._C._current_graph_task_id() >= 0)
    )
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    trainer.run()  # from the file: the towers are not asked again
    assert any(during_backward)  # activations were computed anew
    kept = {n for n, p in trainer.model.named_parameters() if torch.equal(p, before[n])}
    assert kept == frozen.keys()  # adapters, projector and head have learned, and nothing else
    assert len(losses(tmp_path / "run")) == 6
    assert all("contrast" in line for line in lines(tmp_path / "run") if "loss" in line)


# -- the paper's model, without memory ----------------------------------------------------------


def test_the_papers_preset_has_table_v_shapes():
    config = preset("eb-vla-0.5b")
    with torch.device("meta"):
        backbone, head = Backbone(config).eval(), EnergyHead(config)
        context = backbone(
            torch.zeros(2, 2, 224, 224, 3, dtype=torch.uint8),
            torch.zeros(2, 8),
            torch.zeros(2, 20, dtype=torch.int64),
            torch.ones(2, 20, dtype=torch.int64),
        )
        energies = head.bind(context)(torch.zeros(2, 3, 8, 7))
    assert backbone.language.config.num_hidden_layers == 24
    assert len(context.vision) == len(context.latents) == 23  # N_l
    assert context.vision[0].shape == (2, 512, 896)  # K_t x D
    assert context.latents[0].shape == (2, 64, 896)  # K_a x D
    assert context.proprio.shape == (2, 1, 896)
    assert context.layer(22).shape == (2, 64 + 1 + 512, 896)
    assert energies.shape == (2, 3, 8)
    assert len(head.blocks) == 4 and all(b.heads == 8 for b in head.blocks)
    assert head.blocks[0].down.in_features == 4 * 896
    trained = [n for n, p in backbone.language.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert backbone.language.layers[0].self_attn.q_proj.lora_A["default"].out_features == 64
    frozen = [*backbone.vision.dino.parameters(), *backbone.vision.siglip.parameters()]
    assert not any(p.requires_grad for p in frozen)
    assert SamplerConfig() == SamplerConfig(15, 0.22, 9.0, 1.0, 0.001, 1.0, 10.0, 1)


def test_vision_tokens_see_the_instruction_in_the_tiny_order_only():
    images, proprio = torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 8)
    for first in (True, False):
        torch.manual_seed(0)
        model = EBVLA(replace(preset("debug"), text_first=first))
        with torch.no_grad():
            a, b = (
                model.backbone(images, proprio, torch.full((1, 1, 384), value))
                for value in (0.0, 1.0)
            )
        assert (a.vision[-1] - b.vision[-1]).abs().max() > 1e-4 if first else True
        assert first or torch.equal(a.vision[-1], b.vision[-1])
        assert (a.latents[-1] - b.latents[-1]).abs().max() > 1e-4


def test_padding_of_the_text_is_not_seen():
    """The masked path, on a small model that embeds token ids as the paper's preset does."""
    torch.manual_seed(0)
    config = replace(preset("debug"), text="qwen", text_first=False)
    backbone = Backbone(config).eval()
    images, proprio = torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 8)
    ids = torch.tensor([[5, 6, 7]])
    padded, mask = torch.tensor([[0, 0, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1, 1]])
    with torch.no_grad():
        plain = backbone(images, proprio, ids, torch.ones_like(ids))
        other = backbone(images, proprio, torch.tensor([[9, 9, 5, 6, 7]]), mask)
        masked = backbone(images, proprio, padded, mask)
    torch.testing.assert_close(masked.latents[-1], other.latents[-1])
    torch.testing.assert_close(masked.latents[-1], plain.latents[-1])
    torch.testing.assert_close(masked.vision[-1], plain.vision[-1])


@pytest.mark.parametrize(
    ("units", "generation", "cpu", "gpu"),
    [
        ({"avx2": True, "avx512_bf16": False}, (7, 5), "float32", "float32"),
        ({"avx512_bf16": True}, (8, 0), "bfloat16", "bfloat16"),
        ({"amx_bf16": True}, (9, 0), "bfloat16", "bfloat16"),
        ({}, (6, 1), "float32", "float32"),
    ],
)
def test_precision_is_low_where_the_device_computes_in_it(monkeypatch, units, generation, cpu, gpu):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: generation)
    assert choose_precision("auto", "cpu") == cpu
    assert choose_precision("auto", "cuda:1") == gpu
    assert choose_precision("bfloat16", "cpu") == "bfloat16"
    assert choose_precision("float32", "cuda") == "float32"
