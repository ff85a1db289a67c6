"""A checkpoint is a folder, the Hugging Face way:

config.json              architecture (`ModelConfig`) and where it came from (`TrainingRecord`)
model.safetensors        weights, without the sentence encoder: that ships in its own package
dataset_statistics.json  normalisation
README.md                model card
tokenizer/               of models that read tokens
calibration.json         optional: mean and spread of the final energy on nominal episodes
context_statistics.safetensors
                         optional: where the contexts of training lie (`models.contexts`)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models import contexts
from models.config import ModelConfig
from models.contexts import ContextStatistics
from models.model import EBVLA
from models.normalize import Statistics
from models.text import Text
from models.types import View
from models.whole import write_json

WEIGHTS, CONFIG, STATISTICS, CARD = (
    "model.safetensors", "config.json", "dataset_statistics.json", "README.md",
)  # fmt: skip
CALIBRATION = "calibration.json"


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """How a checkpoint was made."""

    suites: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    samples: int = 0
    train_steps: int = 0
    train_minutes: float = 0.0
    pixels: str = "fast"  # the renderer of the demonstrations: "fast" or "faithful"
    side: int = 128  # of their pictures, in pixels
    val_l1: float | None = None  # held-out L1 of a^(K_inf), normalised
    readout_l1: float | None = None
    readout: bool = True  # the read-out was trained
    contrast: float = 0.0  # weight of the contrastive term (losses.py), which the paper has not
    init: str = ""  # sha256 of the weights that the run began with; "" for random or pretrained
    k_range: tuple[int, int] | None = None  # MCMC steps in training, [K_min, K_max]
    alpha_range: tuple[float, float] | None = None  # step size in training, [α_min, α_max]
    warm_fraction: float = 0.0  # of the run, its first part, with fewer MCMC steps


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """Identity of a loaded checkpoint."""

    path: str
    sha256: str  # of model.safetensors
    preset: str
    training: TrainingRecord
    server: str = ""  # address of the policy server that runs it; "" is this process

    @property
    def suites(self) -> tuple[str, ...]:
        """Suites of the demonstrations."""
        return self.training.suites

    @property
    def pixels(self) -> str:
        """Renderer of the demonstrations."""
        return self.training.pixels

    @property
    def view(self) -> View:
        """How the demonstrations' pictures were made, and so those that it plans by."""
        return View(self.training.pixels, self.training.side)

    @property
    def train_steps(self) -> int:
        """Optimiser steps."""
        return self.training.train_steps


@dataclass(frozen=True, slots=True)
class Calibration:
    """Nominal level of an anomaly score per plan: threshold = mu + k·sigma (Eq. 5).

    `levels` holds (mu, sigma) of other scores of the same plans, by name.
    """

    mu: float
    sigma: float
    score: str = "final_energy"
    episodes: int = 0
    levels: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything in a checkpoint folder, weights loaded."""

    model: EBVLA
    statistics: Statistics
    info: CheckpointInfo
    calibration: Calibration | None
    contexts: ContextStatistics | None = None


def sweep(folder: Path) -> None:
    """Remove what killed writers of a checkpoint folder left; one that they took away comes back.

    While nobody writes it.
    """
    for left in sorted(folder.parent.glob(f".{folder.name}-*")):
        if left.name.endswith("-old") and not folder.exists():
            os.replace(left, folder)
        else:
            shutil.rmtree(left, ignore_errors=True)


def save_checkpoint(
    folder: str | Path,
    model: EBVLA,
    statistics: Statistics,
    training: TrainingRecord,
    text: Text | None = None,
) -> Path:
    """Write the folder beside its place, then rename: nobody ever reads a half-written one.

    Between the old one's leaving and the new one's coming there is none, for a moment.

    `text`, if given, leaves with it what the instructions need. Calibration and context statistics
    are not carried over: they belong to the weights that they were measured with.
    Raises OSError when it cannot be written; nothing is left of the attempt then.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        _write(fresh, model, statistics, training)
        if text:
            text.save(fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    for file in filter(Path.is_file, fresh.rglob("*")):
        file.chmod(0o644)  # as the folder's: safetensors lets nobody else read
        settle(file)
    retired = fresh.with_name(fresh.name + "-old")
    if folder.exists():
        os.replace(folder, retired)
    os.replace(fresh, folder)
    shutil.rmtree(retired, ignore_errors=True)
    return folder


def _write(folder: Path, model: EBVLA, statistics: Statistics, training: TrainingRecord) -> None:
    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    try:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # how safetensors reports a failed write
        raise OSError(errno.ENOSPC, f"{WEIGHTS} could not be written, {error}") from None
    config = {"model": asdict(model.config), "training": asdict(training)}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (folder / STATISTICS).write_text(json.dumps(statistics.to_json(), indent=2) + "\n")
    (folder / CARD).write_text(
        model_card(model.config, training, sum(v.numel() for v in weights.values()))
    )


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint on the CPU. Raises CheckpointError when it is missing or does not fit."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    before = _version(folder)
    found = _read(folder)
    if _version(folder) != before:
        raise CheckpointError(f"{folder}: was written anew while it was read; try again")
    return found


def _version(folder: Path) -> tuple[int, int] | None:
    """Tells a folder's weights from those that a training puts in their place."""
    try:
        stat = (folder / WEIGHTS).stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _read(folder: Path) -> Checkpoint:
    record = _read_json(folder / CONFIG)
    if "model" not in record and (folder / "last" / CONFIG).exists():
        raise CheckpointError(f"{folder}: a run's folder; choose {folder / 'last'} in it, or best")
    try:
        config = ModelConfig(**record["model"])
        known = {f.name for f in fields(TrainingRecord)}
        made = {k: v for k, v in record.get("training", {}).items() if k in known}
        training = TrainingRecord(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in made.items()}
        )
        statistics = Statistics.from_json(_read_json(folder / STATISTICS))
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: {CONFIG} or {STATISTICS} is malformed ({error})"
        ) from None
    for what, size in (("action", config.action_dim), ("proprio", config.proprio_dim)):
        for part in ("centre", "scale"):
            if (found := len(getattr(statistics, f"{what}_{part}"))) != size:
                raise CheckpointError(
                    f"{folder}: statistics of {found} {what} dimensions, the model has {size}"
                )
    model, weights = EBVLA(config), folder / WEIGHTS
    _load_weights(model, weights)
    info = CheckpointInfo(str(folder), sha256(weights), config.preset, training)
    try:
        known = contexts.read(folder, config.hidden_size)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return Checkpoint(model, statistics, info, read_calibration(folder), known)


def _load_weights(model: EBVLA, file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; the checkpoint folder is not complete")
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: truncated or not a safetensors file ({error})") from None
    own = model.state_dict()
    lacking, extra = own.keys() - weights.keys(), weights.keys() - own.keys()
    if lacking or extra:
        names = sorted(lacking or extra)
        kind = "lacks" if lacking else "has unknown"
        raise CheckpointError(
            f"{file}: does not fit {model.config.preset}: it {kind} {names[0]} "
            f"({len(names)} tensors); config.json belongs to other weights"
        )
    wrong = [n for n in own if own[n].shape != weights[n].shape]
    if wrong:
        raise CheckpointError(
            f"{file}: does not fit {model.config.preset}: {wrong[0]} has shape "
            f"{tuple(weights[wrong[0]].shape)}, expected {tuple(own[wrong[0]].shape)}"
        )
    model.load_state_dict(weights)


def read_calibration(folder: str | Path) -> Calibration | None:
    """calibration.json, or None if there is none. Raises CheckpointError if it is malformed."""
    file = Path(folder) / CALIBRATION
    if not file.exists():
        return None
    try:
        return Calibration(**_read_json(file))
    except TypeError as error:
        raise CheckpointError(f"{file}: malformed ({error}); calibrate again") from None


def check_weights(folder: str | Path, wanted: str) -> None:
    """Raises ValueError when the weights there are not those of this sha256 any more."""
    if sha256(Path(folder) / WEIGHTS) != wanted:
        raise ValueError(f"{folder} has changed since these episodes; evaluate it again")


def write_calibration(folder: str | Path, calibration: Calibration) -> None:
    """Store the calibration with the checkpoint, atomically."""
    write_json(Path(folder) / CALIBRATION, asdict(calibration))


def settle(file: Path) -> None:
    """Wait until what was written is on the disk: renamed, it is whole even after a power cut."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def sha256(file: Path) -> str:
    """Hex digest of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _read_json(file: Path) -> dict:
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; the checkpoint folder is not complete")
    try:
        data = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{file}: expected a JSON object")
    return data


PLANNING = {
    "energy": "an energy head scores action chunks; plans are found by MCMC descent",
    "diffusion": "a diffusion head takes the noise out of action chunks",
    "flow": "a flow-matching head carries noise to action chunks",
}


def _mcmc(training: TrainingRecord) -> str:
    if training.k_range is None or training.alpha_range is None:
        return "not recorded"
    k, alpha = (f"[{low:g}, {high:g}]" for low, high in (training.k_range, training.alpha_range))
    return f"K in {k}, α in {alpha}, after {training.warm_fraction:.0%} with fewer steps"


def model_card(config: ModelConfig, training: TrainingRecord, parameters: int) -> str:
    """README.md with the Hub's front matter."""
    tasks = "\n".join(f"- {text}" for text in training.instructions) or "- none recorded"
    l1 = "not measured" if training.val_l1 is None else f"{training.val_l1:.4f}"
    start = f"weights `{training.init[:12]}…`, themselves trained" if training.init else "scratch"
    return f"""---
library_name: eb-vla-studio
pipeline_tag: robotics
tags: [robotics, vla, energy-based-model, libero]
---
# {config.preset}

A vision-language-action model: a frozen or small vision-language backbone encodes what is seen and
asked, and {PLANNING[config.head]}.

- Parameters stored: {parameters:,}
- Chunk: {config.horizon} actions of {config.action_dim} dimensions
- Images: {config.image_size} px, {config.views} views, {training.pixels} renderer
- Suites: {", ".join(training.suites) or "none recorded"}
- This run: {training.samples:,} samples, {training.train_steps:,} steps, \
{training.train_minutes:.0f} minutes, from {start}
- MCMC steps and step size in training: {_mcmc(training)}
- L1 (normalised actions) on demonstrations that this run left out: {l1}
- Weight of the contrastive term beside the paper's loss: {training.contrast:g}

`Policy.from_pretrained(folder)` of `models.policy` loads it; EB-VLA Studio drives LIBERO with it:
`python app.py --checkpoint FOLDER`.

Instructions seen in training:
{tasks}
"""
