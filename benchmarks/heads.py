"""One plan by each action head, in one run: `python -m benchmarks.heads`.

The whole plan, two images to actions: the energy's descent with its trace (K = 15), diffusion with
10 and 100 denoising steps, flow with 10; heads of one size on one backbone, random weights. Heads
take turns and the best turn counts: a shared machine's milliseconds vary, its ratios less.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.turns import best_turns
from models.captured import CapturedDescents
from models.config import PRECISIONS, PRESETS, ModelConfig, SamplerConfig, preset
from models.denoising_head import denoise
from models.mcmc import draw_noise
from models.model import EBVLA
from models.packed import pack
from models.policy import choose_device
from models.text import MINILM_SIZE

PLANS = (("energy", 15), ("diffusion", 10), ("diffusion", 100), ("flow", 10))
TOKENS = 16  # of an instruction, for language models that read tokens

Plan = Callable[[], Tensor]


def observation(config: ModelConfig, device: torch.device) -> tuple[Tensor, ...]:
    """Images, proprio, text and its mask of one random observation."""
    size = config.image_size
    images = torch.randint(0, 256, (1, config.views, size, size, 3), dtype=torch.uint8)
    text = torch.randn(1, 1, MINILM_SIZE)
    if config.text == "qwen":
        text = torch.randint(0, 1000, (1, TOKENS))
    mask = torch.ones(1, text.shape[1], dtype=torch.bool)
    return tuple(t.to(device) for t in (images, torch.randn(1, config.proprio_dim), text, mask))


def as_planned(model: EBVLA, device: torch.device, dtype: torch.dtype) -> EBVLA:
    """The model as `Policy` has it."""
    model = model.to_precision(dtype).to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        pack(model.head)
    return model


def plan_of(model: EBVLA, steps: int, device: torch.device) -> Plan:
    """A function that makes one plan, and waits until the device is done."""
    descents, sampler = CapturedDescents(), SamplerConfig(steps=steps)
    seen = observation(model.config, device)
    shape = (model.config.horizon, model.config.action_dim)
    initial, jitter = (t.to(device) for t in draw_noise(sampler, shape, [0]))

    def plan() -> Tensor:
        with torch.no_grad():
            head = model.head.bind(model.backbone(*seen))
            if model.config.head == "energy":
                actions = descents(head, initial, jitter, sampler).actions[-1]
            else:
                actions = denoise(head, model.head.process, initial, steps)
        return actions.cpu()

    return plan


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--preset", choices=PRESETS, default="eb-vla-tiny")
    p.add_argument("--device", default="auto")
    p.add_argument("--dtype", choices=PRECISIONS, default="float32")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--turns", type=int, default=10)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    device, dtype = choose_device(args.device), getattr(torch, args.dtype)
    plans: dict[tuple[str, int], Plan] = {}
    for head in dict(PLANS):
        torch.manual_seed(0)
        model = as_planned(EBVLA(replace(preset(args.preset), head=head)), device, dtype)
        plans |= {(h, k): plan_of(model, k, device) for h, k in PLANS if h == head}
    best = best_turns(plans, args.turns)
    print(f"| {args.preset}, {device}, {args.dtype} | steps | plan | ratio |")
    print("| --- | --- | --- | --- |")
    for (head, steps), seconds in best.items():
        print(f"| {head} | {steps} | {1e3 * seconds:.1f} ms | {seconds / best[PLANS[0]]:.2f}x |")


if __name__ == "__main__":
    main()
