"""Checks that every row passes, whatever file it comes from: text or words, and labels as text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from thaw.data.cleaning import clean_html
from thaw.data.pairs import joined
from thaw.data.rows import Bad, Row, encodable
from thaw.errors import UserError, counted

WHOLE = re.compile(r"-?[0-9]+\.0+")
NO_LABEL = "the label is missing"
PARTS = ("the first text", "the second text")  # of a pair
TICKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


def checked(row: Row | Bad, separator: str | None, clean: bool, names: Sequence[Any] = ()) -> Row | Bad:
    """A row with its labels as text, or what is wrong with it.

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
    return row._replace(text=text, label=label, group=group)


def label_map(data: Mapping[str, Any]) -> dict[str, str | None]:
    """``data.label_map`` with names as text: YAML reads some as numbers.

    Raises:
        UserError: when a new name is itself an old one, so that a label renamed before would be renamed again.
    """
    given = data.get("label_map") or {}
    names = {str(old): None if new is None else str(new) for old, new in given.items()}
    if twice := [new for new in names.values() if new is not None and names.get(new, new) != new]:
        raise UserError(f"data.label_map: {twice[0]!r} is a new name and an old one", "Give each label its last name.")
    return names


def renamed(row: Row, names: Mapping[str, str | None], found: set[str]) -> Row | Bad:
    """A row with its labels, or the types of its entities, under other names.

    Args:
        names: old name -> new name, or None, which leaves out the row with that label, that one of several labels, or
            that entity.
        found: gets the old names that occur.
    """
    labels = row.label if isinstance(row.label, list) else [row.label]
    found |= names.keys() & labels
    if not isinstance(row.text, list):
        new = [name for label in labels if (name := names.get(label, label)) is not None]
        if isinstance(row.label, list):
            return row._replace(label=list(dict.fromkeys(new)))
        return row._replace(label=new[0]) if new else Bad(row.line, f"data.label_map leaves out {row.label!r}", True)
    tags, before = list[str](), ("O", "O")  # the type of the word before: its old name and its new one
    for tag in labels:
        mark, kind = ("", tag) if tag in names or tag[1:2] != "-" else (tag[:2], tag[2:])
        found |= names.keys() & {kind}
        name = names.get(kind, kind)
        if mark == "I-" and kind != before[0] and name == before[1]:  # IOB1: another entity begins here
            mark = "B-"
        tags.append("O" if name is None else mark + name)
        before = kind, name or "O"
    return row._replace(label=tags)


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
