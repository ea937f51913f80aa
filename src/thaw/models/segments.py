"""Segment ids (``token_type_ids``) for encoders that were pretrained on pairs of segments."""

from typing import Any

from torch import Tensor, nn


def add_segment_ids(body: Any, tokenizer: Any) -> None:
    """Make an encoder compute its own ``token_type_ids`` for pairs: 0 in the first text, 1 in the second.

    They follow from the token ids, so that no other code has to deal with them. Encoders without segments (DistilBERT,
    RoBERTa and relatives, DeBERTa-v3, ModernBERT) are left unchanged.
    """
    kinds = getattr(body.config, "type_vocab_size", None) or 0
    if kinds < 2 or "token_type_ids" not in tokenizer.model_input_names:
        return

    def add(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ids = args[0] if args else given["input_ids"]
        return args, {**given, "token_type_ids": segments(ids, tokenizer.sep_token_id)}

    body.register_forward_pre_hook(add, with_kwargs=True)


def segments(ids: Tensor, separator: int) -> Tensor:
    """0 up to and including the first separator of each row, 1 after it: (rows, tokens)."""
    marks = (ids == separator).long()
    return (marks.cumsum(1) > marks).long()
