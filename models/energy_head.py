"""The energy head E(a, C) (EB-VLA §II-B): low energy is good."""

from __future__ import annotations

from torch import Tensor, nn

from models.action_head import ActionTransformer
from models.config import ModelConfig


class EnergyHead(ActionTransformer):
    """Energy-based Transformer over action tokens."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.energy = nn.Linear(config.hidden_size, 1)

    def evaluate(self, actions: Tensor, keys_values: list[tuple[Tensor, Tensor]]) -> Tensor:
        """e_t [B, N, H] of actions [B, N, H, D_a]; E = mean over H."""
        return self.energy(self.hidden(self.tokens(actions), keys_values)).squeeze(-1)
