"""The command `python -m models.train`: stops, one writer, bad input, several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_models_data import write_demos
from test_models_train import lines, losses

from models.checkpoint import load_checkpoint, save_checkpoint
from models.evaluation import Evaluation
from models.run import STATE, StopSignal, claim, no_memory
from models.train import main
from models.types import View
from tests.helpers import ROOT, complaint
from tests.unit.conftest import room_for

SHIPPED = ROOT / "assets/checkpoints/eb-vla-tiny"


@pytest.fixture(autouse=True)
def demonstrations(tmp_path):
    (tmp_path / "demos").mkdir()
    write_demos(tmp_path / "demos" / "a_demo.hdf5")
    write_demos(tmp_path / "demos" / "b_demo.hdf5", instruction="pick up the soup")


def test_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    argv = ["--preset", "debug", "--data", str(tmp_path / "demos"), "--out", str(out)]
    assert main([*argv, "--steps", "2", "--batch-size", "2", "--threads", "1"]) == 0
    assert (out / "last" / "model.safetensors").is_file()
    assert load_checkpoint(out / "last").contexts and load_checkpoint(out / "best").contexts
    assert main([*argv, "--steps", "3", "--batch-size", "2", "--resume"]) == 0
    assert lines(out)[-1]["step"] == 3
    settings = json.loads((out / "config.json").read_text())
    assert settings["preset"] == "debug" and settings["data"] == str(tmp_path / "demos")
    assert settings["train"]["steps"] == 3 and settings["train"]["sampler"]["temperature"] == 9.0
    assert list(out.glob("events.out.tfevents.*"))


def argv_of(tmp_path, *more):
    """On the CPU, whose sums come out the same each time."""
    return ["--preset", "debug", "--data", str(tmp_path / "demos"), "--batch-size", "2",
            "--out", str(tmp_path / "run"), "--device", "cpu", "--threads", "1", *more]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_ask_for_a_stop(number):
    with StopSignal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and stop.number == number


def test_a_stop_saves_and_resume_continues_exactly(tmp_path):
    """A process of its own is stopped in its fifth step; its second life ends like a whole run.

    Steps 4 and 5 belong to a log line that both lives share.
    """
    argv = argv_of(tmp_path, "--steps", "8", "--val-every", "6", "--log-every", "3")
    code = (
        "import os, sys, models.trainer as t, models.train as m\n"
        "step = t.Trainer.train_step\n"
        "def stopping(self, progress):\n"
        "    self.step == 4 and os.kill(os.getpid(), 15)\n"
        "    return step(self, progress)\n"
        "t.Trainer.train_step = stopping\n"
        "sys.exit(m.main(sys.argv[1:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert done.stdout.splitlines()[-1] == "stopped at step 5; --resume goes on"
    assert main([*argv, "--resume"]) == 0
    whole = tmp_path / "whole"
    assert main([*argv, "--out", str(whole)]) == 0
    assert losses(tmp_path / "run") == losses(whole) and set(losses(whole)) == {1, 3, 6}
    a, b = (
        load_file(folder / "last" / "model.safetensors") for folder in (tmp_path / "run", whole)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_lines_after_the_saved_state_are_written_anew(tmp_path):
    argv = argv_of(tmp_path, "--steps", "4", "--val-every", "2", "--log-every", "1")
    assert main(argv) == 0
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    assert main([*argv, "--steps", "5", "--resume"]) == 0
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 2, 3, 4, 4, 5, 5]


def test_one_writer_per_folder(tmp_path, capsys):
    argv = argv_of(tmp_path, "--steps", "1")
    with claim(tmp_path / "run", resume=False):
        assert main(argv) == 2
    assert main(argv) == 0
    assert main(argv) == 2
    locked, taken = capsys.readouterr().err.splitlines()
    assert "another run writes here" in locked and "--resume" in taken


def test_what_a_resumed_run_has_new_is_told(tmp_path, capsys, debug_checkpoint):
    init = tmp_path / "init"
    shutil.copytree(debug_checkpoint, init)
    argv = argv_of(tmp_path, "--init", str(init), "--lr", "1e-4", "--steps")
    assert main([*argv, "1"]) == 0
    shutil.rmtree(init)  # needed at the beginning only
    capsys.readouterr()
    assert main([*argv, "2", "--resume"]) == 0
    assert "resumed" not in capsys.readouterr().out
    write_demos(tmp_path / "demos" / "c_demo.hdf5", instruction="eat it")
    assert main([*argv, "3", "--resume", "--lr", "2e-4", "--seed", "5"]) == 0
    told = "resumed with lr 0.0002 (was 0.0001), seed 5 (was 0), other demonstrations"
    assert told in capsys.readouterr().out.splitlines()


# -- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "--steps or --minutes"),
        (["--steps", "1", "--data", "nowhere"], "nowhere"),
        (["--steps", "1", "--batch-size", "0"], "--batch-size"),
        (["--steps", "1", "--lr", "nan"], "--lr"),
        (["--steps", "1", "--stride", "0"], "--stride"),
        (["--steps", "1", "--threads", "-1"], "--threads"),
        (["--steps", "1", "--batch-size", "1", "--contrast", "0.1"], "two samples or more"),
        (["--steps", "1", "--eval-every", "9", "--eval-tasks", "77"], "evaluation refused"),
        (["--steps", "1", "--device", "cuda:9"], "cuda:9"),
        (["--steps", "1", "--init", "nowhere"], "no such checkpoint"),
        (["--steps", "1", "--init", str(SHIPPED)], "another architecture than debug"),
        (["--steps", "1", "--resume"], "nothing to resume"),
        (["--steps", "1", "--batch-size", "1000000000000000"], "--batch-size"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, more, says):
    assert main(argv_of(tmp_path, *more)) == 2
    assert says in complaint(capsys)


def test_pictures_of_two_renderers_need_a_word(tmp_path, capsys):
    with h5py.File(tmp_path / "demos" / "b_demo.hdf5", "r+") as h5:
        h5["data"].attrs["pixels"] = "fast"
    argv = argv_of(tmp_path, "--steps", "1")
    assert main(argv) == 2
    assert "two renderers" in complaint(capsys)
    assert main([*argv, "--pixels", "fast"]) == 0
    with h5py.File(tmp_path / "demos" / "b_demo.hdf5") as h5:
        side = h5["data/demo_0/obs/agentview_rgb"].shape[1]
    assert load_checkpoint(tmp_path / "run" / "last").info.view == View("fast", side)


def test_a_disk_without_room_for_the_checkpoints_is_told_at_once(tmp_path, capsys, monkeypatch):
    told = SimpleNamespace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: told)
    assert main(argv_of(tmp_path, "--steps", "1")) == 2
    assert "1 MB are free" in complaint(capsys)


@pytest.mark.parametrize(
    "text",
    ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory"],
)
def test_every_allocator_is_understood(text):
    assert no_memory(RuntimeError(f"DefaultCPUAllocator: {text}")) and not no_memory(RuntimeError())


def test_an_empty_folder_and_a_state_of_another_preset_are_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(argv_of(tmp_path, "--steps", "1", "--data", str(tmp_path / "empty"))) == 2
    assert "no demonstrations here" in complaint(capsys)
    argv = argv_of(tmp_path, "--steps", "1")
    assert main(argv) == 0
    before = (tmp_path / "run" / "last" / "model.safetensors").read_bytes()
    capsys.readouterr()
    assert main([*argv, "--steps", "2", "--preset", "eb-vla-tiny", "--resume"]) == 2
    assert "holds a run of another model" in complaint(capsys)
    assert (tmp_path / "run" / "last" / "model.safetensors").read_bytes() == before


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
def test_files_of_other_things_are_one_line(tmp_path, capsys, path, value, says):
    with h5py.File(tmp_path / "demos" / "b_demo.hdf5", "r+") as h5:
        _replace(h5, path, value)
    assert main(argv_of(tmp_path, "--steps", "1")) == 2
    text = complaint(capsys)
    assert says in text and "b_demo.hdf5" in text


@pytest.mark.parametrize("size", [50_000, 400_000], ids=["checkpoint", "state"])
def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, capsys, size):
    argv, run = argv_of(tmp_path, "--steps", "1"), tmp_path / "run"
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
    assert {p.name for p in run.iterdir() if p.name.startswith(".")} == set()
    assert main([*argv, "--steps", "2", "--resume"]) == 0


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys, debug_checkpoint):
    broken = load_checkpoint(debug_checkpoint)
    broken.model.readout.bias.data.fill_(float("nan"))
    save_checkpoint(tmp_path / "nan", broken.model, broken.statistics, broken.info.training)
    assert main(argv_of(tmp_path, "--steps", "9", "--init", str(tmp_path / "nan"))) == 2
    assert "not finite" in complaint(capsys)


# -- the simulator, several processes -----------------------------------------------------------


def test_what_a_killed_run_left_is_swept_up(tmp_path):
    argv = argv_of(tmp_path, "--val-every", "1", "--steps")
    assert main([*argv, "1"]) == 0
    run = tmp_path / "run"
    (run / ".last-half").mkdir()
    (run / "best").rename(run / ".best-x-old")  # killed between its two renames
    assert main([*argv, "2", "--resume"]) == 0
    assert {path.name for path in run.glob(".*")} == set() and (run / "best").is_dir()


def test_an_evaluation_that_fails_or_is_stopped_ends_no_training(tmp_path, capsys):
    """The studio's own command line: a failure is told, a stop ends the process."""
    evaluation = Evaluation(tmp_path, "libero_object", "77", "0", "cpu")
    assert evaluation.run(1, stop=lambda: False) == {}
    assert "evaluation at step 1 failed: ValueError: libero_object" in capsys.readouterr().err
    assert replace(evaluation, tasks="0").run(1, stop=lambda: True) == {}
    assert "failed" not in capsys.readouterr().err


def test_two_processes_learn_what_one_does(tmp_path):
    """torchrun with two processes on the CPU, against one with the same global batch."""
    argv = argv_of(tmp_path, "--steps", "4", "--log-every", "1", "--precision", "float32")
    argv += ["--batch-size", "4"]
    assert main([*argv, "--out", str(tmp_path / "one")]) == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, "-m", "models.train", *argv]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout
    one, two = losses(tmp_path / "one"), losses(tmp_path / "run")
    assert one.keys() == two.keys() == {1, 2, 3, 4}
    assert [two[step] for step in two] == pytest.approx([one[step] for step in two], abs=2e-5)
