"""The full-size backbone's pretrained parts, from the Hugging Face hub or a local folder.

Qwen2.5-0.5B, DINOv2-L and SigLIP-So400m at fixed revisions. The hub's own rules hold: downloads
show their progress and are cached, `HF_HUB_OFFLINE=1` uses the cache alone. A local folder holds
one folder for each part, called as its repository is, as `hf download REPO --local-dir` writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from safetensors import SafetensorError
from torch import Tensor, nn

REACH_S = 10.0  # for the hub to answer
WEIGHTS, TOKENS = "model.safetensors", "tokenizer.json"  # of a part that is there
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A repository of the hub at one revision."""

    repo: str
    revision: str

    @property
    def name(self) -> str:
        """Without its owner."""
        return self.repo.rpartition("/")[2]


LANGUAGE = Part("Qwen/Qwen2.5-0.5B", "060db6499f32faf8b98477b0a26969ef7d8b9987")
DINO = Part("facebook/dinov2-with-registers-large", "e4c89a4e05589de9b3e188688a303d0f3c04d0f3")
SIGLIP = Part("google/siglip-so400m-patch14-224", "d04cf29fca7b6374f74d8bea1969314492266b5e")


def fetch(
    load: Callable[..., T],
    part: Part,
    folder: Path | None = None,
    file: str = WEIGHTS,
    **options: Any,
) -> T:
    """What a `from_pretrained` makes of a part: of the hub, or of `folder`/NAME.

    `file` is what it makes it of: without, it may well make something else of what is there.
    Raises ValueError, one line that says what to do, when it can't.
    """
    local = folder and folder / part.name
    if local and not local.is_dir():
        raise ValueError(
            f"{local}: no such folder; `hf download {part.repo} --revision {part.revision} "
            f"--local-dir {local}` makes it"
        )
    try:
        if local:
            if not (local / file).is_file():
                raise FileNotFoundError(f"no {file}")
            return load(local, local_files_only=True, **options)
        found = (
            try_to_load_from_cache(part.repo, name, revision=part.revision)
            for name in ("config.json", file)
        )
        cached = all(isinstance(place, str) for place in found)
        if not cached:
            _reach(part)
        return load(part.repo, revision=part.revision, local_files_only=cached, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        if local:
            raise ValueError(f"{local}: not {part.repo}, or not whole ({reason})") from None
        raise ValueError(
            f"{part.repo} is neither in reach nor in the hub's cache ({reason}); where there is a "
            f"network, `hf download {part.repo} --revision {part.revision}` fetches it"
        ) from None


def _reach(part: Part) -> None:
    """Raises OSError when the hub can't be reached.

    Asked once: a download would be tried again and again, for the better part of a minute.
    """
    try:
        HfApi().model_info(part.repo, revision=part.revision, timeout=REACH_S)
    except Exception as error:  # of whichever HTTP library the client has
        raise OSError(f"{type(error).__name__}: {error}") from None


def load_pretrained(backbone: nn.Module, folder: Path | None = None) -> None:
    """Fill the language model and both vision towers of the paper's `Backbone`.

    Raises ValueError for a preset without pretrained parts, parts that can't be had, and parts of
    another size than the preset's; the backbone is to be thrown away then.
    """
    if not backbone.config.has_pretrained_parts:
        raise ValueError(f"{backbone.config.preset} has no pretrained parts to load")
    parts = (
        (backbone.language, LANGUAGE),
        (backbone.vision.dino, DINO),
        (backbone.vision.siglip, SIGLIP),
    )
    for module, part in parts:
        source, found = fetch(
            type(module).from_pretrained,
            part,
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
        )
        lacking = sorted(found["missing_keys"])
        if lacking:
            raise ValueError(f"{part.repo}: no weights for {lacking[0]} ({len(lacking)} lack)")
        if others := sorted(key for key, *_ in found["mismatched_keys"]):
            raise ValueError(f"{part.repo}: {others[0]} is not of its own config.json's shape")
        try:
            copy_weights(module, source.state_dict())
        except ValueError as error:
            raise ValueError(f"{part.repo}: {error}") from None


def copy_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy by name, seeing through LoRA's `.base_layer`; the adapters themselves stay.

    Raises ValueError for a weight without a source, or with one of another shape.
    """
    own = {name.replace(".base_layer", ""): value for name, value in module.state_dict().items()}
    own = {name: value for name, value in own.items() if "lora_" not in name}
    for name, value in own.items():
        if name not in weights:
            raise ValueError(f"no weights for {name}")
        if weights[name].shape != value.shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(value.shape)}"
            )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(weights[name])
