"""What all readers share: rows and their problems, the lines of a file, columns by name.

Lines end at ``\\n`` alone: some IMDB reviews contain U+0085, at which ``str.splitlines`` would break them.
"""

import ast
import codecs
import difflib
import gzip
import io
import json
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from thaw.errors import UserError

CHUNK = 10_000  # rows held as Python objects at once, on their way into Arrow or out of it
NOT_UTF8 = "not UTF-8"
MARK = codecs.BOM_UTF8  # the byte order mark in UTF-8, which Excel writes and expects
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ARRAY = re.compile(r"""['"]\s+['"]""")  # strings without a comma: a printed numpy array, which Python would concatenate
BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how zip archives and Excel workbooks begin
PARQUET = b"PAR1"


TEXT_COLUMNS = ("text", "sentence", "tokens", "words", "review", "content", "body", "tweet", "message", "document")


SPAN_COLUMNS = ("entities", "spans")  # of entities marked by character positions
LABEL_COLUMNS = (
    *("label", "labels", "ner_tags", "tags", "class", "category", "emotion", "sentiment", "target", "intent"),
    *SPAN_COLUMNS,
)


class Row(NamedTuple):
    """One example: its line, its text (or words, or both texts of a pair), and its raw label or labels.

    ``inside`` lists what is marked as an entity and begins or ends inside a word.
    """

    line: int
    text: str | list[str] | tuple[Any, ...]
    label: Any
    inside: Sequence[str] = ()


class Bad(NamedTuple):
    """A row that cannot be used, and why."""

    line: int
    problem: str


@dataclass(frozen=True)
class Options:
    """How to read: the column settings of ``conf/data``.

    Args:
        text_column: name of the text column, or its position in CoNLL files; None looks for a usual name. A list of
            two for pairs of texts.
        label_column: the same for the label; in CoNLL files the last column by default.
        separator: between text and label in txt files; the last one in the line counts.
        quoting: how csv and tsv quote: minimal, all, nonnumeric or none.
        header: whether the first line of csv and tsv names the columns; without it columns go by position.
        encoding: of the text files, by a name that Python knows.
        tokens: whether the task is known to be a token task.
        group: prefix of these settings in messages; ``predict.py`` has no groups.
        lenient: look for a usual name if the stated column does not exist.
        pairs: whether a single column holds pairs, with a mark between the two texts.
        joined_by: punctuation that may be inside a word of a text with marked entities, see `word_spans`.
    """

    text_column: str | int | list[str | int] | None = None
    label_column: str | int | None = None
    separator: str = ";"
    quoting: str = "minimal"
    header: bool = True
    encoding: str = "utf-8"
    tokens: bool = False
    group: str = "data."
    lenient: bool = False
    pairs: bool = False
    joined_by: str = ""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the many errors of a missing, unreadable or damaged file into one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "Check data.path.") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path}: cannot be read: {reason}", "Check its permissions, or copy it again.") from None
    except UnicodeError as error:
        reason = getattr(error, "reason", None) or str(error)
        raise UserError(f"{path}: not in the given encoding: {reason}", "Give its actual encoding.") from None
    except zlib.error as error:
        raise UserError(f"{path}: the gzip data is damaged: {error}", "Copy the file again.") from None


def zipped(path: Path) -> bool:
    """Whether a file is gzipped, judged by its name."""
    return path.suffix.lower() == ".gz"


@contextmanager
def open_bytes(path: Path) -> Iterator[Any]:
    """A plain or gzipped file, whose errors `readable` explains."""
    with readable(path), gzip.open(path, "rb") if zipped(path) else path.open("rb") as file:
        yield file


def open_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a plain or gzipped file, without line ends and byte order mark.

    Args:
        encoding: of the file. Lines are converted to UTF-8; invalid bytes of a UTF-8 file are left as they are.

    Raises:
        UserError: when the file is missing, unreadable, damaged, or not text.
    """
    with open_bytes(path) as file:
        for number, line in numbered(file, encoding):
            if number == 1 and line.startswith(BINARY):
                raise UserError(f"{path}: an archive or Excel workbook, not text", "Save the sheet as CSV (UTF-8).")
            if number == 1 and line.startswith(PARQUET):
                raise UserError(f"{path}: Parquet, not text", "Set data.format=parquet (format in predict.py).")
            if number == 1 and line.startswith(UTF16):
                raise UserError(f"{path}: {NOT_UTF8} but UTF-16", "Set data.encoding=utf-16 (encoding in predict.py).")
            yield number, line


def numbered(file: Any, encoding: str = "utf-8") -> Iterator[tuple[int, bytes]]:
    """Numbered lines of an open file as `open_lines` gives them."""
    lines: Iterable[bytes] = file
    if codecs.lookup(encoding).name != "utf-8":
        lines = (line.encode() for line in io.TextIOWrapper(file, encoding, newline="\n"))
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(MARK)
        yield number, line.rstrip(b"\r\n")


def decoded(path: Path, options: Options) -> Iterator[tuple[int, str | Bad]]:
    for number, line in open_lines(path, options.encoding):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, Bad(number, f"{NOT_UTF8} at byte {error.start + 1} of the line")


def encodable(text: str) -> bool:
    """Whether UTF-8 can encode a text; it cannot encode lone surrogates, which no tokenizer or file accepts."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def find_column(
    columns: list[str], role: str, options: Options, where: Path | str, wanted: str | int | None = None
) -> str:
    """The column that was asked for, or the first with a usual name.

    Args:
        role: ``text`` or ``label``.
        wanted: name or position of the column; None looks for a usual name.

    Raises:
        UserError: when there is none; the message lists the existing columns.
    """
    if isinstance(wanted, int) and 0 <= wanted < len(columns):
        return columns[wanted]
    if options.lenient and wanted not in columns:
        wanted = None
    usual = TEXT_COLUMNS if role == "text" else LABEL_COLUMNS
    names = usual if wanted is None else [str(wanted)]
    for name in names:
        if name in columns:
            return name
    lowered = {column.lower(): column for column in columns}
    if wanted is None:
        for name in names:
            if name in lowered:
                return lowered[name]
    what = f"no column {wanted!r}" if wanted is not None else f"no column with a usual name for the {role}"
    if isinstance(wanted, str) and (near := difflib.get_close_matches(wanted, columns, 1)):
        what += f", but {near[0]!r}"
    raise UserError(f"{where}: {what}; it has: {', '.join(columns)}", _column_remedy(role, options, where, wanted))


def _column_remedy(role: str, options: Options, where: Path | str, wanted: str | int | None) -> str:
    """The settings that name a column which was not found; arguments as for `find_column`."""
    group = options.group
    remedy = f"Set {group}{role}_column."
    if isinstance(getattr(options, f"{role}_column"), list):
        remedy = f"Set {group}{role}_column to the two of a pair, as in [premise,hypothesis]."
    if role == "label":
        remedy += " To label new texts, use predict.py."
    if not str(where).removesuffix(".gz").endswith((".csv", ".tsv")):
        return remedy
    if not options.header:
        return f"{remedy} With a header line: {group}header=true."
    if wanted is None:
        positions = f"{group}text_column=0" + (f" {group}label_column=1" if group else "")
        return f"{remedy} Without a header line: {group}header=false {positions}, say."
    return remedy


def list_in(cell: str) -> list[Any] | None:
    """The list in a cell of a table: in JSON, as predict.py writes it, or in Python's notation, as pandas does."""
    if not (cell.startswith("[") and cell.endswith("]")) or ARRAY.search(cell):
        return None
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            found = read(cell)
            return found if isinstance(found, list) else None
    return None


def words_in(cell: str) -> list[str] | None:
    """The list of words in a cell of a table, if there is one."""
    found = list_in(cell)
    return found if found and all(isinstance(word, str) for word in found) else None


def text_columns(columns: list[str], options: Options, where: Path | str) -> list[str]:
    """The column of the text, or the two of a pair; each name must be unique."""
    if isinstance(options.text_column, list):
        exactly = replace(options, lenient=False)
        found = [find_column(columns, "text", exactly, where, one) for one in options.text_column]
    else:
        found = [find_column(columns, "text", options, where, options.text_column)]
    _require_unique(columns, found, where)
    return found


def named_columns(columns: list[str], options: Options, where: Path | str) -> tuple[list[str], str]:
    """The column of the text, or two for pairs, and that of the label."""
    texts = text_columns(columns, options, where)
    label = find_column(columns, "label", options, where, options.label_column)
    if label in texts:
        remedy = "Set data.text_column and data.label_column to different ones."
        raise UserError(f"{where}: the column {label!r} is both text and label", remedy)
    _require_unique(columns, [label], where)
    return texts, label


def _require_unique(columns: list[str], names: list[str], where: Path | str) -> None:
    if twice := [name for name in names if columns.count(name) > 1]:
        raise UserError(f"{where}: several columns are named {twice[0]!r}", "Rename all but one of them.")


def text_of(values: Sequence[Any]) -> Any:
    """The text itself, or both texts of a pair as a tuple."""
    return values[0] if len(values) == 1 else tuple(values)


def class_names(schema: Any, column: str) -> list[str] | None:
    """Label names of a ClassLabel column, or of a list of ClassLabels, from the metadata of the datasets library."""
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
    """The name of a label id, or of each in a list, if the data states names; an id out of range stays a number."""
    if names is None or label is None:
        return label
    if isinstance(label, list):
        return [name_of(item, names) for item in label]
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else label


def dataset_of(table: Any) -> Any:
    """A ``datasets.Dataset`` of an Arrow table; without a fingerprint the library would pickle all rows to make one."""
    import datasets

    return datasets.Dataset(table, fingerprint=uuid.uuid4().hex)


class Values:
    """A column of a ``datasets.Dataset`` that can be iterated over repeatedly, a chunk at a time in memory."""

    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self.rows), CHUNK):
            yield from self.rows.select(range(start, min(start + CHUNK, len(self.rows))))[self.column][:]
