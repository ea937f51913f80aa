"""What a row must be, whatever it was read from: text or words, and labels that are text."""

import re
from typing import Any

from thaw.data.cleaning import clean_html
from thaw.data.rows import Bad, Row, encodable

WHOLE = re.compile(r"-?[0-9]+\.0+")


def checked(row: Row | Bad, separator: str | None, clean: bool) -> Row | Bad:
    """A row with its labels as text, or what is wrong with it.

    Args:
        separator: between several labels in one text.
        clean: take HTML out of the text.
    """
    if isinstance(row, Bad):
        return row
    text = clean_html(row.text) if clean and isinstance(row.text, str) else row.text
    if isinstance(text, list):
        if not text or not all(isinstance(word, str) and word.strip() for word in text):
            return Bad(row.line, "a word is empty or not text" if text else "the sentence has no words")
    elif not isinstance(text, str):
        return Bad(row.line, "the text is missing" if text is None else f"the text is of type {type(text).__name__}")
    elif not text.strip():
        return Bad(row.line, "the text is empty")
    try:
        label = _names(row.label, separator)
    except ValueError as error:
        return Bad(row.line, str(error))
    if isinstance(text, list) and (not isinstance(label, list) or len(label) != len(text)):
        given = len(label) if isinstance(label, list) else 1
        return Bad(row.line, f"{given} tags for {len(text)} words")
    values = [item for value in (text, label) for item in (value if isinstance(value, list) else [value])]
    if not all(map(encodable, values)):
        return Bad(row.line, "half of a character (a lone surrogate), as a broken emoji leaves it")
    return Row(row.line, text, label)


def _names(label: Any, separator: str | None) -> str | list[str]:
    """Labels as text; a list, or a text with separators, becomes a list.

    Raises:
        ValueError: saying what is wrong with the label.
    """
    if isinstance(label, list):
        return [_name(item) for item in label]
    if separator and isinstance(label, str):
        return [_name(part) for part in label.split(separator) if part.strip()]
    return [_name(label)] if separator else _name(label)


def _name(label: Any) -> str:
    """A label as text: 1, 1.0, "1" and "1.0" are the same, since tables turn numbers into floats at the first gap."""
    text = str(label).strip()
    if label is None or label != label or not text:
        raise ValueError("the label is missing")
    if not isinstance(label, str | int | float):
        raise ValueError(f"the label is of type {type(label).__name__}")
    return text.partition(".")[0] if WHOLE.fullmatch(text) else text
