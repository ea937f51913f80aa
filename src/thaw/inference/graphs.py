"""A network of torch as an ONNX graph, and its weights as integers."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from thaw.errors import UserError

OPSET = 20  # the first with GELU as one operator, which the quantiser leaves whole


def write_graph(network: Any, path: Path) -> None:
    """Write a network as an ONNX graph for any number of rows and tokens.

    Eager attention has fewer operators than what the exporter makes of sdpa (8 % faster). ONNX Runtime fuses layer
    norms and GELU itself when it loads the graph; its separate optimizer gained nothing on top.

    Raises:
        UserError: when the exporter cannot follow the network's code.
    """
    ids = torch.zeros((2, 8), dtype=torch.int64)
    mask = torch.ones((2, 8), dtype=torch.int64)
    mask[1, 5:] = 0
    sizes = {0: torch.export.Dim("rows", min=1), 1: torch.export.Dim("tokens", min=1)}
    size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    try:
        with silence():
            torch.onnx.export(
                OnlyLogits(network),
                (ids, mask),
                str(path),
                dynamo=True,
                opset_version=OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
                external_data=size > 1.9e9,  # a single file holds 2 GiB at most
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever it stumbles over in the network's code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{network.config.model_type}: torch cannot export this architecture: {reason}",
            "predict.py runs the model with torch.",
        ) from error


class OnlyLogits(torch.nn.Module):
    """A network whose inputs and output have an order, as a graph needs it."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def quantize_graph(path: Path, target: Path, kinds: list[str]) -> None:
    """Weights as 8-bit integers by output channel; activations are quantised as they come, by batch.

    Seven bits are used of the eight: CPUs without VNNI add two products in 16 bits and would overflow. The labels of
    MiniLM on emotion do not suffer from it. The classifier (Gemm) stays as it is: it costs nothing.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    del model.graph.value_info[:]  # the exporter's notes on the weights, which the quantiser takes for theirs
    with silence():
        quantize_dynamic(
            model,
            str(target),
            op_types_to_quantize=kinds,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


@contextmanager
def silence() -> Iterator[None]:
    """Leave out what exporter and quantiser say to their developers."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
