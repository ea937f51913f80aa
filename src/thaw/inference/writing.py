"""What ``predict.py`` writes: records with their predictions, as JSON, a table, a sheet or CoNLL columns."""

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import IO, Any

from thaw.data.formats import format_of
from thaw.data.lines import suffix_of, zipped
from thaw.data.workbook import is_workbook, library, sheet_writer
from thaw.errors import UserError
from thaw.files import NO_ROOM, atomic_path, atomic_write, finite, row_writer
from thaw.inference.records import TABLES, Record

FORMATS = ("jsonl", "json", *TABLES, "xlsx", "conll")
MARK = "\ufeff"
BREAKS = re.compile(r"[\t\r\n]")  # which end a column or a line
NOTHING = "_"  # in CoNLL columns, where a cell must not be empty


def output_format(output: str | None) -> str:
    """The format that the name of the output implies; JSON Lines for standard output."""
    if output is None:
        return "jsonl"
    path = Path(output)
    array = suffix_of(path) == ".json"  # read like JSON Lines
    kind = "json" if array else "xlsx" if is_workbook(path) else format_of(path)
    if kind not in FORMATS or path.suffix.lower() == ".xlsm":  # whose macros would be missing
        remedy = "Give .jsonl, .json, .csv, .tsv, .xlsx or .conll, or all but .xlsx with .gz."
        raise UserError(f"output={output}: not a format that can be written", remedy)
    if kind == "xlsx":
        library(f"output={output}")  # now, rather than once all rows are labelled
    return kind


@contextmanager
def writer(
    output: str | None,
    kind: str,
    fields: Iterable[str] = (),
    without_rows: Callable[[], Iterable[str]] = list,
    delimiter: str = ",",
    marked: bool = False,
) -> Iterator[Callable[[Record], None]]:
    """A function that writes one record; a file appears under its name only once it is complete.

    Args:
        fields: the first columns of a table; further fields of its first record follow.
        without_rows: gives the further fields for a table without rows.
        delimiter: of a csv file.
        marked: start a csv file with a byte order mark.
    """
    if output is None:
        # JSON can escape every character in ASCII, for a standard output that is not UTF-8.
        try:
            yield _to_json(sys.stdout, codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8")
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python would try again as it exits
            raise UserError(f"standard output: cannot be written: {error.strerror}", "Make room.") from error
        return
    path = Path(output).expanduser()
    if kind == "xlsx":
        with (
            atomic_path(path) as temporary,
            sheet_writer(temporary) as write_row,
            _table(write_row, fields, without_rows) as write,
        ):
            yield write
        return
    with atomic_write(path, zipped=zipped(path)) as file:
        if kind == "csv" and marked:
            file.write(MARK)
        if kind == "jsonl":
            yield _to_json(file)
        elif kind == "json":
            file.write("[")
            yield _to_json(file, array=True)
            file.write("\n]\n")
        elif kind == "conll":
            yield _to_columns(file)
        else:
            write_row = row_writer(file, delimiter if kind == "csv" else TABLES[kind])
            with _table(write_row, fields, without_rows) as write:
                yield write


def _to_json(file: IO[str], escaped: bool = False, array: bool = False) -> Callable[[Record], None]:
    before, end = (chain(["\n"], repeat(",\n")), "") if array else (repeat(""), "\n")

    def write(record: Record) -> None:
        file.write(next(before) + json.dumps(finite(record), ensure_ascii=escaped, allow_nan=False) + end)

    return write


def _to_columns(file: IO[str]) -> Callable[[Record], None]:
    """The first field is the words; others are columns if they have a string or integer per word in the first sentence.

    So every line has as many columns. Where a later sentence has no such values for one of them, it is empty.
    """
    columns: list[str] = []

    def fits(values: Any, words: list[str]) -> bool:
        one_each = isinstance(values, list) and len(values) == len(words)
        return one_each and all(isinstance(value, str | int) for value in values)

    def write(record: Record) -> None:
        words, *_ = record.values()
        if words and not columns:
            columns.extend(name for name, values in record.items() if fits(values, words))
        given = (record.get(name) for name in columns[1:])
        others = (values if fits(values, words) else [NOTHING] * len(words) for values in given)
        for row in zip(words, *others, strict=True):
            cells = [_filled(str(value)) for value in row]
            between = "\t" if any(" " in cell for cell in cells) else " "
            file.write(between.join(cells) + "\n")
        file.write("\n")

    return write


def _filled(cell: str) -> str:
    """A cell of CoNLL columns in which no column or line ends, and which is not empty."""
    cell = BREAKS.sub(" ", cell).strip(" ")
    return cell if cell.strip() else NOTHING


@contextmanager
def _table(
    write_row: Callable[[Iterable[Any]], None], fields: Iterable[str], without_rows: Callable[[], Iterable[str]]
) -> Iterator[Callable[[Record], None]]:
    """Records as rows of cells, below the names of the columns; arguments as for `writer`."""
    columns: list[str] = []

    def cell(value: Any) -> Any:
        return json.dumps(finite(value), ensure_ascii=False) if isinstance(value, dict | list) else value

    def write(record: Record) -> None:
        if not columns:
            columns.extend(dict.fromkeys([*fields, *record]))
            write_row(columns)
        if other := record.keys() - set(columns):  # for example words after texts
            raise UserError(f"output: no column for {min(other)!r}, which earlier records do not have", "Give .jsonl.")
        write_row([cell(record.get(name)) for name in columns])

    yield write
    if not columns:
        write_row([*fields, *without_rows()])
