"""The training loop of EB-VLA: schedules, averaged weights, exact resume, metrics, checkpoints.

TrainConfig   every number of a run
Schedule      progress -> learning rate, stage, K_train and α of a step
Trainer       data + model + optimiser; `run()` until the schedule ends

Chance of step s is a function of (seed, s) alone: batch, augmentation, noise, K and α. A resumed
run therefore continues exactly as the uninterrupted one would have.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.augment import augment
from models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from models.config import ModelConfig, SamplerConfig
from models.data import Demonstrations
from models.losses import Batch, Draw, training_loss
from models.mcmc import descend
from models.model import EBVLA
from models.normalize import Statistics
from models.text import build_text

STATE = "trainer_state.pt"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Numbers of a run; α, K and the sampler default to the paper's (Table V).

    The run ends after `steps` optimiser steps or `minutes` of training, whichever comes first;
    the schedules follow max(step/steps, elapsed/minutes), so a run always ends annealed.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 32
    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup_steps: int = 200
    grad_clip: float = 1.0
    ema: float = 0.998
    k_min: int = 8
    k_max: int = 15
    alpha_min: float = 0.05
    alpha_max: float = 0.4
    warm_fraction: float = 0.6  # of the run with fewer MCMC steps, before the paper's own range
    warm_k_min: int = 3
    warm_k_max: int = 6
    chains_per_sample: int = 1
    val_fraction: float = 0.05
    val_every: int = 300
    log_every: int = 20
    seed: int = 0
    precision: str = "bfloat16"  # of all but the last MCMC step, which is float32
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        if not self.steps and not self.minutes:
            raise ValueError("training: give --steps or --minutes, or both")
        for low, high in (
            (self.k_min, self.k_max),
            (self.warm_k_min, self.warm_k_max),
            (self.alpha_min, self.alpha_max),
        ):
            if not 0 < low <= high:
                raise ValueError(f"training: the range [{low}, {high}] is empty or not positive")


@dataclass(frozen=True, slots=True)
class Schedule:
    """What depends on how far the run is."""

    config: TrainConfig

    def progress(self, step: int, elapsed: float) -> float:
        """Fraction of the run that is done, by steps or by seconds, whichever is further."""
        by_steps = step / self.config.steps if self.config.steps else 0.0
        by_time = elapsed / (60 * self.config.minutes) if self.config.minutes else 0.0
        return max(by_steps, by_time)

    def learning_rate(self, step: int, progress: float) -> float:
        """Linear warm-up over `warmup_steps`, then cosine to 1% of the peak."""
        warm = min(1.0, (step + 1) / self.config.warmup_steps)
        return (
            self.config.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, progress))))
        )

    def draw(self, progress: float, rng: np.random.Generator) -> Draw:
        """K_train and α of one step; few MCMC steps first, the paper's range to the end."""
        c = self.config
        warm = progress < c.warm_fraction
        low, high = (c.warm_k_min, c.warm_k_max) if warm else (c.k_min, c.k_max)
        return Draw(
            steps=int(rng.integers(low, high + 1)),
            step_size=float(rng.uniform(c.alpha_min, c.alpha_max)),
            chains=c.chains_per_sample,
        )


class Trainer:
    """One run into the folder `out`: metrics.jsonl, last/, best/ and the trainer's state."""

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        data: Demonstrations,
        out: Path,
        device: str = "cpu",
        pixels: str = "fast",
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data, self.out, self.device = config, data, Path(out), device
        self.pixels = pixels
        self.schedule = Schedule(config)
        self.train_rows, self.val_rows = data.split(config.val_fraction)
        self.statistics = Statistics.fit(
            data.actions[self.train_rows].reshape(-1, model_config.action_dim),
            data.proprio[self.train_rows],
        )
        self.text, self.text_mask = build_text(model_config.text)(data.instructions)
        self.model = EBVLA(model_config).to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = self._optimizer()
        self.step, self.elapsed, self.best = 0, 0.0, math.inf
        self.out.mkdir(parents=True, exist_ok=True)

    def _optimizer(self) -> torch.optim.AdamW:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in trained if p.ndim > 1],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=(0.9, 0.98), fused=True)

    # -- running -------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the schedule ends; validates and saves every `val_every` steps and last."""
        started, before = time.monotonic(), self.elapsed
        window: list[dict[str, float]] = []
        window_start, window_step = started, self.step
        while (progress := self.schedule.progress(self.step, self.elapsed)) < 1:
            window.append(self.train_step(progress))
            now = time.monotonic()
            self.elapsed = before + now - started
            if self.step % self.config.log_every == 0:
                rate = (self.step - window_step) * self.config.batch_size / (now - window_start)
                self._log(window, progress, rate)
                window, window_start, window_step = [], now, self.step
            if self.step % self.config.val_every == 0:
                self.save()
                window_start, window_step = time.monotonic(), self.step
        self.save()

    def train_step(self, progress: float) -> dict[str, float]:
        """One optimiser step; returns its losses."""
        rng = np.random.default_rng([self.config.seed, self.step])
        lr = self.schedule.learning_rate(self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        draw = self.schedule.draw(progress, rng)
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        batch = self._batch(self._rows(), torch.Generator().manual_seed(int(rng.integers(2**62))))
        loss, parts = training_loss(
            self.model, batch, draw, self.config.sampler, generator, self.config.precision
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return {"loss": loss.item(), **parts, "lr": lr, "grad_norm": float(norm)}

    def _rows(self) -> np.ndarray:
        """Samples of this step: epochs are permutations seeded by their number."""
        n, size = len(self.train_rows), self.config.batch_size
        positions = np.arange(self.step * size, (self.step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // n):
            order = np.random.default_rng([self.config.seed, 1, epoch]).permutation(n)
            mine = positions // n == epoch
            rows[mine] = self.train_rows[order[positions[mine] % n]]
        return rows

    def _batch(self, rows: np.ndarray, generator: torch.Generator | None) -> Batch:
        """Samples as tensors on the device, augmented if a generator is given."""
        images = torch.from_numpy(self.data.images[rows])
        if generator is not None:
            images = augment(images, generator)
        task = torch.from_numpy(self.data.task[rows])
        mask = None if self.text_mask is None else self.text_mask[task].to(self.device)
        return Batch(
            images=images.to(self.device),
            proprio=self._tensor(self.statistics.standardize(self.data.proprio[rows])),
            text=self.text[task].to(self.device),
            text_mask=mask,
            actions=self._tensor(self.statistics.normalize(self.data.actions[rows])),
        )

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        own, averaged = list(self.model.parameters()), list(self.average.parameters())
        torch._foreach_lerp_(averaged, own, 1 - decay)

    # -- measuring and saving ------------------------------------------------------------------

    def validate(self, limit: int = 256) -> dict[str, float]:
        """Held-out L1 of a^(K_inf) and the read-out of averaged weights, on <= `limit` samples."""
        rows = self.val_rows[:: max(1, len(self.val_rows) // limit)][:limit]
        if not len(rows):
            return {}
        totals = np.zeros(3)
        for part in np.array_split(rows, math.ceil(len(rows) / 64)):
            totals += len(part) * np.array(self._validate_batch(self._batch(part, None)))
        l1, readout_l1, energy = (totals / len(rows)).tolist()
        return {"val_l1": l1, "val_readout_l1": readout_l1, "val_energy": energy}

    def _validate_batch(self, batch: Batch) -> tuple[float, float, float]:
        """L1, read-out L1 and final energy, means over the batch."""
        model, sampler = self.average, self.config.sampler
        with torch.no_grad():
            context = model.backbone(batch.images, batch.proprio, batch.text, batch.text_mask)
            readout, energy = model.read_out(context), model.head.bind(context)
        target = batch.actions.unsqueeze(1)
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
        out = descend(energy, sampler.init_std * noise.to(self.device), None, sampler)
        return (
            (out.actions[-1] - target).abs().mean().item(),
            (readout - batch.actions).abs().mean().item(),
            out.timestep_energies[-1].mean().item(),
        )

    def save(self) -> None:
        """Validate, then write last/, best/ (if it is) and the state to resume from."""
        scores = self.validate()
        self._append({"step": self.step, "elapsed_s": round(self.elapsed, 1), **scores})
        record = TrainingRecord(
            suites=self.data.suites,
            instructions=self.data.instructions,
            samples=len(self.train_rows),
            train_steps=self.step,
            train_minutes=round(self.elapsed / 60, 1),
            pixels=self.pixels,
            val_l1=scores.get("val_l1"),
            readout_l1=scores.get("val_readout_l1"),
        )
        save_checkpoint(self.out / "last", self.average, self.statistics, record)
        if (score := scores.get("val_l1", -self.step)) <= self.best:
            self.best = score
            save_checkpoint(self.out / "best", self.average, self.statistics, record)
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "architecture": json.dumps(asdict(self.model.config)),
        }
        fresh = self.out / f".{STATE}.tmp"
        torch.save(state, fresh)
        os.replace(fresh, self.out / STATE)

    def start_from(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint folder; the normalisation stays this data's own.

        Raises ValueError when it is of another architecture, or what `load_checkpoint` raises.
        """
        source = load_checkpoint(checkpoint).model
        if source.config != self.model.config:
            raise ValueError(f"{checkpoint}: another architecture than {self.model.config.preset}")
        self.model.load_state_dict(source.state_dict())
        self.average.load_state_dict(source.state_dict())

    def resume(self) -> None:
        """Continue from the saved state. Raises ValueError when it is missing or does not fit."""
        file = self.out / STATE
        if not file.is_file():
            raise ValueError(f"{file}: nothing to resume; start without --resume")
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
            raise ValueError(f"{file}: truncated or not a trainer's state") from None
        if json.loads(state["architecture"]) != json.loads(json.dumps(asdict(self.model.config))):
            raise ValueError(
                f"{file}: belongs to another model; choose its preset or another --out"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]

    def _log(self, window: list[dict[str, float]], progress: float, rate: float) -> None:
        means = {key: round(float(np.mean([w[key] for w in window])), 6) for key in window[0]}
        eta = self.elapsed * (1 - progress) / max(progress, 1e-9)
        line = {
            "step": self.step,
            **means,
            "samples_per_s": round(rate, 2),
            "elapsed_s": round(self.elapsed, 1),
            "eta_s": round(eta, 1),
            "progress": round(progress, 4),
        }
        self._append(line)
        print(
            f"step {self.step:6d}  l1 {means['l1']:.4f}  read-out {means['readout_l1']:.4f}  "
            f"gap {means['energy_gap']:+.3f}  {rate:.1f} samples/s  {eta / 60:.1f} min left",
            flush=True,
        )

    def _append(self, line: dict) -> None:
        with (self.out / "metrics.jsonl").open("a") as handle:
            handle.write(json.dumps(line) + "\n")
