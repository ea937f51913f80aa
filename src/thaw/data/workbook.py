"""Excel workbooks: the first sheet as a table whose cells are text, and such a table as a sheet."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thaw.data.lines import readable
from thaw.errors import UserError, reason, require
from thaw.files import finite

SUFFIXES = (".xlsx", ".xlsm")
ROWS, CHARACTERS = 1_048_576, 32_767  # that a sheet and a cell can hold
DIGITS = 15  # of a number; Excel rounds longer ones, such as the ids of tweets
ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")  # how a workbook writes characters that XML cannot hold
ESCAPE = re.compile(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
log = logging.getLogger(__name__)


def is_workbook(path: Path) -> bool:
    """Whether a file is a workbook that can be read, judged by its name."""
    return path.suffix.lower() in SUFFIXES


def library(wanted: object) -> Any:
    """The package that reads and writes workbooks, which is an extra; ``wanted`` is what needs it."""
    return require("openpyxl", str(wanted), "excel")


def read_sheet(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of the first sheet that is not hidden, numbered as Excel does, at least as wide as the first, or empty.

    Formulas are read as the values that Excel last computed.

    Raises:
        UserError: when the file cannot be read as a workbook.
    """
    openpyxl = library(path)
    try:
        with readable(path), path.open("rb") as file:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet, *others = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            if others:
                log.info("%s: the first of %d sheets is read, %r.", path, len(others) + 1, sheet.title)
            sheet.reset_dimensions()  # those in the file may be wrong, and would cut the table
            width = 0
            for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
                cells = [_text(value) for value in values]
                while cells and not cells[-1]:
                    cells.pop()
                width = width or len(cells)
                yield number, cells + [""] * (width - len(cells)) if cells else []
    except UserError:
        raise
    except Exception as error:  # whatever zipfile, the XML parser and openpyxl raise
        problem = f"{path}: cannot be read as an Excel workbook: {reason(error)}"
        raise UserError(problem, "Save it again, or save the sheet as CSV (UTF-8).") from None


def _text(value: Any) -> str:
    """A cell as Excel would write it to a csv file, but for dates, which are ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, str):
        if not ESCAPED.search(value):
            return value
        text = ESCAPED.sub(lambda code: chr(int(code[1], 16)), value)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # what lies beyond U+FFFF is in two
    return str(value).upper() if isinstance(value, bool) else str(value).removesuffix(" 00:00:00")


@contextmanager
def sheet_writer(path: Path) -> Iterator[Callable[[Iterable[Any]], None]]:
    """A function that writes one row; the file is complete when the context ends.

    Text stays text, also if it looks like a formula, as Excel would run it otherwise.
    """
    import openpyxl
    from openpyxl.cell import WriteOnlyCell

    book = openpyxl.Workbook(write_only=True)
    sheet, rows = book.create_sheet("predictions"), 0

    def cell(value: Any) -> Any:
        if isinstance(value, int) and len(str(value)) > DIGITS:
            value = str(value)
        if not isinstance(value, str):
            return finite(value)
        value = ESCAPE.sub(lambda found: f"_x{ord(found[0]):04X}_", value)
        if len(value) > CHARACTERS:
            problem = f"output: row {rows} has a text of {len(value):,} characters, and a cell holds {CHARACTERS:,}"
            raise UserError(problem, "Give .csv or .jsonl.")
        text = WriteOnlyCell(sheet, value)
        text.data_type = "s"
        return text

    def write(values: Iterable[Any]) -> None:
        nonlocal rows
        rows += 1
        if rows > ROWS:
            raise UserError(f"output: a sheet holds {ROWS:,} rows", "Give .csv or .jsonl.")
        sheet.append([cell(value) for value in values])

    try:
        yield write
    finally:
        sheet.close()  # else it would complain once it is garbage, after an error
    book.save(path)
