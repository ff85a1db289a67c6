"""Policy: Observation -> Plan, with a checkpoint's weights, scales and calibration.

EnergyPolicy     plans by descent on an energy
DenoisingPolicy  plans by taking noise away; it has no energy to ask about
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.action_head import BoundHead, Context
from models.captured import CapturedDescents
from models.checkpoint import Calibration, Checkpoint, CheckpointInfo, load_checkpoint
from models.config import ModelConfig, Precision, SamplerConfig
from models.contexts import summary
from models.denoising_head import denoise
from models.landscape import slice_2d
from models.mcmc import Descent, descend, draw_noise, evaluate_energies, heed
from models.normalize import Scaled, Statistics
from models.packed import pack
from models.text import build_text
from models.types import CAMERAS, DescentTrace, LandscapeSlice, Observation, Plan

FAR = 1e6  # standard deviations of a state or an action: no robot is there, and sums overflow
# On a CPU fewer chains of a smaller model are so little work that splitting it costs more than it
# saves.
MANY_CHAINS, LARGE = 4, 20_000_000


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is the CUDA GPU if there is one. Raises ValueError for a device that can't be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} can't be used ({reason}); try 'auto' or 'cpu'") from None
    return torch.device(name)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Intra-op threads of the calling thread for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Refined:
    """How one chunk came about: `final` float32 [H, D], normalised, of chain `chain`."""

    final: np.ndarray
    trace: DescentTrace | None = None
    chain: int = 0
    energy_gap: float | None = None


class Policy(Scaled):
    """A loaded checkpoint that plans. Safe to share between threads: one lock guards the model."""

    def __init__(
        self, checkpoint: Checkpoint, device: str = "auto", precision: Precision = "float32"
    ) -> None:
        self.device = choose_device(device)
        self.config: ModelConfig = checkpoint.model.config
        self.checkpoint: CheckpointInfo = checkpoint.info
        self.calibration: Calibration | None = checkpoint.calibration
        self.precision: Precision = precision
        checkpoint.model.backbone.merge_adapters()
        model = checkpoint.model.to_precision(getattr(torch, precision))
        self._model = model.to(self.device).eval().requires_grad_(False)
        self._large = sum(weight.numel() for weight in model.parameters()) >= LARGE
        # Landscapes ask for energies next to each other, whose differences bfloat16 would drown.
        head, rounded = self._model.head, precision != "float32" and self.config.head == "energy"
        self._exact_head = copy.deepcopy(head).float() if rounded else head
        if self.device.type == "cpu":
            pack(self._model.head)
            pack(self._exact_head)
        self.statistics: Statistics = checkpoint.statistics
        known = checkpoint.contexts
        self._contexts = known and known.to(self.device)
        self._text = build_text(self.config.text, Path(checkpoint.info.path))
        self._descents = CapturedDescents()
        self._lock = threading.Lock()
        self._looked_into: tuple[Observation, BoundHead] | None = None

    @staticmethod
    def from_pretrained(
        path: str | Path, device: str = "auto", precision: Precision = "float32"
    ) -> Policy:
        """The policy in a checkpoint folder. Raises CheckpointError when it cannot be used.

        `precision` is that of `EBVLA.to_precision`: bfloat16 halves memory and time on a GPU.
        """
        checkpoint = load_checkpoint(path)
        kind = EnergyPolicy if checkpoint.model.config.head == "energy" else DenoisingPolicy
        return kind(checkpoint, device, precision)

    def beside(self) -> Self:
        """The same weights for another thread that shall not wait for this one's plans.

        On a CPU that is worth it; a GPU does one thing at a time, and batches are made for it.
        """
        other = copy.copy(self)
        other._descents = CapturedDescents()
        other._lock = threading.Lock()
        other._looked_into = None
        return other

    def plan(self, obs: Observation, sampler: SamplerConfig | None = None, seed: int = 0) -> Plan:
        """One chunk from one observation; the same seed gives the same plan.

        Raises ValueError for an observation that the model cannot read.
        """
        return self.plan_batch([obs], sampler or SamplerConfig(), [seed])[0]

    def plan_batch(
        self,
        observations: Sequence[Observation],
        sampler: SamplerConfig,
        seeds: Sequence[int],
        stop: Callable[[], bool] | None = None,
    ) -> list[Plan]:
        """A chunk for each observation, encoded and refined together, one seed each.

        `latency_s` of each plan is the time of the whole batch.
        Raises ValueError as `check`, InterruptedError once `stop()` is true.
        """
        started = time.perf_counter()
        few = len(observations) * sampler.chains < MANY_CHAINS and not self._large
        with self._lock, _threads(1 if few else torch.get_num_threads()), torch.no_grad():
            heed(stop)
            context = self._encode(observations)
            trained = self.checkpoint.training.readout
            readout = self._model.read_out(context) if trained else None
            found = self._refine(self._model.head.bind(context), readout, sampler, seeds, stop)
            away = self._contexts and self._contexts.distance(summary(context)).cpu().numpy()
            readout = None if readout is None else readout.cpu().numpy()
        latency = time.perf_counter() - started
        return [
            Plan(
                actions=self.denormalize(refined.final).clip(-1, 1),
                trace=refined.trace,
                chain=refined.chain,
                sampler=sampler,
                seed=seed,
                observation=obs,
                latency_s=latency,
                readout=None if readout is None else readout[row],
                energy_gap=refined.energy_gap,
                context_distance=None if away is None else float(away[row]),
            )
            for row, (obs, refined, seed) in enumerate(zip(observations, found, seeds, strict=True))
        ]

    def _refine(
        self,
        head: BoundHead,
        readout: Tensor | None,
        sampler: SamplerConfig,
        seeds: Sequence[int],
        stop: Callable[[], bool] | None,
    ) -> list[Refined]:
        """A chunk for each context of `head`; `readout` is [B, H, D], None if untrained."""
        raise NotImplementedError

    def explore(
        self,
        obs: Observation,
        sampler: SamplerConfig,
        seed: int = 0,
        stop: Callable[[], bool] | None = None,
    ) -> DescentTrace:
        """The descent of a plan alone, beside running scenes: the chains that `plan` would have.

        This and the two below raise ValueError for a head that has no energy, and InterruptedError
        once `stop()` is true.
        """
        noise = self._noise(sampler, [seed])
        return _trace(descend(self._bind(obs), *noise, sampler, stop), 0)

    def energies(
        self, obs: Observation, actions: np.ndarray, stop: Callable[[], bool] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """E [N] and e_t [N, H] of normalised chunks [N, H, D]. Raises ValueError on their shape."""
        expected = (self.config.horizon, self.config.action_dim)
        if actions.ndim != 3 or actions.shape[1:] != expected:
            raise ValueError(f"actions must have shape [N, {expected[0]}, {expected[1]}]")
        if not (np.abs(actions) < FAR).all():
            raise ValueError(f"actions must be finite and below {FAR:g}")
        points = torch.from_numpy(np.ascontiguousarray(actions, dtype=np.float32))
        found = evaluate_energies(self._bind(obs), points.unsqueeze(0).to(self.device), stop)
        per_step = found[0].cpu().numpy()
        return per_step.mean(-1), per_step

    def slice_2d(
        self,
        obs: Observation,
        centre: np.ndarray,
        timestep: int = 0,
        dims: tuple[int, int] = (0, 1),
        span: float | tuple[float, float] = 1.0,
        grid: int = 50,
        stop: Callable[[], bool] | None = None,
    ) -> LandscapeSlice:
        """E around `centre` [H, D] (normalised): `span` each way along dims, `grid`² points.

        Raises ValueError for numbers out of range (`models.landscape`).
        """
        if centre.shape != (self.config.horizon, self.config.action_dim):
            raise ValueError(f"landscape: centre has shape {centre.shape}, expected one chunk")
        if not (np.abs(centre) < FAR).all():
            raise ValueError(f"landscape: the centre must be finite and below {FAR:g}")
        energy = self._bind(obs)
        return slice_2d(energy, centre, timestep, dims, span, grid, self.device, stop)

    def summarize(self, observations: Sequence[Observation]) -> np.ndarray:
        """What context statistics are fitted to, float32 [B, D] (`models.contexts.summary`)."""
        with self._lock:
            return summary(self._encode(observations)).cpu().numpy()

    def _noise(self, sampler: SamplerConfig, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """`draw_noise` of chunks, on the device."""
        shape = (self.config.horizon, self.config.action_dim)
        initial, langevin = draw_noise(sampler, shape, seeds)
        return initial.to(self.device), langevin.to(self.device)

    def _bind(self, obs: Observation) -> BoundHead:
        """E(·, C) of one observation, in float32; that of the last one asked for is kept.

        To be evaluated without the lock, so that plans of running scenes go on meanwhile.
        Raises ValueError for a head that has no energy.
        """
        if self.config.head != "energy":
            raise ValueError(f"a {self.config.head} head has no energy; choose another checkpoint")
        with self._lock:
            if self._looked_into is None or not self._looked_into[0].same(obs):
                with torch.no_grad():
                    bound = self._exact_head.bind(self._encode([obs]).float())
                    self._looked_into = obs, bound
            return self._looked_into[1]

    def check(self, obs: Observation) -> None:
        """Raises ValueError for an observation that the model cannot read."""
        _views(obs)
        self._state(obs)

    def _state(self, obs: Observation) -> np.ndarray:
        """The standardised proprio, float32 [proprio_dim]. Raises ValueError if it does not fit."""
        proprio = np.asarray(obs.proprio, dtype=np.float32)
        fits = proprio.shape == (self.config.proprio_dim,)
        with np.errstate(over="ignore", invalid="ignore"):
            state = self.statistics.standardize(proprio) if fits else proprio
        if not fits or not (np.abs(state) < FAR).all():
            raise ValueError(
                f"observation: proprio must be {self.config.proprio_dim} finite numbers"
            )
        return state

    @torch.no_grad()
    def _encode(self, observations: Sequence[Observation]) -> Context:
        images = torch.from_numpy(np.stack([_views(obs) for obs in observations]))
        state = np.stack([self._state(obs) for obs in observations])
        text, mask = self._text([obs.instruction for obs in observations])
        return self._model.backbone(
            images.to(self.device),
            torch.from_numpy(state).to(self.device),
            text.to(self.device),
            None if mask is None else mask.to(self.device),
        )


class EnergyPolicy(Policy):
    """Plans by MCMC on E(a, C) (EB-VLA §II-C); the chain of lowest final energy is the plan."""

    def _refine(
        self,
        head: BoundHead,
        readout: Tensor | None,
        sampler: SamplerConfig,
        seeds: Sequence[int],
        stop: Callable[[], bool] | None,
    ) -> list[Refined]:
        descent = self._descents(head, *self._noise(sampler, seeds), sampler, stop)
        traces = [_trace(descent, row) for row in range(len(seeds))]
        chains = [int(np.argmin(trace.energies[-1])) for trace in traces]
        gaps: list[float | None] = [None] * len(seeds)
        if readout is not None:
            of_readout = evaluate_energies(head, readout.unsqueeze(1)).mean((1, 2)).tolist()
            gaps = [
                energy - float(trace.energies[-1, chain])
                for energy, trace, chain in zip(of_readout, traces, chains, strict=True)
            ]
        return [
            Refined(trace.actions[-1, chain], trace, chain, gap)
            for trace, chain, gap in zip(traces, chains, gaps, strict=True)
        ]


class DenoisingPolicy(Policy):
    """Plans by diffusion or flow: K evaluations of the head, from noise of σ_init; one chain."""

    def _refine(
        self,
        head: BoundHead,
        readout: Tensor | None,
        sampler: SamplerConfig,
        seeds: Sequence[int],
        stop: Callable[[], bool] | None,
    ) -> list[Refined]:
        noise, _ = self._noise(replace(sampler, chains=1), seeds)
        final = denoise(head, self._model.head.process, noise, sampler.steps, stop)
        return [Refined(chunk) for chunk in final[:, 0].cpu().numpy()]


def _views(obs: Observation) -> np.ndarray:
    """uint8 [views, S, S, 3] in the order of `CAMERAS`. Raises ValueError if one does not fit."""
    missing = [name for name in CAMERAS if name not in obs.images]
    if missing:
        raise ValueError(f"observation: no image of camera {missing[0]}")
    views = [np.asarray(obs.images[name]) for name in CAMERAS]
    for name, view in zip(CAMERAS, views, strict=True):
        if view.dtype != np.uint8 or view.ndim != 3 or view.shape[0] != view.shape[1]:
            raise ValueError(f"observation: {name} must be square uint8 RGB, not {view.shape}")
    if len({view.shape for view in views}) > 1 or views[0].shape[2] != 3:
        raise ValueError("observation: the cameras' images must be RGB of one size")
    return np.stack(views)


def _trace(descent: Descent, row: int) -> DescentTrace:
    """One observation's descent as NumPy arrays."""

    updates = int(descent.updates[row])

    def array(values: Tensor, count: int) -> np.ndarray:
        return values[:count, row].cpu().numpy()

    per_step = array(descent.timestep_energies, updates + 1)
    return DescentTrace(
        actions=array(descent.actions, updates + 1),
        energies=per_step.mean(-1),
        timestep_energies=per_step,
        grad_norms=array(descent.grad_norms, updates),
        step_sizes=array(descent.step_sizes, updates),
    )
