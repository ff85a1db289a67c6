"""What a collection would make, without making it."""

import hashlib

import h5py
import pytest

from models.hold import hold
from models.ranges import parse_range
from studio import collect, demos
from studio.collect import CollectConfig, Episode
from tests.unit.test_demos import demonstration


def test_held_out_initial_states_are_never_used_by_default(tmp_path):
    config = collect.parse(["--out", str(tmp_path)])
    used = {
        scene.init
        for task in config.tasks
        for index in range(config.per_task)
        for scene, _ in Episode(config, task, index).scenes()
    }
    assert used == set(range(40))


def test_two_thirds_of_the_episodes_are_noisy(tmp_path):
    config = CollectConfig(out=tmp_path)
    noises = [Episode(config, 0, i).noise for i in range(24)]
    assert noises.count(0.12) == 16 and noises.count(0.0) == 8
    assert not any(noises[i] == noises[i + 1] == 0.0 for i in range(23))  # spread evenly


def test_no_demonstration_comes_twice(tmp_path):
    config = CollectConfig(out=tmp_path, per_task=200, noise=0.0)
    scenes = [next(Episode(config, 2, i).scenes())[0] for i in range(200)]
    assert len({(scene.init, scene.seed) for scene in scenes}) == 200 == 40 * config.scene_seeds


def test_a_file_of_unknown_making_is_not_added_to(tmp_path, capsys):
    config = collect.parse(["--out", str(tmp_path), "--tasks", "0"])
    file = collect.demo_file(config, 0)
    file.write_bytes(b"LIBERO's own")
    assert collect.main(["--out", str(tmp_path), "--tasks", "0"]) == 2
    assert "nothing says how it was made" in capsys.readouterr().err
    assert file.read_bytes() == b"LIBERO's own"


def test_attempts_differ_in_scene_and_noise(tmp_path):
    config = CollectConfig(out=tmp_path, scene_seeds=5)
    attempts = list(Episode(config, 2, 7).scenes())
    assert len(attempts) == config.attempts
    assert len({scene.init for scene, _ in attempts}) == len({e for _, e in attempts}) == 4
    assert len({(scene.init, scene.seed) for scene, _ in attempts}) == 4
    for per_task in (20, 40, 80):  # however often the initial states come round
        config = CollectConfig(out=tmp_path, per_task=per_task)
        assert len({scene.init for scene, _ in Episode(config, 2, 7).scenes()}) == 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--suite", "libero_moon"], "unknown suite"),
        (["--tasks", "8-12"], "--tasks: libero_object has the tasks 0-9"),
        (["--tasks", "five"], "a range looks like 0-9"),
        (["--inits", "40-60"], "--inits: LIBERO has the initial states 0-49"),
        (["--inits", "0-40"], "--inits: 40-49 are for evaluation"),
        (["--per-task", "0"], "--per-task must be at least 1"),
        (["--workers", "many"], "'many' is neither a number nor auto"),
        (["--noise", "nan"], "--noise and --noise-fraction must lie in [0, 1]"),
        (["--dagger", "no/where"], "no such checkpoint folder"),
        (["--dagger", "assets/checkpoints/eb-vla-tiny", "--beta", "1"], "--beta must lie in"),
        (["--beta", "0.5"], "--beta goes with --dagger"),
        (["--relabel"], "--relabel goes with --dagger"),
        (
            ["--dagger", "assets/checkpoints/eb-vla-tiny", "--relabel", "--beta", "0.5"],
            "leave it or --relabel out",
        ),
        (["--dagger", "assets/checkpoints/eb-vla-tiny", "--misses"], "choose who leads"),
    ],
)
def test_wrong_arguments_exit_with_code_2(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        collect.parse([*argv, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as stop:
        collect.parse(["--out", str(tmp_path / "taken")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.splitlines() == [
        f"collect: --out: {tmp_path / 'taken'} is a file; choose a folder"
    ]


def test_a_checkpoint_leads_and_its_hash_is_kept(debug_checkpoint, tmp_path):
    argv = ["--out", str(tmp_path), "--dagger", str(debug_checkpoint), "--beta", "0.25"]
    dagger = collect.parse(argv).dagger
    weights = (debug_checkpoint / "model.safetensors").read_bytes()
    assert dagger.sha256 == hashlib.sha256(weights).hexdigest() and dagger.beta == 0.25
    assert collect.parse(["--out", str(tmp_path)]).dagger is None


@pytest.fixture
def made(monkeypatch):
    """Collects without a simulator: numbers of the episodes that were made; `failing` are not."""
    numbers, failing = [], set()

    def make(episodes, workers, hopeless):
        for episode in episodes:
            if episode.task in hopeless:
                continue
            numbers.append(episode.index)
            if episode.index in failing:
                yield episode, ("failed",) * len(list(episode.scenes()))
                continue
            entropy = [0, episode.task, episode.index, 0]
            attributes = {"attributes": {"entropy": entropy}}
            demos.write_part(episode.part, demonstration(3, episode.index, **attributes))
            yield episode, ("kept",)

    monkeypatch.setattr(collect, "_make", make)
    return numbers, failing


def test_more_of_the_same_makes_what_is_missing(made, tmp_path):
    numbers, failing = made
    command = ["--tasks", "3", "--out", str(tmp_path), "--per-task"]
    failing.add(1)
    assert collect.main([*command, "3"]) == 3 and numbers == [0, 1, 2]
    assert collect.main([*command, "5"]) == 3 and numbers[3:] == [1, 3, 4]
    part = Episode(collect.parse([*command, "5"]), 3, 1).part
    part.write_bytes(b"")  # as a power cut may leave it
    failing.clear()
    assert collect.main([*command, "5"]) == 0 and numbers[6:] == [1]
    file = collect.demo_file(collect.parse([*command, "5"]), 3)
    with h5py.File(file) as h5:
        assert [h5[f"data/demo_{i}"].attrs["entropy"][2] for i in range(5)] == [0, 1, 2, 3, 4]
    assert collect.main([*command, "4"]) == 0 and len(numbers) == 7
    assert demos.count_demos(file) == 5 and not part.parent.exists()


def test_where_attempts_failed_others_are_made(made, tmp_path):
    _, failing = made
    failing.add(1)
    command = ["--tasks", "3", "--out", str(tmp_path), "--per-task", "2"]
    episode = Episode(collect.parse(command), 3, 1)
    first = list(episode.scenes())
    assert collect.main(command) == 3
    second = list(episode.scenes())
    assert collect.main(command) == 3
    third = list(episode.scenes())
    scenes = [scene for scene, _ in first + second + third]
    assert len(set(scenes)) == len({entropy for _, entropy in first + second + third}) == 12


def test_a_task_that_never_succeeds_is_given_up(made, tmp_path, capsys):
    numbers, failing = made
    failing.update(range(20))
    command = ["--tasks", "3", "--per-task", "20", "--out", str(tmp_path)]
    assert collect.main(command) == 3
    assert len(numbers) == 6 and "task 3: 24 attempts" in capsys.readouterr().out
    failing.discard(3)
    assert collect.main(command) == 3
    assert len(numbers) == 26  # with a success the others get their turn
    assert demos.count_demos(collect.demo_file(collect.parse(command), 3)) == 1


def test_a_folder_has_one_recipe_for_each_suite(made, tmp_path, capsys):
    command = ["--tasks", "0", "--per-task", "1", "--out", str(tmp_path)]
    assert collect.main(command) == 0
    assert collect.main([*command, "--misses"]) == 2
    assert "made with another --misses; choose another --out" in capsys.readouterr().err
    assert collect.main([*command, "--suite", "libero_goal", "--misses"]) == 0
    assert collect.main([*command, "--per-task", "2", "--workers", "1"]) == 0


def test_two_collections_never_share_a_folder(tmp_path, capsys):
    with hold(tmp_path):
        assert collect.main(["--out", str(tmp_path), "--per-task", "1"]) == 2
    assert "another run writes here" in capsys.readouterr().err


def test_ranges():
    assert parse_range("40-42,7, 41-43") == [40, 41, 42, 7, 43]
    assert len(parse_range("0-9999," * 1000 + "1")) == 10_000


@pytest.mark.parametrize("text", ["a-b", "5-3", "3-", "-3", "1-2-3", "", "0,", "0-99999999999"])
def test_what_is_no_range_is_told(text):
    with pytest.raises(ValueError, match="a range looks like 0-9"):
        parse_range(text)
