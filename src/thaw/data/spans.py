"""Entities as character spans, the way annotation tools write them, converted to words with tags."""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from thaw.data.rows import Bad, Options, Row

# Chinese and Japanese are written without spaces: there each character counts as a word.
NO_BLANKS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
OF_NO_BLANKS = re.compile(f"[{NO_BLANKS}]")
PARTS = re.compile(f"[{NO_BLANKS}]|[^\\s{NO_BLANKS}]+")
WORDS = re.compile("cm*|pm*|s[sm]*(i+[sm]+)*|[wm]+(i+[wm]+)*")  # in the kinds of characters that `kind_of` tells apart
START, END = ("start", "start_offset"), ("end", "end_offset")
TYPE = ("label", "type", "entity", "entity_group", "tag", "labels")
Span = tuple[int, int, str]


def is_punctuation(character: str) -> bool:
    """Punctuation as BERT's tokenizer defines it, including all ASCII symbols."""
    return character != "" and (character in string.punctuation or unicodedata.category(character).startswith("P"))


def read_span(item: Any) -> Span | None:
    """Start, end (exclusive) and type of an entity; None if the item is not an entity.

    ``{"start": 0, "end": 5, "label": "PER"}`` (Prodigy, and this project's predictions under ``type``), the same with
    ``start_offset`` and ``end_offset`` or ``[0, 5, "PER"]`` (doccano; in spaCy a tuple), or with ``labels: ["PER"]``
    (Label Studio).
    """
    if isinstance(item, Mapping):
        item = [next((item[key] for key in keys if item.get(key) is not None), None) for keys in (START, END, TYPE)]
    if not isinstance(item, list | tuple) or len(item) != 3:
        return None
    start, end, kind = item
    kind = kind[0] if isinstance(kind, list) and len(kind) == 1 else kind
    numbers = all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end))
    return (start, end, kind) if numbers and isinstance(kind, str) and kind.strip() else None


def marks_spans(label: Any) -> bool:
    """Whether a label is a list of character spans."""
    return isinstance(label, list) and bool(label) and all(read_span(item) for item in label)


@cache
def kind_of(character: str) -> str:
    """A letter for how a character divides a text into words, as `WORDS` has them.

    Returns:
        A space, ``c`` of Chinese and Japanese, ``p`` for punctuation, ``s`` for other symbols, ``m`` for marks on what
        stands before them, such as accents, ``i`` for invisible characters, such as byte order marks; else ``w``.
    """
    if character.isspace():
        return " "
    if OF_NO_BLANKS.fullmatch(character):
        return "c"
    if is_punctuation(character):
        return "p"
    category = unicodedata.category(character)
    return "i" if category == "Cf" else {"M": "m", "S": "s"}.get(category[0], "w")


def joins(text: str, at: int) -> bool:
    """Whether the character is punctuation or another symbol between two letters or digits."""
    return 0 < at < len(text) - 1 and kind_of(text[at]) in "ps" and text[at - 1].isalnum() and text[at + 1].isalnum()


def ends_initial(text: str, at: int) -> bool:
    """Whether the character is the full stop after a single letter, as in ``J. Smith`` and ``U.S.``."""
    return text[at] == "." and text[at - 1 : at].isalpha() and not text[max(at - 2, 0) : at - 1].isalnum()


def word_spans(text: str, joined_by: str = "") -> list[tuple[int, int]]:
    """Start and end (exclusive) of each word.

    Words end at white space, at punctuation, each of which is a word by itself, and at other symbols, of which several
    may be a word, as in emoji. Invisible characters at the edges of a word are left out.

    Args:
        joined_by: punctuation and symbols that may be inside a word, see `thaw.inference.words.joiners`.
    """
    kinds = list(map(kind_of, text))
    if joined_by:
        for at, character in enumerate(text):
            if character in joined_by and (joins(text, at) or ends_initial(text, at)):
                kinds[at] = "w"
    return [word.span() for word in WORDS.finditer("".join(kinds))]


def marked(row: Row, options: Options, spans: bool) -> Row | Bad:
    """A row; entities given as character spans become words with tags.

    Args:
        spans: whether the column is known to hold entities; no label then means none.
    """
    text, label = row.text, row.label
    if isinstance(text, list) and marks_spans(label):
        return Bad(row.line, "the text is a list of words; entities marked by characters need the text itself")
    if isinstance(text, str) and isinstance(label, str) and spans:
        return Bad(row.line, "the entities are text, not a list")
    if not isinstance(text, str) or not (marks_spans(label) or ((spans or options.tokens) and label in ([], None))):
        return row
    try:
        return Row(row.line, *tagged_words(text, label or [], options.joined_by), row.group)
    except ValueError as error:
        return Bad(row.line, str(error))


def tagged_words(text: str, label: Sequence[Any], joined_by: str = "") -> tuple[list[str], list[str], list[str]]:
    """The words of a text and their tags; a word belongs to an entity even if only a part of it is marked.

    Args:
        joined_by: as for `word_spans`.

    Returns:
        (words, tags, what is marked as an entity and begins or ends inside a word).

    Raises:
        ValueError: when an entity is empty, not within the text, or shares a word with another, or a type is a tag.
    """
    places = word_spans(text, joined_by)
    tags, inside = ["O"] * len(places), []
    for start, end, kind in sorted(filter(None, map(read_span, label))):
        if start >= end:
            raise ValueError(
                f"the entity {kind!r} at {start} to {end} is empty: the end is one past the last character"
            )
        if not 0 <= start < end <= len(text):
            raise ValueError(f"the entity {kind!r} at {start} to {end} is not within the {len(text)} characters")
        if kind.strip() == "O" or kind.strip().startswith(("B-", "I-")):
            raise ValueError(
                f"the entity at {start} to {end} is labelled {kind!r}, a tag of words, not a type such as PER"
            )
        within = [i for i, (first, last) in enumerate(places) if first < end and start < last]
        if not within:
            raise ValueError(f"the entity {kind!r} at {start} to {end} holds no word")
        if taken := [i for i in within if tags[i] != "O"]:
            raise ValueError(f"two entities share {text[slice(*places[taken[0]])]!r}; a word has one tag")
        if places[within[0]][0] < start or end < places[within[-1]][1]:
            inside.append(text[start:end])
        tags[within[0]] = f"B-{kind.strip()}"
        for i in within[1:]:
            tags[i] = f"I-{kind.strip()}"
    return [text[start:end] for start, end in places], tags, inside
