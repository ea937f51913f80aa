"""One reader for each file format: a path in, rows out, with the line of everything that is wrong.

Readers never decide what to do about a bad row: they yield it as `Bad`, and `sources` stops or counts.
Lines end at ``\\n`` alone: some IMDB reviews hold U+0085, at which ``str.splitlines`` would break them.
"""

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from thaw.errors import UserError

csv.field_size_limit(sys.maxsize)  # long documents in one field are data, not an attack

QUOTING = {
    "minimal": csv.QUOTE_MINIMAL,
    "all": csv.QUOTE_ALL,
    "nonnumeric": csv.QUOTE_NONNUMERIC,
    "none": csv.QUOTE_NONE,
}
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


def open_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their ends, from a plain or gzipped file; a byte order mark is dropped.

    Raises:
        UserError: when the file is missing, unreadable or damaged.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                yield number, line.rstrip(b"\r\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "Check data.path.") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read: {reason}", "Check its permissions, or copy it again.") from None
    except Exception as error:  # zlib.error is what a damaged gzip body raises, and is no OSError
        if type(error).__name__ != "error":
            raise
        raise UserError(f"{path}: the gzip data is damaged: {error}", "Copy the file again.") from None


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
    """Numbered records of a csv or tsv file; undecodable bytes come as lone surrogates."""
    if options.quoting not in QUOTING:
        raise UserError(f"data.quoting={options.quoting} is not known", f"Choose one of: {', '.join(QUOTING)}.")
    lines = (line.decode("utf-8", errors="surrogateescape") + "\n" for _, line in open_lines(path))
    quoting = QUOTING[options.quoting]
    records = csv.reader(lines, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
    while True:
        line = records.line_num + 1
        try:
            record = next(records)
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            raise UserError(f"{path}:{line}: {error}", "Check the quotes there, or set data.quoting.") from None
        yield line, [str(field) for field in record]


def _delimited(path: Path, options: Options, delimiter: str) -> Iterator[Row | Bad]:
    columns: list[str] | None = None
    for line, record in delimited_records(path, options, delimiter):
        if columns is None:
            columns = [name.strip() for name in record] if options.header else [str(i) for i in range(len(record))]
            text_at = columns.index(find_column(columns, options.text_column, TEXT_COLUMNS, "text", path))
            label_at = text_at
            if options.needs_label:
                label_at = columns.index(find_column(columns, options.label_column, LABEL_COLUMNS, "label", path))
            if options.header:
                continue
        if not record:
            continue
        if len(record) <= max(text_at, label_at):
            yield Bad(line, f"{len(record)} fields where the header has {len(columns)}")
        elif (bad := _undecodable(record)) is not None:
            yield Bad(line, bad)
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
        if not isinstance(record, dict):
            yield Bad(line, "not a JSON object")
            continue
        if names is None:
            names = _record_columns(list(record), options, path)
        missing = [name for name in names if name is not None and name not in record]
        if missing:
            yield Bad(line, f"the field {missing[0]!r} is missing")
        else:
            yield Row(line, record[names[0]], record[names[1]] if names[1] else None)


def read_parquet(path: Path, options: Options) -> Iterator[Row | Bad]:
    """Parquet; integer labels take the ClassLabel names that the datasets library keeps in the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "Check data.path.") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}", "Copy or write the file again.") from None
    with file:
        text, label = _record_columns(file.schema_arrow.names, options, path)
        names = class_names(file.schema_arrow, label) if label else None
        wanted = [text, label] if label else [text]
        row = 0
        for batch in file.iter_batches(batch_size=10_000, columns=wanted):
            for record in batch.to_pylist():
                row += 1
                yield Row(row, record[text], name_of(record[label], names) if label else None)


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

    ``-DOCSTART-`` lines are skipped. Tags of the schemes IOB1 and BIOES (or BILOU) come out as IOB2.
    """
    word_at = options.text_column if isinstance(options.text_column, int) else 0
    tag_at = options.label_column if isinstance(options.label_column, int) else -1
    words: list[str] = []
    tags: list[str] = []
    start, width, bad = 0, 0, None

    def sentence() -> Row | Bad | None:
        return bad or (Row(start, words, to_iob2(tags) if options.needs_label else None) if words else None)

    for line, text in _decoded(path):
        if isinstance(text, Bad):
            bad = bad or text
            continue
        fields = text.split("\t") if "\t" in text else text.split()
        if not text.strip() or fields[0] == "-DOCSTART-":
            if (row := sentence()) is not None:
                yield row
            words, tags, bad = [], [], None
            continue
        width = width or len(fields)
        needed = 2 if options.needs_label else 1
        if len(fields) < max(needed, width if options.needs_label else 1) or not fields[word_at].strip():
            bad = bad or Bad(line, f"{len(fields)} columns where the first line has {max(width, needed)}")
            continue
        if not words:
            start = line
        words.append(fields[word_at].strip())
        tags.append(fields[tag_at].strip())
    if (row := sentence()) is not None:
        yield row


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


def read_folder(path: Path, options: Options) -> Iterator[Row | Bad]:
    """The aclImdb layout: one folder for each label, one text for each file; ``unsup`` has no labels and is left."""
    count = 0
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name != "unsup"):
        for file in sorted(folder.glob("*.txt"), key=lambda file: (len(file.stem.split("_")[0]), file.name)):
            count += 1
            try:
                yield Row(count, file.read_bytes().decode("utf-8"), folder.name)
            except UnicodeDecodeError as error:
                yield Bad(count, f"{folder.name}/{file.name}: not UTF-8 at byte {error.start}")


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
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
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
    raise UserError(f"{where}: {what}; it has: {', '.join(columns)}", f"Set data.{role}_column.")


def _record_columns(columns: list[str], options: Options, path: Path) -> tuple[str, str | None]:
    text = find_column(columns, options.text_column, TEXT_COLUMNS, "text", path)
    if not options.needs_label:
        return text, None
    return text, find_column(columns, options.label_column, LABEL_COLUMNS, "label", path)


def _decoded(path: Path) -> Iterator[tuple[int, str | Bad]]:
    for number, line in open_lines(path):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, Bad(number, f"not UTF-8 at byte {error.start + 1} of the line")


def _undecodable(fields: list[str]) -> str | None:
    for position, field in enumerate(fields, start=1):
        if any("\udc80" <= character <= "\udcff" for character in field):
            return f"not UTF-8 in field {position}"
    return None
