"""Linear layers by oneDNN on processors where MKL does not use AVX-512.

On x86, torch multiplies float32 matrices with MKL, which uses AVX-512 only on Intel processors. oneDNN, which is also
part of torch, uses whatever the processor supports: on AMD processors with AVX-512 its products take half the time.
They differ only in the last digits, as results of two processors do.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALL = 2**20  # multiplications; below that, oneDNN's overhead outweighs its speed


@cache
def preferred() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL on this machine, judged by its processor.

    A measurement might give one answer when a run starts and another when it resumes.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return "AuthenticAMD" in processor()


def fast_in_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself, several times as fast as those of float32."""
    return torch.backends.mkldnn.is_available() and bool({"avx512_bf16", "amx_bf16"} & {*processor().split()})


def processor() -> str:
    """What Linux says of the processor; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def product(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of (..., in) and (out, in): (..., out). The weight may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")


class LinearFunction(torch.autograd.Function):
    """``torch.nn.functional.linear`` with oneDNN's products in both passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        values = values.contiguous()  # with views of a larger tensor oneDNN is a hundred times slower
        ctx.save_for_backward(values if ctx.needs_input_grad[1] else None, weight)
        return product(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        for_values, for_weight, for_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        rows = gradient.view(-1, weight.shape[0])
        of_values = product(gradient, weight.t()) if for_values else None
        if not for_weight:
            return of_values, None, rows.sum(0) if for_bias else None
        # This avoids the copies of transposed rows that `product` would make.
        of_weight, of_bias = torch.ops.aten.mkldnn_linear_backward_weights(
            rows.to_mkldnn(), values.view(-1, weight.shape[1]).to_mkldnn(), weight, for_bias
        )
        return of_values, of_weight, of_bias if for_bias else None


class Linear(nn.Linear):
    """A linear layer that computes float32 products on a CPU with oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        large = input.numel() * self.out_features >= SMALL
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not (large and plain) or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        return LinearFunction.apply(input, self.weight, self.bias)


def use_onednn(network: nn.Module) -> None:
    """Turn every linear layer of a network into a `Linear`, in place, if that is faster on this machine."""
    if not preferred():
        return
    # By default oneDNN caches 1024 kernels, one for each batch shape. Shapes seldom recur within so many: a cache for
    # a few steps is as fast and takes 300 MB less, while one for a single step is slower.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
