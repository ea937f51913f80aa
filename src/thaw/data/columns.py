"""The columns of text and label, by name or position, and the label names that the datasets library stores."""

import difflib
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from thaw.data.rows import Options, Row, text_of
from thaw.errors import NoGroups, UserError

log = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "sentence", "tokens", "words", "review", "content", "body", "tweet", "message", "document")
SPAN_COLUMNS = ("entities", "spans")  # of entities marked by character positions
LABEL_COLUMNS = (
    *("label", "labels", "ner_tags", "tags", "class", "category", "emotion", "sentiment", "target", "intent"),
    *(*SPAN_COLUMNS, "accept", "cats"),  # of Prodigy, with the labels chosen; of spaCy
)
Named = tuple[list[str], list[str], list[str]]
"""The columns of text, or two for pairs, of label, or one for each of several labels, and of group, or none."""


def find_column(columns: list[str], role: str, options: Options, where: Path | str, wanted: str | int | None) -> str:
    """The column that was asked for, or the first with a usual name.

    Args:
        role: ``text``, ``label`` or ``group``.
        wanted: name or position of the column; None looks for a usual name.

    Raises:
        UserError: when there is none; the message lists the existing columns. `NoGroups` of a group.
    """
    if isinstance(wanted, int) and 0 <= wanted < len(columns):
        return columns[wanted]
    usual = wanted is None or (options.lenient and wanted not in columns)
    if usual:
        for spelled in ({column: column for column in columns}, {column.lower(): column for column in columns}):
            for name in TEXT_COLUMNS if role == "text" else LABEL_COLUMNS:
                if name in spelled:
                    return spelled[name]
    elif str(wanted) in columns:
        return str(wanted)
    what = f"no column {wanted!r}" if wanted is not None else f"no column with a usual name for the {role}"
    if usual and wanted is not None:
        what += ", and none with a usual name"
    if isinstance(wanted, str) and (near := difflib.get_close_matches(wanted, columns, 1)):
        what += f", but {near[0]!r}"
    kind = NoGroups if role == "group" else UserError
    raise kind(f"{where}: {what}; it has: {', '.join(columns)}", _column_remedy(role, options, where, wanted))


def _column_remedy(role: str, options: Options, where: Path | str, wanted: str | int | None) -> str:
    """The settings that name a column which was not found; arguments as for `find_column`."""
    prefix = options.prefix
    remedy = f"Set {prefix}{role}_column."
    if role == "text" and isinstance(options.text_column, list):
        remedy = f"Set {prefix}{role}_column to the two of a pair, as in [premise,hypothesis]."
    if role == "label":
        remedy += " To label new texts, use predict.py."
    if not str(where).removesuffix(".gz").endswith((".csv", ".tsv", ".xlsx")):
        return remedy
    if not options.header:
        return f"{remedy} With a header line: {prefix}header=true."
    if wanted is None:
        positions = f"{prefix}text_column=0" + (f" {prefix}label_column=1" if prefix else "")
        return f"{remedy} Without a header line: {prefix}header=false {positions}, say."
    return remedy


def text_columns(columns: list[str], options: Options, where: Path | str) -> list[str]:
    """The column of the text, or the two of a pair; each name must be unique."""
    if isinstance(options.text_column, list):
        exactly = replace(options, lenient=False)
        found = [find_column(columns, "text", exactly, where, one) for one in options.text_column]
    else:
        found = [find_column(columns, "text", options, where, options.text_column)]
    _require_unique(columns, found, where)
    return found


def named_columns(columns: list[str], options: Options, where: Path | str) -> Named:
    """The columns to read."""
    texts, wanted = text_columns(columns, options, where), options.label_column
    if isinstance(wanted, list) and options.lenient and not {*map(str, wanted)} & {*columns}:
        wanted = None  # what predict.py has labelled has a list of labels
    if isinstance(wanted, list):
        exactly = replace(options, lenient=False)
        labels = [find_column(columns, "label", exactly, where, one) for one in wanted]
    else:
        labels = [find_column(columns, "label", options, where, wanted)]
    for stated, (found, *_) in ((options.text_column, texts), (wanted, labels)):
        if options.lenient and isinstance(stated, str) and stated != found:
            log.info("%s: no column %r as in the run; %r is read.", where, stated, found)
    if both := [label for label in labels if label in texts]:
        remedy = "Set data.text_column and data.label_column to different ones."
        raise UserError(f"{where}: the column {both[0]!r} is both text and label", remedy)
    _require_unique(columns, labels, where)
    return texts, labels, _group_columns(columns, options, where, [*texts, *labels])


def _group_columns(columns: list[str], options: Options, where: Path | str, taken: list[str]) -> list[str]:
    if options.group_column is None:
        return []
    found = find_column(columns, "group", replace(options, lenient=False), where, options.group_column)
    if found in taken:
        raise UserError(f"{where}: the column {found!r} is text or label, too", "Set data.group_column to another.")
    _require_unique(columns, [found], where)
    return [found]


def answer_column(columns: Iterable[str], texts: list[str], labels: list[str]) -> list[str]:
    """The column with the answers of Prodigy's users, if there is one that is neither text nor label."""
    return ["answer"] if "answer" in {*columns} - {*texts, *labels} else []


def mark_spans(labels: list[str]) -> bool:
    """Whether the column of the label is by its name one of entities marked by character positions."""
    return len(labels) == 1 and labels[0] in SPAN_COLUMNS


def _require_unique(columns: list[str], names: list[str], where: Path | str) -> None:
    if twice := [name for name in names if columns.count(name) > 1]:
        raise UserError(f"{where}: several columns are named {twice[0]!r}", "Rename all but one of them.")


def class_names(schema: Any, columns: list[str]) -> list[str] | None:
    """Label names of a ClassLabel column, or of a list of ClassLabels, from the metadata of the datasets library.

    Args:
        columns: of the labels; if there are several, these are the names.
    """
    if len(columns) > 1:
        return columns
    raw = (schema.metadata or {}).get(b"huggingface")
    if not raw:
        return None
    feature = json.loads(raw).get("info", {}).get("features", {}).get(columns[0])
    while isinstance(feature, list | dict):
        if isinstance(feature, list):
            feature = feature[0]
        elif "names" in feature:
            return list(feature["names"])
        else:
            feature = feature.get("feature")
    return None


def row_of(line: int, named: Named, values: Iterable[Any], names: list[str] | None = None) -> Row:
    """A row of a table.

    Args:
        named: the columns, as of `named_columns`.
        values: those of the columns of text, label and group in turn; more may follow.
        names: of labels that are numbers, if the data states them.
    """
    rest = iter(values)
    texts, own, group = (list(islice(rest, len(columns))) for columns in named)
    label = own[0] if len(own) == 1 else dict(zip(named[1], own, strict=True))  # of several columns an object
    return Row(line, text_of(texts), name_of(label, names), group=group[0] if group else None)


def name_of(label: Any, names: list[str] | None) -> Any:
    """The name of a label id, or of each in a list, if the data states names; an id out of range stays a number."""
    if names is None or label is None:
        return label
    if isinstance(label, list):
        return [name_of(item, names) for item in label]
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else label
