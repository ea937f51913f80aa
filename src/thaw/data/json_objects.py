"""The objects of a JSON file: one a line (JSON Lines), or one array of them, as pandas and label tools write it.

In place of an object, there may be a pair of a text and an object, as spaCy has them: ``["text", {"entities": ...}]``.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thaw.data.lines import decoded
from thaw.data.rows import Bad, Options
from thaw.errors import UserError

BLANK = " \t\r\n"
ARRAY = re.compile(rf'[{BLANK}]*\[(?![{BLANK}]*")')  # of objects, or of pairs; a pair alone begins with its text


def json_objects(path: Path, options: Options) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """The objects of a file, each with its line, or in an array with its number, since arrays may be a single line.

    Raises:
        UserError: when the file is missing, unreadable or no text, or an array cannot be read to its end.
    """
    lines = decoded(path, options)
    first = True
    for line, text in lines:
        if isinstance(text, Bad):
            yield line, text
        elif first and ARRAY.match(text):
            yield from _array(path, line, text, lines)
        elif text.strip(BLANK):
            yield line, _object(line, text)
        else:
            continue
        first = False


def _object(line: int, text: str) -> dict[str, Any] | Bad:
    try:
        return _checked(line, json.loads(text))
    except json.JSONDecodeError as error:
        return Bad(line, f"not valid JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:  # numbers or nesting beyond what Python reads
        return Bad(line, f"not readable as JSON: {error}")


def _checked(line: int, value: Any) -> dict[str, Any] | Bad:
    match value:
        case [str(text), dict(annotations)]:  # as spaCy writes training data
            return {"text": text, **annotations}
    return value if isinstance(value, dict) else Bad(line, "not a JSON object, as each row should be")


def _array(
    path: Path, line: int, first: str, lines: Iterator[tuple[int, str | Bad]]
) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    """The objects of an array.

    Args:
        line, first: number and text of the line with its bracket.
        lines: those that follow.
    """
    parts = [first]
    for number, part in lines:
        if isinstance(part, Bad):
            raise UserError(f"{path}:{number}: {part.problem}", "Fix the line: an array is read as a whole.")
        parts.append(part)
    text, decoder = "\n".join(parts), json.JSONDecoder()
    parts.clear()

    def damaged(at: int, reason: str) -> UserError:
        place = f"{path}, line {line + text.count(chr(10), 0, at)}"
        return UserError(
            f"{place}: not valid JSON: {reason}", "Fix it, or give one object a line (pandas: lines=True)."
        )

    at, count = _after_blanks(text, text.index("[") + 1), 0
    while count or not text.startswith("]", at):
        if at == len(text):
            raise damaged(at, "the array does not end")
        count += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise damaged(error.pos, error.msg) from None
        except (ValueError, RecursionError) as error:
            raise damaged(at, str(error)) from None
        yield count, _checked(count, value)
        at = _after_blanks(text, end)
        if text.startswith("]", at):
            break
        if at < len(text) and text[at] != ",":
            raise damaged(at, "a comma is missing between two objects")
        at = _after_blanks(text, at + 1)
    if (rest := _after_blanks(text, at + 1)) < len(text):
        raise damaged(rest, "something follows the end of the array")


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in BLANK:
        at += 1
    return min(at, len(text))
