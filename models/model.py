"""EBVLA: the backbone, an action head and the regression read-out as one module.

The read-out is a linear map of the latent queries and the proprio token to an action chunk,
trained with plain L1 beside the energy. It warms the backbone up, and E(read-out) - E(minimum)
says how far two heads on one context disagree.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.action_head import Context
from models.backbone import Backbone
from models.config import ModelConfig
from models.denoising_head import DenoisingHead
from models.energy_head import EnergyHead


class EBVLA(nn.Module):
    """All weights of one checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.head = EnergyHead(config) if config.head == "energy" else DenoisingHead(config)
        inputs = (config.latents + 1) * config.hidden_size
        self.readout = nn.Linear(inputs, config.horizon * config.action_dim)

    def read_out(self, context: Context) -> Tensor:
        """Regressed chunk [B, H, D_a], normalised."""
        features = torch.cat([context.latents[-1], context.proprio], dim=1).flatten(1)
        features = features.to(self.readout.weight.dtype)
        return self.readout(features).unflatten(-1, (self.config.horizon, -1))

    def to_precision(self, dtype: torch.dtype) -> EBVLA:
        """Backbone and action blocks in `dtype`; what their results are read with stays as it is.

        That is the final norm, the energy (or noise) and the read-out: they are small, and energies
        near 20 would be told apart to 0.1 only in bfloat16.
        """
        rotary = self.backbone.language.rotary_emb
        frequencies = rotary.inv_freq  # rounded, they would turn late tokens by half a radian
        self.backbone.to(dtype)
        rotary.inv_freq = frequencies
        self.head.to_precision(dtype)
        return self
