"""Training steps as CUDA graphs: one launch for all the kernels of a pass.

With a small encoder, a GPU finishes its kernels faster than Python can launch them. A graph holds the kernels of a pass
and launches them together (https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs). Its tensors have fixed
addresses and shapes, so there is one graph for each batch shape that recurs.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from thaw.errors import reason

log = logging.getLogger(__name__)

Batch = dict[str, Any]
Losses = Callable[[Batch], tuple[Tensor, Tensor]]
"""From a batch to its loss, and to the weighted loss that the backward pass starts from."""
Work = Callable[[], None]

INPUTS = ("input_ids", "attention_mask", "labels", "weight")  # the parts of a batch that a training step reads
PRECISIONS = ("32-true", "bf16-true", "bf16-mixed")  # not float16, whose loss scale changes


@dataclass(frozen=True)
class Step:
    """The recorded passes of a step, for one batch shape.

    Args:
        inputs: the tensors that the passes read the batch from.
        results: where the forward pass stores the ``loss``.
    """

    inputs: dict[str, Tensor]
    results: dict[str, Tensor]
    forward: Work
    backward: Work


class StepGraphs:
    """Runs training steps, as graphs if their batch shape has occurred before.

    Args:
        losses: the forward pass.
        parameters: those that train. Their gradients must stay at the same address: set them to zero, not to None.
        accumulate: batches whose gradients are averaged.
    """

    def __init__(self, losses: Losses, parameters: Sequence[nn.Parameter], accumulate: int = 1) -> None:
        self.losses, self.parameters, self.accumulate = losses, parameters, accumulate
        self.record = recorder()
        self.seen: set[Any] = set()  # batch shapes
        self.recorded: dict[Any, Step] = {}
        self.last: Step | None = None
        self.possible = True

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The result of ``losses``; if it comes from a graph, call `backward` here, not on the tensor."""
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        if not batch["padded"]:
            del inputs["attention_mask"]  # attention without one is faster
        shape = tuple((name, value.shape) for name, value in inputs.items())
        # The first step of a shape runs without a graph: it initialises libraries, which a recording cannot.
        if self.possible and shape in self.seen and shape not in self.recorded:
            self._record(shape, inputs)
        self.seen.add(shape)
        self.last = self.recorded.get(shape)
        if self.last is None:
            return self.losses(batch)
        for name, value in inputs.items():
            self.last.inputs[name].copy_(value)
        self.last.forward()
        return self.last.results["loss"], self.last.results["loss"]

    def backward(self) -> None:
        """Add the gradients of the step whose forward pass was a graph."""
        assert self.last is not None
        self.last.backward()

    def _record(self, shape: Any, inputs: dict[str, Tensor]) -> None:
        inputs = {name: value.clone() for name, value in inputs.items()}
        results: dict[str, Tensor] = {}
        trained = [parameter for parameter in self.parameters if parameter.grad is not None]
        sums: Any = [parameter.grad for parameter in trained]

        def forward() -> None:
            loss, results["weighted"] = self.losses({"attention_mask": None, **inputs})
            results["loss"] = loss.detach()

        def backward() -> None:
            # Not `Tensor.backward`, which may accumulate gradients on a stream of an earlier step. Popping the loss
            # frees the autograd graph, and with it the activations of the forward pass.
            gradients: Any = torch.autograd.grad(results.pop("weighted") / self.accumulate, trained)
            torch._foreach_add_(sums, gradients)

        try:
            self.recorded[shape] = Step(inputs, results, self.record(forward), self.record(backward))
        except RuntimeError as error:
            log.info("No CUDA graphs, kernels are launched one by one: %s.", reason(error).rstrip("."))
            self.possible = False
            self.recorded.clear()  # they would continue with stale random states


def on_one_gpu(strategy: Any) -> bool:
    """Whether a Lightning strategy trains on a single GPU, so that the backward pass involves no communication."""
    return strategy.root_device.type == "cuda" and isinstance(strategy, SingleDeviceStrategy)


def recorder() -> Callable[[Work], Work]:
    """A function that records GPU work without running it, and returns a function that runs it.

    All graphs share their memory, since no two steps overlap.
    """
    pool, stream, device = torch.cuda.graph_pool_handle(), torch.cuda.Stream(), torch.cuda.current_device()
    generator = torch.cuda.default_generators[device]

    def record(work: Work) -> Work:
        graph, before = torch.cuda.CUDAGraph(), generator.clone_state()
        # During recording the allocator cannot release cached memory, and a pass may need as much as any before.
        if torch.cuda.mem_get_info()[0] < torch.cuda.max_memory_allocated():
            torch.cuda.empty_cache()
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
        except RuntimeError:  # work that cannot be recorded, such as a synchronisation, also breaks the random state
            generator.graphsafe_set_state(before)
            with suppress(RuntimeError):  # if the recording had already ended
                torch._C._cuda_endAllocateToPool(device, pool)  # otherwise the allocator believes that it still goes on
                torch._C._cuda_releasePool(device, pool)
            raise
        return graph.replay

    return record
