"""Training: schedules, exact resume, the command line, and the presets' shapes."""

import json
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_models_data import write_demos

from benchmarks.train import naive_loss, random_batch
from models import vision
from models.augment import augment
from models.backbone import Backbone, _copy_weights
from models.checkpoint import load_checkpoint, save_checkpoint
from models.config import SamplerConfig, preset
from models.data import load_demonstrations
from models.energy_head import EnergyHead
from models.evaluation import Evaluation
from models.losses import contrastive_loss, training_loss
from models.model import EBVLA
from models.policy import EnergyPolicy
from models.run import STATE, claim
from models.schedule import Draw, Schedule, TrainConfig
from models.train import main
from models.trainer import Trainer

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(steps=6, batch_size=4, val_every=3, log_every=1, warmup_steps=2)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "demos").mkdir()
    write_demos(tmp_path / "demos" / "a_demo.hdf5")
    write_demos(tmp_path / "demos" / "b_demo.hdf5", instruction="pick up the soup")
    return load_demonstrations(tmp_path / "demos", 8)


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


def test_a_run_leaves_metrics_and_checkpoints_that_plan(tmp_path, data):
    trainer = Trainer(preset("debug"), CONFIG, data, tmp_path / "run")
    trainer.run()
    line = next(line for line in lines(tmp_path / "run") if "loss" in line)
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
        policy = EnergyPolicy.from_pretrained(tmp_path / "run" / name, device="cpu")
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
    source = load_checkpoint(debug_checkpoint).model
    for own in (trainer.model, trainer.average):
        for a, b in zip(own.parameters(), source.parameters(), strict=True):
            assert torch.equal(a, b)
    other = Trainer(replace(preset("debug"), ffn_size=96), CONFIG, data, tmp_path / "other")
    with pytest.raises(ValueError, match="another architecture"):
        other.start_from(debug_checkpoint)


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


def test_batches_visit_every_sample_once_an_epoch(tmp_path, data):
    trainer = Trainer(preset("debug"), replace(CONFIG, val_fraction=0), data, tmp_path / "run")
    seen = []
    for trainer.step in range(6):  # 24 samples in batches of 4
        seen += trainer._rows().tolist()
    assert sorted(seen) == list(range(24))


def test_augmentation_keeps_shape_and_repeats_with_its_seed():
    images = torch.randint(0, 255, (3, 2, 32, 32, 3), dtype=torch.uint8)
    a, b = (augment(images, torch.Generator().manual_seed(4)) for _ in range(2))
    assert a.shape == images.shape and a.dtype == torch.uint8 and torch.equal(a, b)
    assert not torch.equal(a, images)
    flat = torch.full_like(images, 128)
    assert (augment(flat, torch.Generator().manual_seed(0)).float() - 128).abs().max() <= 26


def test_command_line(tmp_path, data, capsys):
    out = tmp_path / "run"
    argv = ["--preset", "debug", "--data", str(tmp_path / "demos"), "--out", str(out)]
    assert main([*argv, "--steps", "2", "--batch-size", "2", "--threads", "1"]) == 0
    assert (out / "last" / "model.safetensors").is_file()
    assert main([*argv, "--steps", "3", "--batch-size", "2", "--resume"]) == 0
    assert lines(out)[-1]["step"] == 3
    settings = json.loads((out / "config.json").read_text())
    assert settings["preset"] == "debug" and settings["data"] == str(tmp_path / "demos")
    assert settings["train"]["steps"] == 3 and settings["train"]["sampler"]["temperature"] == 9.0
    assert list(out.glob("events.out.tfevents.*"))


def write_argv(tmp_path, *more):
    return ["--preset", "debug", "--data", str(tmp_path / "demos"), "--batch-size", "2",
            "--out", str(tmp_path / "run"), "--threads", "1", *more]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_and_resume_continues_exactly(tmp_path, data, number):
    """A process of its own is stopped after its third step; its second life ends like a whole run.

    Steps 4 and 5 belong to a log line that both lives share.
    """
    argv = write_argv(tmp_path, "--steps", "8", "--val-every", "6", "--log-every", "3")
    code = (
        "import os, sys, models.trainer as t, models.train as m\n"
        "step = t.Trainer.train_step\n"
        "def stopping(self, progress):\n"
        f"    self.step == 4 and os.kill(os.getpid(), {int(number)})\n"
        "    return step(self, progress)\n"
        "t.Trainer.train_step = stopping\n"
        "sys.exit(m.main(sys.argv[1:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 128 + number, done.stderr
    assert done.stdout.splitlines()[-1] == "stopped at step 5; --resume goes on"
    assert main([*argv, "--resume"]) == 0
    whole = tmp_path / "whole"
    assert main([*argv, "--out", str(whole)]) == 0
    assert losses(tmp_path / "run") == losses(whole) and set(losses(whole)) == {3, 6}
    a, b = (
        load_file(folder / "last" / "model.safetensors") for folder in (tmp_path / "run", whole)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_lines_after_the_saved_state_are_written_anew(tmp_path, data):
    argv = write_argv(tmp_path, "--steps", "4", "--val-every", "2", "--log-every", "1")
    assert main(argv) == 0
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    assert main([*argv, "--steps", "5", "--resume"]) == 0
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 2, 3, 4, 4, 5, 5]


def test_one_writer_per_folder(tmp_path, data, capsys):
    argv = write_argv(tmp_path, "--steps", "1")
    with claim(tmp_path / "run", resume=False):
        assert main(argv) == 2
    assert main(argv) == 0
    assert main(argv) == 2
    locked, taken = capsys.readouterr().err.splitlines()
    assert "another run writes here" in locked and "--resume" in taken


# -- bad input ----------------------------------------------------------------------------------


def complaint(capsys) -> str:
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1, text
    return text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "--steps or --minutes"),
        (["--steps", "1", "--data", "nowhere"], "nowhere"),
        (["--steps", "1", "--batch-size", "0"], "--batch-size"),
        (["--steps", "1", "--lr", "nan"], "--lr"),
        (["--steps", "1", "--stride", "0"], "--stride"),
        (["--steps", "1", "--device", "cuda:9"], "cuda:9"),
        (["--steps", "1", "--init", "nowhere"], "no such checkpoint"),
        (["--steps", "1", "--resume"], "nothing to resume"),
        (["--steps", "1", "--batch-size", "1000000000000000"], "--batch-size"),
    ],
)
def test_bad_input_is_one_line(tmp_path, data, capsys, more, says):
    assert main(write_argv(tmp_path, *more)) == 2
    assert says in complaint(capsys)


def _replace(h5, path, value):
    del h5[path]
    if value is None:
        h5.create_group(path)
    else:
        h5[path] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("data", np.zeros(3), "not a LIBERO"),
        ("data/demo_0", np.zeros(3), "demo_0"),
        ("data/demo_0/obs/agentview_rgb", None, "not a LIBERO"),
        ("data/demo_0/actions", np.full((6, 7), np.nan), "not finite"),
        ("data/demo_0/actions", np.zeros((6, 14)), "expected (T, 7)"),
    ],
)
def test_files_of_other_things_are_one_line(tmp_path, data, capsys, path, value, says):
    with h5py.File(tmp_path / "demos" / "b_demo.hdf5", "r+") as h5:
        _replace(h5, path, value)
    assert main(write_argv(tmp_path, "--steps", "1")) == 2
    text = complaint(capsys)
    assert says in text and "b_demo.hdf5" in text


@contextmanager
def room_for(size):
    """No file may grow beyond `size` bytes: writes fail as on a full disk, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [50_000, 400_000], ids=["checkpoint", "state"])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, data, capsys, size):
    argv, run = write_argv(tmp_path, "--steps", "1"), tmp_path / "run"
    assert main(argv) == 0
    weights = (run / "last" / "model.safetensors").stat().st_size
    assert (size < weights) == (size == 50_000) and size < (run / STATE).stat().st_size
    before = {file: file.read_bytes() for file in (run / "best").iterdir()}
    state = (run / STATE).read_bytes()
    with room_for(size):
        assert main([*argv, "--steps", "2", "--resume"]) == 2
    assert "disk is full" in complaint(capsys)
    assert (run / STATE).read_bytes() == state
    load_checkpoint(run / "last")
    load_checkpoint(run / "best")
    assert size > weights or all(file.read_bytes() == old for file, old in before.items())
    assert {p.name for p in run.iterdir() if p.name.startswith(".")} == {".lock"}
    assert main([*argv, "--steps", "2", "--resume"]) == 0


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, data, capsys, debug_checkpoint):
    broken = load_checkpoint(debug_checkpoint)
    broken.model.readout.bias.data.fill_(float("nan"))
    save_checkpoint(tmp_path / "nan", broken.model, broken.statistics, broken.info.training)
    assert main(write_argv(tmp_path, "--steps", "9", "--init", str(tmp_path / "nan"))) == 2
    assert "not finite" in complaint(capsys)


# -- the simulator, several processes -----------------------------------------------------------


def test_best_is_the_most_successful(tmp_path, data, monkeypatch):
    """The studio's evaluation, replaced by a program of its own that plays two episodes."""
    program = (
        "import sys, json, pathlib\n"
        "out = pathlib.Path(sys.argv[1])\n"
        "wins = {'step_2': 1, 'step_4': 2, 'step_6': 0}[out.name]\n"
        "rows = [{'outcome': 'success' if i < wins else 'timeout'} for i in range(2)]\n"
        "rows.append({'outcome': 'error'})\n"
        "(out / 'episodes.jsonl').write_text(''.join(json.dumps(r) + chr(10) for r in rows))\n"
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


def test_the_evaluation_is_refused_fails_or_is_stopped(tmp_path, capsys):
    """The studio's own command line: its status 2 ends the run, a stop ends the process."""
    evaluation = Evaluation(tmp_path, "libero_object", "77", "0", "cpu")
    with pytest.raises(ValueError, match="tasks 0 to 9"):
        evaluation.run(1, stop=lambda: False)
    assert replace(evaluation, tasks="0").run(1, stop=lambda: True) == {}
    assert "failed" not in capsys.readouterr().err


def test_two_processes_learn_what_one_does(tmp_path, data):
    """torchrun with two processes on the CPU, against one with the same global batch."""
    argv = write_argv(tmp_path, "--steps", "4", "--log-every", "1", "--precision", "float32")
    argv += ["--batch-size", "4", "--device", "cpu"]
    assert main([*argv, "--out", str(tmp_path / "one")]) == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, "-m", "models.train", *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout
    one, two = losses(tmp_path / "one"), losses(tmp_path / "run")
    assert one.keys() == two.keys() == {1, 2, 3, 4}
    assert [two[step] for step in two] == pytest.approx([one[step] for step in two], abs=2e-5)


def test_frozen_towers_train_from_cached_features(tmp_path, data, monkeypatch):
    """The path of eb-vla-0.5b in miniature: towers, adapters, recomputed activations."""
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
    monkeypatch.setattr(vision, "DINOV2", {**tower, "image_size": 28, "num_register_tokens": 1})
    monkeypatch.setattr(vision, "SIGLIP", {**tower, "intermediate_size": 32})
    small = replace(
        preset("debug"), vision="dinov2+siglip", image_size=28, tokens_per_view=4, lora_rank=2
    )
    config = replace(CONFIG, cache_features=1, precision="float32", gradient_checkpointing=True)
    trainer = Trainer(small, config, data, tmp_path / "run")
    frozen = {n: p.clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    assert any("dino" in name for name in frozen) and any("base_layer" in name for name in frozen)
    trained = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert trained + len(frozen) == len(list(trainer.model.parameters()))
    cached = trainer._cache().draw(trainer.train_rows[:3], torch.Generator(), slice(None), 3)
    images = torch.from_numpy(data.images[trainer.train_rows[:3]])
    proprio, text = torch.zeros(3, 8), trainer.text[:3]
    with torch.no_grad():
        a, b = (trainer.model.backbone(x, proprio, text).vision[-1] for x in (images, cached))
    torch.testing.assert_close(a, b, atol=5e-3, rtol=0)
    monkeypatch.setattr(trainer.model.backbone.vision.dino, "forward", None)
    trainer.run()  # from the file: the towers are not asked again
    own = dict(trainer.model.named_parameters())
    assert all(torch.equal(own[name], value) for name, value in frozen.items())
    assert len(losses(tmp_path / "run")) == 6


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
    assert masked.vision[-1].isfinite().all()
    assert (masked.latents[-1] - plain.latents[-1]).abs().max() < 0.05  # RoPE moves by two only


def test_pretrained_weights_are_copied_beneath_the_adapters():
    small = replace(preset("debug"), text="qwen", text_first=False)
    source, target = Backbone(small).language, Backbone(replace(small, lora_rank=4)).language
    assert _copy_weights(target, source.state_dict()) == []
    q = target.layers[0].self_attn.q_proj.base_layer.weight
    assert torch.equal(q, source.layers[0].self_attn.q_proj.weight)
    incomplete = {k: v for k, v in source.state_dict().items() if k != "norm.weight"}
    assert _copy_weights(target, incomplete) == ["norm.weight"]
