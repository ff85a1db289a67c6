"""Training on a CUDA GPU: the numbers of the CPU, resume, a clear end when memory runs out."""

import json

import pytest
import torch

from benchmarks.train import random_batch, write_demonstrations
from models.config import SamplerConfig, preset
from models.losses import training_loss
from models.model import EBVLA
from models.schedule import Draw
from models.train import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def argv(tmp_path):
    (tmp_path / "demos").mkdir()
    write_demonstrations(tmp_path / "demos")
    return ["--preset", "eb-vla-tiny", "--data", str(tmp_path / "demos"), "--device", "cuda",
            "--out", str(tmp_path / "run"), "--batch-size", "4", "--log-every", "1"]  # fmt: skip


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_loss_and_gradient_are_those_of_the_cpu():
    torch.manual_seed(0)
    model = EBVLA(preset("eb-vla-tiny"))
    batch, sampler = random_batch(model, 4), SamplerConfig(langevin_std=0, init_std=0)
    found = []
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        parts = {name: getattr(batch, name) for name in batch.__slots__}
        parts = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in parts.items()}
        loss, _ = training_loss(model, type(batch)(**parts), Draw(8, 0.22, 1), sampler, None)
        loss.backward()
        norm = torch.stack([p.grad.norm().cpu() for p in model.parameters() if p.grad is not None])
        found.append((loss.detach().cpu(), norm))
    torch.testing.assert_close(*found, rtol=2e-2, atol=1e-4)


def test_a_run_and_its_resume_on_the_gpu(argv, tmp_path):
    assert main([*argv, "--steps", "4"]) == 0
    logged = [line for line in lines(tmp_path / "run") if "loss" in line]
    assert len(logged) == 4 and all(line["gpu_memory_mb"] > 0 for line in logged)
    assert main([*argv, "--steps", "6", "--resume"]) == 0
    assert [line["step"] for line in lines(tmp_path / "run") if "loss" in line] == [*range(1, 7)]


def test_out_of_memory_is_one_line(argv, capsys):
    torch.cuda.set_per_process_memory_fraction(1e-3)
    try:
        assert main([*argv, "--steps", "1", "--batch-size", "4096"]) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    text = capsys.readouterr().err.strip()
    assert "--batch-size" in text and len(text.splitlines()) == 1
