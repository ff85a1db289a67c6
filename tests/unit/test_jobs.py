"""Jobs as real processes: short Python commands that print, wait, fail and refuse to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from studio.jobs import Jobs, JobState, read_rows, tail
from studio.places import ROOT
from studio.supervisor import start_time
from tests.helpers import gone, wait_for

SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
POLITE = """
import signal, sys, time
def save(*_):
    print('saved', flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print('ready', flush=True)
time.sleep(600)
"""
PARENT = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print(child.pid, flush=True)
time.sleep(600)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path / "runs", grace_s=30)
    yield jobs
    for job in jobs.all():
        if job.state is JobState.RUNNING:
            jobs.stop(job.name)
            wait_for(lambda name=job.name: jobs.get(name).state is not JobState.RUNNING)


def start(jobs: Jobs, code: str, name: str = "a") -> None:
    jobs.launch("train", name, python(code), {"lr": 0.1})
    wait_for(lambda: jobs.get(name).log())


def ended(jobs: Jobs, name: str = "a"):
    wait_for(lambda: jobs.get(name).state is not JobState.RUNNING)
    return jobs.get(name)


def test_a_job_runs_prints_and_finishes(jobs):
    launched = jobs.launch("train", "a", python("print('one\\rtwo\\nthree')"), {"lr": 0.1})
    assert launched.kind == "train" and launched.values == {"lr": 0.1}
    job = ended(jobs)
    assert job.state is JobState.FINISHED and job.exit_code == 0
    assert job.log() == ["two", "three"]
    assert job.elapsed_s == job.ended - job.started >= 0 and not job.resumable
    assert jobs.all() == [job]


def test_stop_lets_the_command_save(jobs):
    start(jobs, POLITE)
    jobs.stop("a")
    job = ended(jobs)
    assert job.state is JobState.STOPPED and job.resumable
    assert job.log() == ["ready", "saved"]


def test_stop_ends_one_that_does_not_listen(jobs):
    jobs = Jobs(jobs.workspace, grace_s=0.5)
    start(jobs, STUBBORN)
    pid = json.loads((jobs.folder("a") / "job.json").read_text())["pid"]
    jobs.stop("a")
    wait_for(lambda: jobs.get("a").stopping or jobs.get("a").state is not JobState.RUNNING)
    assert ended(jobs).exit_code == -9 and gone(pid)
    assert jobs.get("a").state is JobState.FAILED and "took too long" in jobs.get("a").problem
    with pytest.raises(ValueError, match="does not run"):
        jobs.stop("a")


def test_one_that_could_not_save_has_failed(jobs):
    code = POLITE.replace("sys.exit(0)", "sys.exit('error: the disk is full')")
    start(jobs, code)
    jobs.stop("a")
    job = ended(jobs)
    assert job.state is JobState.FAILED and job.problem == "the disk is full" and job.resumable


def test_a_full_disk_does_not_keep_a_job_alive(jobs):
    start(jobs, SLEEP)
    pid = json.loads((jobs.folder("a") / "job.json").read_text())["pid"]
    (jobs.folder("a") / ".job.json.tmp").mkdir()  # nothing can be written any more
    jobs.stop("a")
    wait_for(lambda: gone(pid))
    assert ended(jobs).state is JobState.LOST  # its end could not be told
    assert jobs.get("a").elapsed_s is None


def test_stop_takes_the_workers_along(jobs):
    start(jobs, PARENT)
    child = int(jobs.get("a").log()[0])
    jobs.stop("a")
    ended(jobs)
    wait_for(lambda: gone(child))


def test_resume_adds_flags_to_the_same_argv(jobs):
    jobs.launch("train", "a", python("import sys; print(sys.argv[1:]); sys.exit(2)"), {})
    assert ended(jobs).state is JobState.FAILED
    jobs.resume("a", ["--resume"])
    job = ended(jobs)
    assert job.log() == ["[]", "['--resume']"]
    assert "--resume" not in job.argv and job.flags == ("--resume",)


def test_of_two_who_resume_at_once_one_does(jobs):
    code = "import sys, time; sys.argv[1:] or sys.exit(3); time.sleep(600)"
    jobs.launch("train", "a", python(code), {})
    ended(jobs)
    refusals = []

    def resume() -> None:
        try:
            jobs.resume("a", ["on"])
        except ValueError as error:
            refusals.append(str(error))

    threads = [threading.Thread(target=resume, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(refusals) == 3 and all("another run" in text for text in refusals)
    assert jobs.get("a").state is JobState.RUNNING


def test_no_more_run_than_may(jobs, monkeypatch):
    monkeypatch.setattr("studio.jobs.MAX_RUNNING", 1)
    jobs.launch("train", "a", python("raise SystemExit(3)"), {})
    ended(jobs)
    start(jobs, SLEEP, "b")
    for again in (lambda: jobs.resume("a"), lambda: start(jobs, SLEEP, "c")):
        with pytest.raises(ValueError, match="1 jobs run already"):
            again()
    assert not jobs.folder("c").exists()


def test_one_that_is_only_starting_is_not_stopped_in_another_s_place(jobs):
    start(jobs, SLEEP)
    file = jobs.folder("a") / "job.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"supervisor": None, "pid": None}))
    with pytest.raises(ValueError, match="only just starting"):
        Jobs(jobs.workspace).stop("a")
    file.write_text(json.dumps(record))


def test_one_that_did_what_it_could_says_what_is_missing(jobs):
    jobs.launch("collect", "a", python("print('2 tasks have fewer'); raise SystemExit(3)"), {})
    job = ended(jobs)
    assert job.state is JobState.INCOMPLETE and job.resumable
    assert job.problem == "2 tasks have fewer"


def test_a_failed_job_tells_why(jobs):
    jobs.launch("train", "a", python("print('fine'); raise SystemExit('error: no data')"), {})
    job = ended(jobs)
    assert job.state is JobState.FAILED and job.problem == "no data" and job.resumable
    jobs.launch("train", "b", python("import os; os.kill(os.getpid(), 9)"), {})
    assert "SIGKILL" in ended(jobs, "b").problem
    jobs.launch("train", "c", ["/no/such/command"], {})
    assert "could not be started" in ended(jobs, "c").problem


def test_two_runs_never_share_a_folder(jobs):
    start(jobs, SLEEP)
    with pytest.raises(ValueError, match="another name"):
        jobs.launch("train", "a", python("1"), {})
    with pytest.raises(ValueError, match="another run"):
        jobs.resume("a")
    with pytest.raises(ValueError, match="another run"):
        Jobs(jobs.workspace).resume("a")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/etc", "a\n", "x" * 65, None])
def test_names_stay_inside_the_workspace(jobs, name):
    with pytest.raises(ValueError, match="name"):
        jobs.launch("train", name, python("1"), {})
    assert not jobs.workspace.exists()


def test_another_studio_attaches_and_stops(jobs):
    start(jobs, SLEEP)
    other = Jobs(jobs.workspace)
    assert other.get("a").state is JobState.RUNNING
    other.stop("a")
    assert ended(other).state is JobState.STOPPED
    assert ended(jobs).state is JobState.STOPPED


def test_a_job_whose_end_nobody_saw_is_lost(jobs):
    start(jobs, SLEEP)
    record = json.loads((jobs.folder("a") / "job.json").read_text())
    os.kill(record["supervisor"], 9)
    wait_for(lambda: gone(record["supervisor"]))
    assert jobs.get("a").state is JobState.RUNNING  # the command lives and holds the lock
    jobs.stop("a")
    assert ended(jobs).state is JobState.LOST
    jobs.resume("a")
    assert jobs.get("a").state is JobState.RUNNING


def test_a_reused_pid_is_not_mistaken(jobs):
    bystander = subprocess.Popen(python(SLEEP), stdout=subprocess.PIPE)
    bystander.stdout.readline()
    time.sleep(0.05)  # start times are told apart by ticks of 10 ms
    try:
        start(jobs, SLEEP)
        file = jobs.folder("a") / "job.json"
        record = json.loads(file.read_text())
        assert record["supervisor_started"] == start_time(record["supervisor"])
        file.write_text(json.dumps(record | {"supervisor": bystander.pid}))
        jobs.stop("a")
        wait_for(lambda: gone(record["pid"]))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.communicate()


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_no_job_outlives_the_studio(tmp_path, how):
    code = f"""
import sys, time
from pathlib import Path
from studio.jobs import Jobs
jobs = Jobs(Path({str(tmp_path)!r}), grace_s=30)
jobs.launch("train", "a", [sys.executable, "-S", "-c", {PARENT!r}], {{}})
time.sleep(600)
"""
    studio = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    watcher = Jobs(tmp_path)
    child = int(wait_for(lambda: (tmp_path / "a").is_dir() and tail(tmp_path / "a/log.txt", 1))[0])
    pid = json.loads((tmp_path / "a/job.json").read_text())["pid"]
    getattr(studio, how)()
    studio.wait()
    assert ended(watcher).state is JobState.STOPPED
    wait_for(lambda: gone(pid) and gone(child))


def test_a_folder_written_outside_is_shown_but_not_touched(jobs):
    folder = jobs.folder("cli")
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 20}\n')
    assert [job.state for job in jobs.all()] == [JobState.OUTSIDE]
    with pytest.raises(ValueError, match="command line"):
        jobs.resume("cli")
    with pytest.raises(ValueError, match="another name"):
        jobs.launch("train", "cli", python("1"), {})


def test_rows_come_once_each_and_whole(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert read_rows(file) == ([], 0)
    file.write_text('{"step": 1}\nnonsense\n[2]\n{"step": 3}\n{"st')
    rows, since = read_rows(file)
    assert rows == [{"step": 1}, {"step": 3}]
    assert read_rows(file, since) == ([], since)
    with file.open("a") as handle:
        handle.write('ep": 4}\n')
    assert read_rows(file, since)[0] == [{"step": 4}]
    file.write_text('{"step": 1}\n')
    assert read_rows(file, since)[0] == [{"step": 1}]
