"""The lines of a plain or gzipped text file, with their numbers, and one line about a file that cannot be read.

Lines end at ``\\n`` alone: some IMDB reviews contain U+0085, at which ``str.splitlines`` would break them.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thaw.data.rows import Bad, Options
from thaw.errors import UserError

NOT_UTF8 = "not UTF-8"
DAMAGED, DAMAGED_SHARE = 10, 0.01  # rows with damaged characters that a file may have, whichever is more
MARK = codecs.BOM_UTF8  # the byte order mark in UTF-8, which Excel writes and expects
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BINARY = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how zip archives and Excel workbooks begin
PARQUET = b"PAR1"


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


def open_lines(path: Path, encoding: str = "utf-8", ends: bool = False) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a plain or gzipped file, without byte order mark.

    Args:
        encoding: of the file. Lines are converted to UTF-8; invalid bytes of a UTF-8 file are left as they are.
        ends: leave line ends as they are, which within quotes belong to a text; else lines come without.

    Raises:
        UserError: when the file is missing, unreadable, damaged, or not text.
    """
    with open_bytes(path) as file:
        for number, line in numbered(file, encoding, ends):
            if number == 1 and line.startswith(BINARY):
                raise UserError(f"{path}: an archive or workbook, not text", "Name a workbook .xlsx.")
            if number == 1 and line.startswith(PARQUET):
                raise UserError(f"{path}: Parquet, not text", "Set data.format=parquet (format in predict.py).")
            if number == 1 and line.startswith(UTF16):
                raise UserError(f"{path}: {NOT_UTF8} but UTF-16", "Set data.encoding=utf-16 (encoding in predict.py).")
            yield number, line


def numbered(file: Any, encoding: str = "utf-8", ends: bool = False) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of an open file as `open_lines` gives them."""
    lines: Iterable[bytes] = file
    if codecs.lookup(encoding).name != "utf-8" and not file.peek(len(MARK)).startswith(MARK):  # which says otherwise
        lines = (line.encode() for line in io.TextIOWrapper(file, encoding, newline="\n"))
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(MARK)
        yield number, line if ends else line.rstrip(b"\r\n")


def suffix_of(path: Path) -> str:
    """The end of a file's name, in lower case and without .gz: ``.csv``."""
    return (path.with_suffix("") if zipped(path) else path).suffix.lower()


def check_undecodable(place: str, count: int, rows: int, prefix: str = "") -> None:
    """Refuse to go on without rows that are not UTF-8 if they are so many that the whole file is in another encoding.

    Args:
        place: of the rows: a file.
        count: rows that were left out since they are not UTF-8.
        rows: all of them.
        prefix: of the setting that says the encoding.
    """
    if count > max(DAMAGED, DAMAGED_SHARE * rows):
        raise UserError(
            f"{place}: {count} of {rows} rows are {NOT_UTF8}: they are not damaged, but in another encoding",
            f"Say which: {prefix}encoding=cp1252, say.",
        )


def decoded(path: Path, options: Options) -> Iterator[tuple[int, str | Bad]]:
    for number, line in open_lines(path, options.encoding):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, Bad(number, f"{NOT_UTF8} at byte {error.start + 1} of the line")
