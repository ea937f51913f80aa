"""The same computation in less time: cheap random numbers, no output that nobody reads, oneDNN, compiled layers.

They change how a network computes and nothing else: parameters, their names and what is saved stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from thaw.models.encoder import layers_of
from thaw.models.onednn import use_onednn

ATTENTION = "thaw"  # the name of `attend` among the attention functions of transformers
STEPS = 2**15  # into which a random number of `Dropout` divides the unit interval


def accelerate(network: Any) -> None:
    """Speed a network up in place, where its architecture allows."""
    use_onednn(network)
    speed_up_dropout(network)
    compute_first_token(network)


def compile_layers(network: Any) -> None:
    """Compile the layers in place, by torch.compile: one graph for all of them, for batches of any size and length.

    There are further graphs for training and evaluation, with and without a mask, for frozen layers, for a batch of one
    row, and for each dropout of a sweep: more than torch allows by default, before it goes on uncompiled.
    """
    torch._dynamo.config.recompile_limit = 1_000
    for _, layer in layers_of(network):
        forward: Any = torch.compile(layer.forward, dynamic=True)
        layer.forward = forward


class Dropout(torch.autograd.Function):
    """Dropout by 15-bit random numbers, four of which come out of each step of torch's generator.

    On a CPU drawing the random numbers is what dropout costs. The probability is rounded to a multiple of 1/32768, and
    the scale is that of the rounded one, so that the expectation is exact. The mask is kept as bytes, not as floats.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, probability: float) -> Tensor:
        dropped = min(round(probability * STEPS), STEPS - 1)
        numbers = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_().view(torch.int16)
        kept = numbers[: values.numel()].bitwise_and_(STEPS - 1).ge(dropped).view(values.shape)
        ctx.save_for_backward(kept)
        ctx.scale = STEPS / (STEPS - dropped)
        return kept.view(torch.int8).to(values.dtype).mul_(values).mul_(ctx.scale)  # faster than a product with truths

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return kept.view(torch.int8).to(gradient.dtype).mul_(gradient).mul_(ctx.scale), None


def dropout(values: Tensor, probability: float, training: bool) -> Tensor:
    """As ``torch.nn.functional.dropout``; on a CPU by `Dropout`."""
    if training and 0 < probability < 1 and draws_itself(values):
        result: Tensor = Dropout.apply(values, probability)
        return result
    return nn.functional.dropout(values, probability, training)


def draws_itself(values: Tensor) -> bool:
    """Whether `Dropout` does better than torch: on a CPU, unless the compiler fuses dropout with what is around it."""
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention as transformers calls it, with `Dropout` where it trains on a CPU.

    There torch's own falls back to plain operations as well, since its fused kernel knows no dropout.

    Args:
        query: (rows, heads, queries, dimension); key and value alike, with as many heads.
        attention_mask: (rows, 1, queries, tokens), true where to look, or numbers to add.

    Returns:
        (rows, queries, heads, dimension), and None in place of the weights.
    """
    causal = kwargs.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", False) if causal is None else causal)
    plain = not causal and query.shape[1] == key.shape[1] and kwargs.get("position_bias") is None
    if not (dropout and plain and draws_itself(query)):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    scores = (query * (scaling or query.shape[-1] ** -0.5)) @ key.transpose(2, 3)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        # Not minus infinity: in a sliding window a padded position may have nowhere to look.
        scores.masked_fill_(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights: Tensor = Dropout.apply(scores.softmax(-1), dropout)
    return (weights @ value).transpose(1, 2).contiguous(), None


def speed_up_dropout(network: Any) -> None:
    """Let every dropout of a network be ours, that within its attention too."""
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.forward = MethodType(_forward_dropout, module)  # type: ignore[method-assign]
    if network.config._attn_implementation == "sdpa":
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask

        AttentionInterface.register(ATTENTION, attend)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        network.set_attn_implementation(ATTENTION)


def _forward_dropout(self: nn.Dropout, values: Tensor) -> Tensor:
    return dropout(values, self.p, self.training)


def reads_first_token(network: Any) -> bool:
    """Whether the logits depend on the first token's hidden state alone: tried out, since every family names it anew.

    ``[CLS]`` heads do; those of token tasks and those of the mean of all tokens do not.
    """
    ids, mask = tiny_batch(network)
    layers = [layer for _, layer in layers_of(network)]
    with evaluating(network):
        hidden, form = output_of(network, layers, ids, mask, len(layers))
        hidden = hidden + torch.linspace(-1, 1, hidden.numel()).view(hidden.shape)
        with layers_returning(layers, hidden, form):
            whole = network(input_ids=ids, attention_mask=mask).logits
        with layers_returning(layers, hidden[:, :1], form):
            first = network(input_ids=ids[:, :1], attention_mask=mask[:, :1]).logits
    return whole.ndim == 2 and torch.allclose(whole, first, atol=1e-5)


def compute_first_token(network: Any) -> None:
    """Let the last layer compute the first token only, where that is all the head reads and the layer is known.

    The first token looks at all the others as ever; they themselves are spared the layer. The result is compared with
    that of the layer as it was.
    """
    layer: Any = layers_of(network)[-1][1]
    own: Any = getattr(layer, "attention", None)
    if network.config._attn_implementation not in ("eager", "sdpa", ATTENTION):
        return
    if hasattr(own, "self") and hasattr(own.self, "query") and hasattr(layer, "feed_forward_chunk"):
        forward = _first_token_of_bert
    elif hasattr(own, "q_lin") and hasattr(layer, "sa_layer_norm"):
        forward = _first_token_of_distilbert
    else:
        return
    ids, mask = tiny_batch(network)
    same = False
    with suppress(Exception), evaluating(network):  # whatever an encoder that is built otherwise stumbles over
        if reads_first_token(network):
            before = network(input_ids=ids, attention_mask=mask).logits
            layer.forward = MethodType(forward, layer)
            same = torch.allclose(network(input_ids=ids, attention_mask=mask).logits, before, atol=1e-5)
    if not same:
        vars(layer).pop("forward", None)


def _first_token_of_bert(self: Any, hidden: Tensor, mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """A layer of BERT, RoBERTa, ELECTRA and their kin: (rows, tokens, size) to (rows, 1, size)."""
    own, first = self.attention.self, hidden[:, :1]
    attended = _attend_first(own, own.query(first), own.key, own.value, hidden, mask)
    result: Tensor = self.feed_forward_chunk(self.attention.output(attended, first))
    return result


def _first_token_of_distilbert(self: Any, hidden: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    own, first = self.attention, hidden[:, :1]
    attended = own.out_lin(_attend_first(own, own.q_lin(first), own.k_lin, own.v_lin, hidden, mask))
    first = self.sa_layer_norm(attended + first)
    result: Tensor = self.output_layer_norm(self.ffn(first) + first)
    return result


def _attend_first(own: Any, query: Tensor, key: Any, value: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """What the first token's query gets from all tokens: (rows, 1, size).

    In float32 no token needs its key and value: q · K x is Kᵀ q · x, and the sum of w V x is V times the sum of w x, so
    that the two matrices meet one vector of each text and head. Bfloat16 would round the scores in between.

    Args:
        query: (rows, 1, size).
        key, value: linear layers, or adapters around them.
        hidden: (rows, tokens, size).
        mask: (rows, 1, tokens, tokens), true where to look, or numbers to add.
    """
    probability = own.dropout.p if own.training else 0.0
    first = None if mask is None else mask[:, :, :1]
    shape = (-1, own.attention_head_size)
    exact = hidden.dtype == torch.float32 and not torch.is_autocast_enabled(hidden.device.type)
    if not exact or not isinstance(key, nn.Linear) or not isinstance(value, nn.Linear):
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        states = (tensor.unflatten(-1, shape).transpose(1, 2) for tensor in (query, key(hidden), value(hidden)))
        attention = ALL_ATTENTION_FUNCTIONS.get(own.config._attn_implementation, attend)
        attended, _ = attention(own, *states, first, dropout=probability, scaling=own.scaling)
        return attended.flatten(2)
    keys, values = (layer.weight.unflatten(0, shape) for layer in (key, value))  # (heads, dimension, size)
    query = query.squeeze(1).unflatten(-1, shape) * own.scaling  # (rows, heads, dimension)
    scores = torch.einsum("rhd,hds->rhs", query, keys) @ hidden.transpose(1, 2)  # (rows, heads, tokens)
    scores = scores + (query * key.bias.view(shape)).sum(-1, keepdim=True)
    if first is not None and first.dtype == torch.bool:
        scores = scores.masked_fill(~first.squeeze(1), torch.finfo(scores.dtype).min)
    elif first is not None:
        scores = scores + first.squeeze(1)
    weights = dropout(scores.softmax(-1), probability, own.training)
    attended = torch.einsum("rhs,hds->rhd", weights @ hidden, values)
    attended = attended + value.bias.view(shape) * weights.sum(-1, keepdim=True)
    return attended.flatten(1).unsqueeze(1)


def tiny_batch(network: Any) -> tuple[Tensor, Tensor]:
    """Ids and mask of two rows, the second shorter, to try a network out with."""
    device = next(network.parameters()).device
    padding = network.config.pad_token_id or 0
    ids = (torch.arange(8, device=device).view(2, 4) + padding + 1) % network.config.vocab_size
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=device)
    return ids.masked_fill(mask == 0, padding), mask


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Without gradients, in eval mode, and with every module in its own mode again afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Reached(Exception):
    """Ends a forward pass once all that is asked for is known."""


def output_of(network: Any, layers: Sequence[nn.Module], ids: Tensor, mask: Tensor, depth: int) -> tuple[Tensor, int]:
    """What the layer below ``layers[depth]`` gives out, computing nothing above it.

    Returns:
        (rows, tokens, size), and the form for `layers_returning`. A layer that runs several times (ALBERT) counts as
        it is after the last.
    """
    seen: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen[:] = [output]

    def stop(*_: Any) -> None:
        raise _Reached

    hooks = [layers[depth - 1].register_forward_hook(keep)]
    hooks += [layer.register_forward_pre_hook(stop) for layer in layers[depth:][:1]]
    try:
        with suppress(_Reached):
            network(input_ids=ids, attention_mask=mask)
    finally:
        for hook in hooks:
            hook.remove()
    (output,) = seen
    return (output[0], len(output)) if isinstance(output, tuple) else (output, 0)


@contextmanager
def layers_returning(layers: Sequence[Any], hidden: Tensor, form: int) -> Iterator[None]:
    """Let layers return a tensor instead of computing one.

    Args:
        form: 0 where the layers return a tensor, else the length of the tuple in which it comes first.
    """
    own = [vars(layer) for layer in layers]  # since setting an attribute of a module is slow
    before = [attributes.get("forward") for attributes in own]
    result = (hidden, *[None] * (form - 1)) if form else hidden
    for attributes in own:
        attributes["forward"] = lambda *_, **__: result
    try:
        yield
    finally:
        for attributes, forward in zip(own, before, strict=True):
            del attributes["forward"]
            if forward is not None:
                attributes["forward"] = forward
