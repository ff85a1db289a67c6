"""The paper's 15 MCMC steps: `python -m benchmarks.descent [--device cuda --dtype bfloat16]`.

The energy head of a preset (the paper's: D = 896, a context of 577 tokens) on random weights and a
random context, batch 1. `straightforward` is the loop one would write first: the module is called
at each step, which encodes the context in each block anew, and `backward` computes the gradients of
all weights on its way to that of the actions; in float32 and, if `--dtype` says so, in bfloat16.
`bound` is ours without, on a CPU `packed` with the weights laid out for oneDNN, too. `traced` is
`descend`, how plans are made: `packed` and the exact energies of all K + 1 points, which the loop
leaves out; on a GPU as one CUDA graph. The floor is what reading the weights takes at the bandwidth
that this run measures: those that a step needs (all of the head's but the context's keys and
values) twice, forward and backward, in each of the K steps.
Ways take turns and the best turn counts: a shared machine's milliseconds vary, its ratios less.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.turns import best_turns
from models.action_head import Context
from models.captured import CapturedDescents
from models.config import PRECISIONS, PRESETS, ModelConfig, SamplerConfig, preset
from models.energy_head import EnergyHead
from models.landscape import slice_2d
from models.mcmc import Energy, descend, draw_noise, update
from models.packed import pack
from models.policy import choose_device

STREAMED = 2**28  # bytes copied to measure the bandwidth: more than any cache


def random_context(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Context:
    """One context C of the preset's shape."""

    def states(tokens: int) -> Tensor:
        return torch.randn(1, tokens, config.hidden_size, device=device, dtype=dtype)

    layers = range(config.layers_extracted)
    return Context(
        tuple(states(config.latents) for _ in layers),
        tuple(states(config.vision_tokens) for _ in layers),
        states(1),
    )


def straightforward(
    head: EnergyHead, context: Context, initial: Tensor, noise: Tensor, config: SamplerConfig
) -> Tensor:
    """a^(K), by the loop that Eq. 2-3 suggest."""
    actions = initial
    for jitter in noise:
        head.zero_grad()
        point = (actions + jitter).requires_grad_()
        energies = head(context, point)
        energies.mean(-1).sum().backward()
        scale = config.step_size * torch.exp(energies.detach() / config.temperature)
        step = scale.unsqueeze(-1) * point.grad.clamp(-config.grad_clip, config.grad_clip)
        actions = (actions - step).clamp(-config.action_clamp, config.action_clamp).detach()
    return actions


def bare(energy: Energy, initial: Tensor, noise: Tensor, config: SamplerConfig) -> Tensor:
    """a^(K) of `descend`, without what explains it."""
    actions = initial
    for jitter in noise:
        actions, _, _ = update(energy, actions, jitter, config.step_size, config)
    return actions


def bandwidth(device: torch.device, runs: int = 5) -> float:
    """Bytes a second that a large copy reads and writes."""
    source = torch.ones(STREAMED // 4, device=device)
    target = torch.empty_like(source)
    copy = _whole(lambda: target.copy_(source), device)
    return 2 * STREAMED / best_turns({"copy": copy}, runs)["copy"]


def _whole(call: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The same until the device is done with it."""

    def wait() -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return wait


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--preset", choices=PRESETS, default="eb-vla-0.5b")
    p.add_argument("--device", default="auto")
    p.add_argument("--dtype", choices=PRECISIONS, default="float32")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--turns", type=int, default=5)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device, dtype = choose_device(args.device), getattr(torch, args.dtype)
    config, sampler = preset(args.preset), SamplerConfig()
    head = EnergyHead(config).to(device)
    low = copy.deepcopy(head).to_precision(dtype)
    frozen = copy.deepcopy(low).requires_grad_(False)
    context = random_context(config, device, dtype)
    shape = (config.horizon, config.action_dim)
    initial, noise = (t.to(device) for t in draw_noise(sampler, shape, [0]))
    with torch.no_grad():  # slices are taken in float32
        bound = copy.deepcopy(frozen).float().bind(context.float())

    def ours(way: Callable, head: EnergyHead = frozen) -> Callable[[], object]:
        @torch.no_grad()
        def plan() -> object:
            return way(head.bind(context), initial, noise, sampler)

        return plan

    centre = initial[0, 0].cpu().numpy()
    ways: dict[str, Callable[[], object]] = {
        "straightforward": lambda: straightforward(head, context.float(), initial, noise, sampler),
        "bound": ours(bare),
        "slice 50 x 50": lambda: slice_2d(bound, centre, 0, (0, 1), 1.0, 50, device),
    }
    if dtype != torch.float32:
        name = f"the same in {args.dtype}"
        ways[name] = lambda: straightforward(low, context, initial, noise, sampler)
    if device.type == "cuda":
        ways["traced"] = ours(CapturedDescents())
    else:
        packed = copy.deepcopy(frozen)
        pack(packed)
        ways |= {"packed": ours(bare, packed), "traced": ours(descend, packed)}
    best = best_turns({name: _whole(way, device) for name, way in ways.items()}, args.turns)
    read = [w for name, w in frozen.named_parameters() if "context_" not in name]
    weights = sum(w.numel() * w.element_size() for w in read)
    best["floor"] = 2 * sampler.steps * weights / bandwidth(device)
    tokens = config.latents + 1 + config.vision_tokens
    print(
        f"{args.preset}'s head, {weights / 1e6:.0f} MB, D = {config.hidden_size}, {tokens} context "
        f"tokens, K = {sampler.steps}, {device}, {args.dtype}, {args.threads} thread(s)\n"
    )
    print("| way | time | straightforward / it |\n| --- | --- | --- |")
    for name, seconds in best.items():
        print(f"| {name} | {1e3 * seconds:.1f} ms | {best['straightforward'] / seconds:.1f} |")


if __name__ == "__main__":
    main()
