"""One reader for each file format: a path in, rows out, with the line of everything that is wrong.

Readers never decide what to do about a bad row: they yield it as `Bad`, and `sources` stops or counts.
Lines end at ``\\n`` alone: some IMDB reviews hold U+0085, at which ``str.splitlines`` would break them.
"""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from thaw.data.conll import read_conll
from thaw.data.rows import (
    CHUNK,
    NOT_UTF8,
    SPAN_COLUMNS,
    Bad,
    Options,
    Row,
    class_names,
    decoded,
    encodable,
    list_in,
    name_of,
    named_columns,
    open_lines,
    readable,
    text_of,
    words_in,
    zipped,
)
from thaw.data.spans import marks_spans, tagged_words
from thaw.errors import UserError, counted

csv.field_size_limit(sys.maxsize)  # long documents in one field are data, not an attack

QUOTES = "Close the quotes there and double those within a field, or set {group}quoting=none."

Reader = Callable[[Path, Options], Iterator[Row | Bad]]
Table = Iterator[tuple[int, list[str] | Bad]]


def read_txt(path: Path, options: Options) -> Iterator[Row | Bad]:
    """``text;label``, one a line; the label follows the last separator."""
    for line, text in decoded(path, options):
        if isinstance(text, Bad):
            yield text
        elif not text.strip():
            continue
        elif options.separator not in text:
            yield Bad(line, f"no {options.separator!r} between text and label")
        else:
            body, _, label = text.rpartition(options.separator)
            yield Row(line, body, label.strip())


def read_csv(path: Path, options: Options) -> Iterator[Row | Bad]:
    """Comma-separated values."""
    return _delimited(path, options, ",")


def read_tsv(path: Path, options: Options) -> Iterator[Row | Bad]:
    """Tab-separated values."""
    return _delimited(path, options, "\t")


def _records(path: Path, options: Options, delimiter: str) -> tuple[Table, str]:
    """Records, each with the line it begins in, and what parts their fields."""
    lines = (line.decode("utf-8", errors="surrogateescape") + "\n" for _, line in open_lines(path, options.encoding))
    begin: list[str] = []
    while not (begin and begin[-1].strip()) and (first := next(lines, None)):
        begin.append(first)
    delimiter = own_delimiter(begin[-1], delimiter) if begin else delimiter
    return _parsed(path, chain(begin, lines), options, delimiter), delimiter


def _parsed(path: Path, lines: Iterator[str], options: Options, delimiter: str) -> Table:
    """Fields in quotes may go on over several lines."""
    # To a reader minimal, all and nonnumeric are the same: quotes may stand around a field. (Python's own
    # QUOTE_NONNUMERIC would turn all other fields into floats, and so the label 1 into 1.0.)
    quoting: Any = csv.QUOTE_NONE if options.quoting == "none" else csv.QUOTE_MINIMAL
    # strict: otherwise a quote that is never closed makes one field of all that follows, and nobody is told.
    records = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        line = records.line_num + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            if records.line_num > line:  # rows that may be sound are lost in it, so none of them can be skipped
                problem = f"the quotes that open here do not match up to line {records.line_num}: {error}"
                raise UserError(f"{path}:{line}: {problem}", QUOTES.format(group=options.group)) from None
            if line == 1 and "new-line character" in str(error):  # seen before any line has ended
                raise UserError(
                    f"{path}: its lines end in \\r alone", "Save it with the line ends of Unix or Windows."
                ) from None
            lone = "new-line character" in str(error)
            yield line, Bad(line, "a lone \\r, without quotes" if lone else f"the quotes do not match: {error}")
        else:
            yield line, record


def own_delimiter(line: str, delimiter: str) -> str:
    """What parts the fields of a file: Excel writes ``;`` into csv where the comma marks decimals."""
    if delimiter != "," or "," in line:
        return delimiter
    return next((other for other in ";\t|" if other in line), delimiter)


def read_table(path: Path, options: Options, delimiter: str) -> tuple[list[str], Table, str]:
    """A csv or tsv file: the names of its columns, or their positions, and its records.

    Args:
        delimiter: that is usual for the format.

    Returns:
        (columns, records, delimiter): no columns where no row can be read. Records bear the line they begin in; blank
        lines are left out, and undecodable bytes are lone surrogates. The delimiter is that of the file.

    Raises:
        UserError: when the header cannot be read, or, from the records, when the quotes of many rows are wrong.
    """
    records, delimiter = _records(path, options, delimiter)
    before: list[tuple[int, list[str] | Bad]] = []
    for line, record in records:
        bad = record if isinstance(record, Bad) else _undecodable(line, record)
        if bad and options.header:
            remedy = (
                "Fix it." if NOT_UTF8 not in bad.problem else f"Say what it is: {options.group}encoding=cp1252, say."
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
    for line, record in records:
        if not isinstance(record, Bad) and len(record) != width:
            if _blank(record):
                continue
            record = Bad(line, f"{counted(len(record), 'field')} where the {where} has {width}")
        yield line, record


def _blank(record: list[str]) -> bool:
    return len(record) < 2 and not "".join(record).strip()


def _delimited(path: Path, options: Options, delimiter: str) -> Iterator[Row | Bad]:
    columns, records, _ = read_table(path, options, delimiter)
    texts, label = named_columns(columns, options, path) if columns else ([], "")
    texts_at, label_at = [columns.index(name) for name in texts], columns.index(label) if columns else 0
    for line, record in records:
        if isinstance(record, Bad):
            yield record
        else:
            text = text_of([record[i] for i in texts_at])
            yield _undecodable(line, record) or _listed(Row(line, text, record[label_at]))


def _listed(row: Row) -> Row:
    """A row with the lists that its cells hold: words with a tag each, or the labels of a text."""
    labels = list_in(row.label)
    if labels is None:
        return row
    words = words_in(row.text) if isinstance(row.text, str) else None
    return Row(row.line, row.text if words is None else words, labels)


def read_jsonl(path: Path, options: Options) -> Iterator[Row | Bad]:
    """One JSON object a line; the text may be a list of words, the label a list, also of entities with characters."""
    texts: list[str] = []
    label, tokens = "", False
    for line, text in decoded(path, options):
        if isinstance(text, str) and not text.strip():
            continue
        record = json_object(line, text) if isinstance(text, str) else text
        if isinstance(record, Bad):
            yield record
            continue
        if not texts:
            texts, label = named_columns(list(record), options, f"{path}:{line}")
            tokens = options.tokens or label in SPAN_COLUMNS
        missing = [name for name in (*texts, label) if name not in record]
        if missing:
            yield Bad(line, f"the field {missing[0]!r} is missing")
        else:
            text = text_of([record[name] for name in texts])
            if label in SPAN_COLUMNS and record.get("answer") in ("reject", "ignore"):  # of Prodigy
                yield Bad(line, f"its answer is {record['answer']!r}, so its entities are not as they should be")
                continue
            tokens = tokens or marks_spans(record[label])
            yield _marked(line, text, record[label], tokens)


def _marked(line: int, text: Any, label: Any, tokens: bool) -> Row | Bad:
    """A row; where its label is a list of entities by their characters, or an empty one of these, by words."""
    if not isinstance(text, str) or not (marks_spans(label) or (tokens and label in ([], None))):
        return Row(line, text, label)
    try:
        return Row(line, *tagged_words(text, label or []))
    except ValueError as error:
        return Bad(line, str(error))


def json_object(line: int, text: str) -> dict[str, Any] | Bad:
    """The object that a line of JSON lines holds."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        if line == 1 and text.lstrip().startswith("["):  # pandas and other tools write one array over many lines
            return Bad(line, "the beginning of a JSON array; each line should be an object (pandas: lines=True)")
        return Bad(line, f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # numbers or nesting beyond what Python reads
        return Bad(line, f"not readable as JSON: {error}")
    return record if isinstance(record, dict) else Bad(line, "not a JSON object; each line should be one")


def read_parquet(path: Path, options: Options) -> Iterator[Row | Bad]:
    """Parquet; integer labels take the ClassLabel names that the datasets library keeps in the file."""
    with open_parquet(path) as file:
        texts, label = named_columns(file.schema_arrow.names, options, path)
        names = class_names(file.schema_arrow, label)
        row = 0
        for batch in file.iter_batches(batch_size=CHUNK, columns=[*texts, label]):
            for record in batch.to_pylist():
                row += 1
                yield Row(row, text_of([record[name] for name in texts]), name_of(record[label], names))


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A ``pyarrow.parquet.ParquetFile``; what is wrong with it, now or later, is raised as UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with readable(path):
            source = pa.BufferReader(gzip.decompress(path.read_bytes())) if zipped(path) else path.open("rb")
        with source, pq.ParquetFile(source) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}", "Copy or write the file again.") from None


def folder_texts(path: Path) -> list[Path]:
    """The files of the aclImdb layout below one split: by label, then by number (``pos/0_9.txt``).

    The folder ``unsup`` holds texts without labels and is left out.
    """
    folders = (entry for entry in path.iterdir() if entry.is_dir() and entry.name != "unsup")
    return [
        file
        for folder in sorted(folders)
        for file in sorted(
            (file for pattern in ("*.txt", "*.txt.gz") for file in folder.glob(pattern)),
            key=lambda file: (len(file.name.partition("_")[0]), file.name),
        )
    ]


def read_folder(path: Path, options: Options) -> Iterator[Row | Bad]:
    """The aclImdb layout: one folder for each label, one text for each file; a row's line is its number there."""
    for number, file in enumerate(folder_texts(path), start=1):
        text = b"\n".join(line for _, line in open_lines(file, options.encoding))
        try:
            yield Row(number, text.decode("utf-8"), file.parent.name)
        except UnicodeDecodeError as error:
            yield Bad(number, f"{NOT_UTF8} at byte {error.start + 1}")


READERS: dict[str, Reader] = {
    "parquet": read_parquet,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "tsv": read_tsv,
    "txt": read_txt,
    "conll": read_conll,
    "folder": read_folder,
}
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
}


def format_of(path: Path, tokens: bool = False) -> str | None:
    """The format that a file's name states, or None. A ``.txt`` file is CoNLL columns for token tasks."""
    suffix = (path.with_suffix("") if zipped(path) else path).suffix.lower()
    kind = SUFFIXES.get(suffix)
    return "conll" if kind == "txt" and tokens else kind


def _undecodable(line: int, fields: list[str]) -> Bad | None:
    for position, field in enumerate(fields, start=1):
        if not encodable(field):
            return Bad(line, f"{NOT_UTF8} in field {position}")
    return None
