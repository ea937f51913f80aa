"""One reader for each file format: a path in, rows out, with the line of everything that is wrong.

Readers never decide what to do about a bad row: they yield it as `Bad`, and `sources` stops or counts.
Lines end at ``\\n`` alone: some IMDB reviews hold U+0085, at which ``str.splitlines`` would break them.
"""

import csv
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from thaw.errors import UserError

csv.field_size_limit(sys.maxsize)  # long documents in one field are data, not an attack

# To a reader the first three are the same: quotes may stand around a field. (Python's own QUOTE_NONNUMERIC would turn
# all other fields into floats, and so the label 1 into 1.0.)
QUOTING = ("minimal", "all", "nonnumeric", "none")
QUOTES = "Close the quotes there and double those within a field, or set data.quoting=none."
NOT_UTF8 = "not UTF-8 (save the file as UTF-8)"
TEXT_COLUMNS = ("text", "sentence", "tokens", "words", "review", "content", "body", "tweet", "message", "document")
LABEL_COLUMNS = ("label", "labels", "ner_tags", "tags", "class", "category", "emotion", "sentiment", "target", "intent")


class Row(NamedTuple):
    """One example: where it stands, its text (or its words), and its raw label or labels."""

    line: int
    text: str | list[str]
    label: Any


class Bad(NamedTuple):
    """A row that cannot be used, and why."""

    line: int
    problem: str


@dataclass(frozen=True)
class Options:
    """How to read: the column settings of ``conf/data``.

    Args:
        text_column: name of the text column, or its position in CoNLL files; None looks for a usual name.
        label_column: likewise for the label; in CoNLL files the last column by default.
        separator: what stands between text and label in txt files; the last one in the line counts.
        quoting: how csv and tsv quote: minimal, all, nonnumeric or none.
        header: whether the first line of csv and tsv names the columns; without it columns go by position.
        needs_label: False when predicting.
    """

    text_column: str | int | None = None
    label_column: str | int | None = None
    separator: str = ";"
    quoting: str = "minimal"
    header: bool = True
    needs_label: bool = True


Reader = Callable[[Path, Options], Iterator[Row | Bad]]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one line what a missing, unreadable or damaged file raises in many ways."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "Check data.path.") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read: {reason}", "Check its permissions, or copy it again.") from None
    except zlib.error as error:
        raise UserError(f"{path}: the gzip data is damaged: {error}", "Copy the file again.") from None


def zipped(path: Path) -> bool:
    """Whether a file's name says that it is gzipped."""
    return path.suffix.lower() == ".gz"


def open_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends, from a plain or gzipped file; a byte order mark is dropped.

    Raises:
        UserError: when the file is missing, unreadable or damaged.
    """
    with readable(path), gzip.open(path, "rb") if zipped(path) else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield number, line.rstrip(b"\r\n")


def read_txt(path: Path, options: Options) -> Iterator[Row | Bad]:
    """``text;label``, one a line; the label follows the last separator."""
    for line, text in _decoded(path):
        if isinstance(text, Bad):
            yield text
        elif not text.strip():
            continue
        elif not options.needs_label:
            yield Row(line, text, None)
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


def delimited_records(path: Path, options: Options, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Numbered records of a csv or tsv file; undecodable bytes come as lone surrogates.

    Raises:
        UserError: when the quotes of a record are wrong.
    """
    for line, record in _records(path, options, delimiter):
        if isinstance(record, Bad):
            raise UserError(f"{path}:{line}: {record.problem}", QUOTES)
        yield line, record


def _records(path: Path, options: Options, delimiter: str) -> Iterator[tuple[int, list[str] | Bad]]:
    """Records, each with the line it begins in: fields in quotes may go on over several."""
    if options.quoting not in QUOTING:
        raise UserError(f"data.quoting={options.quoting} is not known", f"Choose one of: {', '.join(QUOTING)}.")
    lines = (line.decode("utf-8", errors="surrogateescape") + "\n" for _, line in open_lines(path))
    if (first := next(lines, None)) is None:
        return
    if delimiter == "," and "," not in first and ";" in first:
        delimiter = ";"  # as Excel writes csv where the comma marks decimals
    quoting: Any = csv.QUOTE_NONE if options.quoting == "none" else csv.QUOTE_MINIMAL
    # strict: otherwise a quote that is never closed makes one field of all that follows, and nobody is told.
    records = csv.reader(chain([first], lines), delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        line = records.line_num + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            if records.line_num > line:  # rows that may be sound are lost in it, so none of them can be skipped
                problem = f"the quotes that open here do not match up to line {records.line_num}: {error}"
                raise UserError(f"{path}:{line}: {problem}", QUOTES) from None
            yield line, Bad(line, f"the quotes do not match: {error}")
        else:
            yield line, record


def _delimited(path: Path, options: Options, delimiter: str) -> Iterator[Row | Bad]:
    columns: list[str] = []
    text_at = label_at = 0
    for line, record in _records(path, options, delimiter):
        if not isinstance(record, Bad):
            if len(record) < 2 and not "".join(record).strip():
                continue  # a blank line
            record = _undecodable(line, record) or record
        if isinstance(record, Bad):
            if options.header and not columns:
                raise UserError(f"{path}:{line}: the header: {record.problem}", "Mend it.")
            yield record
            continue
        if not columns:
            columns = [name.strip() for name in record] if options.header else [str(i) for i in range(len(record))]
            text, label = named_columns(columns, options, path)
            text_at, label_at = columns.index(text), columns.index(label or text)
            if options.header:
                continue
        if len(record) != len(columns):
            where = "header" if options.header else "first line"
            yield Bad(line, f"{len(record)} fields where the {where} has {len(columns)}")
        else:
            yield Row(line, record[text_at], record[label_at] if options.needs_label else None)


def read_jsonl(path: Path, options: Options) -> Iterator[Row | Bad]:
    """One JSON object a line; the text may be a list of words, the label a list."""
    names: tuple[str, str | None] | None = None
    for line, text in _decoded(path):
        if isinstance(text, Bad):
            yield text
            continue
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            yield Bad(line, f"not valid JSON: {error.msg} at column {error.colno}")
            continue
        except (ValueError, RecursionError) as error:  # numbers or nesting beyond what Python reads
            yield Bad(line, f"not readable as JSON: {error}")
            continue
        if not isinstance(record, dict):
            yield Bad(line, "not a JSON object; each line should be one")
            continue
        if names is None:
            names = named_columns(list(record), options, f"{path}:{line}")
        missing = [name for name in names if name is not None and name not in record]
        if missing:
            yield Bad(line, f"the field {missing[0]!r} is missing")
        else:
            yield Row(line, record[names[0]], record[names[1]] if names[1] else None)


def read_parquet(path: Path, options: Options) -> Iterator[Row | Bad]:
    """Parquet; integer labels take the ClassLabel names that the datasets library keeps in the file."""
    with open_parquet(path) as file:
        text, label = named_columns(file.schema_arrow.names, options, path)
        names = class_names(file.schema_arrow, label) if label else None
        row = 0
        for batch in file.iter_batches(batch_size=10_000, columns=[text, label] if label else [text]):
            for record in batch.to_pylist():
                row += 1
                yield Row(row, record[text], name_of(record[label], names) if label else None)


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


def class_names(schema: Any, column: str) -> list[str] | None:
    """Names of a ClassLabel column (or of a list of them), from the metadata the datasets library writes."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if not raw:
        return None
    feature = json.loads(raw).get("info", {}).get("features", {}).get(column)
    while isinstance(feature, list | dict):
        if isinstance(feature, list):
            feature = feature[0]
        elif "names" in feature:
            return list(feature["names"])
        else:
            feature = feature.get("feature")
    return None


def name_of(label: Any, names: list[str] | None) -> Any:
    """The name of a label, or of each in a list, where the data states names; an id out of range stays a number."""
    if names is None or label is None:
        return label
    if isinstance(label, list):
        return [name_of(item, names) for item in label]
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else label


def read_conll(path: Path, options: Options) -> Iterator[Row | Bad]:
    """CoNLL columns: a word a line, columns parted by blanks or tabs, blank lines between sentences.

    ``-DOCSTART-`` lines are skipped. Tags of the schemes IOB1 and BIOES (or BILOU) come out as IOB2. A wrong line
    makes its whole sentence `Bad`.
    """
    word_at = options.text_column if isinstance(options.text_column, int) else 0
    tag_at = options.label_column if isinstance(options.label_column, int) else -1
    words: list[str] = []
    tags: list[str] = []
    start, width = 0, 0
    bad: Bad | None = None

    def sentence() -> Iterator[Row | Bad]:
        if bad or words:
            yield bad or Row(start, words, to_iob2(tags) if options.needs_label else None)

    for line, text in _decoded(path):
        if isinstance(text, Bad):
            bad = bad or text
            continue
        # Only these two part columns: a word may hold other blanks, such as U+00A0 in numbers.
        text = text.strip(" ").rstrip("\t")
        fields = text.split("\t") if "\t" in text else re.split(" +", text)
        if not text.strip() or fields[0] == "-DOCSTART-":
            yield from sentence()
            words, tags, bad = [], [], None
            continue
        if not width:
            width = len(fields)
            _check_positions(word_at, tag_at if options.needs_label else word_at, width, f"{path}:{line}")
        if len(fields) != width:
            bad = bad or Bad(line, f"{len(fields)} columns where the first line has {width}")
            continue
        word, tag = fields[word_at].strip(), fields[tag_at].strip()
        if not word or not tag:
            bad = bad or Bad(line, f"the {'tag' if word else 'word'} is empty")
        if not words:
            start = line
        words.append(word)
        tags.append(tag)
    yield from sentence()


def _check_positions(word_at: int, tag_at: int, width: int, where: str) -> None:
    for position, role in ((word_at, "text"), (tag_at, "label")):
        if not -width <= position < width or (role == "label" and tag_at == -1 and width < 2):
            raise UserError(
                f"{where}: {width} columns, so none for the {role}",
                f"Check data.format, or set data.{role}_column to a position counted from 0.",
            )


def to_iob2(tags: list[str]) -> list[str]:
    """Turn IOB1, BIOES and BILOU tags into IOB2; IOB2 and tags that mark no spans come out unchanged."""
    ends = {"E": "I", "L": "I", "M": "I", "S": "B", "U": "B"}
    plain = [ends.get(tag[0], tag[0]) + tag[1:] if tag[1:2] == "-" else tag for tag in tags]
    result: list[str] = []
    for tag in plain:
        previous = result[-1] if result else "O"
        begins = tag.startswith("I-") and (previous[1:] != tag[1:] or previous[:2] not in ("B-", "I-"))
        result.append("B" + tag[1:] if begins else tag)
    return result


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
        text = b"\n".join(line for _, line in open_lines(file))
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


def find_column(
    columns: list[str], wanted: str | int | None, usual: Iterable[str], role: str, where: Path | str
) -> str:
    """The column that was asked for, or else the first with a usual name.

    Raises:
        UserError: when there is none; the message lists the columns there are.
    """
    if isinstance(wanted, int) and 0 <= wanted < len(columns):
        return columns[wanted]
    names = [str(wanted)] if wanted is not None else list(usual)
    for name in names:
        if name in columns:
            return name
    lowered = {column.lower(): column for column in columns}
    if wanted is None:
        for name in names:
            if name in lowered:
                return lowered[name]
    what = f"no column {wanted!r}" if wanted is not None else f"no column with a usual name for the {role}"
    remedy = f"Set data.{role}_column." + (" What has no labels is for predict.py." if role == "label" else "")
    raise UserError(f"{where}: {what}; it has: {', '.join(columns)}", remedy)


def named_columns(columns: list[str], options: Options, where: Path | str) -> tuple[str, str | None]:
    """The columns of the text and of the label; None for the label where none is needed."""
    text = find_column(columns, options.text_column, TEXT_COLUMNS, "text", where)
    if not options.needs_label:
        return text, None
    label = find_column(columns, options.label_column, LABEL_COLUMNS, "label", where)
    if label == text:
        raise UserError(f"{where}: the column {text!r} is both text and label", "Set both: data.text_column=...")
    return text, label


def _decoded(path: Path) -> Iterator[tuple[int, str | Bad]]:
    for number, line in open_lines(path):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, Bad(number, f"{NOT_UTF8} at byte {error.start + 1} of the line")


def encodable(text: str) -> bool:
    """Whether a text is made of characters; lone surrogates are halves of one, which no tokenizer or file takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _undecodable(line: int, fields: list[str]) -> Bad | None:
    for position, field in enumerate(fields, start=1):
        if not encodable(field):
            return Bad(line, f"{NOT_UTF8} in field {position}")
    return None
