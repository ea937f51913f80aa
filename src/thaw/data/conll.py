"""CoNLL files: one word per line, columns for its tags, blank lines between sentences."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from thaw.data.lines import decoded
from thaw.data.rows import Bad, Options, Row
from thaw.errors import UserError, counted

# Comments as CoNLL-U, MultiCoNER and CoNLL-2012 write them around sentences; "# O" is the word "#".
COMMENT = re.compile(r"# *(newdoc|newpar)\b|# *[\w:.-]+ *=|# id |#(begin|end) document\b")

JSON = re.compile(r'\{ *"[^"]*" *:')  # how an object begins
TAG = re.compile(r"O|[BIESLUM]-\S+")
LOOKED_AT = 50  # lines that are read to recognise the format


def read_conll(path: Path, options: Options) -> Iterator[Row | Bad]:
    """The words and tags of each sentence, from two of the columns; an empty one makes its whole sentence `Bad`."""
    word_at, tag_at = position("text", options, 0), position("label", options, -1)
    checked = False
    for sentence in sentences(path, options):
        if isinstance(sentence, Bad):
            yield sentence
            continue
        start, rows = sentence
        if not checked:
            _check_positions(word_at, tag_at, len(rows[0]), f"{path}:{start}")
            checked = True
        words, tags = [row[word_at].strip() for row in rows], [row[tag_at].strip() for row in rows]
        if all(words) and all(tags):
            yield Row(start, words, tags)
        else:
            wrong = next(i for i, pair in enumerate(zip(words, tags, strict=True)) if not all(pair))
            yield Bad(start + wrong, f"the {'tag' if words[wrong] else 'word'} is empty")


def sentences(path: Path, options: Options) -> Iterator[tuple[int, list[list[str]]] | Bad]:
    """The sentences of a file whose columns are separated by spaces or tabs.

    ``-DOCSTART-`` lines and comments around sentences (``# id = 1``, ``#end document``) are skipped. A malformed line
    makes its whole sentence `Bad`.

    Returns:
        For each sentence the number of its first line, and the columns of each of its lines.

    Raises:
        UserError: when the file holds JSON Lines.
    """
    rows: list[list[str]] = []
    start, width = 0, 0
    bad: Bad | None = None

    def sentence() -> Iterator[tuple[int, list[list[str]]] | Bad]:
        if bad or rows:
            yield bad or (start, rows)

    for line, text in decoded(path, options):
        if isinstance(text, Bad):
            bad = bad or text
            continue
        if not rows and not bad and COMMENT.match(text):
            continue
        fields = _columns(text)
        if not text.strip() or fields[0] == "-DOCSTART-":
            yield from sentence()
            rows, bad = [], None
            continue
        if not width and JSON.match(text):
            remedy = f"Set {options.prefix}format=jsonl."
            raise UserError(f"{path}:{line}: JSON Lines, not columns", remedy)
        width = width or len(fields)
        if len(fields) != width:
            bad = bad or Bad(line, f"{counted(len(fields), 'column')} where the first line has {width}")
            continue
        start = start if rows else line
        rows.append(fields)
    yield from sentence()


def looks_like_conll(path: Path, options: Options) -> bool:
    """Whether the first lines of a text file are columns that end in tags such as O and B-PER."""
    lines = [text for _, text in itertools.islice(decoded(path, options), LOOKED_AT) if isinstance(text, str)]
    rows = [_columns(text) for text in lines if text.strip() and not COMMENT.match(text)]
    return len(rows) > 1 and all(len(row) > 1 and TAG.fullmatch(row[-1]) for row in rows)


def _columns(line: str) -> list[str]:
    # Only spaces and tabs separate columns: a word may contain other white space, such as U+00A0 in numbers.
    line = line.strip(" ").rstrip("\t")
    return line.split("\t") if "\t" in line else re.split(" +", line)


def position(role: str, options: Options, usual: int) -> int:
    """The position of a role's column, as set or as usual.

    Raises:
        UserError: when it was set by name.
    """
    column = getattr(options, f"{role}_column")
    if isinstance(column, int | None):
        return usual if column is None else column
    setting = f"{options.prefix}{role}_column={column}"
    raise UserError(f"{setting}: CoNLL columns have no names", "Give a position: 0 is the first, -1 the last.")


def _check_positions(word_at: int, tag_at: int, width: int, where: str) -> None:
    if width > 1 and word_at % width == tag_at % width:
        raise UserError(f"{where}: column {word_at} is both text and label", "Set data.text_column and label_column.")
    for position, role in ((word_at, "text"), (tag_at, "label")):
        if not -width <= position < width or (role == "label" and tag_at == -1 and width < 2):
            raise UserError(
                f"{where}: {counted(width, 'column')}, so none for the {role}",
                f"Check data.format, or set data.{role}_column to a position counted from 0.",
            )
