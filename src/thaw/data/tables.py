"""Tables: comma- and tab-separated values, and the sheets of Excel workbooks."""

import ast
import csv
import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from thaw.data.columns import mark_spans, named_columns, row_of
from thaw.data.lines import NOT_UTF8, open_lines
from thaw.data.rows import Bad, Options, Row, encodable
from thaw.data.spans import marked, marks_spans
from thaw.data.workbook import is_workbook, read_sheet
from thaw.errors import UserError, counted

csv.field_size_limit(sys.maxsize)  # long documents in one field are data, not an attack

DELIMITERS = ",;\t|"  # of csv files, the usual one first
KEPT = ",;|"  # those recognised in what is made of a file, without a line that states them
SAMPLE = 50  # lines that show which one it is
QUOTES = "Close the quotes there and double those within a field, or set {prefix}quoting=none."
STATED = re.compile(r'"?sep=([^\w"\r\n])"?\r?\n', re.IGNORECASE)  # Excel's first line, of the delimiter
ARRAY = re.compile(r"""['"]\s+['"]""")  # strings without a comma: a printed numpy array, which Python would concatenate
Table = Iterator[tuple[int, list[str] | Bad]]
"""Records, each with its first line."""


def _records(path: Path, options: Options, delimiter: str) -> tuple[Table, str]:
    """Records, each with its first line, and the delimiter for csv files that are made of them."""
    if is_workbook(path):
        return read_sheet(path), ","
    encoded = open_lines(path, options.encoding, ends=True)
    lines = (line.decode("utf-8", errors="surrogateescape") for _, line in encoded)
    begin: list[str] = []
    while not (begin and begin[-1].strip()) and (first := next(lines, None)):
        begin.append(first)
    if delimiter == "," and begin and (stated := STATED.fullmatch(begin[0])):
        begin = ["\n"]  # a blank line, so that lines are counted as they are in the file
        delimiter = stated[1]
    elif delimiter == "," and begin:
        begin += islice(lines, SAMPLE)
        delimiter = own_delimiter(begin, options)
    records = _parsed(path, chain(begin, lines), options, delimiter)
    return records, delimiter if delimiter in KEPT else ","


def delimiter_of(path: Path, options: Options) -> str:
    """The delimiter for files made of a csv file: its own, if that is recognised again."""
    return _records(path, options, ",")[1]


def _parsed(path: Path, lines: Iterator[str], options: Options, delimiter: str) -> Table:
    """The records of some lines; quoted fields may span several of them."""
    # strict: otherwise an unclosed quote silently swallows the rest of the file as one field.
    records = csv.reader(lines, delimiter=delimiter, quoting=_quoting(options), strict=True)
    while True:
        line = records.line_num + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            if records.line_num > line:  # it may have swallowed good rows, so it cannot be skipped
                problem = f"the quotes that open here do not match up to line {records.line_num}: {error}"
                raise UserError(f"{path}:{line}: {problem}", QUOTES.format(prefix=options.prefix)) from None
            if line == 1 and "new-line character" in str(error):  # seen before any line has ended
                raise UserError(
                    f"{path}: its lines end in \\r alone", "Save it with the line ends of Unix or Windows."
                ) from None
            lone = "new-line character" in str(error)
            yield line, Bad(line, "a lone \\r, without quotes" if lone else f"the quotes do not match: {error}")
        else:
            yield line, record


def _quoting(options: Options) -> Any:
    # For reading, minimal, all and nonnumeric are the same: fields may be quoted. (Python's QUOTE_NONNUMERIC would
    # convert all unquoted fields to floats, and so the label 1 to 1.0.)
    return csv.QUOTE_NONE if options.quoting == "none" else csv.QUOTE_MINIMAL


def own_delimiter(lines: list[str], options: Options) -> str:
    """The delimiter of a csv file: what divides its first lines most evenly, or else into the most fields.

    With a decimal comma, Excel writes ``;`` into csv files, whose names and texts may then hold commas.

    Args:
        lines: the first ones; a quoted field may go on after them.
    """
    best, most = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        first, *others = _widths(lines, delimiter, options) or [0]
        alike = sum(width == first for width in others)
        # A first line that is no header may be a text with a semicolon, so most others must be divided alike.
        if first < 2 or (delimiter != "," and not options.header and alike * 2 <= len(others)):
            continue
        evenness = (alike / max(len(others), 1), first)
        if evenness > most:
            best, most = delimiter, evenness
    return best


def _widths(lines: list[str], delimiter: str, options: Options) -> list[int]:
    """How many fields each of the first records has, up to one that is incomplete or whose quotes do not match."""
    widths: list[int] = []
    with suppress(csv.Error):
        for record in csv.reader(lines, delimiter=delimiter, quoting=_quoting(options), strict=True):
            widths += [] if _blank(record) else [len(record)]
    return widths


def read_table(path: Path, options: Options, delimiter: str) -> tuple[list[str], Table, str]:
    """A csv or tsv file, or a workbook: the names of its columns, or their positions, and its records.

    Args:
        delimiter: the usual one of the format.

    Returns:
        (columns, records, delimiter for csv files made of them): no columns if no row can be read. Each record comes
        with its first line; blank lines, and rows of empty fields before or after all others, are left out, and
        undecodable bytes are lone surrogates.

    Raises:
        UserError: when the header cannot be read, or, while reading records, when quotes do not match over many rows.
    """
    records, delimiter = _records(path, options, delimiter)
    before: list[tuple[int, list[str] | Bad]] = []
    for line, record in records:
        bad = record if isinstance(record, Bad) else _undecodable(line, record)
        if bad and options.header:
            remedy = (
                "Fix it." if NOT_UTF8 not in bad.problem else f"Say what it is: {options.prefix}encoding=cp1252, say."
            )
            raise UserError(f"{path}:{line}: the header: {bad.problem}", remedy)
        if not isinstance(record, Bad) and not _blank(record):
            break
        if isinstance(record, Bad) or not options.header:
            before.append((line, record))
    else:
        return [], (one for one in before if isinstance(one[1], Bad)), delimiter
    if options.header:
        return [name.strip() for name in record], _even(records, len(record), "header"), delimiter
    rows = chain(before, [(line, record)], records)
    return [str(i) for i in range(len(record))], _even(rows, len(record), "first line"), delimiter


def _even(records: Table, width: int, where: str) -> Table:
    empty: list[tuple[int, list[str] | Bad]] = []  # held back: at the end, as Excel writes them, they are blank lines
    for line, record in records:
        if not isinstance(record, Bad) and _blank(record):
            if len(record) == width:
                empty.append((line, record))
            continue
        yield from empty
        empty.clear()
        if not isinstance(record, Bad) and len(record) != width:
            record = Bad(line, f"{counted(len(record), 'field')} where the {where} has {width}")
        yield line, record
    if width == 1:  # there, only a field in quotes, or of blanks, gives a record
        yield from empty


def _blank(record: list[str]) -> bool:
    return not "".join(record).strip()


def read_delimited(path: Path, options: Options, delimiter: str) -> Iterator[Row | Bad]:
    """Rows of a table, as `read_table` finds them."""
    columns, records, _ = read_table(path, options, delimiter)
    named = named_columns(columns, options, path) if columns else ([], [], [])
    at = [columns.index(name) for name in chain(*named)]
    spans = mark_spans(named[1])
    for line, record in records:
        if isinstance(record, Bad):
            yield record
        else:
            row = _listed(row_of(line, named, [record[i] for i in at]))
            spans = spans or marks_spans(row.label)
            if (spans or options.tokens) and isinstance(row.label, str) and not row.label.strip():
                row = row._replace(label=None)  # no entity
            yield _undecodable(line, record) or marked(row, options, spans)


def _listed(row: Row) -> Row:
    """A row whose cells hold lists or objects, read as such: words with their tags, several labels, or entities."""
    labels = value_in(row.label) if isinstance(row.label, str) else None
    if labels is None:
        return row
    words = words_in(row.text) if isinstance(row.text, str) else None
    return row._replace(text=row.text if words is None else words, label=labels)


def _undecodable(line: int, fields: list[str]) -> Bad | None:
    for position, field in enumerate(fields, start=1):
        if not encodable(field):
            return Bad(line, f"{NOT_UTF8} in field {position}")
    return None


def value_in(cell: str) -> list[Any] | dict[str, Any] | None:
    """The list or object in a cell of a table: in JSON, as predict.py writes it, or in Python's notation, as pandas."""
    if (cell[:1], cell[-1:]) not in (("[", "]"), ("{", "}")) or ARRAY.search(cell):
        return None
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = read(cell)
            return found if isinstance(found, list | dict) else None
    return None


def words_in(cell: str) -> list[str] | None:
    """The list of words in a cell of a table, if there is one."""
    found = value_in(cell)
    return found if isinstance(found, list) and found and all(isinstance(word, str) for word in found) else None
