"""Who runs the episodes of an evaluation, several at a time.

LocalFleet   a thread and a simulator process per worker, all planning with one policy, in batches
             on a GPU
RayFleet     the same on the machines of a Ray cluster, a policy and a simulator per worker

Both yield a row per trial as it ends, in no particular order. A simulator that dies is started
again and its episode once more; if that fails too the row is an error, never a failed episode.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from models.config import Precision, SamplerConfig
from models.policy import Policy
from models.types import View
from studio.batching import Batcher
from studio.helm import Controller
from studio.places import ROOT
from studio.provenance import provenance
from studio.recorder import Episode
from studio.results import episode_row, error_row
from studio.rollout import run_episode
from studio.sim.process import SimCrashed, SimError, SimProcess
from studio.trial import Trial

ATTEMPTS = 2  # of an episode whose simulator fails
POLL_S = 0.5  # between looks whether to stop

log = logging.getLogger(__name__)
Stop = Callable[[], bool]


class Worker:
    """One simulator and a policy to drive it; runs one trial at a time."""

    def __init__(
        self, policy: Controller, sampler: SamplerConfig, view: View, provenance: dict[str, Any]
    ) -> None:
        self.policy, self.sampler, self.view = policy, sampler, view
        self.provenance = provenance
        self._sim: SimProcess | None = None

    def run(self, trial: Trial, stop: Stop = lambda: False) -> dict[str, Any] | None:
        """The row of one episode; None when stopped while the policy was away."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                episode = self._episode(trial, stop)
                if episode.problem:  # plans are missing: it would count as a shorter one
                    return error_row(trial, episode.problem)
                return episode_row(trial, episode)
            except InterruptedError:
                return None
            except (SimError, SimCrashed) as error:
                message = str(error)
                log.warning("%s, attempt %d: %s", trial.scene, attempt, message)
                self.close()
        return error_row(trial, message)

    def _episode(self, trial: Trial, stop: Stop) -> Episode:
        self._sim = self._sim or SimProcess(self.view)
        return run_episode(
            self._sim,
            self.policy,
            trial.scene,
            perturbation=trial.perturbation,
            instruction=trial.instruction,
            sampler=self.sampler,
            provenance=self.provenance,
            stop=stop,
        )

    def close(self) -> None:
        """End the simulator; the next trial starts another."""
        if self._sim:
            self._sim.close()
        self._sim = None


class LocalFleet:
    """`workers` simulators on this machine.

    On a GPU their plans are made in batches. On a CPU each plans by itself, all at the same time: a
    batch of two takes as long there as two plans, and would make each episode's last digits depend
    on who else was there.
    """

    def __init__(self, policy: Policy, sampler: SamplerConfig, workers: int) -> None:
        self._policy, self._sampler, self._count = policy, sampler, workers
        self._own = threading.local()
        self._workers: list[Worker] = []

    def run(self, trials: Sequence[Trial], stop: Stop) -> Iterator[dict[str, Any]]:
        """A row per trial. After `stop()` the episodes under way end, and no other begins."""
        waiting = iter(trials)
        cpu = str(self._policy.device) == "cpu"
        batcher = None if cpu else Batcher(self._policy, self._count)
        with ThreadPoolExecutor(self._count) as pool:
            running: set[Future] = set()
            try:
                while True:
                    while not stop() and len(running) < self._count and (t := next(waiting, None)):
                        running.add(pool.submit(self._run, batcher, t, stop))
                    if not running:
                        return
                    done, running = wait(running, POLL_S, FIRST_COMPLETED)
                    if broken := next((f for f in done if f.exception()), None):
                        ended = done | wait(running).done  # nothing that was finished is lost
                        yield from filter(None, (f.result() for f in ended if not f.exception()))
                        raise broken.exception()
                    yield from filter(None, (future.result() for future in done))
            finally:
                pool.shutdown(cancel_futures=True)
                if batcher:
                    batcher.close()
                for worker in self._workers:
                    worker.close()

    def _run(self, batcher: Batcher | None, trial: Trial, stop: Stop) -> dict[str, Any] | None:
        if not hasattr(self._own, "worker"):
            policy = self._policy
            self._own.worker = Worker(
                batcher or policy.beside(),
                self._sampler,
                policy.checkpoint.view,
                provenance(policy),
            )
            self._workers.append(self._own.worker)
        return self._own.worker.run(trial, stop)


class RayFleet:
    """Workers on a Ray cluster, as many as it has cores unless told.

    The checkpoint's folder must be at the same path everywhere.

    Raises ValueError when Ray is not installed or the cluster can't be reached.
    """

    def __init__(
        self,
        address: str | None,
        checkpoint: Path,
        device: str,
        sampler: SamplerConfig,
        workers: int | None,
        precision: Precision = "float32",
    ) -> None:
        try:
            import ray
        except ImportError:
            raise ValueError("--ray needs the package ray: pip install ray") from None
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
        except Exception as error:  # Ray raises it bare when a machine of its own does not start
            raise ValueError(f"--ray {address or 'local'}: no cluster there ({error})") from None
        self._ray, cluster = ray, ray.cluster_resources()
        workers = workers or max(1, int(cluster.get("CPU", 1)))
        gpus = 0 if device == "cpu" else int(cluster.get("GPU", 0))
        share = 1 / math.ceil(workers / gpus) if gpus else 0  # of one; Ray hides what isn't asked
        remote = ray.remote(num_cpus=1, num_gpus=share, max_restarts=-1)(_RayWorker)
        self._make = lambda: remote.remote(str(checkpoint.resolve()), device, sampler, precision)
        self._count = workers

    def run(self, trials: Sequence[Trial], stop: Stop) -> Iterator[dict[str, Any]]:
        """As `LocalFleet.run`; a machine that is lost gives its episode to another worker."""
        ray, waiting = self._ray, list(reversed(trials))
        idle = [self._make() for _ in range(min(self._count, len(trials)))]
        running: dict[Any, tuple[Any, Trial]] = {}
        attempts: dict[str, int] = {}
        try:
            while running or (waiting and not stop()):
                while idle and waiting and not stop():
                    worker, trial = idle.pop(), waiting.pop()
                    attempts[trial.key] = attempts.get(trial.key, 0) + 1
                    running[worker.run.remote(trial)] = worker, trial
                for ready in ray.wait(list(running), timeout=POLL_S)[0]:
                    worker, trial = running.pop(ready)
                    idle.append(worker)
                    try:
                        yield ray.get(ready)
                    except ray.exceptions.RayError as error:
                        idle[-1] = self._make()
                        if attempts[trial.key] < ATTEMPTS:
                            waiting.append(trial)
                        else:
                            yield error_row(trial, f"worker lost: {error}".splitlines()[0])
        finally:
            ray.shutdown()


class _RayWorker:
    """A `Worker` with a policy of its own, in a process of the cluster."""

    def __init__(
        self, checkpoint: str, device: str, sampler: SamplerConfig, precision: Precision
    ) -> None:
        policy = Policy.from_pretrained(checkpoint, device, precision)
        self._worker = Worker(policy, sampler, policy.checkpoint.view, provenance(policy))

    def run(self, trial: Trial) -> dict[str, Any]:
        return self._worker.run(trial)
