"""What readers take and yield: options, rows and their problems; and the data set that rows become."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

CHUNK = 10_000  # rows held as Python objects at once, on their way into Arrow or out of it


class Row(NamedTuple):
    """One example: its line, its text (or words, or both texts of a pair), and its raw label or labels.

    ``inside`` lists what is marked as an entity and begins or ends inside a word; ``group`` names what the row shares
    with others, such as a customer.
    """

    line: int
    text: str | list[str] | tuple[Any, ...]
    label: Any
    inside: Sequence[str] = ()
    group: Any = None


class Bad(NamedTuple):
    """A row that cannot be used, and why; or one that is ``meant`` to be left out."""

    line: int
    problem: str
    meant: bool = False


@dataclass(frozen=True)
class Options:
    """How to read: the column settings of ``conf/data``.

    Args:
        text_column: name of the text column, or its position in CoNLL files; None looks for a usual name. A list of
            two for pairs of texts.
        label_column: the same for the label; in CoNLL files the last column by default. A list of those that hold 0 or
            1 for a label each.
        group_column: the same for the group; None if rows have none.
        separator: between text and label in txt files; the last one in the line counts.
        quoting: how csv and tsv quote: minimal, all, nonnumeric or none.
        header: whether the first line of csv and tsv names the columns; without it columns go by position.
        encoding: of the text files, by a name that Python knows.
        tokens: whether the task is known to be a token task.
        prefix: of these settings in messages; in ``predict.py`` they are in no group.
        lenient: look for a usual name if the stated column does not exist.
        pairs: whether a single column holds pairs, with a mark between the two texts.
        joined_by: punctuation that may be inside a word of a text with marked entities, see `word_spans`.
    """

    text_column: str | int | list[str | int] | None = None
    label_column: str | int | list[str | int] | None = None
    group_column: str | int | None = None
    separator: str = ";"
    quoting: str = "minimal"
    header: bool = True
    encoding: str = "utf-8"
    tokens: bool = False
    prefix: str = "data."
    lenient: bool = False
    pairs: bool = False
    joined_by: str = ""


def encodable(text: str) -> bool:
    """Whether UTF-8 can encode a text; it cannot encode lone surrogates, which no tokenizer or file accepts."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def unaccepted(line: int, answer: Any = None) -> Bad | None:
    """A row that Prodigy's user did not accept: its label is wrong, or unsure. Other answers are None."""
    if answer in ("reject", "ignore"):
        return Bad(line, f"its answer is {answer!r}, so its annotation was not accepted")
    return None


def text_of(values: Sequence[Any]) -> Any:
    """The text itself, or both texts of a pair as a tuple."""
    return values[0] if len(values) == 1 else tuple(values)


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
