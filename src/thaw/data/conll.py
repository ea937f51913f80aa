"""CoNLL columns, and the schemes by which tags mark entities."""

import re
from collections.abc import Iterator
from pathlib import Path

from thaw.data.rows import Bad, Options, Row, decoded
from thaw.errors import UserError


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

    for line, text in decoded(path):
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
