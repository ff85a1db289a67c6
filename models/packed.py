"""Linear layers for a CPU: their weights laid out once as oneDNN reads them, for both directions.

With a chunk's few tokens a product takes as long as its weights take to read, and `F.linear` reads
them at a fraction of the memory's speed: in bfloat16 it even lays them out anew at each call. A
descent needs each weight K times forward and K times for the gradient of the actions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

LEAST = 2**19  # elements of a weight that is worth it; below, the calls take longer than they save


class PackedLinear(nn.Module):
    """A frozen `nn.Linear`: the same outputs, and gradients of its input alone, once."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.weight, self.transposed = _packed(weight), _packed(weight.T.contiguous())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return _Product.apply(x, self)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return _multiply(x, layer.weight, layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return _multiply(gradient, ctx.layer.transposed, None), None


def pack(module: nn.Module) -> None:
    """Replace the large linear layers below `module`, which is frozen and on the CPU, in place.

    Does nothing where PyTorch comes without oneDNN, or the processor can't do bfloat16 there.
    """
    if not torch.backends.mkldnn.is_available():
        return
    half = any(weight.dtype == torch.bfloat16 for weight in module.parameters())
    if half and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear) and child.weight.numel() >= LEAST:
                setattr(parent, name, PackedLinear(child))


# The operators that PyTorch's own compiler emits for frozen weights on a CPU.
def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
