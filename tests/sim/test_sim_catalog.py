"""The catalogue of the benchmark: all 130 tasks, their files and initial states."""

import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from studio.sim import catalog


@pytest.mark.parametrize("suite", catalog.SUITES)
def test_every_task_has_its_file_and_initial_states(suite):
    listed = catalog.tasks(suite)
    assert len(listed) == (90 if suite == "libero_90" else 10)
    for task in listed:
        assert task.bddl_file.is_file()
        assert catalog.n_inits(suite, task.index) >= 50
        state = catalog.init_state(suite, task.index, 49)
        assert state.dtype == np.float64 and state.ndim == 1


def test_what_does_not_exist_is_named():
    with pytest.raises(ValueError, match="libero_spatial, libero_object"):
        catalog.tasks("libero")
    with pytest.raises(ValueError, match="tasks 0 to 9"):
        catalog.task("libero_goal", 10)
    with pytest.raises(ValueError, match="tasks 0 to 9"):
        catalog.task("libero_goal", -1)
    with pytest.raises(ValueError, match="initial states 0 to 49"):
        catalog.init_state("libero_goal", 0, 50)


def test_a_callers_array_is_its_own():
    catalog.init_state("libero_goal", 0, 0)[:] = 0
    assert catalog.init_state("libero_goal", 0, 0).any()


def test_libero_plus_views_are_signed_and_known():
    views = catalog.libero_plus_views()
    assert len(views) == 1599
    assert {view.difficulty for view in views} == {1, 2, 3, 4, 5}
    assert min(view.camera.orbit_horizontal for view in views) < 0
    assert all(abs(view.camera.turn_vertical) <= 10 for view in views)


def test_importing_libero_asks_nothing_and_writes_nothing(tmp_path):
    code = "from studio.sim import catalog; print(len(catalog.tasks('libero_90')))"
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("LIBERO_CONFIG_PATH", None)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "90"
    assert list(tmp_path.iterdir()) == []


def test_the_original_libero_is_answered_before_it_asks(tmp_path):
    """A package laid out as the original: it asks unless it finds a configuration."""
    package = tmp_path / "site" / "libero" / "libero"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    source = """
        import os, pathlib
        folder = os.environ.get("LIBERO_CONFIG_PATH", os.path.expanduser("~/.libero"))
        if not pathlib.Path(folder, "config.yaml").exists():
            input("Do you want to specify a custom path? (Y/N): ")
    """
    (package / "__init__.py").write_text(textwrap.dedent(source))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from studio.sim import catalog; catalog.silence_libero();"
        "import libero.libero, os, yaml;"
        "print(yaml.safe_load(open(os.environ['LIBERO_CONFIG_PATH'] + '/config.yaml'))['assets'])"
    )
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("LIBERO_CONFIG_PATH", None)
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(package / "assets")


def test_pickled_initial_states_are_read_without_running_code(tmp_path):
    torch = pytest.importorskip("torch")
    states = np.arange(6.0).reshape(2, 3)
    path = tmp_path / "good.pruned_init"
    torch.save(states, path)
    np.testing.assert_array_equal(catalog._read_pickled_tensor(path), states)
    torch.save(_Evil(), path)
    with pytest.raises(pickle.UnpicklingError):
        catalog._read_pickled_tensor(path)


class _Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_goals_that_a_scene_can_be_asked_for():
    assert catalog.other_goals("libero_object", 0) == (1, 2, 5, 6, 7)
    assert catalog.other_goals("libero_goal", 3) == (0, 1, 2, 4, 5, 6, 7, 8, 9)
    assert catalog.other_goals("libero_spatial", 0) == ()  # one goal, ten scenes
    assert 0 in catalog.other_goals("libero_10", 7)


def test_paraphrases_are_other_words_for_every_task():
    for suite in catalog.SUITES[:4]:
        for task in catalog.tasks(suite):
            words = catalog.paraphrase(suite, task.index)
            assert words and words != task.instruction
    assert catalog.paraphrase("libero_goal", 7) == "switch on the stove"
    with pytest.raises(ValueError, match="no paraphrases"):
        catalog.paraphrase("libero_90", 0)
