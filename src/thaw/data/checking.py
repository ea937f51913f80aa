"""Checks that every row passes, whatever file it comes from: text or words, and labels as text."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from thaw.data.cleaning import clean_html
from thaw.data.pairs import joined
from thaw.data.rows import Bad, Row, encodable
from thaw.errors import counted

WHOLE = re.compile(r"-?[0-9]+\.0+")
NO_LABEL = "the label is missing"
PARTS = ("the first text", "the second text")  # of a pair
TICKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
MARKS = {"E": "I", "L": "I", "M": "I", "S": "B", "U": "B"}  # BIOES and BILOU prefixes -> IOB2


def checked(row: Row | Bad, separator: str | None, clean: bool, names: Sequence[Any] = ()) -> Row | Bad:
    """A row with its labels as text and word tags in IOB2, or what is wrong with it.

    Args:
        separator: between several labels in one string.
        clean: remove HTML from the text.
        names: of the labels, if given, for rows that mark each label with 0 or 1.
    """
    if isinstance(row, Bad):
        return row
    try:
        text = _text(row.text, clean)
        label = _parts(_chosen(row.label), separator)
        label = label if isinstance(text, list) else _marked(label, names)
        if isinstance(label, list) and any(isinstance(item, dict) for item in label):
            raise ValueError("an entity needs integers start and end, and a label")
        label = [_name(item) for item in label] if isinstance(label, list) else _name(label)
        group = _group(row.group)
    except ValueError as error:
        return Bad(row.line, str(error))
    if isinstance(text, list) and (not isinstance(label, list) or len(label) != len(text)):
        given = len(label) if isinstance(label, list) else 1
        return Bad(row.line, f"{counted(given, 'tag')} for {counted(len(text), 'word')}")
    values = [item for value in (text, label, group or "") for item in (value if isinstance(value, list) else [value])]
    if not all(map(encodable, values)):
        return Bad(row.line, "half of a character (a lone surrogate), as in a broken emoji")
    return row._replace(text=text, label=to_iob2(label) if isinstance(text, list) else label, group=group)


def _text(text: Any, clean: bool) -> str | list[str]:
    """A text, a list of words, or a pair joined into one text.

    Raises:
        ValueError: for anything else, saying what is wrong.
    """
    if isinstance(text, list):
        if not text or not all(isinstance(word, str) and word.strip() for word in text):
            raise ValueError("a word is empty or not text" if text else "the sentence has no words")
        return text
    if not isinstance(text, tuple):
        text = _plain(text, clean, "the text")
        if not text.strip():
            raise ValueError("the text is empty")
        return str(text)
    given = ["" if part is None else part for part in text]
    first, second = (_plain(part, clean, what) for part, what in zip(given, PARTS, strict=True))
    if not (first + second).strip():  # one of them may be, as of a ticket without a subject
        raise ValueError("both texts are empty")
    return joined(first, second)


def _plain(text: Any, clean: bool, what: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{what} is missing" if text is None else f"{what} is of type {type(text).__name__}")
    return clean_html(text) if clean else text


def ticked(row: Row) -> Row | Bad:
    """A row whose label is an object with 0 or 1 for each name, with the list of the names that have 1."""
    ticks = {name: TICKS.get(str(value).strip().lower()) for name, value in row.label.items()}
    for name, tick in ticks.items():
        if tick is None:
            return Bad(row.line, f"{name!r} is {row.label[name]!r}, where 0 or 1 says whether a text has the label")
    return row._replace(label=[name for name, tick in ticks.items() if tick])


def _chosen(label: Any) -> Any:
    """The labels in Label Studio's ``{"choices": ["a", "b"]}`` or spaCy's ``{"a": 1, "b": 0}``; others unchanged."""
    match label:
        case {"choices": list() | str() as choices}:
            return choices
        case dict() if label and all(value in (0, 1) for value in label.values()):
            return [name for name, value in label.items() if value]
    return label


def _marked(label: Any, names: Sequence[Any]) -> Any:
    """The label names that a list of 0 and 1, one for each label, marks; any other label unchanged.

    Raises:
        ValueError: when the names are not given, or the numbers may also be label ids.
    """
    if not isinstance(label, list) or not label or not all(item in (0, 1, "0", "1") for item in label):
        return label
    if any(str(name).isdigit() for name in names) or (len(label) < 3 and len(label) != len(names)):
        return label
    if len(names) != len(label):
        raise ValueError(f"{len(label)} marks, 0 or 1 for each label, need data.label_names with {len(label)} names")
    marks = [int(item) for item in label]
    if len(set(marks)) == len(marks) and max(marks) < len(names):
        raise ValueError(f"{marks} may be marks, 0 or 1 for each label, or the numbers of labels: write their names")
    return [name for name, mark in zip(names, marks, strict=True) if mark]


def _parts(label: Any, separator: str | None) -> Any:
    """The labels in a string with separators as a list; other labels unchanged, but in a list of one."""
    if separator and isinstance(label, str):
        return [part.strip() for part in label.split(separator) if part.strip()]
    return [label] if separator and not isinstance(label, list) else label


def _name(label: Any) -> str:
    """A label as text. 1, 1.0, "1" and "1.0" are the same label: tables with gaps turn integers into floats."""
    text = str(label).strip()
    if _missing(label):
        raise ValueError(NO_LABEL)
    if not isinstance(label, str | int | float):
        raise ValueError(f"the label is of type {type(label).__name__}")
    return text.partition(".")[0] if WHOLE.fullmatch(text) else text


def _group(group: Any) -> str | None:
    """A group as text, by the rules for labels, but of any type that is one value; None where there is none."""
    if isinstance(group, list | dict):
        raise ValueError(f"the group is of type {type(group).__name__}")
    return None if _missing(group) else _name(group if isinstance(group, int | float) else str(group))


def _missing(value: Any) -> bool:
    return value is None or value != value or not str(value).strip()


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Convert IOB1, BIOES and BILOU tags to IOB2; IOB2 tags, and tags that mark no spans, stay unchanged."""
    result: list[str] = []
    previous = "O"
    for tag in map(_by_iob, tags):
        begins = tag.startswith("I-") and (previous[1:] != tag[1:] or previous[:2] not in ("B-", "I-"))
        previous = "B" + tag[1:] if begins else tag
        result.append(previous)
    return result


def iob2_names(names: Iterable[Any]) -> list[str]:
    """The tags that `to_iob2` can produce from these names; IOB2 names in the order in which they are given."""
    plain = [_by_iob(str(name)) for name in names]
    return list(dict.fromkeys([*plain, *("B" + tag[1:] for tag in plain if tag.startswith("I-"))]))


def are_io(tags: Iterable[Any]) -> bool:
    """Whether tags are types of entities and O, without B- and I-, as Stanford's tools and Flair write them.

    Parts of speech, which have no O, are not.
    """
    names = set(map(str, tags))
    return "O" in names and len(names) > 1 and not any(tag.startswith(("B-", "I-")) for tag in map(_by_iob, names))


def by_iob1(tags: Iterable[Any]) -> list[str]:
    """IO tags as IOB1, in which neighbouring equal tags are one entity, too."""
    return [tag if tag == "O" else f"I-{tag}" for tag in map(str, tags)]


def _by_iob(tag: str) -> str:
    return MARKS.get(tag[0], tag[0]) + tag[1:] if tag[1:2] == "-" else tag
