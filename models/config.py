"""Frozen configuration: the sampler's numbers and the three model presets (EB-VLA, Table V)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from reprlib import repr as short
from typing import Literal, get_args


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """MCMC inference (EB-VLA §II-C); the defaults are the paper's (Table V).

    `grad_cutoff` is the dynamic stop of EBT-Policy (Alg. 2), which EB-VLA has not.
    Raises ValueError when a value is not finite or outside `SAMPLER_BOUNDS`.
    """

    steps: int = 15  # K_inf
    step_size: float = 0.22  # α
    temperature: float = 9.0  # τ
    init_std: float = 1.0  # σ_init
    langevin_std: float = 0.001  # σ_L
    grad_clip: float = 1.0  # c
    action_clamp: float = 10.0  # a_max
    chains: int = 1  # N
    grad_cutoff: float = 0.0  # ‖g‖ at which a chain has arrived; 0: K_inf steps always

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), SAMPLER_BOUNDS[field.name]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"sampler: {field.name} must be a number, not {short(value)}")
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(
                    f"sampler: {field.name} must lie in [{low:g}, {high:g}], not {short(value)}"
                )
            if field.type == "int" and value != int(value):
                raise ValueError(
                    f"sampler: {field.name} must be a whole number, not {short(value)}"
                )


SAMPLER_BOUNDS: dict[str, tuple[float, float]] = {
    "steps": (1, 100),
    "step_size": (1e-4, 5.0),
    "temperature": (0.1, 1000.0),
    "init_std": (0.0, 10.0),
    "langevin_std": (0.0, 1.0),
    "grad_clip": (1e-4, 100.0),
    "action_clamp": (0.1, 100.0),
    "chains": (1, 64),
    "grad_cutoff": (0.0, 100.0),
}


Pixels = Literal["faithful", "fast"]  # renderers of pictures; LIBERO's own is the first
PIXELS: tuple[Pixels, ...] = get_args(Pixels)
Precision = Literal["float32", "bfloat16"]  # of a policy's weights
Head = Literal["energy", "diffusion", "flow"]
HEADS: tuple[Head, ...] = get_args(Head)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture of one EB-VLA; names follow Table V of the paper.

    Raises ValueError when the numbers do not fit together.
    """

    preset: str
    # Vision: `conv` is trained from scratch, `dinov2+siglip` is the paper's frozen fused pair.
    vision: Literal["conv", "dinov2+siglip"] = "conv"
    image_size: int = 128  # pixels; other sizes are resampled
    views: int = 2
    tokens_per_view: int = 64
    conv_channels: tuple[int, ...] = (48, 96, 192)  # conv tower, stride 4 then 2 per stage
    # Language model: Qwen2 architecture.
    text: Literal["minilm", "qwen"] = "minilm"
    text_first: bool = True  # [text; vision; latents], so that vision tokens see the instruction
    hidden_size: int = 192  # D
    layers: int = 4
    heads: int = 6
    kv_heads: int = 6
    ffn_size: int = 512
    layers_extracted: int = 5  # N_l, the embedding included
    latents: int = 8  # K_a
    lora_rank: int = 0  # 0 trains the whole language model
    # Action head: the paper's energy, or what to compare it with.
    head: Head = "energy"
    head_blocks: int = 4  # L
    head_heads: int = 6
    head_ffn_ratio: int = 4  # SwiGLU inner size / D
    horizon: int = 8  # H
    action_dim: int = 7  # d_a
    proprio_dim: int = 8
    proprio_octaves: int = 0  # of sines and cosines beside the values themselves

    def __post_init__(self) -> None:
        object.__setattr__(self, "conv_channels", tuple(self.conv_channels))
        if self.head not in HEADS:
            raise ValueError(f"unknown head {self.head!r}; choose one of {', '.join(HEADS)}")
        if self.hidden_size % self.heads or self.hidden_size % self.head_heads:
            raise ValueError(
                f"model: hidden_size {self.hidden_size} is no multiple of its heads "
                f"({self.heads}, head {self.head_heads})"
            )
        if self.layers_extracted > self.layers + 1:
            raise ValueError(
                f"model: {self.layers_extracted} layers extracted, "
                f"but there are {self.layers + 1} hidden states"
            )
        if self.vision == "conv" and self.conv_tokens != self.tokens_per_view:
            raise ValueError(
                f"model: the conv tower makes {self.conv_tokens} tokens, not {self.tokens_per_view}"
            )

    @property
    def conv_tokens(self) -> int:
        """Tokens per view of the conv tower: stride 4, then 2 per further stage."""
        return (self.image_size // 4 // 2 ** (len(self.conv_channels) - 1)) ** 2

    @property
    def has_pretrained_parts(self) -> bool:
        """Whether it is made to be fine-tuned: random weights in their place are useless."""
        return self.text == "qwen" and self.vision != "conv"

    @property
    def vision_tokens(self) -> int:
        """K_t, over all views."""
        return self.views * self.tokens_per_view

    @property
    def block_layers(self) -> tuple[int, ...]:
        """l_i, the hidden state that block i of the head reads.

        The paper does not say which; here they are evenly spaced over the extracted states and
        the last block reads the last one.
        """
        last, blocks = self.layers_extracted - 1, self.head_blocks
        return tuple(math.floor((i + 1) * last / blocks + 0.5) for i in range(blocks))


HUB = "hub"  # where pretrained parts come from, in place of a folder

PRESETS: dict[str, ModelConfig] = {
    "eb-vla-0.5b": ModelConfig(
        preset="eb-vla-0.5b",
        vision="dinov2+siglip",
        image_size=224,
        tokens_per_view=256,
        text="qwen",
        text_first=False,
        hidden_size=896,
        layers=24,
        heads=14,
        kv_heads=2,
        ffn_size=4864,
        layers_extracted=23,
        latents=64,
        lora_rank=64,
        head_heads=8,
    ),
    "eb-vla-tiny": ModelConfig(preset="eb-vla-tiny", proprio_octaves=6),
    "debug": ModelConfig(
        preset="debug",
        image_size=32,
        tokens_per_view=16,
        conv_channels=(8, 16),
        hidden_size=32,
        layers=2,
        heads=2,
        kv_heads=2,
        ffn_size=64,
        layers_extracted=3,
        latents=2,
        head_blocks=2,
        head_heads=2,
    ),
}


def preset(name: str) -> ModelConfig:
    """The preset called `name`. Raises ValueError that lists the presets."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
