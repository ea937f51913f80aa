"""Mistakes on the command line, each explained in one line with the next step to take.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import os
import re
import sys
from collections.abc import Callable

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import UserError, missing
from thaw.overrides import NUMBER, is_setting
from thaw.script import GLOBAL, OPEN_GROUPS, Script, meant_by, near, not_global
from thaw.settings import lost

# To what these hold, arguments of classes may be added.
OPEN = tuple(f"{one}." for one in (*OPEN_GROUPS, "loss.function", "optimizer.class"))
OUT_OF_MEMORY = {
    "train": "Lower data.batch_size, data.eval_batch_size or data.max_length, "
    "or set model.gradient_checkpointing=true.",
    "predict": "Lower batch_size.",
}


def readable(error: Exception, script: Script) -> Exception:
    """One line for an error that Hydra or OmegaConf spread over several; any other error unchanged."""
    text = str(error)
    if isinstance(error, UserError):
        return error
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
        remedy = OUT_OF_MEMORY.get(script.name, "CUDA_VISIBLE_DEVICES= runs it without the GPU.")
        return UserError(text.split(". ")[0], remedy)
    if isinstance(error, OverrideParseException):
        return _unparsable(str(error.override), script)
    if not isinstance(error, HydraException | OmegaConfBaseException | ValueError | RuntimeError):
        return error
    for pattern, explain in EXPLANATIONS.items():
        if (match := re.search(pattern, text)) and (explained := explain(match, script)):
            return explained
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return error
    lines = [line.strip() for line in text.splitlines() if line.strip() and "full_key" not in line]
    return UserError(" ".join(line for line in lines if not line.startswith(("object_type", "reference_type"))))


def _unparsable(override: str, script: Script) -> UserError:
    if "=" in override and override.endswith(","):
        return UserError(f"{override}: a value is missing after the comma", "Give it, or leave the comma out.")
    if override.count("(") != override.count(")"):
        return UserError(f"{override}: it has more of one parenthesis than of the other", "Close what is open.")
    if "=" in override:
        return UserError(f"{override}: cannot be read as a setting", "Quote the value: 'key=\"value\"'.")
    if override == "latest" and "run" in script.keys:
        return UserError("latest: a setting has = and a value", "Did you mean run=latest?")
    if os.path.isfile(os.path.expanduser(override)):
        place = "data.path" if script.name in ("train", "explore") else "input"
        return UserError(f"{override}: a setting has = and a value", f"Did you mean {place}={override}?")
    meant = "=... or ".join(meant_by(override, script.keys))
    hint = f"Give one: {meant}=..." if meant else 'Quote a value that has blanks: key="a value".'
    return UserError(f"{override}: a setting has = and a value", hint)


def _several_values(match: re.Match[str], script: Script) -> UserError:
    key, _, values = match[1].partition("=")
    if error := _hidden_by_preset(match.string, script):
        return error
    hint = "Give one."
    if re.fullmatch(r"\d+,\d+", values) and values.startswith("0"):
        hint = f"With a point it is a number: {key}={values.replace(',', '.')}"
    elif script.name == "train":
        hint = f"With -m each is a run: python train.py -m {match[1]}"
    if key.endswith("text_column"):
        hint = f"The two of a pair are a list: {key}=[{values}]"
    return UserError(f"{match[1]}: several values", hint)


def _hidden_by_preset(said: str, script: Script) -> UserError | None:
    """The mistake for which Hydra could not read that a preset makes a multirun, so that it blamed several values."""
    if not any(argument.startswith("sweep=") for argument in sys.argv[1:]):
        return None
    settings = [argument for argument in sys.argv[1:] if is_setting(argument)]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(script.conf), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        try:
            loader.load_configuration(script.name, settings, RunMode.MULTIRUN, validate_sweep_overrides=False)
        except (HydraException, OmegaConfBaseException) as error:
            if str(error) != said:
                found = readable(error, script)
                return found if isinstance(found, UserError) else None
    return None


def _choice_without_a_name(match: re.Match[str], script: Script) -> UserError | None:
    """A group that was given null or a number; Hydra does not say which."""
    for argument in sys.argv[1:]:
        group, _, choices = argument.partition("=")
        for choice in choices.split(",") if script.is_group(group) else ():
            if choice == "null" or NUMBER.fullmatch(choice):
                return no_choice(group, choice, script) if group in script.groups else _no_group(group, script)
    return None


def _unknown_choice(match: re.Match[str], script: Script) -> UserError | None:
    group, choice = match.groups()
    named = next((argument[5:] for argument in sys.argv[1:] if argument.startswith("data=")), "")
    if group.partition("/")[0] == "data" and os.path.isfile(os.path.expanduser(named)):
        kinds = [file.stem for file in script.choices("data")]
        kind = next((one for one in named.lower().split(".")[:0:-1] if one in kinds), "csv")
        return UserError(f"data={named}: a file, not a choice", f"Did you mean data={kind} data.path={named}?")
    return no_choice(group, choice, script) if script.is_group(group) else None


def _unknown_setting(match: re.Match[str], script: Script) -> UserError:
    key = match[1] or match[2]
    group, _, setting = key.rpartition(".")
    if group.partition(".")[0] in GLOBAL:
        return not_global(group.partition(".")[0])
    if script.is_group(group):
        holders = [file.stem for file in script.choices(group) if setting in OmegaConf.load(file)]
        if holders:
            chosen = next((one.partition("=")[2] for one in sys.argv[1:] if one.startswith(f"{group}=")), "").split(",")
            lacking = [name for name in chosen if name not in holders]
            which = f"{group}={lacking[0]}" if chosen[1:] and lacking else f"the {group} that is chosen"
            return UserError(f"{key}: not a setting of {which}", f"Of these: {', '.join(holders)}.")
    if key.startswith(OPEN):
        meant = near(key, script.keys)
        return UserError(f"{key}: the file that is chosen has no such setting{meant}", f"To add one: +{key}=...")
    if any(known.startswith(f"{key}.") for known in script.keys):
        return _no_group(key, script)
    return UserError(
        f"{key}: no such setting{near(key, [known for known in script.keys if known != key])}",
        f"All settings: python {script.name}.py --help.",
    )


def _no_group(key: str, script: Script) -> UserError:
    """For a part of the config that is a group in another script only."""
    below = [known for known in script.keys if known.startswith(f"{key}.")]
    return UserError(f"{key}: not a group of {script.name}.py", f"Its settings: {', '.join(below)}.")


def _unsupported_sweep(match: re.Match[str], script: Script) -> UserError:
    """An interval for Hydra's own sweeper, which does not say of which setting."""
    swept = next((argument for argument in sys.argv[1:] if "interval(" in argument), match.string)
    hint = f"Give a list, or let Optuna choose: hydra/sweeper=optuna, or {script.name}.py sweep=optuna."
    return UserError(f"{swept}: only Optuna searches intervals", hint)


EXPLANATIONS: dict[str, Callable[[re.Match[str], Script], UserError | None]] = {
    r"Unknown plugin class : 'hydra_plugins\.hydra_(\w+)_launcher": lambda match, _: missing(
        "this hydra/launcher", f"hydra-{match[1]}-launcher", match[1]
    ),
    r"Ambiguous value for argument '([^']+)'": _several_values,
    r"does not support sweep type": _unsupported_sweep,
    r"^Only one of --": lambda match, _: UserError(match.string),
    r"Config group override must be": _choice_without_a_name,
    r"Missing mandatory value: (\S+)": lambda match, _: UserError(f"{match[1]} is missing", f"Give it: {match[1]}=..."),
    r"Interpolation key '([\w.]+)' not found": lambda match, _: lost(match[1]),
    r"Could not find '([^']+)/([^'/]*)'": _unknown_choice,
    r"Could not (?:override|delete) '(?:[^']*@)?([^'@]+)'|append to config '([^']+)'": _unknown_setting,
}
"""What Hydra and OmegaConf write -> how to say it; the first that matches and has something to say counts."""


def no_choice(group: str, choice: str, script: Script) -> UserError:
    options = [file.stem for file in script.choices(group)]
    return UserError(f"{group}={choice}: no such choice{near(choice, options)}", f"There are: {', '.join(options)}.")
