"""What users type after a command: ``latest`` for a folder, free text that Hydra's grammar would take apart, mistakes.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import UserError, missing
from thaw.settings import lost

FREE_TEXT = ("text", "run", "runs", "resume", "input", "output", "explain_page", "data.path", "model.name")
COLUMNS = ("data.text_column", "data.label_column", "text_column")
SEPARATORS = ("data.label_separator", "data.separator")
QUOTED = re.compile(r"""'([^'\\]|\\.)*'|"([^"\\]|\\.)*\"""")
LATEST = {  # what holds ``latest``: what it names, and a file of each such folder, as old as its end or beginning
    "run": ("finished run", "metrics.json"),
    "resume": ("unfinished run", "config.yaml"),
    "runs": ("multirun", "multirun.yaml"),
}
OPTIONS = (  # of Hydra
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun",
)  # fmt: skip
NUMBER = re.compile(r"[-+]?[\d_.]+(e[-+]?\d+)?|true|false|nan|[-+]?inf", re.IGNORECASE)  # or a truth, for Hydra


def readable(error: Exception, conf: Path, name: str) -> Exception:
    """One line for what Hydra and OmegaConf say over several; other errors as they are."""
    said = str(error)
    if match := re.search(r"Unknown plugin class : 'hydra_plugins\.hydra_(\w+)_launcher", said):
        return missing("this hydra/launcher", f"hydra-{match[1]}-launcher", match[1])
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
        hints = {
            "train": "Lower data.batch_size, data.eval_batch_size or data.max_length, or set "
            "model.gradient_checkpointing=true.",
            "predict": "Lower batch_size.",
        }
        return UserError(said.split(". ")[0], hints.get(name, "CUDA_VISIBLE_DEVICES= runs it without the GPU."))
    if match := re.search(r"Ambiguous value for argument '([^']+)'", said):
        hint = f"With -m each is a run: python {name}.py -m {match[1]}"
        if (key := match[1].partition("=")[0]).endswith("text_column"):
            hint = f"The two of a pair are a list: {key}=[{match[1].partition('=')[2]}]"
        return UserError(f"{match[1]}: several values", hint)
    if said.startswith("Only one of --"):  # of Hydra's flags
        return UserError(said)
    if "Config group override must be" in said:  # by a name; Hydra does not say which
        for argument in sys.argv[1:]:
            group, _, choice = argument.partition("=")
            for one in choice.split(",") if (conf / group).is_dir() else ():
                if one == "null" or NUMBER.fullmatch(one):
                    return no_choice(group, one, conf)
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return error
    if isinstance(error, OverrideParseException):
        if "=" not in (word := str(error.override)):
            meant = "=... or ".join(meant_by(word, list(known_keys(conf, name))))
            hint = f"Give one: {meant}=..." if meant else 'Quote a value that has blanks: key="a value".'
            return UserError(f"{word}: a setting has = and a value", hint)
        return UserError(f"{error.override}: cannot be read as a setting", "Quote the value: 'key=\"value\"'.")
    if match := re.search(r"Missing mandatory value: (\S+)", said):
        return UserError(f"{match[1]} is missing", f"Give it: {match[1]}=...")
    if match := re.search(r"Interpolation key '(\w+)' not found", said):
        return lost(match[1])
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", said):
        group, choice = match.groups()
        if (conf / group).is_dir():
            return no_choice(group, choice, conf)
    if match := re.search(r"Could not (?:override|delete) '(?:[^']*@)?([^'@]+)'|append to config '([^']+)'", said):
        key = match[1] or match[2]
        group, _, own = key.rpartition(".")
        holders = [file.stem for file in sorted((conf / group).glob("[!_]*.yaml")) if own in OmegaConf.load(file)]
        if group and holders:
            return UserError(f"{key}: not a setting of the {group} that is chosen", f"Of these: {', '.join(holders)}.")
        known = list(known_keys(conf, name))
        if below := [one for one in known if one.startswith(f"{key}.")]:
            return UserError(f"{key}: not a group of {name}.py", f"Its settings: {', '.join(below)}.")
        return UserError(f"{key}: no such setting{near(key, known)}", f"All settings: python {name}.py --help.")
    lines = [line.strip() for line in said.splitlines() if line.strip() and "full_key" not in line]
    return UserError(" ".join(line for line in lines if not line.startswith(("object_type", "reference_type"))))


def no_choice(group: str, choice: str, conf: Path) -> UserError:
    options = sorted(file.stem for file in (conf / group).glob("[!_]*.yaml"))
    return UserError(f"{group}={choice}: no such choice{near(choice, options)}", f"There are: {', '.join(options)}.")


def near(word: str, known: Sequence[str]) -> str:
    """``; did you mean x?``, or nothing."""
    meant = " or ".join(meant_by(word, known))
    return f"; did you mean {meant}?" if meant else ""


def meant_by(word: str, known: Sequence[str]) -> list[str]:
    """The setting itself, else those of that name in any group, else what is spelled most like it; may be empty."""
    if word in known:
        return [word]
    if named := [one for one in known if one.rpartition(".")[2] == word]:
        return named
    close = difflib.get_close_matches(word, known)
    close.sort(key=lambda one: sorted(one) != sorted(word))  # first what has the same letters in another order
    return close[:1]


def known_keys(conf: Path, name: str) -> Iterator[str]:
    """Every setting of the default config, dotted, and the names of the groups."""
    from hydra import compose, initialize_config_dir

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(name)

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in map(str, node) if isinstance(node, DictConfig) else ():
            path = f"{prefix}{key}"
            yield path
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                yield from walk(node[key], f"{path}.")

    yield from walk(config, "")


def check_options(arguments: Sequence[str], conf: Path, name: str) -> None:
    """Refuse a setting that is written as an option, in one line; the parser of options takes several.

    Raises:
        UserError: naming it.
    """
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option.startswith("--") and option not in OPTIONS:
            setting, known = option.lstrip("-").replace("-", "_"), list(known_keys(conf, name))
            written = " or ".join(f"{one}={value or '...'}" for one in meant_by(setting, known) or [setting])
            raise UserError(f"{option}: no such option", f"Settings have no dashes: {written}")


def latest(argument: str) -> str:
    """Name the folder below ``outputs/`` that ``run=latest``, ``resume=latest`` or ``runs=latest`` stands for.

    Raises:
        UserError: when there is none.
    """
    key, _, value = argument.partition("=")
    if value != "latest" or key not in LATEST or Path(value).exists():
        return argument
    what, name = LATEST[key]
    files = [file for depth in ("*/*", "*/*/*") for file in Path("outputs").glob(f"{depth}/{name}")]
    if key == "resume":
        files = [file for file in files if not file.with_name("metrics.json").exists()]
    if not files:
        raise UserError(f"{argument}: there is no {what} below outputs/", f"Give its folder: {key}=...")
    folder = max(files, key=lambda file: file.stat().st_mtime).parent
    print(f"{key}={folder}", file=sys.stderr)
    return f"{key}={folder}"


def unquoted(override: str) -> str:
    """An override as a user types it, where `quoted` would make it what it is again."""
    key, _, value = override.partition("=")
    plain = f"{key}={value[1:-1]}"
    return plain if QUOTED.fullmatch(value) and quoted(plain) == override else override


def quoted(argument: str) -> str:
    """Quote the value of a setting that holds free text, which Hydra's grammar would otherwise take apart."""
    key, equals, value = argument.partition("=")
    if not equals or QUOTED.fullmatch(value):
        return argument
    if key not in FREE_TEXT and not _is_name(key, value):  # the grammar lacks only the letters of other languages
        if value.isascii() or re.search(r"[=(){}'\"$:~]", value):
            return argument
        parts = r"[^,\[\]\s][^,\[\]]*"  # without the blanks around them, which Hydra drops as well
        own = re.sub(parts, lambda part: part[0] if part[0].isascii() else f"'{part[0].rstrip()}'", value)
        return f"{key}={own}"
    special = r"[=()\[\]{}'\"$:~\s,]" if key == "runs" else r"[=()\[\]{}'\"$:~\s]"
    plain = key in FREE_TEXT and value.isascii() and not re.search(special, value) and not NUMBER.fullmatch(value)
    if value in ("", "null") or (key != "text" and plain):
        return argument if value else f"{key}=''"
    if "\n" in value or "\r" in value:
        value = " ".join(value.split())
    # Of backslashes Hydra reads those before a quote by twos.
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), value.replace("${", "\\${"))
    return f"{key}='{escaped}'"


def _is_name(key: str, value: str) -> bool:
    """Whether a value that the grammar has no place for is a column, such as ``Text (DE)``, or a separator."""
    if key in SEPARATORS:
        return re.fullmatch(r"[^\w\[\]{}'\"$\\]+", value) is not None
    return key in COLUMNS and re.search(r"[=(){}'\"~]", value) is not None and not re.search(r"^\[|[,$]", value)
