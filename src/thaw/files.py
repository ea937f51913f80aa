"""Files and folders written so that they are complete or absent, and read back; every failure is told in one line."""

import csv
import errno
import glob
import gzip
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from thaw.errors import UserError, reason

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic_write(path: Path, zipped: bool = False) -> Iterator[IO[str]]:
    """Open a text file that appears under its name only once it is complete.

    A lone surrogate, which JSON can escape but UTF-8 cannot encode, becomes a question mark.

    Args:
        zipped: compress with gzip.
    """
    opened = gzip.open if zipped else open
    with (
        atomic_path(path) as temporary,
        opened(temporary, "wt", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        yield file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A place to write a file to, which gets its name only once it is complete, even if the process is killed.

    A link stays one: what it leads to is replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    with writing(path, temporary):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


@contextmanager
def writing(path: Path, temporary: Path) -> Iterator[None]:
    """Say in one line why a place cannot be written; other errors, such as of reading meanwhile, stay as they are."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise UserError(f"{path}: cannot be written: {error.strerror}", "Choose a place with room.") from error
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        if place and (place in (path, temporary, *path.parents) or temporary in place.parents):
            file = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
            why = f"{file} is a file, not a folder" if file else error.strerror
            remedy = "Choose another place, or see to its permissions."
            raise UserError(f"{path}: cannot be written: {why}", remedy) from error
        raise
    except Exception as error:
        # safetensors has an error of its own: "I/O error: No space left on device (os error 28)".
        number = re.search(r"os error (\d+)", str(error))
        if number and int(number[1]) in NO_ROOM:
            raise UserError(f"{path}: cannot be written: {error}", "Choose a place with room.") from error
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def write_csv(
    path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]], delimiter: str = ",", marked: bool = False
) -> None:
    """Write a table; None becomes an empty cell.

    Args:
        marked: begin with a byte order mark, without which Excel does not recognise UTF-8.
    """
    with atomic_write(path) as file:
        file.write("\ufeff" * marked)
        write_row = row_writer(file, delimiter)
        for row in (header, *rows):
            write_row(row)


def row_writer(file: IO[str], delimiter: str) -> Callable[[Iterable[Any]], None]:
    """A function that writes one row of a table, so that it can be read again."""
    rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(cells: Iterable[Any]) -> None:
        cells = list(cells)
        # The csv module does not quote a lone carriage return, which its reader would then reject.
        (quoted if any("\r" in own for own in cells if isinstance(own, str)) else rows).writerow(cells)

    return write


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader accepts: NaN and infinities become null."""
    with atomic_write(path) as file:
        json.dump(finite(value), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Plain containers in which None replaces NaN and infinities, which JSON cannot express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def replace_folder(path: Path, save: Callable[[str], Any]) -> None:
    """Replace a folder by a new one that appears under its name only once it is complete."""
    temporary, before = (path.with_name(f".{path.name}.{os.getpid()}{end}") for end in ("", ".old"))
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(path, temporary):
        try:
            save(str(temporary))
            if path.exists():
                os.replace(path, before)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if before.exists() and not path.exists():
                os.replace(before, path)
            raise
        finally:
            shutil.rmtree(before, ignore_errors=True)


def named_by(place: str | Path) -> list[Path]:
    """The file or folder of a name; if there is none, the files that match it as a pattern (``2026-*.csv``), sorted."""
    name = os.path.expanduser(str(place))
    if os.path.exists(name):  # unlike Path.exists, no exception for names that cannot be
        return [Path(name)]
    return [Path(found) for found in sorted(glob.glob(name, recursive=True)) if os.path.isfile(found)]


def plain_name(path: Path) -> str:
    """The name of a file or folder; of a pattern that of its folder, and what is the same in all names."""
    if not glob.has_magic(path.name) or os.path.exists(path):
        return path.name
    stem, *endings = (re.sub(r"\[.*?\]|[*?]", "", part).strip("-_ ") for part in path.name.split("."))
    return ".".join(["-".join(filter(None, [path.parent.name, stem])), *endings])


def check_not_over(output: str | Path, source: str | Path, name: str) -> None:
    """Refuse to write over a file that is read, or into the folder that is read.

    Args:
        source: as for `named_by`.
        name: what to call the source in the message.
    """
    path = Path(output).expanduser().resolve()
    for read in (found.resolve() for found in named_by(source)):
        if not path.is_relative_to(read):
            continue
        raise UserError(f"output={output}: this {'is' if path == read else 'lies in'} {name}", "Choose another place.")


def read_json(path: Path) -> Any:
    """A JSON file of a run folder.

    Raises:
        UserError: when it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(path, error) from None


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        try:
            return [json.loads(line) for line in file]
        except ValueError as error:
            raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a file of a run folder that cannot be read."""
    return UserError(f"{path}: damaged: {reason(error)}", "Put the file back, or train again.")
