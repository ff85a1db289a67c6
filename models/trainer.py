"""The training loop of EB-VLA: averaged weights, exact resume, metrics, checkpoints.

Chance of step s is a function of (seed, s) and of how far the run is: batch, augmentation, noise,
K and α. A run that ends after so many steps is therefore resumed exactly as it would have gone on;
one that ends after so many minutes is as far as its clock says.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from models.batches import Batches
from models.checkpoint import TrainingRecord, load_checkpoint, save_checkpoint
from models.config import ModelConfig
from models.data import Demonstrations, training_rows
from models.denoising_head import denoise
from models.evaluation import Evaluation
from models.features import FeatureCache
from models.losses import Batch, choose_precision, training_loss
from models.mcmc import descend
from models.model import EBVLA
from models.normalize import Statistics
from models.ranks import Ranks
from models.run import Clock, Metrics, read_state, write_state
from models.schedule import Schedule, TrainConfig
from models.text import Text, build_text

SAVE_EVERY_S = 600.0  # of training, where validations are further apart
SHOWN = (("l1", "l1"), ("denoising", "noise"), ("readout_l1", "read-out"), ("energy_gap", "gap"))


class Trainer:
    """One run into the folder `out`: metrics.jsonl, last/, best/ and the trainer's state."""

    def __init__(
        self,
        model_config: ModelConfig,
        config: TrainConfig,
        data: Demonstrations,
        out: Path,
        device: str = "cpu",
        pixels: str | None = None,
        text: Text | None = None,
    ) -> None:
        if config.contrast and model_config.head != "energy":
            raise ValueError("training: --contrast needs --head energy")
        torch.manual_seed(config.seed)
        self.ranks = Ranks(device)
        self.config, self.data, self.out = config, data, Path(out)
        self.pixels = pixels or data.renderer()
        self.device = device = self.ranks.device
        self.precision = choose_precision(config.precision, device)
        self.schedule = Schedule(config)
        self.train_rows, self.val_rows = training_rows(data, config)
        self.statistics = Statistics.fit(
            data.actions[self.train_rows].reshape(-1, model_config.action_dim),
            data.proprio[self.train_rows],
        )
        self.text = text or build_text(model_config.text)
        self.batches = Batches(
            data, self.train_rows, self.statistics, config, self.text, self.ranks
        )
        self.model = EBVLA(model_config).to(device)
        # Frozen weights are shared, not copied: they never part.
        frozen = {id(p): p for p in self.model.parameters() if not p.requires_grad}
        self.average = copy.deepcopy(self.model, frozen).requires_grad_(False)
        if config.gradient_checkpointing:
            self.model.backbone.language.activation_checkpointing_enable({"use_reentrant": False})
        if config.compile:
            self.model.backbone.compile()
        self.optimizer = self._optimizer()
        self.step, self.elapsed, self.best, self.best_success = 0, 0.0, math.inf, -1.0
        self.init = ""  # sha256 of the weights to start from
        self.saved, self.evaluated = -1, 0  # steps of the last validation, and in the simulator
        self.kept = 0.0  # training time at the last save, s
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
        and does both at the end; a stop saves alone, and so do ten minutes without a save.
        Raises FloatingPointError when the loss is no longer finite, OSError when a save fails,
        ValueError when the cache of features refuses its options.
        """
        if self.ranks.main:
            self.metrics.rewind(self.step)
        try:
            if self.config.cache_features and not self._cache(stop):
                self.save(validate=False)
                return False
            return self._loop(stop)
        finally:
            self.metrics.close()

    def _loop(self, stop: Callable[[], bool]) -> bool:
        every, clock, stopping = self.config.eval_every, Clock(self.elapsed, self.step), False
        while True:
            # First of all, as a resumed run makes the one that was interrupted.
            if every and self.step % every == 0 and self.evaluated != self.step:
                with clock.paused(self.step):
                    stopping = not self.evaluate(stop)
            if self.schedule.progress(self.step, self.elapsed) >= 1:
                break
            if stopping:
                self.save(validate=False)
                return False
            self.window.append(self.train_step(self.schedule.progress(self.step, self.elapsed)))
            self.elapsed, stopping = self.ranks.agree(clock.elapsed(), stop())
            if self.step % self.config.log_every == 0 or self.step == 1:
                self._log(self.config.batch_size * clock.pace(self.step))
            if self.step % self.config.val_every == 0:
                self.save()
                clock.mark(self.step)
            elif self.elapsed - self.kept >= SAVE_EVERY_S:
                self.save(validate=False)
                clock.mark(self.step)
        if self.saved != self.step:
            self.save()
        if every and self.evaluated != self.step and (stopping or not self.evaluate(stop)):
            return False
        if self.ranks.main and not (self.out / "best").is_dir():  # no evaluation chose one
            self._save_checkpoint("best")
        return True

    def train_step(self, progress: float) -> dict[str, float]:
        """One optimiser step; returns its losses.

        Raises FloatingPointError, the weights as they were, when these are not finite or their
        gradient is not: a clamped action hides an energy that overflowed from the loss.
        """
        rng = np.random.default_rng([self.config.seed, self.step])
        lr = self.schedule.learning_rate(self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        draw = self.schedule.draw(progress, rng)
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        batch = self.batches.training(self.step, int(rng.integers(2**62)))
        loss, parts = training_loss(
            self.model, batch, draw, self.config.sampler, generator, self.precision,
            self.config.contrast,
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        losses = self.ranks.mean({"loss": loss.item(), **parts})
        losses |= {"lr": lr, "grad_norm": float(norm)}
        if not (math.isfinite(losses["loss"]) and math.isfinite(losses["grad_norm"])):
            raise FloatingPointError(
                f"step {self.step + 1}: the loss is not finite; --resume with a smaller --lr"
            )
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return losses

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.model.parameters(), self.average.parameters(), strict=True)
        own, averaged = zip(*((p, a) for p, a in pairs if p.requires_grad), strict=True)
        torch._foreach_lerp_(averaged, own, 1 - decay)

    def _cache(self, stop: Callable[[], bool]) -> bool:
        """Let batches have the frozen towers' features, computed by the main process.

        False when `stop()` came first.
        """
        file, rows = self.out / "features.npy", np.unique(self.train_rows)
        cache = FeatureCache(file, rows, self.config.cache_features, self.config.seed)
        filled = not self.ranks.main or cache.fill(
            self.model.backbone, self.data.images, self.precision, stop
        )
        self.batches.features = cache
        self.ranks.wait()
        return not self.ranks.agree(self.elapsed, not filled)[1]

    # -- measuring and saving ------------------------------------------------------------------

    def validate(self, limit: int = 256) -> dict[str, float]:
        """Held-out L1 of plans and the read-out of averaged weights, on <= `limit` samples."""
        if not (count := min(len(self.val_rows), limit)):
            return {}
        rows = self.val_rows[np.linspace(0, len(self.val_rows) - 1, count).astype(int)]
        totals: Counter[str] = Counter()
        for part in np.array_split(rows, math.ceil(len(rows) / 64)):
            for name, value in self._validate_batch(self.batches.plain(part)).items():
                totals[name] += len(part) * value
        return {name: total / len(rows) for name, total in totals.items()}

    @torch.no_grad()
    def _validate_batch(self, batch: Batch) -> dict[str, float]:
        """Means over the batch."""
        model, sampler = self.average, self.config.sampler
        context = model.backbone(batch.images, batch.proprio, batch.text, batch.text_mask)
        bound, target = model.head.bind(context), batch.actions.unsqueeze(1)
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
        noise = sampler.init_std * noise.to(self.device)
        found = {"val_readout_l1": (model.read_out(context) - batch.actions).abs().mean().item()}
        if model.config.head == "energy":
            descent = descend(bound, noise, None, sampler)
            final = descent.actions[-1]
            found["val_energy"] = descent.timestep_energies[-1].mean().item()
        else:
            final = denoise(bound, model.head.process, noise, sampler.steps)
        return {"val_l1": (final - target).abs().mean().item(), **found}

    def save(self, validate: bool = True) -> None:
        """Validate, then write last/, best/ (if it is) and the state to resume from.

        Raises OSError when the disk is full; what was there before stays whole.
        """
        if self.ranks.main:
            self._save(validate)
        if validate:
            self.saved = self.step
        self.kept = self.elapsed
        self.ranks.wait()

    def _save(self, validate: bool) -> None:
        self.scores = self.validate() if validate else {}
        if validate:
            self.metrics.write(
                {"step": self.step, "elapsed_s": round(self.elapsed, 1), **self.scores}
            )
        self._save_checkpoint("last")
        score = self.scores.get("val_l1", -self.step)
        if validate and not self.config.eval_every and self._judged and score <= self.best:
            self.best = score
            self._save_checkpoint("best")
        self._save_state()

    @property
    def _judged(self) -> bool:
        """Whether this can be best/: the energy means something with the paper's own K only."""
        return self.schedule.progress(self.step, self.elapsed) >= self.config.warm_fraction

    def evaluate(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Run episodes in the simulator with the averaged weights; best/ are the most successful.

        False when `stop()` came first.
        """
        if self.saved != self.step:
            self.save()
        found = self.evaluation.run(self.step, stop) if self.ranks.main else {}
        if self.ranks.agree(self.elapsed, stop())[1]:
            return False
        self.evaluated = self.step
        if self.ranks.main:
            self._note_success(found)
        self.ranks.wait()
        return True

    def _note_success(self, found: dict[str, float]) -> None:
        if found:
            self.metrics.write({"step": self.step, "elapsed_s": round(self.elapsed, 1), **found})
            print(f"step {self.step:6d}  success {found['success_rate']:.0%}", flush=True)
            if self._judged and found["success_rate"] >= self.best_success:
                self.best_success = found["success_rate"]
                self._save_checkpoint("best")
        self._save_state()

    @property
    def evaluation(self) -> Evaluation:
        """In the simulator, of `last/`."""
        c = self.config
        return Evaluation(self.out, c.eval_suite, c.eval_tasks, c.eval_inits, self.device)

    def _save_checkpoint(self, name: str) -> None:
        record = TrainingRecord(
            suites=self.data.suites,
            instructions=self.data.instructions,
            samples=len(np.unique(self.train_rows)),
            train_steps=self.step,
            train_minutes=round(self.elapsed / 60, 1),
            pixels=self.pixels,
            side=self.data.images.shape[2],
            val_l1=self.scores.get("val_l1"),
            readout_l1=self.scores.get("val_readout_l1"),
            contrast=self.config.contrast,
            init=self.init,
            k_range=(self.config.k_min, self.config.k_max),
            alpha_range=(self.config.alpha_min, self.config.alpha_max),
            warm_fraction=self.config.warm_fraction,
        )
        save_checkpoint(self.out / name, self.average, self.statistics, record, self.text)

    def _save_state(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "best_success": self.best_success,
            "evaluated": self.evaluated,
            "window": self.window,
            "init": self.init,
            "statistics": self.statistics.to_json(),
            "architecture": json.dumps(asdict(self.model.config)),
        }
        write_state(self.out, state)

    def start_from(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint folder, and the scales that they were trained in.

        One with another head gives all but its head.
        Raises ValueError when it is of another architecture, or what `load_checkpoint` raises.
        """
        loaded, own = load_checkpoint(checkpoint), self.model.config
        source = loaded.model
        if replace(source.config, head=own.head) != own:
            raise ValueError(f"{checkpoint}: another architecture than {own.preset}")
        if source.config.head != own.head:
            source.head = self.model.head
        self.model.load_state_dict(source.state_dict())
        self.average.load_state_dict(source.state_dict())
        self._scale_by(loaded.statistics)
        self.init = loaded.info.sha256

    def _scale_by(self, statistics: Statistics) -> None:
        self.statistics = self.batches.statistics = statistics

    def resume(self) -> None:
        """Continue from the saved state. Raises ValueError when it is missing or does not fit."""
        state = read_state(self.out, self.device)
        if not self._fits(state["architecture"]):
            raise ValueError(
                f"{self.out}: holds a run of another model; choose its preset or another --out"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, decay in zip(self.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]
        self.window, self.best_success = state["window"], state["best_success"]
        self.evaluated, self.kept = state["evaluated"], self.elapsed
        self.init = state.get("init", "")  # unknown to earlier versions
        self._scale_by(Statistics.from_json(state["statistics"]))

    def _fits(self, architecture: str) -> bool:
        """Whether a state's JSON describes this model, but for what its time did not know."""
        try:
            return ModelConfig(**json.loads(architecture)) == self.model.config
        except (TypeError, ValueError):
            return False

    def _log(self, rate: float) -> None:
        """A line of the window's means, which it empties."""
        window, self.window = self.window, []
        # what a resumed run was told anew may not be among the older ones
        told = {key: [w[key] for w in window if key in w] for key in window[-1]}
        means = {key: round(float(np.mean(values)), 6) for key, values in told.items()}
        progress = self.schedule.progress(self.step, self.elapsed)
        eta = self.elapsed * max(0.0, 1 - progress) / max(progress, 1e-9)
        line = {
            "step": self.step,
            **means,
            "samples_per_s": round(rate, 2),
            "elapsed_s": round(self.elapsed, 1),
            **({"eta_s": round(eta, 1)} if self.step > 1 else {}),  # the first step is no measure
            "progress": round(min(1.0, progress), 4),
            **self.metrics.usage(self.device),
        }
        if not self.ranks.main:
            return
        self.metrics.write(line)
        losses = "  ".join(f"{text} {means[name]:.4f}" for name, text in SHOWN if name in means)
        told = f"step {self.step:6d}  {losses}  {rate:.1f} samples/s"
        print(f"{told}  {eta / 60:.1f} min left" if self.step > 1 else told, flush=True)
