"""CoNLL columns."""

import re
from collections.abc import Iterator
from pathlib import Path

from thaw.data.rows import Bad, Options, Row, decoded
from thaw.errors import UserError, counted

# What CoNLL-U and MultiCoNER write above a sentence; "# O" is a word.
COMMENT = re.compile(r"# *(newdoc|newpar)\b|# *[\w:.-]+ *=|# id ")


def read_conll(path: Path, options: Options) -> Iterator[Row | Bad]:
    """CoNLL columns: a word a line, columns parted by blanks or tabs, blank lines between sentences.

    ``-DOCSTART-`` lines and comments above a sentence (``# id = 1``) are skipped. A wrong line makes its whole sentence
    `Bad`.
    """
    word_at, tag_at = _position("text", options.text_column, 0), _position("label", options.label_column, -1)
    words: list[str] = []
    tags: list[str] = []
    start, width = 0, 0
    bad: Bad | None = None

    def sentence() -> Iterator[Row | Bad]:
        if bad or words:
            yield bad or Row(start, words, tags)

    for line, text in decoded(path, options):
        if isinstance(text, Bad):
            bad = bad or text
            continue
        if not words and not bad and COMMENT.match(text):
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
            _check_positions(word_at, tag_at, width, f"{path}:{line}")
        if len(fields) != width:
            bad = bad or Bad(line, f"{counted(len(fields), 'column')} where the first line has {width}")
            continue
        word, tag = fields[word_at].strip(), fields[tag_at].strip()
        if not word or not tag:
            bad = bad or Bad(line, f"the {'tag' if word else 'word'} is empty")
        if not words:
            start = line
        words.append(word)
        tags.append(tag)
    yield from sentence()


def _position(role: str, column: str | int | None, usual: int) -> int:
    if isinstance(column, str):
        raise UserError(
            f"data.{role}_column={column}: CoNLL columns have no names", "Give a position: 0 is the first, -1 the last."
        )
    return usual if column is None else column


def _check_positions(word_at: int, tag_at: int, width: int, where: str) -> None:
    if width > 1 and word_at % width == tag_at % width:
        raise UserError(f"{where}: column {word_at} is both text and label", "Set data.text_column and label_column.")
    for position, role in ((word_at, "text"), (tag_at, "label")):
        if not -width <= position < width or (role == "label" and tag_at == -1 and width < 2):
            raise UserError(
                f"{where}: {counted(width, 'column')}, so none for the {role}",
                f"Check data.format, or set data.{role}_column to a position counted from 0.",
            )
