"""The training loop of EB-VLA: averaged weights, exact resume, metrics, checkpoints.

Chance of step s is a function of (seed, s) alone: batch, augmentation, noise, K and α. A resumed
run therefore continues exactly as the uninterrupted one would have.
"""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.augment import augment
from models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from models.config import ModelConfig
from models.data import Demonstrations
from models.losses import Batch, training_loss
from models.mcmc import descend
from models.model import EBVLA
from models.normalize import Statistics
from models.paraphrase import paraphrases
from models.run import STATE, Metrics
from models.schedule import Schedule, TrainConfig
from models.text import build_text


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
        # Wording v of instruction i is text i * wordings + v; the first is the instruction itself.
        texts = [t for s in data.instructions for t in paraphrases(s, config.wordings)]
        self.text, self.text_mask = build_text(model_config.text)(texts)
        self.model = EBVLA(model_config).to(device)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = self._optimizer()
        self.step, self.elapsed, self.best = 0, 0.0, math.inf
        self.window: list[dict[str, float]] = []  # losses of the steps since the last log line
        self.out.mkdir(parents=True, exist_ok=True)
        self.metrics = Metrics(self.out)

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

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train until the schedule ends (True) or `stop()` is true between two steps (False).

        Validates and saves every `val_every` steps and at the end; a stop saves without validation.
        Raises FloatingPointError when the loss is no longer finite, OSError when a save fails.
        """
        self.metrics.rewind(self.step)
        try:
            return self._loop(stop)
        finally:
            self.metrics.close()

    def _loop(self, stop: Callable[[], bool]) -> bool:
        started, before = time.monotonic(), self.elapsed
        logged, logged_step, saved = started, self.step, -1
        while self.schedule.progress(self.step, self.elapsed) < 1:
            if stop():
                self.save(validate=False)
                return False
            self._advance()
            now = time.monotonic()
            self.elapsed = before + now - started
            if self.step % self.config.log_every == 0:
                rate = (self.step - logged_step) * self.config.batch_size / (now - logged)
                self._log(rate)
                logged, logged_step = now, self.step
            if self.step % self.config.val_every == 0:
                self.save()
                logged, logged_step, saved = time.monotonic(), self.step, self.step
        if saved != self.step:
            self.save()
        return True

    def _advance(self) -> None:
        """One step into the window of losses."""
        losses = self.train_step(self.schedule.progress(self.step, self.elapsed))
        if not math.isfinite(losses["loss"]):
            raise FloatingPointError(
                f"step {self.step}: the loss is not finite; --resume with a smaller --lr"
            )
        self.window.append(losses)

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
        text = torch.from_numpy(self.data.task[rows]) * self.config.wordings
        if generator is not None:
            text += self._wording(len(rows), generator)
        mask = None if self.text_mask is None else self.text_mask[text].to(self.device)
        return Batch(
            images=images.to(self.device),
            proprio=self._tensor(self.statistics.standardize(self.data.proprio[rows])),
            text=self.text[text].to(self.device),
            text_mask=mask,
            actions=self._tensor(self.statistics.normalize(self.data.actions[rows])),
        )

    def _wording(self, size: int, generator: torch.Generator) -> Tensor:
        """Numbers of the wordings that `size` samples hear: the instruction itself half the time."""
        if self.config.wordings == 1:
            return torch.zeros(size, dtype=torch.long)
        other = torch.randint(1, self.config.wordings, (size,), generator=generator)
        return other * torch.randint(0, 2, (size,), generator=generator)

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

    def save(self, validate: bool = True) -> None:
        """Validate, then write last/, best/ (if it is) and the state to resume from.

        Raises OSError when the disk is full; what was there before stays whole.
        """
        scores = self.validate() if validate else {}
        if validate:
            self.metrics.write({"step": self.step, "elapsed_s": round(self.elapsed, 1), **scores})
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
        if validate and (score := scores.get("val_l1", -self.step)) <= self.best:
            self.best = score
            save_checkpoint(self.out / "best", self.average, self.statistics, record)
        self._save_state()

    def _save_state(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "window": self.window,
            "architecture": json.dumps(asdict(self.model.config)),
        }
        fresh = self.out / f".{STATE}.tmp"
        try:
            torch.save(state, fresh)
        except RuntimeError as error:  # how torch reports a failed write
            fresh.unlink(missing_ok=True)
            free = shutil.disk_usage(self.out).free // 2**20
            text = f"{fresh.name} could not be written, {free} MB are free"
            raise OSError(errno.ENOSPC, text) from error
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
        self.window = state.get("window", [])

    def _log(self, rate: float) -> None:
        """A line of the window's means, which it empties."""
        window, self.window = self.window, []
        means = {key: round(float(np.mean([w[key] for w in window])), 6) for key in window[0]}
        progress = self.schedule.progress(self.step, self.elapsed)
        eta = self.elapsed * max(0.0, 1 - progress) / max(progress, 1e-9)
        line = {
            "step": self.step,
            **means,
            "samples_per_s": round(rate, 2),
            "elapsed_s": round(self.elapsed, 1),
            "eta_s": round(eta, 1),
            "progress": round(min(1.0, progress), 4),
            **self.metrics.usage(self.device),
        }
        self.metrics.write(line)
        print(
            f"step {self.step:6d}  l1 {means['l1']:.4f}  read-out {means['readout_l1']:.4f}  "
            f"gap {means['energy_gap']:+.3f}  {rate:.1f} samples/s  {eta / 60:.1f} min left",
            flush=True,
        )
