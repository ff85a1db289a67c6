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
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.augment import augment
from models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from models.config import ModelConfig
from models.data import Demonstrations, training_rows
from models.evaluation import Evaluation
from models.features import FeatureCache
from models.losses import Batch, training_loss
from models.mcmc import descend
from models.model import EBVLA
from models.normalize import Statistics
from models.paraphrase import paraphrases
from models.ranks import Ranks
from models.run import STATE, Clock, Metrics
from models.schedule import Schedule, TrainConfig
from models.text import build_text

MISMATCHED = 4  # one in so many samples is also seen with another moment's picture


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
        self.ranks = Ranks(device)
        self.part = self.ranks.part(config.batch_size)
        self.config, self.data, self.out, self.pixels = config, data, Path(out), pixels
        self.device = device = self.ranks.device
        self.schedule = Schedule(config)
        self.train_rows, self.val_rows = training_rows(data, config)
        self.statistics = Statistics.fit(
            data.actions[self.train_rows].reshape(-1, model_config.action_dim),
            data.proprio[self.train_rows],
        )
        # Wording v of instruction i is text i * wordings + v; the first is the instruction itself.
        texts = [t for s in data.instructions for t in paraphrases(s, config.wordings)]
        self.text, self.text_mask = build_text(model_config.text)(texts)
        self.model = EBVLA(model_config).to(device)
        # Frozen weights are shared, not copied: they never part.
        frozen = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        self.average = copy.deepcopy(self.model, frozen).requires_grad_(False)
        if config.gradient_checkpointing:
            self.model.backbone.language.activation_checkpointing_enable({"use_reentrant": False})
        self.optimizer = self._optimizer()
        self.features: FeatureCache | None = None
        self.step, self.elapsed, self.best, self.best_success = 0, 0.0, math.inf, -1.0
        self.saved = -1  # step of the last validated save
        self.scores: dict[str, float] = {}  # of that validation
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

        Validates and saves every `val_every` steps, evaluates every `eval_every` in the simulator,
        and does both at the end; a stop saves alone.
        Raises FloatingPointError when the loss is no longer finite, OSError when a save fails,
        ValueError when the evaluation or the cache of features refuses its options.
        """
        if self.ranks.main:
            self.metrics.rewind(self.step)
        if self.config.cache_features:
            self.features = self._cache()
        try:
            return self._loop(stop)
        finally:
            self.metrics.close()

    def _loop(self, stop: Callable[[], bool]) -> bool:
        every, clock, stopping = self.config.eval_every, Clock(self.elapsed, self.step), False
        while self.schedule.progress(self.step, self.elapsed) < 1:
            if stopping:
                self.save(validate=False)
                return False
            self._advance()
            self.elapsed, stopping = self.ranks.agree(clock.elapsed(), stop())
            if self.step % self.config.log_every == 0:
                self._log(self.config.batch_size * clock.pace(self.step))
            if self.step % self.config.val_every == 0:
                self.save()
                clock.mark(self.step)
            if every and self.step % every == 0:
                with clock.paused(self.step):
                    self.evaluate(stop)
        if self.saved != self.step:
            self.save()
        if every and self.step % every:
            self.evaluate(stop)
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
        rows = self._rows()[self.part]
        batch = self._batch(rows, torch.Generator().manual_seed(int(rng.integers(2**62))))
        if self.config.contrast and not self.features:
            batch = replace(batch, mismatched=self._mismatched(rows))
        loss, parts = training_loss(
            self.model, batch, draw, self.config.sampler, generator, self.config.precision,
            self.config.contrast,
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        losses = self.ranks.mean({"loss": loss.item(), **parts})
        return {**losses, "lr": lr, "grad_norm": float(norm)}

    def _rows(self) -> np.ndarray:
        """This step's samples, of all processes; epochs are permutations seeded by their number."""
        n, size = len(self.train_rows), self.config.batch_size
        positions = np.arange(self.step * size, (self.step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(positions // n):
            order = np.random.default_rng([self.config.seed, 1, epoch]).permutation(n)
            mine = positions // n == epoch
            rows[mine] = self.train_rows[order[positions[mine] % n]]
        return rows

    def _batch(self, rows: np.ndarray, generator: torch.Generator | None) -> Batch:
        """Samples as tensors on the device.

        With a generator they are this process's part of a training batch: augmented, and told in
        other words.
        """
        images = torch.from_numpy(self.data.images[rows])
        text = torch.from_numpy(self.data.task[rows]) * self.config.wordings
        if generator is not None:
            size = self.config.batch_size
            if self.features:
                images = self.features.draw(rows, generator, self.part, size)
            else:
                images = augment(images, generator, self.part, size)
            text += self._wording(size, generator)[self.part]
        mask = None if self.text_mask is None else self.text_mask[text].to(self.device)
        return Batch(
            images=images.to(self.device),
            proprio=self._tensor(self.statistics.standardize(self.data.proprio[rows])),
            text=self.text[text].to(self.device),
            text_mask=mask,
            actions=self._tensor(self.statistics.normalize(self.data.actions[rows])),
            part=self.part,
            size=self.config.batch_size,
        )

    def _mismatched(self, rows: np.ndarray) -> Tensor:
        """Pictures of a quarter of the samples, agentview's from another moment of the task."""
        rng = np.random.default_rng([self.config.seed, 2, self.step])
        rows = rows[: max(1, len(rows) // MISMATCHED)]
        images = self.data.mismatched(rows, self.train_rows, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return augment(torch.from_numpy(images), generator).to(self.device)

    def _wording(self, size: int, generator: torch.Generator) -> Tensor:
        """Numbers of the wordings that `size` samples hear; half the time the instruction's own."""
        if self.config.wordings == 1:
            return torch.zeros(size, dtype=torch.long)
        other = torch.randint(1, self.config.wordings, (size,), generator=generator)
        return other * torch.randint(0, 2, (size,), generator=generator)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.model.parameters(), self.average.parameters(), strict=True)
        own, averaged = zip(*((p, a) for p, a in pairs if p.requires_grad), strict=True)
        torch._foreach_lerp_(averaged, own, 1 - decay)

    def _cache(self) -> FeatureCache:
        """The frozen towers' features of the training samples, computed by the main process."""
        file, rows = self.out / "features.npy", np.unique(self.train_rows)
        cache = FeatureCache(file, rows, self.config.cache_features, self.config.seed)
        if self.ranks.main:
            cache.fill(self.model.backbone, self.data.images, self.config.precision)
        self.ranks.wait()
        return cache

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
        if self.ranks.main:
            self._save(validate)
        if validate:
            self.saved = self.step
        self.ranks.wait()

    def _save(self, validate: bool) -> None:
        self.scores = self.validate() if validate else {}
        if validate:
            elapsed = round(self.elapsed, 1)
            self.metrics.write({"step": self.step, "elapsed_s": elapsed, **self.scores})
        self._save_checkpoint("last")
        score = self.scores.get("val_l1", -self.step)
        if validate and not self.config.eval_every and score <= self.best:
            self.best = score
            self._save_checkpoint("best")
        self._save_state()

    def evaluate(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Run episodes in the simulator with the averaged weights; best/ are the most successful.

        Raises ValueError when the evaluation refuses its options.
        """
        if self.saved != self.step:
            self.save()
        if self.ranks.main and (found := self._evaluation().run(self.step, stop)):
            self.metrics.write({"step": self.step, **found})
            print(f"step {self.step:6d}  success {found['success_rate']:.0%}", flush=True)
            if found["success_rate"] >= self.best_success:
                self.best_success = found["success_rate"]
                self._save_checkpoint("best")
            self._save_state()
        self.ranks.wait()

    def _evaluation(self) -> Evaluation:
        c = self.config
        return Evaluation(self.out, c.eval_suite, c.eval_tasks, c.eval_inits, self.device)

    def _save_checkpoint(self, name: str) -> None:
        record = TrainingRecord(
            suites=self.data.suites,
            instructions=self.data.instructions,
            samples=len(self.train_rows),
            train_steps=self.step,
            train_minutes=round(self.elapsed / 60, 1),
            pixels=self.pixels,
            val_l1=self.scores.get("val_l1"),
            readout_l1=self.scores.get("val_readout_l1"),
        )
        save_checkpoint(self.out / name, self.average, self.statistics, record)

    def _save_state(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "best_success": self.best_success,
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
        self.window, self.best_success = state.get("window", []), state.get("best_success", -1.0)

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
        if not self.ranks.main:
            return
        self.metrics.write(line)
        print(
            f"step {self.step:6d}  l1 {means['l1']:.4f}  read-out {means['readout_l1']:.4f}  "
            f"gap {means['energy_gap']:+.3f}  {rate:.1f} samples/s  {eta / 60:.1f} min left",
            flush=True,
        )
