"""The training objective: Eq. 4's L1 at the end of the descent, plus the read-out's L1.

A head without an energy has its own loss in place of Eq. 4's.

Eq. 4 shapes the descent and leaves the height of the valley to chance. The optional contrastive
term (ours, not the paper's) says that an action belongs to its own context: it is what makes the
height comparable between contexts, and so a score of how well a context is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.action_head import BoundHead
from models.config import SamplerConfig
from models.denoising_head import Process
from models.mcmc import train_descend
from models.model import EBVLA
from models.schedule import Draw

MATCHES = 4  # actions that each context is asked about, its own included


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch on the model's device."""

    images: Tensor  # uint8 [B, views, S, S, 3]
    proprio: Tensor  # [B, 8], standardised
    text: Tensor  # of text.py
    text_mask: Tensor | None
    actions: Tensor  # [B, H, D_a], normalised expert actions a*
    part: slice  # these rows of the batch of all processes
    size: int  # of the batch of all processes
    mismatched: Tensor | None = None  # [M, ...] of images: see `contrastive_loss`

    def normal(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Standard normal [B, ...] of the shape of `like`: this part of one draw for all."""
        shape = (self.size, *like.shape[1:])
        return torch.randn(shape, generator=generator, device=like.device)[self.part]

    def uniform(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Uniform in [0, 1), as `normal`."""
        shape = (self.size, *like.shape[1:])
        return torch.rand(shape, generator=generator, device=like.device)[self.part]


def training_loss(
    model: EBVLA,
    batch: Batch,
    draw: Draw,
    sampler: SamplerConfig,
    generator: torch.Generator | None,
    precision: str = "float32",
    contrast: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of the model's head plus |read-out - a*|₁, the mean over elements, and its parts.

    With several chains the head is trained from several noises against one encoding.
    With `precision` "bfloat16" the encoding and what the head is asked about it run under
    autocast; the last MCMC step, which is differentiated twice, stays in float32.
    `contrast` weighs `contrastive_loss` of an energy; 0 leaves it out.
    """
    with torch.autocast(batch.images.device.type, torch.bfloat16, precision == "bfloat16"):
        context = model.backbone(batch.images, batch.proprio, batch.text, batch.text_mask)
        bound = model.head.bind(context)
        readout = model.read_out(context).float()
    if model.config.head == "energy":
        loss, parts = descent_loss(bound, batch, draw, sampler, generator, precision)
    else:
        loss, parts = denoising_loss(bound, model.head.process, batch, draw, generator, precision)
    readout_l1 = (readout - batch.actions).abs().mean()
    loss, parts = loss + readout_l1, {**parts, "readout_l1": readout_l1.item()}
    if contrast:
        with torch.autocast(batch.images.device.type, torch.bfloat16, precision == "bfloat16"):
            matching = contrastive_loss(bound, batch.actions, _mismatched(model, batch))
        loss = loss + contrast * matching
        parts["contrast"] = matching.item()
    return loss, parts


def descent_loss(
    energy: BoundHead,
    batch: Batch,
    draw: Draw,
    sampler: SamplerConfig,
    generator: torch.Generator | None,
    precision: str,
) -> tuple[Tensor, dict[str, float]]:
    """|a^(K) - a*|₁ (Eq. 4), the mean over elements, as `l1`.

    `energy_gap` is E(a^(0)) - E(a*): positive once the head prefers the expert to noise.
    """
    target = batch.actions.unsqueeze(1)  # [B, 1, H, D_a]

    def normal(like: Tensor) -> Tensor:
        return batch.normal(like, generator)

    noise = sampler.init_std * normal(target.expand(-1, draw.chains, -1, -1))
    detached = energy.detach()  # cast once, not at every step

    def frozen(actions: Tensor) -> Tensor:
        with torch.autocast(actions.device.type, torch.bfloat16, precision == "bfloat16"):
            return detached(actions).float()

    final = train_descend(
        energy.float(), frozen, noise, draw.steps, draw.step_size, sampler, normal
    )
    loss = (final - target).abs().mean()
    with torch.no_grad():
        expert, start = frozen(torch.cat([target, noise[:, :1]], dim=1)).mean((0, 2))
    return loss, {"l1": loss.item(), "energy_gap": (start - expert).item()}


def denoising_loss(
    head: BoundHead,
    process: Process,
    batch: Batch,
    draw: Draw,
    generator: torch.Generator | None,
    precision: str,
) -> tuple[Tensor, dict[str, float]]:
    """Mean squared error of what the head says of noisy actions, as `denoising`."""
    target = batch.actions.unsqueeze(1).expand(-1, draw.chains, -1, -1)
    noise = batch.normal(target, generator)
    time = process.time(batch.uniform(target[..., :1, :1], generator))
    noisy, wanted = process.mix(target, noise, time)
    with torch.autocast(noisy.device.type, torch.bfloat16, precision == "bfloat16"):
        said = head(noisy, time[..., 0, 0])
    loss = F.mse_loss(said.float(), wanted)
    return loss, {"denoising": loss.item()}


def _mismatched(model: EBVLA, batch: Batch) -> BoundHead | None:
    """The energy in the first M contexts, the fixed camera showing another moment of the task."""
    if batch.mismatched is None:
        return None
    first = slice(len(batch.mismatched))
    mask = None if batch.text_mask is None else batch.text_mask[first]
    context = model.backbone(batch.mismatched, batch.proprio[first], batch.text[first], mask)
    return model.head.bind(context).float()


def contrastive_loss(
    energy: BoundHead, actions: Tensor, mismatched: BoundHead | None = None
) -> Tensor:
    """Symmetric cross-entropy of E(a_i, C_j), the mean over the chunk, for actions [B, H, D_a].

    Each context must tell its own action from those of the next samples, and each action its own
    context from those of the samples before: InfoNCE (van den Oord et al. 2018) in both directions
    with logits -E. And where the first M contexts are given once more, `mismatched` with a picture
    of another moment, that must cost energy (a logistic loss on the difference): the model has to
    look whether the fixed camera agrees with the wrist camera and the joints, or it could do
    without. With several processes, of the samples of one. Raises ValueError for a single one.
    """
    if len(actions) < 2:
        raise ValueError("training: --contrast needs two samples or more in each process")
    m = min(MATCHES, len(actions))
    points = torch.stack([actions.roll(-i, 0) for i in range(m)], dim=1)
    by_context = -energy(points).float().mean(-1)  # [B, m]: a_(j+i) in C_j
    by_action = torch.stack([by_context[:, i].roll(i) for i in range(m)], dim=1)  # C_(k-i) for a_k
    own = torch.zeros(len(actions), dtype=torch.long, device=actions.device)
    loss = (F.cross_entropy(by_context, own) + F.cross_entropy(by_action, own)) / 2
    if mismatched is None:
        return loss
    size = mismatched.size
    wrong = -mismatched(actions[:size, None]).float().mean(-1).squeeze(1)
    return loss + F.softplus(wrong - by_context[:size, 0]).mean()


def choose_precision(name: str, device: str) -> str:
    """`name`, one of `AUTO_PRECISIONS`; for auto bfloat16 where the device computes in it."""
    if name != "auto":
        return name
    if device.startswith("cuda"):
        native = torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere; older ones emulate
    else:
        known = torch.cpu.get_capabilities()
        native = any(known.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if native else "float32"
