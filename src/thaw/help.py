"""``--help``: the groups with their choices, and every setting with its value and the comment in its file.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig, OmegaConf

from thaw.overrides import is_setting
from thaw.script import Script
from thaw.settings import flat

LINE = re.compile(r"( *)([\w.-]+):(.*?)(?: # (.*))?$")
LISTS = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP, ValueType.RANGE_SWEEP)
COLUMN = 44  # where the descriptions start


def help_text(script: Script, about: str, arguments: Sequence[str]) -> str:
    """What ``--help`` prints.

    Args:
        about: what the script does, in one line.
        arguments: of the command line; the settings of the groups that they choose are shown.
    """
    conf, file = script.conf, script.conf / f"{script.name}.yaml"
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(script.name, overrides=first_values(arguments), return_hydra_config=True)
    choices = config.hydra.runtime.choices
    chosen = {group: choices[group] for group in choices if script.is_group(group) and not group.startswith("hydra")}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    described = comments(conf, file)
    for group, choice in chosen.items():
        if choice:
            in_group = comments(conf, conf / group / f"{choice}.yaml")
            described |= {f"{group}.{key}": line for key, line in in_group.items()}
    width = shutil.get_terminal_size((120, 24)).columns
    first = file.read_text(encoding="utf-8").partition("\ndefaults:")[0]
    lines = [about, "", *(f"  {line.removeprefix('# ')}" for line in first.splitlines()), ""]
    if chosen:
        lines.append("Groups, group=choice; the file conf/<group>/<choice>.yaml says what a choice is:")
        lines += [line for group, choice in sorted(chosen.items()) for line in _choices(script, group, choice, width)]
        lines.append("")
    lines.append("Settings, setting=value:")
    for key, value in typed(config, resolve=True).items():
        above = key.rpartition(".")[0]
        if above in described:  # the comment of a nested group precedes its settings
            lines += _setting(f"{above}.", described.pop(above), width)
        lines += _setting(f"{key}={value}", described.get(key, ""), width)
    lines += ["", "--cfg job prints the config of a command."]
    if script.name == "train":
        lines[-1] += " -m runs every combination of values separated by commas."
    return "\n".join([*lines, "More: README.md and docs/."])


def first_values(arguments: Sequence[str]) -> list[str]:
    """The overrides among some arguments; of several values only the first."""
    overrides = list(filter(is_setting, arguments))
    found = []
    for one in OverridesParser.create().parse_overrides(overrides):
        if one.value_type in LISTS:
            found.append(f"{one.get_key_element()}={next(one.sweep_string_iterator())}")
        elif not one.is_sweep_override():  # intervals and patterns have no first
            found.append(str(one.input_line))
    return found


def comments(conf: Path, file: Path) -> dict[str, str]:
    """The comments of a config file: dotted key -> the comment behind it or above it.

    A comment at the top of a file is about the file, not about its first setting.
    """
    found: dict[str, str] = {}
    above: list[str] = []
    path: list[tuple[int, str]] = []  # the enclosing keys of a line, with their indentation
    for line in re.sub(r"\A(#.*\n)+", "", file.read_text(encoding="utf-8")).splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.lstrip("# "))
            continue
        if match := LINE.match(line):
            indent, key, value, behind = len(match[1]), match[2], match[3].strip(), match[4]
            if key == "defaults" and file.parent != conf:  # the base file of a group
                for base in re.findall(r"[\w.-]+", value):
                    found |= comments(conf, file.with_name(f"{base}.yaml"))
            path = [(depth, name) for depth, name in path if depth < indent] + [(indent, key)]
            if words := behind or " ".join(above):
                found[".".join(name for _, name in path)] = words
        above = []
    return found


def typed(config: DictConfig, resolve: bool) -> dict[str, str]:
    """Dotted keys and values as a user types them; with ``resolve=False``, as they stand in the files."""
    values: Any = OmegaConf.to_container(config, resolve=resolve)
    return {key: as_typed(value) for key, value in flat(values)}


def as_typed(value: Any) -> str:
    """A value as a user types it; three dots if it must be given."""
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return "..." if value == "???" else str(value)


def _choices(script: Script, group: str, chosen: str | None, width: int) -> list[str]:
    files = sorted(file.stem for file in script.choices(group))
    names = " ".join(f"[{name}]" if name == chosen else name for name in files)
    return _wrapped(f"  {group:<12}", names, 14, width)


def _setting(setting: str, description: str, width: int) -> list[str]:
    first = f"  {setting}"
    if len(first) >= COLUMN or not description:
        return [first, *_wrapped("", description, COLUMN, width)]
    return _wrapped(first, description, COLUMN, width)


def _wrapped(first: str, text: str, column: int, width: int) -> list[str]:
    """A text wrapped from a column on, after something that stands before its first line."""
    return textwrap.wrap(
        text, width, initial_indent=f"{first:<{column}}", subsequent_indent=" " * column,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
