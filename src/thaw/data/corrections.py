"""Labels that people have corrected, in a table that says where the rows stand, such as an edited label_errors.csv."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from thaw.data import formats
from thaw.data.checking import NO_LABEL, checked
from thaw.data.cleaning import clean_html
from thaw.data.layout import kind_of
from thaw.data.lines import NOT_UTF8
from thaw.data.rows import Bad, Options, Row
from thaw.errors import UserError
from thaw.files import named_by

COLUMNS = ["place", "text"]
TABLES = ("csv", "tsv", "jsonl", "parquet")
DIGIT = re.compile(r"\d")
ALIKE = 0.8  # similarity of labels from which on one is taken for a typing error
KNOWN_BY = 200  # characters of a text: programs for tables cut long ones


class Correction(NamedTuple):
    """The label that a row gets, or None, which leaves it out; its text; and ``where`` the table says so."""

    label: str | None
    text: str
    where: str


def short_place(place: str) -> str:
    """``file:line`` without the folder; of a text that has a file of its own, with that of its label."""
    path = Path(place)
    return path.name if ":" in path.name else f"{path.parent.name}/{path.name}"


def read_corrections(place: str | None) -> dict[str, Correction]:
    """The corrections in a table, or in the tables of a pattern, by the short place of the row.

    Raises:
        UserError: when one cannot be read, or a row has two labels.
    """
    found: dict[str, Correction] = {}
    for path in named_by(place or ""):
        for raw in _rows(path):
            where = f"{path}:{raw.line}"
            if isinstance(raw, Bad):
                remedy = "Save it as UTF-8 (in Excel: CSV UTF-8)." if NOT_UTF8 in raw.problem else "Correct it."
                raise UserError(f"{where}: {raw.problem}", remedy)
            at, text = (str(value or "") for value in raw.text)
            row = checked(raw._replace(text=text), None, False)
            if isinstance(row, Bad) and row.problem != NO_LABEL:
                raise UserError(f"{where}: {row.problem}", "Correct it, or leave it out.")
            own = Correction(row.label if isinstance(row, Row) else None, text, where)
            if found.setdefault(at, own).label != own.label:
                raise UserError(f"{where}: {at} has another label in {found[at].where}", "Leave one of them out.")
    return found


def _rows(path: Path) -> Iterator[Row | Bad]:
    """The rows of a table, with place and text as a pair."""
    kind = kind_of(path, {})
    if kind not in TABLES:
        raise UserError(
            f"data.corrections={path}: not a table",
            "Give label_errors.csv, or another csv, tsv, jsonl, parquet or xlsx.",
        )
    options = Options(text_column=[*COLUMNS], label_column="label")
    try:
        yield from formats.READERS[kind](path, options)
    except UserError as error:
        problem = str(error).partition(". Set ")[0]
        raise UserError(problem, "data.corrections has the columns place, text and label.") from None


def corrected(row: Row, own: Correction) -> Row | Bad | None:
    """A row with the label that it gets; None if it has another text.

    Raises:
        UserError: when the rows have several labels, or tags.
    """
    if isinstance(row.label, list):
        raise UserError(f"{own.where}: rows with several labels, or tags, cannot be corrected", "Leave it out.")
    if _beginning(row.text) != _beginning(own.text):
        return None
    if own.label is None:
        return Bad(row.line, f"left out by {own.where}", meant=True)
    return row._replace(label=own.label)


def check_new_labels(
    corrections: Mapping[str, Correction], names: Mapping[str, str | None], counts: Mapping[str, int], known: Set[str]
) -> None:
    """Refuse a corrected label that seems to be a typing error, and would be a class of its own.

    Args:
        names: of ``data.label_map``.
        counts: the rows with each label, after the corrections.
        known: of ``data.label_names``.
    """
    given = [(names.get(own.label, own.label), own.where) for own in corrections.values() if own.label]
    often = Counter(label for label, _ in given)
    for label, where in given:
        if label is None or label in known or counts[label] > often[label]:
            continue
        if meant := alike(label, counts.keys() - {label}):
            problem = f"{where}: no row of the data has the label {label!r}"
            raise UserError(problem, f"Did you mean {meant!r}? If it is new, give all as data.label_names.")


def alike(label: str, others: Iterable[str]) -> str | None:
    """The label, of some others with the same digits, that one may be a typing error for: not 4 stars for 5 stars."""
    same = [other for other in others if DIGIT.findall(other) == DIGIT.findall(label)]
    return next(iter(get_close_matches(label, same, 1, ALIKE)), None)


def _beginning(text: Any) -> str:
    """By which a text is known again, whether it was cleaned or not."""
    return "".join(clean_html(str(text)).split())[:KNOWN_BY]
