"""One reader per file format: a path in, rows out, with the line number of every problem.

Readers never decide what to do about a bad row: they yield it as `Bad`, and `sources` stops or counts.
Lines end at ``\\n`` alone: some IMDB reviews contain U+0085, at which ``str.splitlines`` would break them.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    name_of,
    named_columns,
    open_lines,
    readable,
    text_of,
    zipped,
)
from thaw.data.spans import marks_spans, tagged_words
from thaw.data.tables import read_csv, read_tsv
from thaw.errors import UserError

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


def read_jsonl(path: Path, options: Options) -> Iterator[Row | Bad]:
    """One JSON object per line. The text may be a list of words; the label a list of labels, or of character spans."""
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
                yield Bad(line, f"its answer is {record['answer']!r}, so its entities are not correct")
                continue
            tokens = tokens or marks_spans(record[label])
            yield _marked(line, text, record[label], tokens)


def _marked(line: int, text: Any, label: Any, tokens: bool) -> Row | Bad:
    """A row; entities given as character spans become words with tags."""
    if not isinstance(text, str) or not (marks_spans(label) or (tokens and label in ([], None))):
        return Row(line, text, label)
    try:
        return Row(line, *tagged_words(text, label or []))
    except ValueError as error:
        return Bad(line, str(error))


def json_object(line: int, text: str) -> dict[str, Any] | Bad:
    """The object in a line of a JSON Lines file."""
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
    """Parquet; integer labels get the ClassLabel names that the datasets library stores in the file."""
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
    """A ``pyarrow.parquet.ParquetFile`` whose errors, now or while it is read, are raised as UserError."""
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
    """The format that a file's name implies, or None. For token tasks, ``.txt`` files are CoNLL columns."""
    suffix = (path.with_suffix("") if zipped(path) else path).suffix.lower()
    kind = SUFFIXES.get(suffix)
    return "conll" if kind == "txt" and tokens else kind
