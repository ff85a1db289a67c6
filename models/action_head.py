"""The Transformer over action tokens that every action head shares (EB-VLA §II-B).

Context            what the backbone hands over: hidden states per layer and the proprio token
ActionTransformer  L blocks of self-attention, cross-attention into C_i and SwiGLU
BoundHead          a head with its context's keys and values computed once per plan

Shape letters: B observations, N chains or grid points, H chunk horizon, D_a action dimensions,
D hidden size, S context length K_a + 1 + K_t. Attention is written out (softmax of a product)
because training an energy differentiates twice, which fused attention kernels do not support.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Context:
    """C before it is split per block: one entry per extracted layer."""

    latents: tuple[Tensor, ...]  # h_a, N_l times [B, K_a, D]
    vision: tuple[Tensor, ...]  # h_t, N_l times [B, K_t, D]
    proprio: Tensor  # p, [B, 1, D]

    def layer(self, index: int) -> Tensor:
        """C_i = [h_a; p; h_t] of one layer (Eq. 1), [B, S, D]."""
        return torch.cat([self.latents[index], self.proprio, self.vision[index]], dim=1)

    def float(self) -> Context:
        """The same in float32."""
        return Context(
            tuple(h.float() for h in self.latents),
            tuple(h.float() for h in self.vision),
            self.proprio.float(),
        )


class RMSNorm(nn.Module):
    """Root mean square norm over the last axis."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        # One kernel each way on a GPU, and twice differentiable.
        return F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, 1e-6)


def rotary_angles(length: int, size: int, device: torch.device | None = None) -> Tensor:
    """RoPE rotations by the angles t·ω, for `rotate`: cos and, the left half negative, sin.

    [2, length, size].
    """
    frequency = 1e4 ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequency)
    sin = angle.sin()
    return torch.stack([torch.cat([angle, angle], -1).cos(), torch.cat([-sin, sin], -1)])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Apply RoPE to x [..., length, size] with `rotary_angles` in x's precision."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = angles
    return torch.addcmul(x * cos, torch.cat([right, left], dim=-1), sin)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v, twice differentiable; [..., L, d] x [..., S, d] -> [..., L, d]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return scores.softmax(-1) @ v


class ActionBlock(nn.Module):
    """Pre-norm block: bidirectional self-attention, cross-attention into C_i, SwiGLU."""

    def __init__(self, size: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.self_norm, self.cross_norm, self.ffn_norm = (RMSNorm(size) for _ in range(3))
        self.context_norm = RMSNorm(size)
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.self_out = nn.Linear(size, size, bias=False)
        self.cross_q = nn.Linear(size, size, bias=False)
        self.context_kv = nn.Linear(size, 2 * size, bias=False)
        self.cross_out = nn.Linear(size, size, bias=False)
        self.gate_up = nn.Linear(size, 2 * inner, bias=False)
        self.down = nn.Linear(inner, size, bias=False)

    def bind(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of C_i [B, S, D]: two of [B, heads, S, D/heads]."""
        return tuple(
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()
            for part in self.context_kv(self.context_norm(context)).chunk(2, dim=-1)
        )

    def forward(self, x: Tensor, k: Tensor, v: Tensor, angles: Tensor) -> Tensor:
        """x [B, N, H, D] with the bound keys and values [B, heads, S, D/heads]."""
        x = x + self._self_attention(self.self_norm(x), angles)
        x = x + self._cross_attention(self.cross_norm(x), k, v)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def _self_attention(self, x: Tensor, angles: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        q, k = rotate(qkv[:2], angles.to(qkv.dtype))
        out = attention(q, k, qkv[2])  # [B, N, heads, H, D/heads]
        return self.self_out(out.transpose(2, 3).flatten(-2))

    def _cross_attention(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Chains are further queries of the same context, so K and V are never copied.
        b, n, h, d = x.shape
        q = self.cross_q(x).view(b, n * h, self.heads, -1).transpose(1, 2)
        return self.cross_out(attention(q, k, v).transpose(1, 2).reshape(b, n, h, d))


class BoundHead:
    """A head for one batch of contexts: actions [B, N, H, D_a] -> what the head says of them."""

    def __init__(self, head: ActionTransformer, keys_values: list[tuple[Tensor, Tensor]]) -> None:
        self._head, self._keys_values = head, keys_values

    def __call__(self, actions: Tensor, *given: Tensor) -> Tensor:
        return self._head.evaluate(actions, self._keys_values, *given)

    @property
    def size(self) -> int:
        """B, the number of contexts."""
        return len(self._keys_values[0][0])

    @property
    def tensors(self) -> list[Tensor]:
        """The keys and values, block by block."""
        return [t for pair in self._keys_values for t in pair]

    def map(self, change: Callable[[Tensor], Tensor]) -> BoundHead:
        """The same head with `change` made to each of its keys and values."""
        return BoundHead(self._head, [(change(k), change(v)) for k, v in self._keys_values])

    def detach(self) -> BoundHead:
        """The same, cut off from the backbone's graph."""
        return self.map(Tensor.detach)

    def float(self) -> BoundHead:
        """The same in float32, after an encoding in lower precision."""
        return self.map(Tensor.float)


class ActionTransformer(nn.Module):
    """Action tokens that attend to each other and to their context; a head says what comes out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.layers = config.block_layers
        angles = rotary_angles(config.horizon, size // config.head_heads)
        self.register_buffer("angles", angles, persistent=False)
        self.project = nn.Linear(config.action_dim, size)
        self.blocks = nn.ModuleList(
            ActionBlock(size, config.head_heads, config.head_ffn_ratio * size) for _ in self.layers
        )
        self.norm = RMSNorm(size)

    def bind(self, context: Context) -> BoundHead:
        """Compute each block's keys and values of its own context once."""
        return BoundHead(
            self,
            [b.bind(context.layer(i)) for b, i in zip(self.blocks, self.layers, strict=True)],
        )

    def evaluate(
        self, actions: Tensor, keys_values: list[tuple[Tensor, Tensor]], *given: Tensor
    ) -> Tensor:
        """What the head says of actions [B, N, H, D_a]; heads define it, and what else is given."""
        raise NotImplementedError

    def to_precision(self, dtype: torch.dtype) -> Self:
        """Projection and blocks in `dtype`; the final norm and what reads it stay as they are."""
        self.project.to(dtype)
        self.blocks.to(dtype)
        return self

    def tokens(self, actions: Tensor) -> Tensor:
        """Action tokens [B, N, H, D] of actions [B, N, H, D_a]."""
        return self.project(actions.to(self.project.weight.dtype))

    def hidden(self, tokens: Tensor, keys_values: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Tokens [B, N, H, D] after all blocks and the final norm."""
        for block, (k, v) in zip(self.blocks, keys_values, strict=True):
            tokens = block(tokens, k, v, self.angles)
        return self.norm(tokens.to(self.norm.weight.dtype))

    def forward(self, context: Context, actions: Tensor, *given: Tensor) -> Tensor:
        """bind and evaluate at once."""
        return self.bind(context)(actions, *given)
