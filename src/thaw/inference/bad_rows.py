"""Rows of an input that cannot be read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from thaw.data.lines import NOT_UTF8, check_undecodable
from thaw.data.rows import Bad
from thaw.errors import UserError, counted

T = TypeVar("T")
Made = TypeVar("Made")
SHOWN = 10  # bad rows that are named
ENCODING = "Save it as UTF-8, set its encoding (encoding=cp1252, say)"


@dataclass
class BadRows:
    """What becomes of rows that cannot be read: the first is an error, or they are left out and counted.

    Args:
        place: of the rows: a file.
        remedy: for the error, where the encoding is not what is wrong.
        skip: leave them out.
        encoded: whether the user can say what the encoding is.

    Attributes:
        count: how many were left out so far.
        undecodable: how many of these since they are in another encoding.
        first: what was wrong with the first of them, a line each.
    """

    place: str
    remedy: str
    skip: bool
    encoded: bool = True
    count: int = field(init=False, default=0)
    undecodable: int = field(init=False, default=0)
    first: list[str] = field(init=False, default_factory=list)

    def without(self, rows: Iterable[tuple[int, T | Bad]], make: Callable[[T], Made]) -> Iterator[Made]:
        """What is made of all others.

        Args:
            rows: each with its line.
            make: raises a ValueError for a row that is bad.

        Raises:
            UserError: for a bad row, if it is not to be left out; and after the last if so many are not UTF-8 that the
                whole file is not.
        """
        good = 0
        for line, row in rows:
            try:
                if isinstance(row, Bad):
                    raise ValueError(row.problem)
                made = make(row)
            except ValueError as error:
                problem = NOT_UTF8 if isinstance(error, UnicodeDecodeError) else str(error)
                said = f"{self.place}:{line}: {problem}"
                undecodable = self.encoded and NOT_UTF8 in problem
                if not self.skip:
                    remedy = ENCODING if undecodable else self.remedy
                    raise UserError(said, f"{remedy}, or leave such rows out: on_bad_row=skip.") from None
                self.count += 1
                self.undecodable += undecodable
                self.first += [said] if self.count <= SHOWN else []
            else:
                good += 1
                yield made
        check_undecodable(self.place, self.undecodable, good + self.count)

    def lines(self) -> list[str]:
        """What was left out, for people."""
        more = self.count - len(self.first)
        return [f"skipped {one}" for one in (*self.first, *([counted(more, "more row")] if more else []))]
