"""Settings as users type them: ``latest`` for a folder, and free text that Hydra's grammar would take apart.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from thaw.errors import UserError
from thaw.values import DATA_PATHS

FREE_TEXT = (
    *("text", "run", "runs", "resume", "input", "output", "explain_page"),
    *(f"data.{key}" for key in DATA_PATHS),
    *("model.name", "freeze.pattern"),
)
COLUMNS = ("data.text_column", "data.label_column", "data.group_column", "text_column")
SEPARATORS = ("data.label_separator", "data.separator")
QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""")
NUMBER = re.compile(r"[-+]?[\d_.]+(e[-+]?\d+)?|true|false|nan|[-+]?inf", re.IGNORECASE)  # Hydra's, and its booleans
SPECIAL = re.compile(r"[=(){}'\"$:~^]")  # characters that mean something to Hydra's grammar
ITEM = re.compile(r"[^,\[\]\s][^,\[\]]*")  # of a list, without the blanks before it, which Hydra drops as well
GONE = "–"  # of a setting that a run does not have, in place of its value
LATEST = {
    "run": ("finished run", "metrics.json"),
    "resume": ("unfinished run", "config.yaml"),
    "runs": ("multirun", "multirun.yaml"),
}
"""The settings that take ``latest``: what it names, and the file whose age decides which folder is the latest."""


def is_setting(argument: str) -> bool:
    """Whether an argument is a setting, not an option or the value of one."""
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def settings_of(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides as key -> value; one that was left out with ``~`` has none."""
    parted = (override.lstrip("+").partition("=") for override in overrides)
    return {key.removeprefix("~"): GONE if key.startswith("~") else value for key, _, value in parted}


def latest(argument: str) -> str:
    """Replace ``run=latest``, ``resume=latest`` or ``runs=latest`` by the folder below ``outputs/`` that it stands for.

    Raises:
        UserError: when there is none.
    """
    key, _, value = argument.partition("=")
    if value != "latest" or key not in LATEST or Path(value).exists():
        return argument
    what, name = LATEST[key]
    files = [file for file in _files(name) if key != "resume" or not file.with_name("metrics.json").exists()]
    if not files:
        raise UserError(f"{argument}: there is no {what} below outputs/", f"Give its folder: {key}=...")
    folder = max(files, key=lambda file: file.stat().st_mtime).parent
    print(f"{key}={folder}", file=sys.stderr)
    return f"{key}={folder}"


def _files(name: str) -> Iterator[Path]:
    """The files of a name below ``outputs/``, not of folders within a run."""
    seen = set[str]()  # links may lead back
    for folder, folders, names in os.walk("outputs", followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if name in names:
            yield Path(folder, name)
        folders[:] = [one for one in folders if one != "earlier" and "config.yaml" not in names]


def unquoted(override: str) -> str:
    """The inverse of `quoted`: an override as a user types it; unchanged where `quoted` would not restore it."""
    key, _, value = override.partition("=")
    plain = f"{key}={value[1:-1]}"
    return plain if QUOTED.fullmatch(value) and quoted(plain) == override else override


def quoted(argument: str) -> str:
    """Quote the value of a setting where Hydra's grammar would otherwise take it apart."""
    key, equals, value = argument.partition("=")
    if not equals or QUOTED.fullmatch(value):
        return argument
    free = key in FREE_TEXT or _is_name(key, value)
    return f"{key}={_quoted_text(key, value) if free else _quoted_items(value)}"


def _is_name(key: str, value: str) -> bool:
    """Whether a value that the grammar has no place for is a column, such as ``Text (DE)``, or a separator."""
    if key in SEPARATORS:
        return re.fullmatch(r"[^\w\[\]{}'\"$\\]+", value) is not None
    return key in COLUMNS and re.search(r"[=(){}'\"~]", value) is not None and not re.search(r"^\[|[,$]", value)


def _quoted_items(value: str) -> str:
    """A value, or the items of a list, in quotes where they hold letters that the grammar does not know."""
    if value.isascii() or SPECIAL.search(value):
        return value
    return ITEM.sub(lambda item: item[0] if item[0].isascii() else f"'{item[0].rstrip()}'", value)


def _quoted_text(key: str, value: str) -> str:
    """Free text in quotes; paths and numbers that the grammar reads as they are meant stay plain."""
    if not value:
        return "''"
    special = r"[\[\]\s,]" if key in ("run", "runs") else r"[\[\]\s]"  # a comma separates runs; else, values to sweep
    odd = not value.isascii() or SPECIAL.search(value) or re.search(special, value) or NUMBER.fullmatch(value)
    if value == "null" or (key in FREE_TEXT and key != "text" and not odd):
        return value
    value = re.sub(r"[\r\n]", " ", value)  # the grammar has no line ends; the places of entities stay what they are
    # Hydra takes a backslash for an escape only before a quote, so only those there are doubled.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), value.replace("${", "\\${"))
    return f"'{escaped}'"
