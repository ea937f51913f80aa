"""What ``predict.py`` reads: texts, each with its record, by the same rules as in training."""

import atexit
import base64
import codecs
import datetime
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thaw.data.columns import text_columns
from thaw.data.conll import looks_like_conll, position, sentences
from thaw.data.formats import check_no_workbook, format_of, open_parquet, parquet_rows
from thaw.data.json_objects import json_objects
from thaw.data.lines import MARK, numbered, open_bytes, open_lines, readable
from thaw.data.pairs import joined
from thaw.data.rows import Bad, Options, text_of
from thaw.data.tables import read_table
from thaw.errors import UserError
from thaw.files import writing
from thaw.inference.bad_rows import BadRows
from thaw.inference.texts import Text, pair_of

Record = dict[str, Any]
Records = Iterator[tuple[Text, Record]]
TABLES = {"csv": ",", "tsv": "\t"}
REMEDIES = {
    **dict.fromkeys(TABLES, "Fix the row, set quoting=none where quotes are plain characters (minimal where not)"),
    "conll": "Fix the line",
    "jsonl": "Fix it, set text_column",
    "parquet": "Fix the row, leave its column out, set text_column",
}
KINDS = ("txt", *TABLES, "jsonl", "parquet", "conll")


@dataclass(frozen=True)
class Input:
    """Records, each with its text or list of words.

    Args:
        fields: the fields of the records.
        bad: the rows that are not among them.
        delimiter: for a csv output.
        marked: whether a csv output needs a byte order mark, without which Excel does not recognise UTF-8.
        cells: whether the texts are cells of a table.
    """

    records: Records
    fields: Collection[str]
    bad: BadRows
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


def read_records(source: str, kind: str, options: Options, skip: bool = False) -> Input:
    """The records of an input.

    Args:
        source: a file, or ``-`` for standard input, which is streamed if it has one text per line.
        kind: its format.
        skip: leave out records that cannot be read.

    Raises:
        UserError: when a record cannot be read; now, or while the records are read.
    """
    remedy = REMEDIES.get(kind, "Fix it")
    if source == "-" and kind == "txt":
        return _lines(_standard_input(options.encoding), options, BadRows("standard input", remedy, skip))
    path = _kept_input(kind) if source == "-" else Path(source).expanduser()
    bad = BadRows(str(path), remedy, skip, encoded=kind != "parquet")
    if kind == "txt":
        return _lines(open_lines(path, options.encoding), options, bad)
    if kind == "conll":
        return _sentences(path, options, bad)
    if kind == "jsonl":
        return _objects(path, options, bad)
    if kind == "parquet":
        return _columns(path, options, bad)
    return _table(path, options, TABLES[kind], bad)


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


def _lines(lines: Iterable[tuple[int, bytes]], options: Options, bad: BadRows) -> Input:
    def record(line: bytes) -> tuple[Text, Record]:
        text = line.decode("utf-8")
        return _given([text], options), {"text": text}

    return Input(bad.without(lines, record), ["text"], bad)


def _given(values: Sequence[str], options: Options) -> Any:
    """The text of a record; a pair as one string.

    Raises:
        ValueError: when it is not a pair.
    """
    return joined(*pair_of(values[0] if len(values) == 1 else values)) if options.pairs else text_of(values)


def _sentences(path: Path, options: Options, bad: BadRows) -> Input:
    """Words with their other columns; if there are several, the last one holds tags."""
    word_at = position("text", options, 0)

    def columns(width: int) -> list[str]:
        names = [f"column_{i}" for i in range(width)]
        names[-1] = "tags"
        names[word_at] = "words"
        return names

    def record(rows: list[list[str]]) -> tuple[Text, Record]:
        if not -len(rows[0]) <= word_at < len(rows[0]):
            raise ValueError(f"no column {word_at}; text_column is that of the words")
        made = dict(zip(columns(len(rows[0])), map(list, zip(*rows, strict=True)), strict=True))
        if not all(word.strip() for word in made["words"]):
            raise ValueError("a word of this sentence is empty")
        return made["words"], made

    def numbered_sentences() -> Iterator[tuple[int, list[list[str]] | Bad]]:
        return ((one.line, one) if isinstance(one, Bad) else one for one in sentences(path, options))

    first = next(replace(bad).without(numbered_sentences(), record), None)
    return Input(bad.without(numbered_sentences(), record), list(first[1]) if first else ["words"], bad)


def _table(path: Path, options: Options, delimiter: str, bad: BadRows) -> Input:
    columns, rows, delimiter = read_table(path, options, delimiter)
    if not columns:
        next(bad.without(rows, list), None)  # raises the error of the first row, if there is one
        raise UserError(f"{path}: the file is empty", "Give a file with rows.")
    fields, texts_at = _named(columns, options, path)
    with open_bytes(path) as file:
        marked = file.read(len(MARK)) == MARK or codecs.lookup(options.encoding).name != "utf-8"

    def record(cells: list[str]) -> tuple[Text, Record]:
        cells = [cell.encode("utf-8", "surrogateescape").decode("utf-8") for cell in cells]
        return _given([cells[i] for i in texts_at], options), dict(zip(fields, cells, strict=True))

    return Input(bad.without(rows, record), fields, bad, delimiter, marked, cells=True)


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


def _objects(path: Path, options: Options, bad: BadRows) -> Input:
    # Read twice: records may differ in their fields, and the names of added fields must be free in all of them.
    counts, rows = Counter[str](), 0
    for one in replace(bad).without(json_objects(path, options), dict):
        counts.update(one.keys())
        rows += 1
    texts = _texts_of(list(counts), options, path) if rows else []

    def record(one: Record) -> tuple[Text, Record]:
        if absent := [name for name in texts if name not in one]:
            raise ValueError(f"the field {absent[0]!r} is missing")
        return _text_or_words([one[name] for name in texts], options), one

    if not bad.skip and any(counts[name] < rows for name in texts):
        deque(bad.without(json_objects(path, options), record), 0)  # raises the error before anything is labelled
    return Input(bad.without(json_objects(path, options), record), list(counts), bad)


def _text_or_words(values: Sequence[Any], options: Options) -> Any:
    """The text of a record whose values have types, or its words; a pair as one string.

    Raises:
        ValueError: when it is neither.
    """
    if options.pairs:
        return _given(["" if value is None else value for value in values], options)
    text = values[0]
    words = isinstance(text, list) and all(isinstance(word, str) for word in text)
    if isinstance(text, list | dict | bytes) and not words:
        raise ValueError("the text is neither text nor words")
    return text if words else "" if text is None else str(text)


def _columns(path: Path, options: Options, bad: BadRows) -> Input:
    with open_parquet(path) as file:
        fields, texts_at = _named(file.schema_arrow.names, options, path)

    def rows() -> Iterator[tuple[int, list[Any] | Bad]]:
        with open_parquet(path) as file:
            yield from parquet_rows(file)

    def record(values: list[Any]) -> tuple[Text, Record]:
        text = _text_or_words([values[i] for i in texts_at], options)
        made = dict(zip(fields, map(as_json, values), strict=True))
        if isinstance(text, list):  # output in columns knows the words by their identity
            made[fields[texts_at[0]]] = text
        return text, made

    return Input(bad.without(rows(), record), fields, bad)


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
