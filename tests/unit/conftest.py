"""A point mass with the simulator's interface: the loop's state machine needs no physics.

And a policy server whose policy waits until it may plan.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.checkpoint import load_checkpoint
from models.config import SamplerConfig
from models.policy import EnergyPolicy
from models.types import DescentTrace, Observation, Plan
from studio.events import CameraPerturbation, LightPerturbation, SceneSpec
from studio.loop import ControlLoop
from studio.serving import PolicyServer, ServerThread
from studio.sim.process import SimCrashed
from tests.unit.protocol_client import Client

# Models of this size are faster on one thread, and a busy machine's threads wait for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: writes fail as on a full disk, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass
class PointMass:
    """Moves by its action; succeeds beyond `goal` on the x axis."""

    goal: float = 1e9
    max_steps: int = 40
    start: float = 0.0  # on the x axis
    x: np.ndarray = field(default_factory=lambda: np.zeros(8, np.float32))
    camera: CameraPerturbation = field(default_factory=CameraPerturbation)
    light: LightPerturbation = field(default_factory=LightPerturbation)
    crash_at: int | None = None
    steps: int = 0
    restarts: int = 0
    alive: bool = True

    def load(self, scene: SceneSpec):
        if not self.alive:
            raise SimCrashed("gone")
        if scene.init >= 50:
            raise ValueError("init 50: this task has the initial states 0-49")
        self.x = np.zeros(8, np.float32)
        self.x[0] = self.start
        self.steps, home = 0, (0.0, 0.0, 0.0)
        words = "reach the goal"
        return SimpleNamespace(instruction=words, max_steps=self.max_steps, n_inits=50, home=home)

    def step(self, action, frames=False):
        self.steps += 1
        if self.steps == self.crash_at:
            self.alive = False
            raise SimCrashed("killed")
        self.x[:7] += action
        jpegs = self.frames() if frames else None
        return SimpleNamespace(
            success=bool(self.x[0] > self.goal), proprio=self.x.copy(), jpegs=jpegs
        )

    def ask(self, instruction):
        return {"reach the goal": 0, "reach the other goal": 3}.get(instruction)

    def restart(self):
        self.alive, self.crash_at = True, None
        self.restarts += 1

    def frames(self):
        return {"agentview": b"a", "wrist": b"w"}

    def observe(self, instruction, noted=True):
        image = np.full((16, 16, 3), 90, np.uint8)
        return Observation({"agentview": image, "wrist": image}, self.x.copy(), instruction)

    def proprio(self):
        return self.x.copy()

    def set_camera(self, camera):
        self.camera = camera

    def set_light(self, light):
        self.light = light

    def camera_pose(self):
        return np.zeros(3), np.eye(3)

    nominal_camera_pose = camera_pose

    def versions(self):
        return {"point mass": "1"}

    def close(self):
        self.alive = False


class Drifter:
    """A controller that plans eight equal steps to the right; its energies tell plans apart."""

    def __init__(self):
        self.seeds: list[int] = []
        self.instructions: list[str] = []
        self.samplers: list[SamplerConfig] = []

    def plan(self, obs, sampler, seed):
        self.seeds.append(seed)
        self.instructions.append(obs.instruction)
        self.samplers.append(sampler)
        k, n, h, d = sampler.steps, sampler.chains, 8, 7
        energies = np.linspace(9, 5 + len(self.seeds) / 10, k + 1, dtype=np.float32)
        trace = DescentTrace(
            actions=np.zeros((k + 1, n, h, d), np.float32),
            energies=np.repeat(energies[:, None], n, 1),
            timestep_energies=np.repeat(energies[:, None], n * h, 1).reshape(k + 1, n, h),
            grad_norms=np.ones((k, n), np.float32),
            step_sizes=np.ones((k, n, h), np.float32),
        )
        actions = np.zeros((h, d), np.float32)
        actions[:, 0] = 0.1
        return Plan(actions, trace, 0, sampler, seed, obs, latency_s=0.01)


class Listener:
    """Remembers everything that it is told."""

    def __init__(self):
        self.heard: list[tuple[str, tuple]] = []

    def __getattr__(self, name):
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args: self.heard.append((name, args))

    def of(self, name):
        return [args for heard, args in self.heard if heard == name]


@pytest.fixture
def point_mass():
    return PointMass()


@pytest.fixture
def drifter():
    return Drifter()


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def loop(point_mass, drifter, listener):
    return ControlLoop(point_mass, drifter, [listener], hz=0)


class Gated(EnergyPolicy):
    """Waits for its gate before each batch, and remembers how many were planned together."""

    def plan_batch(self, observations, sampler, seeds, stop=None):
        self.sizes.append(len(observations))
        self.entered.set()
        assert self.gate.wait(120)
        return super().plan_batch(observations, sampler, seeds, stop)


@pytest.fixture(scope="module")
def policy(debug_checkpoint):
    policy = Gated(load_checkpoint(debug_checkpoint), device="cpu")
    policy.gate, policy.entered, policy.sizes = threading.Event(), threading.Event(), []
    policy.gate.set()
    return policy


@pytest.fixture(scope="module")
def port(policy):
    server = ServerThread(PolicyServer(policy), "127.0.0.1", 0)
    yield server.port
    server.stop()


@pytest.fixture
def client(port):
    client = Client(port)
    yield client
    client.socket.close()
