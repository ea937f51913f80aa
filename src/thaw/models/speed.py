"""The same computation in less time: cheap random numbers, no unused outputs, oneDNN, compiled layers.

Only how a network computes changes: parameters, their names and saved files stay the same.
"""

from contextlib import suppress
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thaw.models.encoder import layers_of
from thaw.models.forward import evaluating, reads_first_token, tiny_batch
from thaw.models.onednn import use_onednn

ATTENTION = "thaw"  # the name of `attend` among the attention functions of transformers
STEPS = 2**16  # resolution of the random numbers of dropout


def accelerate(network: Any) -> None:
    """Speed up a network in place, as far as its architecture allows."""
    use_onednn(network)
    speed_up_dropout(network)
    compute_first_token(network)


def compile_layers(network: Any) -> None:
    """Compile the layers in place with torch.compile: one graph for all of them, for batches of any size and length.

    Training and evaluation, batches with and without a mask or with a single row, frozen layers, and each dropout rate
    of a sweep need graphs of their own: more than torch allows by default before it stops compiling.
    """
    torch._dynamo.config.recompile_limit = 1_000
    for _, layer in layers_of(network):
        forward: Any = torch.compile(layer.forward, dynamic=True)
        layer.forward = forward


class Dropout(torch.autograd.Function):
    """The product of values, a mask, which is stored as bytes, and a scale."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return _product(values, kept, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _product(gradient, kept, ctx.scale), None, None


def _product(values: Tensor, kept: Tensor, scale: float) -> Tensor:
    product = kept.view(torch.int8).to(values.dtype).mul_(values)  # faster than multiplying by booleans
    return product if scale == 1.0 else product.mul_(scale)


def draw(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
    """What dropout keeps, as booleans, and the scale that makes up for the rest.

    On a CPU most of the cost of dropout is drawing random numbers. These have 16 bits, four of each draw of numpy's
    SFC64, which torch's generator seeds. The probability is rounded to a multiple of 1/65536 and the scale computed
    from the rounded value, so that the expectation is exact.
    """
    dropped, count = min(round(probability * STEPS), STEPS - 1), shape.numel()
    generator = np.random.SFC64(int(torch.randint(2**62, ())))
    numbers: Any = generator.random_raw(-(-count // 4))
    kept = numbers.view(np.uint16)[:count] >= np.uint16(dropped)  # numpy compares faster than torch
    return torch.from_numpy(kept).view(shape), STEPS / (STEPS - dropped)


def dropout(values: Tensor, probability: float, training: bool) -> Tensor:
    """``torch.nn.functional.dropout``, replaced by `Dropout` on a CPU."""
    if training and 0 < probability < 1 and draws_itself(values):
        return Dropout.apply(values, *draw(values.shape, probability))
    return nn.functional.dropout(values, probability, training)


def draws_itself(values: Tensor) -> bool:
    """Whether `Dropout` is faster than torch's: on a CPU, unless the compiler fuses dropout with other operations."""
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
    """Scaled dot-product attention as transformers calls it, with `Dropout` for training on a CPU.

    There torch's version uses plain operations as well, since its fused kernel does not support dropout.

    Args:
        query: (rows, heads, queries, dimension); key and value alike, with as many heads.
        attention_mask: (rows, 1, queries, tokens), boolean (true: attend) or additive.

    Returns:
        (rows, queries, heads, dimension), and None in place of the weights.
    """
    causal = kwargs.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", False) if causal is None else causal)
    plain = not causal and query.shape[1] == key.shape[1] and kwargs.get("position_bias") is None
    if not (dropout and plain and draws_itself(query)):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scores = _masked((query * (scaling or query.shape[-1] ** -0.5)) @ key.transpose(2, 3), attention_mask)
    kept, scale = draw(scores.shape, dropout)
    weights: Tensor = Dropout.apply(scores.softmax(-1), kept, 1.0)
    return (weights @ (value * scale)).transpose(1, 2).contiguous(), None  # there are fewer values than weights


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The scores, which are written over, with a mask that is boolean (true: attend) or additive."""
    if mask is None:
        return scores
    if mask.dtype != torch.bool:
        return scores + mask
    # Not minus infinity: with a sliding window, a padded position may have nothing to attend to.
    lowest = torch.finfo(scores.dtype).min / 2
    # Filling the scores themselves is slower, and so is the backward pass of that.
    return scores.add_(scores.new_zeros(mask.shape).masked_fill_(~mask, lowest))


def speed_up_dropout(network: Any) -> None:
    """Replace every dropout of a network by `Dropout`, including that of its attention."""
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


def compute_first_token(network: Any) -> None:
    """Make the last layer compute only the first token, if the head reads nothing else and the layer's class is known.

    The first token still attends to all tokens; the outputs of the others are not computed. The result is verified
    against that of the original layer.
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
    with suppress(Exception), evaluating(network):  # whatever an encoder with another structure raises
        if reads_first_token(network):
            before = network(input_ids=ids, attention_mask=mask).logits
            layer.forward = MethodType(forward, layer)
            same = torch.allclose(network(input_ids=ids, attention_mask=mask).logits, before, atol=1e-5)
    if not same:
        vars(layer).pop("forward", None)


def _first_token_of_bert(self: Any, hidden: Tensor, mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """The last layer of BERT, RoBERTa, ELECTRA and relatives: (rows, tokens, size) to (rows, 1, size)."""
    own, first = self.attention.self, hidden[:, :1]
    attended = _attend_first(own, own.query(first), own.key, own.value, hidden, mask)
    return self.feed_forward_chunk(self.attention.output(attended, first))


def _first_token_of_distilbert(self: Any, hidden: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    own, first = self.attention, hidden[:, :1]
    attended = own.out_lin(_attend_first(own, own.q_lin(first), own.k_lin, own.v_lin, hidden, mask))
    first = self.sa_layer_norm(attended + first)
    return self.output_layer_norm(self.ffn(first) + first)


def _attend_first(own: Any, query: Tensor, key: Any, value: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of the first token's query over all tokens: (rows, 1, size).

    In float32, keys and values need not be computed per token: q · K x = Kᵀ q · x, and Σ w V x = V Σ w x, so that both
    matrices are applied to one vector per text and head. In bfloat16 the intermediate rounding would change the scores.

    Args:
        query: (rows, 1, size).
        key, value: linear layers, or adapters around them.
        hidden: (rows, tokens, size).
        mask: (rows, 1, tokens, tokens), boolean (true: attend) or additive.
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
    scores = _masked(scores, None if first is None else first.squeeze(1))
    weights = dropout(scores.softmax(-1), probability, own.training)
    attended = torch.einsum("rhs,hds->rhd", weights @ hidden, values)
    attended = attended + value.bias.view(shape) * weights.sum(-1, keepdim=True)
    return attended.flatten(1).unsqueeze(1)
