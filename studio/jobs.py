"""Jobs: long commands that the studio launches, follows, stops and resumes.

A job is one process, started from an argv list (never a shell), that works on one folder of the
workspace. The folder holds everything there is to know: job.json (command, form, times, exit
code), log.txt (stdout and stderr) and what the command writes itself. Nothing is kept in memory
but the pipes that end the jobs with the studio (see `studio.supervisor`): a reloaded page, another
studio on the same workspace or a restarted one reads the same state from the same files.

A lock (flock on .job.lock, held by the running command itself, so that no crash can leave it
behind) keeps two commands out of one folder, and tells a running job from a lost one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from models.evaluation import INCOMPLETE
from models.hold import is_held
from studio.supervisor import LOCK, LOG, ROOT, read_record, start_time, write_record

METRICS = "metrics.jsonl"
WRITTEN = {"train": METRICS, "evaluate": "evaluation.json", "sweep": "sweep.json"}  # by each kind
ETA = re.compile(r"\[[\d:]+<([\d:]+)")  # in tqdm's line
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GRACE_S = 60.0  # to save and end, before SIGKILL
TAIL_BYTES = 32_000
STOPPED_CODES = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
MAX_RUNNING = 8  # at the same time, whoever asks
GLANCE_S = 0.2  # that a look at a lock may take


class JobState(StrEnum):
    """How a job stands; derived from its files at every look."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    INCOMPLETE = "incomplete"  # it did what it could, and the same command may do more
    FAILED = "failed"
    LOST = "lost"  # its supervisor was killed or the machine went down: nobody saw the end
    OUTSIDE = "outside"  # a folder that a command outside the studio writes or wrote
    SHIPPED = "shipped"  # a finished folder that comes with the studio


RESUMABLE = (JobState.STOPPED, JobState.INCOMPLETE, JobState.FAILED, JobState.LOST)


@dataclass(frozen=True, slots=True)
class Job:
    """One look at a job's folder."""

    folder: Path
    state: JobState
    kind: str = "train"
    argv: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # added to it when the job was resumed
    values: Mapping[str, Any] = field(default_factory=dict)  # of the form
    started: float | None = None  # time.time()
    ended: float | None = None
    exit_code: int | None = None
    stopped: bool = False  # somebody asked it to end

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def stopping(self) -> bool:
        """Asked to end, and has not yet."""
        return self.stopped and self.state is JobState.RUNNING

    @property
    def resumable(self) -> bool:
        """Ended before its work was done."""
        return self.state in RESUMABLE

    @property
    def elapsed_s(self) -> float | None:
        """Seconds from its start to its end, or to now; None where nobody saw the end."""
        end = time.time() if self.state is JobState.RUNNING else self.ended
        return None if end is None or self.started is None else end - self.started

    def log(self, lines: int = 200) -> list[str]:
        """The last lines of the output; a progress bar counts as its latest state."""
        return tail(self.folder / LOG, lines)

    @property
    def eta_s(self) -> int | None:
        """Seconds left of a running job, as the progress bar in its output's last line tells."""
        if self.state is not JobState.RUNNING:
            return None
        left = ETA.search("".join(self.log(1)))
        parts = [int(part) for part in left[1].split(":")] if left else None
        return parts and sum(s * 60**i for i, s in enumerate(reversed(parts)))

    @property
    def problem(self) -> str:
        """Why a job failed or what is missing, in one line; empty otherwise."""
        if self.state is JobState.LOST:
            return "its end was not seen: the machine or its supervisor stopped"
        if self.state not in (JobState.FAILED, JobState.INCOMPLETE):
            return ""
        if self.stopped and self.exit_code == -signal.SIGKILL:
            return "was stopped, took too long to end and was killed: it saved nothing more"
        if self.exit_code is not None and self.exit_code < 0:
            name = signal.Signals(-self.exit_code).name
            memory = "; out of memory?" if name == "SIGKILL" else ""
            return f"ended by {name}{memory}"
        last = next((line for line in reversed(self.log(20)) if line.strip()), "")
        return last.removeprefix("error: ") or f"ended with exit code {self.exit_code}"


class Jobs:
    """All jobs of a workspace folder. Thread-safe; several may share a workspace."""

    def __init__(
        self, workspace: Path, *, shipped: Iterable[Path] = (), grace_s: float = GRACE_S
    ) -> None:
        """`workspace` is made when the first job needs it; `grace_s`: see `GRACE_S`.

        `shipped` folders stand after the workspace's own, where no own one has their name.
        """
        self.workspace = Path(os.path.abspath(workspace))
        looks = [_outside(folder, JobState.SHIPPED) for folder in sorted(shipped)]
        self._shipped = {job.name: job for job in looks if job}
        self._grace_s = grace_s
        self._supervisors: dict[str, subprocess.Popen] = {}  # their pipes stay open with us
        self._lock = threading.Lock()

    def folder(self, name: str) -> Path:
        """Where the job `name` works. Raises ValueError for a name that is no plain one."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"name {name!r}: use up to 64 letters, digits, '-', '_' and '.', beginning "
                "with a letter or digit"
            )
        return self.workspace / name

    def get(self, name: str) -> Job:
        """A look at one job. Raises ValueError when there is none of this name."""
        job = self._look(self.folder(name)) or self._shipped.get(name)
        if job is None:
            raise ValueError(f"{name}: there is no such run in {self.workspace}")
        return job

    def all(self) -> list[Job]:
        """Every job of the workspace, the newest first, then the shipped ones."""
        own: list[Job] = []
        with contextlib.suppress(FileNotFoundError):
            names = filter(NAME.fullmatch, os.listdir(self.workspace))
            found = [self._glance(self.workspace / name) for name in names]
            own = sorted((j for j in found if j), key=lambda j: j.started or 0.0, reverse=True)
        taken = {job.name for job in own}
        return own + [job for name, job in self._shipped.items() if name not in taken]

    def launch(self, kind: str, name: str, argv: Sequence[str], values: Mapping[str, Any]) -> Job:
        """Start `argv` on the new folder `name`.

        Raises ValueError when the name is bad or taken, or the command cannot be started.
        """
        folder = self.folder(name)
        record = {"kind": kind, "argv": list(argv), "values": dict(values)}
        with self._lock:
            if folder.exists() and any(folder.iterdir()):
                raise ValueError(f"{name}: this folder exists already; choose another name")
            self._start(folder, record, [])
        return self.get(name)

    def resume(self, name: str, flags: Sequence[str] = ()) -> Job:
        """Start a job that has ended again: the same argv plus `flags`. Raises ValueError."""
        folder = self.folder(name)
        with self._lock:  # the record must not be older than what another resumes meanwhile
            record = read_record(folder)
            if record is None:
                raise ValueError(f"{name}: was not launched here; resume it on the command line")
            before = self._supervisors.get(name)
            if before and record.get("ended") is not None:
                before.wait()  # it has written its last and is about to let the lock go
            self._start(folder, record, list(flags))
        return self.get(name)

    def stop(self, name: str) -> None:
        """Ask a running job to end: SIGTERM, SIGKILL after the grace period. Returns at once.

        Raises ValueError when it does not run.
        """
        job = self.get(name)
        if job.state is not JobState.RUNNING:
            raise ValueError(f"{name}: does not run")
        own = self._supervisors.get(name)
        if own and own.poll() is None:
            own.send_signal(signal.SIGTERM)
            return
        record = read_record(job.folder)
        if (pid := record.get("supervisor")) is None:
            raise ValueError(f"{name}: is only just starting; stop it in a moment")
        with contextlib.suppress(ProcessLookupError):
            if start_time(pid) == record["supervisor_started"]:
                os.kill(pid, signal.SIGTERM)
            else:  # its supervisor was killed; the lock says that the command lives
                os.killpg(record["pid"], signal.SIGKILL)

    def _start(self, folder: Path, record: dict, flags: list[str]) -> None:
        running = [job.name for job in self.all() if job.state is JobState.RUNNING]
        if len(running) >= MAX_RUNNING:
            raise ValueError(f"{len(running)} jobs run already; stop one of them first")
        folder.mkdir(parents=True, exist_ok=True)
        lock_fd = _acquire(folder)
        try:
            fresh = {"flags": flags, "started": time.time(), "stopped": False}
            nobody = dict.fromkeys(("ended", "exit_code", "pid", "supervisor"))
            write_record(folder, record | fresh | nobody)
            self._supervisors[folder.name] = self._supervise(folder, lock_fd)
        finally:
            os.close(lock_fd)  # the supervisor and the command hold it on

    def _supervise(self, folder: Path, lock_fd: int) -> subprocess.Popen:
        """A supervisor that has started the command of the folder's record."""
        arguments = [str(folder), str(lock_fd), str(self._grace_s)]
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "studio.supervisor", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,  # ends with us, and so does the job
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is the studio's alone
            pass_fds=(lock_fd,),
        )
        supervisor.stdout.readline()  # "started", or end-of-file when that failed
        supervisor.stdout.close()
        return supervisor

    def _glance(self, folder: Path) -> Job | None:
        """A look for a list, which a folder that can't be read is no part of."""
        with contextlib.suppress(OSError):
            return self._look(folder) if folder.is_dir() else None
        return None

    def _look(self, folder: Path) -> Job | None:
        record = read_record(folder)
        if supervisor := self._supervisors.get(folder.name):
            supervisor.poll()  # leaves no zombie
        if record is None:
            return _outside(folder)
        running = record.get("ended") is None and is_held(folder / LOCK)
        if running is False and record.get("ended") is None:
            record = read_record(folder) or record  # it may have ended between the two looks
        return Job(
            folder=folder,
            state=JobState.RUNNING if running else _end_state(record),
            kind=record.get("kind", "train"),
            argv=tuple(record.get("argv", ())),
            flags=tuple(record.get("flags", ())),
            values=record.get("values", {}),
            started=record.get("started"),
            ended=record.get("ended"),
            exit_code=record.get("exit_code"),
            stopped=bool(record.get("stopped")),
        )


def _outside(folder: Path, state: JobState = JobState.OUTSIDE) -> Job | None:
    """A folder that the studio did not launch, told by what is in it."""
    for kind, name in WRITTEN.items():
        with contextlib.suppress(FileNotFoundError):
            changed = (folder / name).stat().st_mtime
            return Job(folder, state, kind, started=changed)
    return None


def _end_state(record: Mapping[str, Any]) -> JobState:
    if record.get("ended") is None:
        return JobState.LOST
    if record.get("stopped") and record.get("exit_code") in STOPPED_CODES:
        return JobState.STOPPED
    ends = {0: JobState.FINISHED, INCOMPLETE: JobState.INCOMPLETE}
    return ends.get(record.get("exit_code"), JobState.FAILED)


def _acquire(folder: Path) -> int:
    """The folder's lock, for a child to inherit. Raises ValueError when it is held already."""
    lock_fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + GLANCE_S
    while True:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock_fd
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(lock_fd)
                raise ValueError(f"{folder.name}: another run is writing this folder") from None
            time.sleep(GLANCE_S / 10)  # somebody may just be looking (`is_held`)


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a text file, without what carriage returns wrote over; [] if absent."""
    try:
        with file.open("rb") as handle:
            start = max(0, handle.seek(0, os.SEEK_END) - TAIL_BYTES)
            handle.seek(start)
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    rows = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    if start:
        del rows[0]  # the rest of a line
    if rows and not rows[-1]:
        del rows[-1]
    return rows[-lines:]


def read_rows(file: Path, since: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Rows of a JSONL file from the byte `since` on, and where the next look begins.

    A line in the making is left for the next look; one that is no JSON object is passed over.
    A file that has become shorter is read from its beginning.
    """
    try:
        with file.open("rb") as handle:
            if since > handle.seek(0, os.SEEK_END):
                since = 0
            handle.seek(since)
            data = handle.read()
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    return list(json_objects(whole.splitlines(keepends=True))), since + len(whole)


def json_objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects among whole lines; what is none is passed over, and a line cut off."""
    for line in lines:
        with contextlib.suppress(ValueError):
            # A NaN, which JSON does not know, is no value.
            row = json.loads(line, parse_constant=lambda name: None)
            if line.endswith(b"\n") and isinstance(row, dict):
                yield row
