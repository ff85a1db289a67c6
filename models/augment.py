"""Image augmentation of a training batch: random shift and light colour jitter, on uint8."""

from __future__ import annotations

import torch
from torch import Tensor

SHIFTS = (2, 4)  # pixels at 128 px, each way: agentview, wrist
BRIGHTNESS, CONTRAST = 0.1, 0.1  # half widths


def augment(
    images: Tensor, generator: torch.Generator, part: slice = slice(None), size: int | None = None
) -> Tensor:
    """Shift each view by up to its `SHIFTS` (edges repeated), jitter brightness and contrast.

    The fixed camera is shifted less: a shift looks like a turn of it, and a model that is taught to
    shrug at turns has nothing to say about a camera that was moved.

    images uint8 [B, views, S, S, 3] -> the same, on their device. They are `part` of a batch of
    `size`, for all of which chance is drawn, on the CPU. Both views of a sample share the jitter.
    """
    b, views, side = images.shape[:3]
    size = size or b
    reach = torch.tensor([max(1, round(s * side / 128)) for s in SHIFTS])
    draws = torch.rand((2, size, views), generator=generator)[:, part]
    offsets = (draws * (2 * reach + 1)).long() - reach  # [2, B, views]
    places = (torch.arange(side) + offsets.flatten(1)[:, :, None]).clamp(0, side - 1)
    rows, columns = places.to(images.device)
    flat = images.flatten(0, 1)
    view = torch.arange(len(flat), device=images.device)[:, None, None]
    shifted = flat[view, rows[:, :, None], columns[:, None, :]]
    jitter = torch.rand((2, size), generator=generator)[:, part] * 2 - 1
    gain, bias = 1 + CONTRAST * jitter[0], 255 * BRIGHTNESS * jitter[1]
    levels = torch.arange(256.0)
    table = (gain[:, None] * (levels - 128) + 128 + bias[:, None]).clamp(0, 255).byte()  # [B, 256]
    pairs = zip(table.to(images.device), shifted.unflatten(0, (b, views)), strict=True)
    return torch.stack([row[view.long()] for row, view in pairs])
