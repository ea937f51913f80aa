"""What a tokenizer makes of texts: their tokens, and the special tokens around them."""

from collections.abc import Iterable, Iterator
from typing import Any

from thaw.errors import UserError

CHUNK_CHARACTERS = 4_000_000  # at once: what a tokenizer gives out takes fifty times as many bytes
# What is cut -> share of the kept tokens that stand before; of windows the first.
FROM_START = {"end": 1.0, "windows": 1.0, "middle": 0.25, "start": 0.0}


def encodings(tokenizer: Any, texts: list[Any], *, special: bool = False, words: bool = False) -> Any:
    """Whole texts in the form of the tokenizers library.

    Args:
        texts: strings or pairs of them; with ``words`` lists of words.
        special: with special tokens.
    """
    return tokenizer(
        texts,
        add_special_tokens=special,
        is_split_into_words=words,
        return_attention_mask=False,
        verbose=False,  # its warning about long texts would be wrong, since they are cut later
    ).encodings


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer sets before and after a single text."""
    bare, full = (encodings(tokenizer, ["a"], special=special)[0].ids for special in (False, True))
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise UserError("the tokenizer changes a text when it adds special tokens", "thaw does not support this tokenizer.")


def pair_tokens(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The ids that a tokenizer sets before, between and after two texts."""
    encoding = encodings(tokenizer, [("a", "a")], special=True)[0]
    parts: list[list[int]] = [[], [], []]
    seen = 0
    for token, part in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if part is None:
            parts[seen].append(token)
        else:
            seen = part + 1
    return parts[0], parts[1], parts[2]


def cut(tokens: list[Any], room: int, truncation: str) -> list[Any]:
    """A list, without what exceeds the room for it.

    Args:
        truncation: what of a longer list is cut: its ``end``, ``start``, or ``middle``, which leaves a quarter of the
            room to the start and the rest to the end (head+tail of Sun et al. 2019).
    """
    if len(tokens) <= room:
        return tokens
    first = round(room * FROM_START[truncation])
    return tokens[:first] + tokens[len(tokens) - room + first :]


def chunks(texts: Iterable[Any], count: int) -> Iterator[list[Any]]:
    """Texts, or lists of words, in lists of at most so many, and of few enough characters to be tokenised together."""
    chunk: list[Any] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(chunk) == count or size > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
