"""`python -m studio.serve` as a process: it ends well whatever its clients have left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import msgpack

from tests.helpers import ROOT, free_port, wait_for
from tests.unit.protocol_client import Client, element, get, to_map


def test_it_ends_amid_a_plan_that_nobody_waits_for():
    port = free_port()
    command = [sys.executable, "-m", "studio.serve", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert "ws://" in process.stdout.readline()
            leaving = Client(port)
            heavy = {"sampler": {"steps": 100, "chains": 64}}
            leaving.socket.send(msgpack.packb(element() | {"eb_vla": heavy}, default=to_map))
            wait_for(lambda: "eb_vla_batch_size_count 1.0" in get(port, "/metrics"))
            time.sleep(1)  # of the many that it takes
            assert "eb_vla_plans_total 0.0" in get(port, "/metrics")
            leaving.socket.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert "terminate called" not in process.stderr.read()
        finally:
            process.kill()
