"""Vision towers: pixels [B, 3, S, S] in [0, 1] -> tokens [B, T, D].

ConvTower    small strided convolutions, trained from scratch with the policy
FusedTower   DINOv2 and SigLIP side by side, frozen, projected (the paper's, after Prismatic)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig

DINOV2 = {  # ViT-L/14 with registers; its positions are resampled to the size of the input
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 518, "patch_size": 14, "num_register_tokens": 4,
}  # fmt: skip
SIGLIP = {  # So400m/14
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "patch_size": 14,
}  # fmt: skip
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ConvStage(nn.Module):
    """A strided convolution, then a residual one; GroupNorm and SiLU after each."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
        self.down_norm = nn.GroupNorm(8, outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.down_norm(self.down(x)))
        return x + F.silu(self.conv_norm(self.conv(x)))


class ConvTower(nn.Module):
    """Stages of stride 4, 2, 2, ...: 128 px become 8 x 8 tokens with three stages."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, *rest = config.conv_channels
        widths = list(config.conv_channels)
        self.stages = nn.Sequential(
            ConvStage(3, first, kernel=5, stride=4),
            *(ConvStage(a, b, kernel=3, stride=2) for a, b in zip(widths, rest, strict=False)),
        )
        self.project = nn.Linear(widths[-1], config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = (pixels * 2 - 1).to(self.project.weight.dtype)
        maps = self.stages(pixels.contiguous(memory_format=torch.channels_last))
        return self.project(maps.flatten(2).transpose(1, 2))


class FusedTower(nn.Module):
    """DINOv2 (ViT-L/14, registers) and SigLIP (So400m/14): features concatenated, projected.

    Both take the output before their last layer, as Prismatic does. Weights start at random
    here; `models.pretrained` fills them. Only the projector is trained.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        from transformers import (
            Dinov2WithRegistersConfig,
            Dinov2WithRegistersModel,
            SiglipVisionConfig,
            SiglipVisionModel,
        )

        dino = Dinov2WithRegistersConfig(**DINOV2)
        siglip = SiglipVisionConfig(**SIGLIP, image_size=config.image_size)
        self.dino = Dinov2WithRegistersModel(dino).requires_grad_(False)
        self.siglip = SiglipVisionModel(siglip).requires_grad_(False)
        self.skip = 1 + dino.num_register_tokens
        fused, size = dino.hidden_size + siglip.hidden_size, config.hidden_size
        self.project = nn.Sequential(
            nn.Linear(fused, 4 * fused), nn.GELU(), nn.Linear(4 * fused, size), nn.GELU(),
            nn.Linear(size, size),
        )  # fmt: skip

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(self.features(pixels))

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """What the frozen pair makes of the pixels, before the projector: [B, T, F]."""
        mean, std = (
            torch.tensor(v, device=pixels.device).view(3, 1, 1)
            for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        kind = self.dino.dtype
        dino = self.dino(((pixels - mean) / std).to(kind), output_hidden_states=True)
        siglip = self.siglip((pixels * 2 - 1).to(kind), output_hidden_states=True)
        return torch.cat([dino.hidden_states[-2][:, self.skip :], siglip.hidden_states[-2]], dim=-1)


def build_tower(config: ModelConfig) -> nn.Module:
    """The tower that `config.vision` names."""
    return ConvTower(config) if config.vision == "conv" else FusedTower(config)
