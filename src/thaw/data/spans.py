"""Entities as character spans, the way annotation tools write them, converted to words with tags."""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

# Chinese and Japanese are written without spaces: there each character counts as a word.
NO_BLANKS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
PARTS = re.compile(f"[{NO_BLANKS}]|[^\\s{NO_BLANKS}]+")
START, END = ("start", "start_offset"), ("end", "end_offset")
TYPE = ("label", "type", "entity", "entity_group", "tag")
Span = tuple[int, int, str]


def is_punctuation(character: str) -> bool:
    """Punctuation as BERT's tokenizer defines it, including all ASCII symbols."""
    return character != "" and (character in string.punctuation or unicodedata.category(character).startswith("P"))


def read_span(item: Any) -> Span | None:
    """Start, end (exclusive) and type of an entity; None if the item is not an entity.

    ``{"start": 0, "end": 5, "label": "PER"}`` (Prodigy, and this project's predictions under ``type``), the same with
    ``start_offset`` and ``end_offset`` or ``[0, 5, "PER"]`` (doccano).
    """
    if isinstance(item, Mapping):
        item = [next((item[key] for key in keys if item.get(key) is not None), None) for keys in (START, END, TYPE)]
    if not isinstance(item, list) or len(item) != 3:
        return None
    start, end, kind = item
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end))
    return (start, end, kind) if numbers and isinstance(kind, str) and kind.strip() else None


def marks_spans(label: Any) -> bool:
    """Whether a label is a list of character spans."""
    return isinstance(label, list) and bool(label) and all(read_span(item) for item in label)


def joins(text: str, at: int) -> bool:
    """Whether the character is punctuation between two letters or digits."""
    return 0 < at < len(text) - 1 and is_punctuation(text[at]) and text[at - 1].isalnum() and text[at + 1].isalnum()


def ends_initial(text: str, at: int) -> bool:
    """Whether the character is the full stop after a single letter, as in ``J. Smith`` and ``U.S.``."""
    return text[at] == "." and text[at - 1 : at].isalpha() and not text[max(at - 2, 0) : at - 1].isalnum()


def word_spans(text: str, joined_by: str = "") -> list[tuple[int, int]]:
    """Start and end (exclusive) of each word; words end at white space and punctuation, which is a word by itself.

    Args:
        joined_by: punctuation that may be inside a word, see `thaw.inference.words.joiners`.
    """
    found: list[tuple[int, int]] = []
    for part in PARTS.finditer(text):
        start = part.start()
        for at in range(part.start(), part.end()):
            within = text[at] in joined_by and (joins(text, at) or ends_initial(text, at))
            if is_punctuation(text[at]) and not within:
                found += [(start, at), (at, at + 1)] if start < at else [(at, at + 1)]
                start = at + 1
        if start < part.end():
            found.append((start, part.end()))
    return found


def tagged_words(text: str, label: Sequence[Any], joined_by: str = "") -> tuple[list[str], list[str]]:
    """The words of a text and their tags; a word belongs to an entity even if only a part of it is marked.

    Args:
        joined_by: as for `word_spans`.

    Raises:
        ValueError: when an entity is not within the text, or two of them share a word.
    """
    places = word_spans(text, joined_by)
    tags = ["O"] * len(places)
    for start, end, kind in sorted(filter(None, map(read_span, label))):
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the entity {kind!r} at {start} to {end} is not within the {len(text)} characters")
        within = [i for i, (first, last) in enumerate(places) if first < end and start < last]
        if not within:
            raise ValueError(f"the entity {kind!r} at {start} to {end} holds no word")
        if taken := [i for i in within if tags[i] != "O"]:
            raise ValueError(f"two entities share {text[slice(*places[taken[0]])]!r}; a word has one tag")
        tags[within[0]] = f"B-{kind.strip()}"
        for i in within[1:]:
            tags[i] = f"I-{kind.strip()}"
    return [text[start:end] for start, end in places], tags
