"""Converts a torch network to an ONNX graph, and its weights to integers."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from thaw.errors import UserError, reason

OPSET = 20  # the first with GELU as one operator, which the quantiser does not take apart
ATTENTION = "thaw_onnx"  # the name of `attend` among the attention functions of transformers


def write_graph(network: Any, path: Path) -> None:
    """Write a network as a graph of ONNX Runtime for any number of rows and tokens.

    Attention is one operator (`attend`) where the architecture lets its attention be chosen.

    Raises:
        UserError: when the exporter fails.
    """
    if network._supports_attention_backend:
        AttentionInterface.register(ATTENTION, attend)
        AttentionMaskInterface.register(ATTENTION, eager_mask)
        network.set_attn_implementation(ATTENTION)
    ids = torch.zeros((2, 8), dtype=torch.int64)
    mask = torch.ones((2, 8), dtype=torch.int64)
    mask[1, 5:] = 0
    sizes = {0: torch.export.Dim("rows", min=1), 1: torch.export.Dim("tokens", min=1)}
    try:
        with silence():
            program: Any = torch.onnx.export(
                OnlyLogits(network),
                (ids, mask),
                dynamo=True,
                opset_version=OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
                verbose=False,
            )
            skip_masks(program.model.graph)
    except Exception as error:  # the exporter raises all kinds of exceptions
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__  # the outer ones only name the step of the exporter
        raise UserError(
            f"{network.config.model_type}: torch cannot export this architecture: {reason(cause)}",
            "predict.py runs the model with torch.",
        ) from error
    size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    with silence():
        program.save(str(path), external_data=size > 1.9e9)  # a single file can hold at most 2 GiB


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as a single operator of ONNX Runtime if it has a suitable one; transformers calls this during export.

    Arguments and results are those of `thaw.models.speed.attend`, with an additive mask.
    """
    if attention_mask is None or query.shape[1] != key.shape[1] or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    states = [one.transpose(1, 2).flatten(2) for one in (query, key, value)]
    heads, size = query.shape[1], query.shape[3]
    attended = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [*states, None, None, attention_mask],  # no biases, no key padding mask
        {"num_heads": heads, "scale": float(options.get("scaling") or size**-0.5)},
        dtype=query.dtype,
        shape=states[0].shape,
        version=1,
    )
    return attended.unflatten(-1, (heads, size)), None


def skip_masks(graph: Any) -> None:
    """Leave masks that hide nothing out of attention, which lets ONNX Runtime use a kernel that is a third faster.

    Each batch is tested at run time. Masks are additive, so a mask hides something if its minimum is below zero.
    """
    import onnx_ir as ir

    for node in [node for node in graph if node.op_type == "MultiHeadAttention"]:
        lowest = ir.node("ReduceMin", [node.inputs[5]], {"keepdims": 0})
        hides = ir.node("Cast", lowest.outputs, {"to": ir.DataType.BOOL})
        branches = {
            "then_branch": graph_of_copy(node, node.inputs, "masked"),
            "else_branch": graph_of_copy(node, node.inputs[:3], "whole"),
        }
        chosen = ir.node("If", hides.outputs, branches)
        new = [lowest, hides, chosen]
        ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, chosen.outputs)


def graph_of_copy(node: Any, inputs: Sequence[Any], name: str) -> Any:
    """A branch with a copy of one node that has other inputs."""
    import onnx_ir as ir

    copy = ir.node(node.op_type, inputs, node.attributes, domain=node.domain)
    (result,) = copy.outputs
    result.name, result.dtype = f"{node.outputs[0].name}_{name}", node.outputs[0].dtype
    return ir.Graph([], [result], nodes=[copy], name=name)


class OnlyLogits(torch.nn.Module):
    """A network with positional inputs and a single output, as a graph needs them."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.network(input_ids=input_ids, attention_mask=attention_mask).logits


def quantize_graph(path: Path, target: Path, kinds: list[str]) -> None:
    """Quantise weights to 8-bit integers per output channel; activations are quantised dynamically per batch.

    Only seven bits are used: CPUs without VNNI add two products in 16 bits, which would overflow. On emotion, this does
    not affect the labels of MiniLM.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    del model.graph.value_info[:]  # shapes recorded by the exporter, which mislead the quantiser
    with silence():
        quantize_dynamic(
            model,
            str(target),
            op_types_to_quantize=kinds,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )


@contextmanager
def silence() -> Iterator[None]:
    """Silence the log messages and warnings of exporter and quantiser."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
