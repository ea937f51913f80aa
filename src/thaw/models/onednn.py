"""Linear layers by oneDNN, where MKL leaves half of the processor unused.

On x86 torch multiplies float32 matrices by MKL, which uses AVX-512 on processors of its own maker only. oneDNN, which
is part of torch too, asks the processor what it can do: on AMD's with AVX-512 its products take half of the time, and
differ in the last digits only, as those of two processors do.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALL = 2**20  # products of numbers; of fewer MKL is done before oneDNN has begun


@cache
def preferred() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than MKL on this machine: told by the maker of its processor.

    Not by a measurement, which may turn out one way in a run and the other when the run goes on.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    processor = Path("/proc/cpuinfo")
    return processor.is_file() and "AuthenticAMD" in processor.read_text(encoding="utf-8", errors="replace")


def product(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in) by (out, in): (..., out). The weight may be a transposed view."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return result


class LinearFunction(torch.autograd.Function):
    """``torch.nn.functional.linear`` with the products of both its passes by oneDNN."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        values = values.contiguous()  # for views of a larger tensor oneDNN is a hundred times slower
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
        # Without the copies of transposed rows that `product` would make.
        of_weight, of_bias = torch.ops.aten.mkldnn_linear_backward_weights(
            rows.to_mkldnn(), values.view(-1, weight.shape[1]).to_mkldnn(), weight, for_bias
        )
        return of_values, of_weight, of_bias if for_bias else None


class Linear(nn.Linear):
    """A linear layer whose float32 products on a CPU are oneDNN's."""

    def forward(self, input: Tensor) -> Tensor:
        large = input.numel() * self.out_features >= SMALL
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not (large and plain) or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(input)
        result: Tensor = LinearFunction.apply(input, self.weight, self.bias)
        return result


def use_onednn(network: nn.Module) -> None:
    """Let every linear layer of a network, in place, be one of `Linear`, where that is the faster way."""
    if not preferred():
        return
    # oneDNN keeps 1024 of the programs that it makes for each size of batch. Sizes seldom come again before so many
    # others: those of a few steps are as fast, and take 300 MB less. With those of a single one it is slower.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
