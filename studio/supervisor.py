"""Watches over one job: `python -m studio.supervisor FOLDER LOCK_FD GRACE`, run by `studio.jobs`.

A process of its own, so that a job ends with the studio however the studio ends, SIGKILL included:
its standard input is a pipe whose other end only the studio holds, and end-of-file there means
that the studio is gone. (PR_SET_PDEATHSIG would fire as soon as the *thread* that started the job
ends, and would not reach the job's own workers.) The command leads a session of its own; its
whole group gets SIGTERM to stop, SIGKILL after the grace period, and leaves nobody behind.

Little but the standard library is imported: a supervisor starts at once and costs little.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from studio.places import ROOT

RECORD, LOG, LOCK = "job.json", "log.txt", ".job.lock"
NICENESS = 5  # below the studio, so that live scenes keep their pace


def read_record(folder: Path) -> dict | None:
    """job.json of a folder, or None when there is none that can be read."""
    try:
        text = (folder / RECORD).read_text()
        record = json.loads(text, parse_constant=lambda name: None)  # NaN is no value
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(folder: Path, record: dict) -> None:
    """Replace job.json as a whole."""
    fresh = folder / f".{RECORD}.tmp"
    fresh.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(fresh, folder / RECORD)


def start_time(pid: int) -> int | None:
    """When a process started (clock ticks since boot), or None; tells a reused pid from the old."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def supervise(folder: Path, lock_fd: int, grace_s: float) -> int:
    """Run the command of the folder's record to its end; returns its exit code.

    The command inherits the lock, which is thus held as long as either of the two lives.
    """
    record = read_record(folder)
    wake = _wake_on_signals()
    with (folder / LOG).open("ab") as log:
        try:
            command = subprocess.Popen(
                record["argv"] + record["flags"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock_fd,),
                preexec_fn=_give_way,  # this process has no other thread
            )
        except OSError as error:
            log.write(f"error: the command could not be started ({error})\n".encode())
            _note(folder, record | {"ended": time.time(), "exit_code": 127})
            return 127
    record |= {"pid": command.pid, "supervisor": os.getpid()}
    record["supervisor_started"] = start_time(os.getpid())
    _note(folder, record)
    with contextlib.suppress(OSError):
        print("started", flush=True)  # the studio waits for it
    stopped = not _ended(command, None, wake, sys.stdin.fileno())
    if stopped:
        _signal(command, signal.SIGTERM)
        _note(folder, record | {"stopped": True})
        _ended(command, grace_s)
    _signal(command, signal.SIGKILL)  # the command, if it still runs, and workers it left
    code = command.wait()
    _note(folder, record | {"stopped": stopped, "ended": time.time(), "exit_code": code})
    return code


def _note(folder: Path, record: dict) -> None:
    """`write_record`, but a full disk is no reason to leave the command alone."""
    with contextlib.suppress(OSError):
        write_record(folder, record)


def _give_way() -> None:
    """Lower the priority of this process, and of its session where Linux groups by session."""
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def _wake_on_signals() -> int:
    """A file descriptor that becomes readable at SIGTERM or SIGINT."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return read


def _ended(command: subprocess.Popen, timeout: float | None, *others: int) -> bool:
    """Wait for the command's end; False when one of `others` or the timeout came first."""
    ended = os.pidfd_open(command.pid)
    try:
        return ended in select.select([ended, *others], [], [], timeout)[0]
    finally:
        os.close(ended)


def _signal(command: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, number)


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
