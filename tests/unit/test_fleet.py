"""Who runs an evaluation: nothing that ended is lost, nothing fails that only crashed."""

import sys
from types import SimpleNamespace

import pytest

from models.config import SamplerConfig
from models.types import View
from studio import fleet
from studio.events import Outcome
from studio.fleet import LocalFleet, RayFleet
from studio.sim.process import SimCrashed
from studio.trials import nominal
from tests.unit.test_results import row_of

TRIALS = nominal("libero_object", range(5), [40])
POLICY = SimpleNamespace(
    device="cpu",
    beside=lambda: None,
    checkpoint=SimpleNamespace(view=View(), sha256="abc"),
)


class Sim:
    """Ends when it is told to."""

    made: list = []  # noqa: RUF012  (of all)

    def __init__(self, view):
        self.closed = False
        self.made.append(self)

    def close(self):
        self.closed = True


@pytest.fixture
def run(monkeypatch):
    """Runs `TRIALS` with a worker; `how` says for each task what its episode does, time by time."""
    monkeypatch.setattr(Sim, "made", [])
    monkeypatch.setattr(fleet, "SimProcess", Sim)
    monkeypatch.setattr(fleet, "episode_row", lambda trial, episode: row_of(trial))

    def run(how, stop=lambda: False, workers=1):
        happens = {task: iter(times) for task, times in how.items()}

        def episode(sim, policy, scene, **_):
            what = next(happens.get(scene.task, iter([""])))
            if isinstance(what, Exception):
                raise what
            return SimpleNamespace(problem=what)

        monkeypatch.setattr(fleet, "run_episode", episode)
        return LocalFleet(POLICY, SamplerConfig(), workers).run(TRIALS, stop)

    return run


def outcomes(rows):
    return {row["task"]: row["outcome"] for row in rows}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_trial_has_its_row_and_no_simulator_is_left(run, workers):
    assert outcomes(run({}, workers=workers)) == dict.fromkeys(range(5), "success")
    assert 1 <= len(Sim.made) <= workers and all(sim.closed for sim in Sim.made)


def test_a_crash_is_tried_again_with_a_fresh_simulator(run):
    assert outcomes(run({1: [SimCrashed("gone"), ""]}))[1] == "success"
    assert len(Sim.made) == 2 and all(sim.closed for sim in Sim.made)


def test_what_crashes_twice_or_lacks_plans_is_an_error_and_no_failure(run):
    rows = {row["task"]: row for row in run({1: [SimCrashed("gone")] * 2, 3: ["the disk is full"]})}
    assert {task: row["outcome"] for task, row in rows.items() if row["outcome"] != "success"} == {
        1: Outcome.ERROR, 3: Outcome.ERROR,
    }  # fmt: skip
    assert rows[1]["message"] == "gone" and rows[3]["message"] == "the disk is full"


def test_after_a_stop_no_other_trial_begins(run):
    stopped, rows = [], []
    for row in run({}, stop=lambda: bool(stopped)):
        rows.append(row)
        stopped.append(True)
    assert len(rows) == 1 and all(sim.closed for sim in Sim.made)


def test_a_stop_while_the_policy_is_away_leaves_no_row(run):
    rows = list(run({2: [InterruptedError("no server answers")]}, workers=2))
    assert sorted(outcomes(rows)) == [0, 1, 3, 4] and all(sim.closed for sim in Sim.made)


def test_a_fault_of_ours_comes_after_what_had_ended(run):
    kept = []
    with pytest.raises(ZeroDivisionError):
        for row in run({2: [ZeroDivisionError()]}):
            kept.append(row["task"])
    assert kept == [0, 1] and all(sim.closed for sim in Sim.made)


class Ray:
    """A cluster of one process: calls are made when they are waited for."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, lost=()):
        self.lost, self.made, self.shut = list(lost), 0, False

    def init(self, address, **options):
        self.address = address

    def cluster_resources(self):
        return {"CPU": 3.0}

    def remote(self, **options):
        self.options = options

        def make(*_):
            self.made += 1
            return SimpleNamespace(run=SimpleNamespace(remote=lambda trial: (trial,)))

        return lambda worker: SimpleNamespace(remote=make)

    def wait(self, running, timeout):
        return running[:1], running[1:]

    def get(self, ready):
        if ready[0].scene.task in self.lost:
            self.lost.remove(ready[0].scene.task)
            raise self.exceptions.RayError("the node died\nlong story")
        return row_of(ready[0])

    def shutdown(self):
        self.shut = True


@pytest.fixture
def on_ray(monkeypatch, tmp_path):
    """The rows and the cluster; `lost`: the tasks whose worker is lost, once each."""

    def on_ray(lost=(), workers=None, stop=lambda: False):
        ray = Ray(lost)
        monkeypatch.setitem(sys.modules, "ray", ray)
        cluster = RayFleet("auto", tmp_path, "cpu", SamplerConfig(), workers)
        return list(cluster.run(TRIALS, stop)), ray

    return on_ray


def test_a_cluster_has_a_worker_for_each_of_its_cores_unless_told(on_ray):
    rows, ray = on_ray()
    assert sorted(outcomes(rows)) == list(range(5)) and ray.made == 3 and ray.shut
    assert ray.options["num_gpus"] == 0
    assert on_ray(workers=2)[1].made == 2


def test_a_worker_that_is_lost_is_replaced_and_its_episode_done_again(on_ray):
    rows, ray = on_ray(lost=[1])
    assert outcomes(rows) == dict.fromkeys(range(5), "success") and ray.made == 4
    rows = {row["task"]: row for row in on_ray(lost=[1, 1])[0]}
    assert rows[1]["outcome"] == Outcome.ERROR
    assert rows[1]["message"] == "worker lost: the node died"


def test_a_stopped_cluster_ends_what_is_under_way_and_is_left(on_ray):
    asked = []
    rows, ray = on_ray(stop=lambda: asked.append(1) or len(asked) > 3)
    assert 0 < len(rows) < 5 and ray.shut
