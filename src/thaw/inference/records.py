"""What ``predict.py`` reads: texts, each with its record, by the same rules as in training."""

import atexit
import base64
import codecs
import datetime
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.data.columns import text_columns
from thaw.data.conll import looks_like_conll, position, sentences
from thaw.data.formats import check_no_workbook, format_of, open_parquet, parquet_rows
from thaw.data.json_objects import json_objects
from thaw.data.lines import MARK, NOT_UTF8, numbered, open_bytes, open_lines, readable
from thaw.data.pairs import joined
from thaw.data.rows import Bad, Options, text_of
from thaw.data.tables import Table, read_table
from thaw.errors import UserError
from thaw.files import writing
from thaw.inference.texts import Text, pair_of

Record = dict[str, Any]
Records = Iterator[tuple[Text, Record]]
TABLES = {"csv": ",", "tsv": "\t"}
ENCODING = "Save it as UTF-8, or set its encoding, for example encoding=cp1252."
KINDS = ("txt", *TABLES, "jsonl", "parquet", "conll")


@dataclass(frozen=True)
class Input:
    """Records, each with its text or list of words.

    Args:
        fields: the fields of the records.
        delimiter: of a csv file, kept in a csv output.
        marked: whether a csv output needs a byte order mark, without which Excel does not recognise UTF-8.
        cells: whether the texts are cells of a table.
    """

    records: Records
    fields: Collection[str]
    delimiter: str = ","
    marked: bool = False
    cells: bool = False


def kind_of(source: str, stated: str | None, encoding: str) -> str:
    """The format of an input.

    Args:
        source: a file, or ``-`` for standard input.
        stated: the format given by the user; without one, a txt file that looks like CoNLL columns is read as such.

    Raises:
        UserError: when there is no such file, or its name implies no format.
    """
    path = Path(source).expanduser()
    if source != "-" and not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise UserError(f"input={source}: {what}", "Give a file, or - for standard input.")
    kind = "jsonl" if stated == "json" else stated or ("txt" if source == "-" else format_of(path))
    if kind not in KINDS:
        check_no_workbook(path)
        remedy = f"It may be .{', .'.join(KINDS)}, or say which of them it is: format={KINDS[1]}."
        raise UserError(f"input={source}: its name implies no readable format", remedy)
    if kind == "txt" and source != "-" and not stated and looks_like_conll(path, Options(encoding=encoding)):
        print(f"{source} is read as CoNLL columns; format=txt makes each line a text.", file=sys.stderr)
        return "conll"
    return kind


def read_records(source: str, kind: str, options: Options) -> Input:
    """The records of an input.

    Args:
        source: a file, or ``-`` for standard input, which is streamed if it has one text per line.
        kind: its format.

    Raises:
        UserError: when a record cannot be read; now, or while the records are read.
    """
    if source == "-" and kind == "txt":
        return _lines("standard input", _standard_input(options.encoding), options)
    path = _kept_input(kind) if source == "-" else Path(source).expanduser()
    if kind == "txt":
        return _lines(source, open_lines(path, options.encoding), options)
    if kind == "conll":
        return _sentences(path, options)
    if kind == "jsonl":
        return _objects(path, options)
    if kind == "parquet":
        return _columns(path, options)
    return _table(path, options, TABLES[kind])


def _standard_input(encoding: str) -> Iterator[tuple[int, bytes]]:
    with readable(Path("standard input")):
        yield from numbered(sys.stdin.buffer, encoding)


def _kept_input(kind: str) -> Path:
    """Standard input copied to a temporary file, since some formats are read more than once."""
    folder = Path(tempfile.mkdtemp(prefix="thaw-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / f"standard_input.{kind}"
    with writing(path, path), path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _lines(place: str, lines: Iterable[tuple[int, bytes]], options: Options) -> Input:
    def read() -> Records:
        for number, line in lines:
            text = _text(line, f"{place}:{number}")
            yield _given([text], options, f"{place}:{number}"), {"text": text}

    return Input(read(), ["text"])


def _given(values: Sequence[str], options: Options, place: str) -> Any:
    """The text of a record; a pair as one string."""
    if not options.pairs:
        return text_of(values)
    try:
        return joined(*pair_of(values[0] if len(values) == 1 else values))
    except ValueError as error:
        raise UserError(f"{place}: {error}", "Fix it: the run was trained on pairs of texts.") from None


def _text(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{place}: {NOT_UTF8}", ENCODING) from None


def _sentences(path: Path, options: Options) -> Input:
    """Words with their other columns; if there are several, the last one holds tags."""
    word_at = position("text", options, 0)

    def columns(width: int) -> list[str]:
        names = [f"column_{i}" for i in range(width)]
        names[-1] = "tags"
        names[word_at] = "words"
        return names

    def read() -> Iterator[tuple[Text, Record]]:
        for sentence in sentences(path, options):
            if isinstance(sentence, Bad):
                raise UserError(f"{path}:{sentence.line}: {sentence.problem}", "Fix the line.")
            start, rows = sentence
            if not -len(rows[0]) <= word_at < len(rows[0]):
                raise UserError(f"{path}:{start}: no column {word_at}", "Set text_column to that of the words.")
            record = dict(zip(columns(len(rows[0])), map(list, zip(*rows, strict=True)), strict=True))
            if not all(word.strip() for word in record["words"]):
                raise UserError(f"{path}:{start}: a word of this sentence is empty", "Fix the line.")
            yield record["words"], record

    first = next(read(), None)
    return Input(read(), list(first[1]) if first else ["words"])


def _table(path: Path, options: Options, delimiter: str) -> Input:
    columns, records, delimiter = read_table(path, options, delimiter)
    rows = _sound(path, records)
    if not columns:
        next(rows, None)  # raises the error of the first row, if there is one
        raise UserError(f"{path}: the file is empty", "Give a file with rows.")
    fields, texts_at = _named(columns, options, path)
    with open_bytes(path) as file:
        marked = file.read(len(MARK)) == MARK or codecs.lookup(options.encoding).name != "utf-8"
    records_of_rows = (
        (_given([row[i] for i in texts_at], options, f"{path}:{line}"), dict(zip(fields, row, strict=True)))
        for line, row in rows
    )
    # Only these are recognised again without a line that states them.
    return Input(records_of_rows, fields, delimiter if delimiter in ",;|" else TABLES["csv"], marked, cells=True)


def _named(columns: list[str], options: Options, path: Path) -> tuple[list[str], list[int]]:
    """The fields of some columns, those of the same name included, and the positions of their texts."""
    texts = _texts_of(columns, options, path)
    fields: list[str] = []
    for name in columns:
        fields.append(unused_key(name, fields, "other_"))
    return fields, [columns.index(name) for name in texts]


def _texts_of(columns: list[str], options: Options, path: Path) -> list[str]:
    """The column of the texts, or the two of pairs; a note says so if it is not that of the run."""
    texts = text_columns(columns, options, path)
    if isinstance(options.text_column, str) and texts != [options.text_column]:
        print(f"{path}: no column {options.text_column!r} as in the run; {texts[0]!r} is read.", file=sys.stderr)
    return texts


def _sound(path: Path, records: Table) -> Iterator[tuple[int, list[str]]]:
    for line, record in records:
        if isinstance(record, Bad):
            remedy = "Fix the row, or set quoting=none where quotes are plain characters, minimal where they are not."
            raise UserError(f"{path}:{line}: {record.problem}", remedy)
        yield line, [_text(field.encode("utf-8", "surrogateescape"), f"{path}:{line}") for field in record]


def _objects(path: Path, options: Options) -> Input:
    def records() -> Iterator[tuple[str, Record]]:
        for line, record in json_objects(path, options):
            if isinstance(record, Bad):
                remedy = (
                    ENCODING if record.problem.startswith(NOT_UTF8) else "Fix it."
                )  # a line, or an object of an array
                raise UserError(f"{path}:{line}: {record.problem}", remedy)
            yield f"{path}:{line}", record

    # Read twice: records may differ in their fields, and the names of added fields must be free in all of them.
    counts, rows = Counter[str](), 0
    for _, record in records():
        counts.update(record.keys())
        rows += 1
    texts = _texts_of(list(counts), options, path) if rows else []
    for name in texts:
        if counts[name] < rows:
            place = next(place for place, record in records() if name not in record)
            raise UserError(f"{place}: the field {name!r} is missing", "Add it, or set text_column.")
    found = ((_text_or_words([record[name] for name in texts], options, place), record) for place, record in records())
    return Input(found, list(counts))


def _text_or_words(values: Sequence[Any], options: Options, place: str) -> Any:
    """The text of a record whose values have types, or its words; a pair as one string."""
    if options.pairs:
        return _given(["" if value is None else value for value in values], options, place)
    text = values[0]
    words = isinstance(text, list) and all(isinstance(word, str) for word in text)
    if isinstance(text, list | dict | bytes) and not words:
        raise UserError(f"{place}: the text is neither text nor words", "Fix it, or set text_column.")
    return text if words else "" if text is None else str(text)


def _columns(path: Path, options: Options) -> Input:
    with open_parquet(path) as file:
        fields, texts_at = _named(file.schema_arrow.names, options, path)

    def read() -> Records:
        with open_parquet(path) as file:
            for row, values in parquet_rows(file):
                if isinstance(values, Bad):
                    raise UserError(f"{path}:{row}: {values.problem}", "Fix the row, or leave the column out.")
                text = _text_or_words([values[i] for i in texts_at], options, f"{path}:{row}")
                record = dict(zip(fields, map(as_json, values), strict=True))
                if isinstance(text, list):  # output in columns knows the words by their identity
                    record[fields[texts_at[0]]] = text
                yield text, record

    return Input(read(), fields)


def as_json(value: Any) -> Any:
    """A value of Parquet as JSON has it: dates in ISO 8601, decimals as text, bytes as text or else in base 64."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value)


def unused_key(key: str, taken: Collection[str], prefix: str = "predicted_") -> str:
    while key in taken:
        key = prefix + key
    return key
