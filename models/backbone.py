"""The vision-language backbone (EB-VLA §II-A): images, text, proprio -> Context, once per plan.

The language model is Qwen2 and therefore causal. In the paper's order [vision; text; latents]
only the latent queries ever see the instruction. The tiny preset puts the text first: its vision
tokens, which the head reads layer by layer, are then conditioned on the instruction, which a
small model told ten tasks apart by one word needs. h_t is the vision tokens in either order.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from models.action_head import Context
from models.config import ModelConfig
from models.text import MINILM_SIZE
from models.vision import build_tower

QWEN_VOCABULARY = 151936


def octaves(values: Tensor, count: int) -> Tensor:
    """Values [..., D] and sin, cos of 1, 2, 4, ... times them: [..., D (1 + 2 count)].

    Suites differ in height by a table, within one a centimetre decides about a grasp: one scale
    can't show both, sines can (NeRF, Mildenhall et al. 2020, Eq. 4).
    """
    angles = [2.0**k * values for k in range(count)]
    return torch.cat([values, *map(torch.sin, angles), *map(torch.cos, angles)], dim=-1)


class Backbone(nn.Module):
    """Vision tower, instruction embedding, language model and latent queries of one preset."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.vision = build_tower(config)
        self.place = nn.Parameter(0.2 * torch.randn(config.vision_tokens, size))
        self.language = _language_model(config)
        if config.text == "minilm":
            self.text = nn.Linear(MINILM_SIZE, size)
        self.latents = nn.Parameter(0.5 * torch.randn(config.latents, size))
        self.proprio = nn.Linear(config.proprio_dim * (1 + 2 * config.proprio_octaves), size)

    def forward(
        self, images: Tensor, proprio: Tensor, text: Tensor, text_mask: Tensor | None = None
    ) -> Context:
        """images uint8 [B, views, S, S, 3] upright, proprio [B, 8] standardised, text of `text.py`.

        Instead of images, `features` of them: what a frozen tower saw, computed earlier.
        The hidden states of the first N_l layers (embedding included) make the Context.
        """
        vision, kind = self._vision_tokens(images), self.place.dtype
        embed = self.language.get_input_embeddings()
        words = self.text(text.to(kind)) if hasattr(self, "text") else embed(text)
        latents = self.latents.expand(len(images), -1, -1)
        if text_mask is None:
            text_mask = torch.ones(1, words.shape[1], device=vision.device)
        prompt = [words, vision] if self.config.text_first else [vision, words]
        real = self._real(text_mask, vision, latents)
        out = self.language(
            inputs_embeds=torch.cat([*prompt, latents], dim=1),
            attention_mask={"full_attention": self._mask(real)},
            position_ids=(real.long().cumsum(1) - 1).clamp_min(0),  # as if there was no padding
            output_hidden_states=True,
            use_cache=False,
        )
        start = words.shape[1] if self.config.text_first else 0
        seen = out.hidden_states[: self.config.layers_extracted]
        return Context(
            latents=tuple(h[:, -latents.shape[1] :] for h in seen),
            vision=tuple(h[:, start : start + vision.shape[1]] for h in seen),
            proprio=self.proprio(octaves(proprio, self.config.proprio_octaves).to(kind))[:, None],
        )

    def merge_adapters(self) -> None:
        """Add LoRA's products to the weights that they adapt: the same, in half the launches."""
        for module in self.language.modules():
            if hasattr(module, "lora_A"):
                module.merge()

    def features(self, images: Tensor) -> Tensor:
        """Of a frozen tower, before its projector, [B, views, T, F]; images as in `forward`."""
        return self.vision.features(self._pixels(images)).unflatten(0, images.shape[:2])

    def _vision_tokens(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            tokens = self.vision.project(images.flatten(0, 1).to(self.place.dtype))
        else:
            tokens = self.vision(self._pixels(images))
        return tokens.unflatten(0, images.shape[:2]).flatten(1, 2) + self.place

    def _pixels(self, images: Tensor) -> Tensor:
        """[B * views, 3, S, S] in [0, 1], at the preset's size."""
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-1] != self.config.image_size:
            side = (self.config.image_size, self.config.image_size)
            pixels = F.interpolate(pixels, side, mode="bilinear", antialias=True)
        return pixels

    def _real(self, text_mask: Tensor, vision: Tensor, latents: Tensor) -> Tensor:
        """False for padded text, [B or 1, tokens]."""
        sizes = vision.shape[1], latents.shape[1]
        ones = [text_mask.new_ones(len(text_mask), size) for size in sizes]
        before, after = (text_mask, ones[0]) if self.config.text_first else (ones[0], text_mask)
        return torch.cat([before, after, ones[1]], dim=1).bool()

    def _mask(self, real: Tensor) -> Tensor:
        """Causal attention that leaves out padded text, [B or 1, 1, tokens, tokens].

        True where attended; for written-out attention the logarithm of that.
        """
        allowed = real[:, None, None, :].expand(-1, 1, real.shape[1], -1).tril()
        if self.language.config._attn_implementation == "sdpa":
            # A padded row attends at least to itself: no softmax over nothing.
            return allowed | torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
        return torch.zeros(allowed.shape, device=real.device).masked_fill(~allowed, -1e9)


def _language_model(config: ModelConfig) -> Qwen2Model:
    """Qwen2 from configuration, with LoRA adapters on every linear layer if a rank is given.

    Layers above the last extracted state are left out: nothing would read them, or train them.
    """
    model = Qwen2Model(
        Qwen2Config(
            vocab_size=QWEN_VOCABULARY if config.text == "qwen" else 1,
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e6 if config.text == "qwen" else 1e4,
            },
            initializer_range=0.02 if config.text == "qwen" else 0.5 * config.hidden_size**-0.5,
            # A short sequence in bfloat16 on a CPU: written-out attention beats the fused kernel.
            attn_implementation="sdpa" if config.text == "qwen" else "eager",
        )
    )
    if config.text == "minilm":
        model.embed_tokens.requires_grad_(False)  # a placeholder: text arrives embedded
    if config.layers_extracted <= config.layers:
        model.layers = model.layers[: config.layers_extracted - 1]
        model.norm = nn.Identity()  # the last state as it is: this norm is the top layer's
    if not config.lora_rank:
        return model
    from peft import LoraConfig, inject_adapter_in_model

    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear"
    )
    return inject_adapter_in_model(lora, model)
