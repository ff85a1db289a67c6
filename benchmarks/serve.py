"""Plans of a policy server for 1, 4 and 16 clients at a time: `python -m benchmarks.serve`

Starts `studio.serve` (or asks the one at `--url`) and lets each client, a thread here, plan one
observation after the other, as a control loop does that never waits. Prints plans per second over
all clients, the median and the 99th percentile of the round trip; first of all, the same plan in
this process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from models.policy import Policy
from models.types import CAMERAS, Observation
from studio.places import CHECKPOINT
from studio.remote import RemotePolicy


def observation(seed: int) -> Observation:
    """Random pixels of the size that a scene shows to a policy."""
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 255, (128, 128, 3), dtype=np.uint8) for name in CAMERAS}
    return Observation(images, np.zeros(8, np.float32), "pick up the milk")


@contextmanager
def serving(checkpoint: Path) -> Iterator[str]:
    """The address of a server of its own."""
    command = [sys.executable, "-m", "studio.serve", "--port", "0", "--checkpoint", str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def row(name: str, plan: Callable[[Observation], object], clients: int, seconds: float) -> str:
    """A row of the table: `clients` threads that begin a plan until `seconds` are over."""
    times: list[list[float]] = [[] for _ in range(clients)]
    together = threading.Barrier(clients + 1)

    def work(index: int) -> None:
        obs = observation(index)
        try:
            plan(obs)
        except BaseException:
            together.abort()  # nobody waits for this one
            raise
        together.wait()
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            plan(obs)
            times[index].append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    together.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    took, every = time.perf_counter() - began, np.concatenate(times)
    p50, p99 = 1e3 * np.quantile(every, [0.5, 0.99])
    return f"| {name} | {len(every) / took:.1f} | {p50:.0f} ms | {p99:.0f} ms |"


def main() -> None:
    """Run and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    p.add_argument("--url", help="of a server that runs already")
    p.add_argument("--seconds", type=float, default=10)
    args = p.parse_args()
    print("| clients | plans/s | p50 | p99 |\n|---|---|---|---|")
    local = Policy.from_pretrained(args.checkpoint)
    print(row("in this process", local.plan, 1, args.seconds), flush=True)
    with serving(args.checkpoint) if not args.url else nullcontext(args.url) as url:
        remote = RemotePolicy(url)
        for clients in (1, 4, 16):
            print(row(str(clients), remote.plan, clients, args.seconds), flush=True)


if __name__ == "__main__":
    main()
