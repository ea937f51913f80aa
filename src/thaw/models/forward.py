"""Forward passes in parts: the output of a layer, and what a network makes of given ones."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from thaw.models.encoder import layers_of


def tiny_batch(network: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask of two rows, the second shorter, for trying out a network."""
    device = next(network.parameters()).device
    padding = network.config.pad_token_id or 0
    ids = (torch.arange(8, device=device).view(2, 4) + padding + 1) % network.config.vocab_size
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device)
    return ids.masked_fill(mask == 0, padding), mask


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Run a network in eval mode and without gradients; afterwards every module is in its own mode again."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Reached(Exception):
    """Ends a forward pass once the wanted output is known."""


def output_of(network: Any, layers: Sequence[nn.Module], ids: Tensor, mask: Tensor, depth: int) -> tuple[Tensor, int]:
    """The output of the layer below ``layers[depth]``; nothing above it is computed.

    Returns:
        (rows, tokens, size), and the form for `layers_returning`. Of a layer that runs several times (ALBERT), the last
        output.
    """
    seen: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen[:] = [output]

    def stop(*_: Any) -> None:
        raise _Reached

    with ExitStack() as hooks, suppress(_Reached):
        hooks.enter_context(layers[depth - 1].register_forward_hook(keep))
        if depth < len(layers):
            hooks.enter_context(layers[depth].register_forward_pre_hook(stop))
        network(input_ids=ids, attention_mask=mask)
    (output,) = seen
    return (output[0], len(output)) if isinstance(output, tuple) else (output, 0)


@contextmanager
def layers_returning(layers: Sequence[Any], hidden: Tensor, form: int) -> Iterator[None]:
    """Make layers return a given tensor instead of computing one.

    Args:
        form: 0 if the layers return a tensor, else the length of the tuple whose first item it is.
    """
    states = [vars(layer) for layer in layers]  # setting an attribute of a module is slow
    before = [attributes.get("forward") for attributes in states]
    result = (hidden, *[None] * (form - 1)) if form else hidden
    for attributes in states:
        attributes["forward"] = lambda *_, **__: result
    try:
        yield
    finally:
        for attributes, forward in zip(states, before, strict=True):
            del attributes["forward"]
            if forward is not None:
                attributes["forward"] = forward


def reads_first_token(network: Any) -> bool:
    """Whether the logits depend on the first token's hidden state alone; tried out, since heads share no interface.

    ``[CLS]`` heads do; those of token tasks and those that average over tokens do not.
    """
    ids, mask = tiny_batch(network)
    layers = [layer for _, layer in layers_of(network)]
    with evaluating(network):
        hidden, form = output_of(network, layers, ids, mask, len(layers))
        hidden = hidden + torch.linspace(-1, 1, hidden.numel()).view(hidden.shape).to(hidden)
        with layers_returning(layers, hidden, form):
            whole = network(input_ids=ids, attention_mask=mask).logits
        with layers_returning(layers, hidden[:, :1], form):
            first = network(input_ids=ids[:, :1], attention_mask=mask[:, :1]).logits
    return whole.ndim == 2 and torch.allclose(whole, first, atol=1e-5)
