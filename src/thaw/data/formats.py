"""One reader per file format: a path in, rows out, with the line number of every problem.

Readers never decide what to do about a bad row: they yield it as `Bad`, and `sources` stops or counts.
"""

import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from thaw.data.columns import Named, answer_column, class_names, mark_spans, named_columns, row_of
from thaw.data.conll import read_conll
from thaw.data.json_objects import json_objects
from thaw.data.label_studio import flat_task
from thaw.data.lines import NOT_UTF8, decoded, open_lines, readable, suffix_of, zipped
from thaw.data.rows import Bad, Options, Row, unaccepted
from thaw.data.spans import marked, marks_spans
from thaw.data.tables import read_delimited
from thaw.errors import UserError

BATCH, BUFFER = 1_000, 1 << 20  # rows and bytes of a Parquet column held at once; rows may hold images
Objects = Iterator[tuple[int, dict[str, Any] | Bad]]
"""Objects of a JSON file, each with its line."""
Reader = Callable[[Path, Options], Iterator[Row | Bad]]


def read_txt(path: Path, options: Options) -> Iterator[Row | Bad]:
    """One ``text;label`` per line; the label follows the last separator."""
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


def read_objects(path: Path, options: Options) -> Iterator[Row | Bad]:
    """JSON objects. The text may be a list of words; the label a list of labels, or of character spans.

    Where entities are given as character spans, an object that lacks them has none.
    """
    found = json_objects(path, options)
    tasks = ((line, record if isinstance(record, Bad) else flat_task(line, record)) for line, record in found)
    named, spans, records = _json_columns(path, options, tasks)
    texts, labels, _ = named
    for line, record in records:
        if isinstance(record, Bad):
            yield record
            continue
        if refused := unaccepted(line, *(record[name] for name in answer_column(record, texts, labels))):
            yield refused
            continue
        row = row_of(line, named, map(record.get, chain(*named)))
        spans = spans or marks_spans(row.label)
        missing = [name for name in (texts if spans else [*texts, *labels]) if name not in record]
        if missing:
            yield Bad(line, f"the field {missing[0]!r} is missing")
        else:
            yield marked(row, options, spans)


def _json_columns(path: Path, options: Options, records: Objects) -> tuple[Named, bool, Objects]:
    """The fields of text, label and group, as the first object has them, or if it lacks one, the objects after it.

    Returns:
        (fields as of `named_columns`, whether those of the label are known to hold entities, all records).
    """
    begin: list[tuple[int, dict[str, Any] | Bad]] = []
    objects: list[dict[str, Any]] = []
    for line, record in records:
        begin.append((line, record))
        if isinstance(record, dict):
            objects.append(record)
            break
    else:
        return ([], [], []), False, iter(begin)
    try:
        named = named_columns(list(record), options, f"{path}:{line}")
    except UserError:
        begin += islice(records, BATCH)
        objects = [record for _, record in begin if isinstance(record, dict)]
        names = dict.fromkeys(name for record in objects for name in record)
        named = named_columns(list(names), options, f"{path}:{line}")
    labels = named[1]
    spans = mark_spans(labels) or any(marks_spans(record.get(labels[0])) for record in objects)
    return named, spans, chain(begin, records)


def read_parquet(path: Path, options: Options) -> Iterator[Row | Bad]:
    """Parquet; integer labels get the ClassLabel names that the datasets library stores in the file."""
    with open_parquet(path) as file:
        named = named_columns(file.schema_arrow.names, options, path)
        yield from typed_rows(file.schema_arrow, named, options, partial(parquet_rows, file))


def typed_rows(
    schema: Any, named: Named, options: Options, read: Callable[[list[str]], Iterable[tuple[int, Sequence[Any] | Bad]]]
) -> Iterator[Row | Bad]:
    """Rows of an Arrow schema, whose metadata may name the labels.

    Args:
        named: the columns, as of `named_columns`.
        read: gives the number and the values of each row, from the names of columns.
    """
    texts, labels, groups = named
    columns = [*texts, *labels, *groups]
    names, spans = class_names(schema, labels), holds_spans(schema, labels)
    for line, values in read([*columns, *answer_column(schema.names, texts, columns)]):
        if isinstance(values, Bad):
            yield values
        else:
            refused = unaccepted(line, *values[len(columns) :])
            yield refused or marked(row_of(line, named, values, names), options, spans)


def holds_spans(schema: Any, columns: list[str]) -> bool:
    """Whether the label's column of an Arrow schema holds lists of structs: entities, even where a row has none."""
    import pyarrow.types as types

    kind = schema.field(columns[0]).type
    return mark_spans(columns) or (
        (types.is_list(kind) or types.is_large_list(kind)) and types.is_struct(kind.value_type)
    )


def parquet_rows(file: Any, columns: list[str] | None = None) -> Iterator[tuple[int, list[Any] | Bad]]:
    """The rows of an open Parquet file, numbered from 1, a batch at a time in memory.

    Args:
        columns: names of those to read, each of them unique; None reads all, in the order of the file.
    """
    row = 0
    for batch in file.iter_batches(batch_size=BATCH, columns=columns):
        # The names as they were asked for: batches have the order of the file.
        order = range(batch.num_columns) if columns is None else map(batch.schema.get_field_index, columns)
        cells = [(batch.schema.names[at], batch.column(at)) for at in order]
        for at in range(batch.num_rows):
            row += 1
            yield row, _values(row, ((name, column[at]) for name, column in cells))


def _values(row: int, cells: Iterable[tuple[str, Any]]) -> list[Any] | Bad:
    """The Python values of a row; bytes that are UTF-8 are text, which some tools write without saying so."""
    values = []
    for name, cell in cells:
        try:
            value = cell.as_py()
        except UnicodeDecodeError:
            return Bad(row, f"{NOT_UTF8} in {name!r}")
        except (ValueError, OverflowError) as error:  # such as a date after the year 9999
            return Bad(row, f"{name!r} cannot be read: {error}")
        if isinstance(value, bytes):
            with suppress(UnicodeDecodeError):
                value = value.decode("utf-8")
        values.append(value)
    return values


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A ``pyarrow.parquet.ParquetFile`` whose errors, now or while it is read, are raised as UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with readable(path):
            source = _unzipped(path) if zipped(path) else path.open("rb")
        # Otherwise whole columns of a row group, often a million rows, are held in memory.
        with source, pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}", "Copy or write the file again.") from None


def _unzipped(path: Path) -> IO[bytes]:
    """A gzipped file as a temporary one, since Parquet is not read from beginning to end."""
    file = tempfile.TemporaryFile()  # noqa: SIM115, closed by whoever reads it
    with gzip.open(path, "rb") as content:
        shutil.copyfileobj(content, file)
    return file


def folder_texts(path: Path) -> list[Path]:
    """The files of one split in the aclImdb layout: by label, then by number (``pos/0_9.txt``).

    The folder ``unsup``, which holds texts without labels, is left out.
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
    """The aclImdb layout: one folder per label, one file per text; a row's line is the number of its file."""
    for number, file in enumerate(folder_texts(path), start=1):
        text = b"\n".join(line for _, line in open_lines(file, options.encoding))
        try:
            yield Row(number, text.decode("utf-8"), file.parent.name)
        except UnicodeDecodeError as error:
            yield Bad(number, f"{NOT_UTF8} at byte {error.start + 1}")


READERS: dict[str, Reader] = {
    "parquet": read_parquet,
    "jsonl": read_objects,
    "csv": partial(read_delimited, delimiter=","),
    "tsv": partial(read_delimited, delimiter="\t"),
    "txt": read_txt,
    "conll": read_conll,
    "folder": read_folder,
}
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".xlsx": "csv",  # its first sheet
    ".xlsm": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
}


def check_no_workbook(path: Path) -> None:
    """Refuse a file that by its name is a workbook of a kind that is not read."""
    if path.suffix.lower() in (".xlsb", ".xls", ".ods"):
        raise UserError(f"{path}: a workbook of a kind that is not read", "Save it as .xlsx or CSV (UTF-8).")


def format_of(path: Path, tokens: bool = False) -> str | None:
    """The format that a file's name implies, or None. For token tasks, ``.txt`` files are CoNLL columns."""
    kind = SUFFIXES.get(suffix_of(path))
    return "conll" if kind == "txt" and tokens else kind
