"""What ``predict.py`` reads: texts, each with the record that it came in; by the rules of training."""

import atexit
import codecs
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.data.conll import looks_like_conll, position, sentences
from thaw.data.formats import Table, format_of, json_object, read_table
from thaw.data.pairs import joined
from thaw.data.rows import (
    MARK,
    NOT_UTF8,
    Bad,
    Options,
    numbered,
    open_bytes,
    open_lines,
    readable,
    text_columns,
    text_of,
)
from thaw.errors import UserError
from thaw.inference.predictor import Text, pair_of

Record = dict[str, Any]
Records = Iterator[tuple[Text, Record]]
TABLES = {"csv": ",", "tsv": "\t"}
KINDS = ("txt", *TABLES, "jsonl", "conll")


@dataclass(frozen=True)
class Source:
    """Records, each with its text, or with the words of it.

    Args:
        fields: that the records have.
        delimiter: of a csv file, which a csv file made of it gets too.
        marked: whether such a file begins with a byte order mark, without which Excel takes it for text of Windows.
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
        stated: by the user; else a txt file that looks like CoNLL columns is read as such.

    Raises:
        UserError: when there is no such file, or its name states no format.
    """
    path = Path(source).expanduser()
    if source != "-" and not path.is_file():
        what = "not a file" if path.exists() else "no such file"
        raise UserError(f"input={source}: {what}", "Give a file, or - for standard input.")
    kind = stated or ("txt" if source == "-" else format_of(path))
    if kind not in KINDS:
        remedy = f"It may be .{', .'.join(KINDS)}, or say which of them it is: format={KINDS[1]}."
        raise UserError(f"input={source}: the name states no format that can be read", remedy)
    if kind == "txt" and source != "-" and not stated and looks_like_conll(path, Options(encoding=encoding)):
        print(f"{source} is read as CoNLL columns; format=txt makes each line a text.", file=sys.stderr)
        return "conll"
    return kind


def read_records(source: str, kind: str, options: Options) -> Source:
    """The records of an input.

    Args:
        source: a file, or ``-`` for standard input, which is read as it comes if it is a text a line.
        kind: its format.

    Raises:
        UserError: when a record cannot be read; at once, or from the records.
    """
    if source == "-" and kind == "txt":
        return _lines("standard input", _standard_input(options.encoding), options)
    path = _kept_input(kind) if source == "-" else Path(source).expanduser()
    if kind == "txt":
        return _lines(source, open_lines(path, options.encoding), options)
    if kind == "conll":
        return _sentences(path, options)
    if kind == "jsonl":
        # Read twice: any record may have a field that others lack, and what we add has one name in all of them.
        fields = dict.fromkeys(field for _, record in _objects(path, options) for field in record)
        return Source(_objects(path, options), fields)
    return _table(path, options, TABLES[kind])


def _standard_input(encoding: str) -> Iterator[tuple[int, bytes]]:
    with readable(Path("standard input")):
        yield from numbered(sys.stdin.buffer, encoding)


def _kept_input(kind: str) -> Path:
    """Standard input as a file, for what is gone through more than once."""
    folder = Path(tempfile.mkdtemp(prefix="thaw-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / f"standard_input.{kind}"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _lines(place: str, lines: Iterable[tuple[int, bytes]], options: Options) -> Source:
    def read() -> Records:
        for number, line in lines:
            text = _text(line, f"{place}:{number}")
            yield _given([text], options, f"{place}:{number}"), {"text": text}

    return Source(read(), ["text"])


def _given(values: Sequence[str], options: Options, place: str) -> Any:
    """The text of a record; a pair in one."""
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
        raise UserError(f"{place}: {NOT_UTF8}", "Save it as UTF-8, or say what it is: encoding=cp1252, say.") from None


def _sentences(path: Path, options: Options) -> Source:
    """Words with their other columns; the last, where there are several, is that of the tags."""
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
    return Source(read(), list(first[1]) if first else ["words"])


def _table(path: Path, options: Options, delimiter: str) -> Source:
    columns, records, delimiter = read_table(path, options, delimiter)
    rows = _sound(path, records)
    if not columns:
        next(rows, None)  # what is wrong with the first row, where there is one
        raise UserError(f"{path}: the file is empty", "Give a file with rows.")
    texts = text_columns(columns, options, path)
    if isinstance(options.text_column, str) and texts != [options.text_column]:
        print(f"{path}: no column {options.text_column!r} as in the run; {texts[0]!r} is read.", file=sys.stderr)
    texts_at = [columns.index(name) for name in texts]
    fields: list[str] = []
    for name in columns:
        fields.append(free_name(name, fields, "other_"))  # columns of one name are all kept
    with open_bytes(path) as file:
        marked = file.read(len(MARK)) == MARK or codecs.lookup(options.encoding).name != "utf-8"
    found = (
        (_given([row[i] for i in texts_at], options, f"{path}:{line}"), dict(zip(fields, row, strict=True)))
        for line, row in rows
    )
    return Source(found, fields, delimiter if delimiter != TABLES["tsv"] else TABLES["csv"], marked, cells=True)


def _sound(path: Path, records: Table) -> Iterator[tuple[int, list[str]]]:
    for line, record in records:
        if isinstance(record, Bad):
            remedy = "Fix the row, or set quoting=none where quotes are plain characters, minimal where they are not."
            raise UserError(f"{path}:{line}: {record.problem}", remedy)
        yield line, [_text(field.encode("utf-8", "surrogateescape"), f"{path}:{line}") for field in record]


def _objects(path: Path, options: Options) -> Records:
    for line, raw in open_lines(path, options.encoding):
        if not raw.strip():
            continue
        record = json_object(line, _text(raw, f"{path}:{line}"))
        if isinstance(record, Bad):
            raise UserError(f"{path}:{line}: {record.problem}", "Fix the line.")
        values = [record[name] for name in text_columns(list(record), options, f"{path}:{line}")]
        if options.pairs or len(values) > 1:
            yield _given(values, options, f"{path}:{line}"), record
            continue
        text = values[0]
        words = isinstance(text, list) and all(isinstance(word, str) for word in text)
        if isinstance(text, list | dict) and not words:
            raise UserError(f"{path}:{line}: the text is neither text nor words", "Fix the line, or set text_column.")
        yield text if words else "" if text is None else str(text), record


def free_name(key: str, taken: Collection[str], prefix: str = "predicted_") -> str:
    while key in taken:
        key = prefix + key
    return key
