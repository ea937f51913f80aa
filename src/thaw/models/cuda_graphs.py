"""Training steps as CUDA graphs: one launch for all the kernels of a pass.

A GPU is done with the kernels of a small encoder before Python has launched the next ones. A graph holds the kernels of
a pass and starts them at once (https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs). Its tensors keep their
places and shapes, so there is one for each shape of batch that comes again.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

log = logging.getLogger(__name__)

Batch = dict[str, Any]
Losses = Callable[[Batch], tuple[Tensor, Tensor]]
"""A batch to its loss, and to that from which the backward pass starts."""
Work = Callable[[], None]

INPUTS = ("input_ids", "attention_mask", "labels", "weight")  # those that a training step reads
PRECISIONS = ("32-true", "bf16-true", "bf16-mixed")  # the loss of float16 is scaled by a number that changes


@dataclass(frozen=True)
class Step:
    """The passes of a step for one shape of batch.

    Args:
        inputs: where the passes read the batch.
        results: where the forward pass leaves the ``loss``.
    """

    inputs: dict[str, Tensor]
    results: dict[str, Tensor]
    forward: Work
    backward: Work


class StepGraphs:
    """Runs training steps; those with a shape of batch seen before by graphs.

    Args:
        losses: the forward pass.
        parameters: those that train. Their gradients keep their place from the first step on: set them to zero, and not
            to None.
        accumulate: batches whose gradients are averaged.
    """

    def __init__(self, losses: Losses, parameters: Sequence[nn.Parameter], accumulate: int = 1) -> None:
        self.losses, self.parameters, self.accumulate = losses, parameters, accumulate
        self.record = recorder()
        self.seen: set[Any] = set()  # shapes of batches
        self.recorded: dict[Any, Step] = {}
        self.last: Step | None = None
        self.possible = True

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As ``losses``; those of a graph know nothing of gradients, for which `backward` is the way."""
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        if not batch["padded"]:
            del inputs["attention_mask"]  # attention without one is faster
        shape = tuple((name, value.shape) for name, value in inputs.items())
        # The first of its kind goes without: it also prepares what a graph cannot, such as libraries.
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
        """Add the gradients of the step that a graph has begun."""
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
            # Not `Tensor.backward`, which may add up gradients on a stream of an earlier step. What it has gone through
            # is let go, and with it the memory of all that the forward pass left.
            gradients: Any = torch.autograd.grad(results.pop("weighted") / self.accumulate, trained)
            torch._foreach_add_(sums, gradients)

        try:
            self.recorded[shape] = Step(inputs, results, self.record(forward), self.record(backward))
        except RuntimeError as error:
            log.info("No CUDA graphs, kernels are launched one by one: %s.", str(error).partition("\n")[0].rstrip("."))
            self.possible = False
            self.recorded.clear()  # they would go on with the random numbers of before


def on_one_gpu(strategy: Any) -> bool:
    """Whether a strategy of Lightning trains on a single GPU, where nothing is exchanged during the backward pass."""
    return strategy.root_device.type == "cuda" and isinstance(strategy, SingleDeviceStrategy)


def recorder() -> Callable[[Work], Work]:
    """Gives a function that records work on the GPU, without doing it, and gives back what does it.

    All graphs share their memory: of two steps one ends before the other begins.
    """
    pool, stream, device = torch.cuda.graph_pool_handle(), torch.cuda.Stream(), torch.cuda.current_device()
    generator = torch.cuda.default_generators[device]

    def record(work: Work) -> Work:
        graph, before = torch.cuda.CUDAGraph(), generator.clone_state()
        # While work is recorded the allocator cannot let go of what it keeps: a pass takes at most what one has taken.
        if torch.cuda.mem_get_info()[0] < torch.cuda.max_memory_allocated():
            torch.cuda.empty_cache()
        try:
            with torch.cuda.stream(stream):
                graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
        except RuntimeError:  # work that a graph cannot hold, such as a look at a number, breaks the random state too
            generator.graphsafe_set_state(before)
            with suppress(RuntimeError):  # where the recording got to its end
                torch._C._cuda_endAllocateToPool(device, pool)  # else the allocator takes it to be going on
                torch._C._cuda_releasePool(device, pool)
            raise
        return graph.replay

    return record
