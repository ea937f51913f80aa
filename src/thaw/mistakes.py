"""Mistakes on the command line, each explained in one line with the next step to take.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import UserError, missing
from thaw.overrides import NUMBER
from thaw.settings import RULES, lost

HYDRA_OPTIONS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun",
)  # fmt: skip
GLOBAL = ("experiment", "sweep")  # groups whose files hold settings of others
OPEN = ("callbacks.", "logger.", "optimizer.class.")  # to what these hold, arguments of classes may be added
MULTIRUN = ("-m", "--multirun")
OUT_OF_MEMORY = {
    "train": "Lower data.batch_size, data.eval_batch_size or data.max_length, "
    "or set model.gradient_checkpointing=true.",
    "predict": "Lower batch_size.",
}


TRAINER = {  # arguments of transformers' Trainer and its example scripts, which many know by heart
    "learning_rate": "optimizer.lr",
    "lr_scheduler_type": "optimizer.schedule",
    "num_train_epochs": "data.epochs",
    "per_device_train_batch_size": "data.batch_size",
    "per_device_eval_batch_size": "data.eval_batch_size",
    "max_seq_length": "data.max_length",
    "max_train_samples": "data.train_size",
    "max_eval_samples": "data.eval_size",
    "dataset_name": "data.hub",
    "dataset_config_name": "data.hub_config",
    "train_file": "data.path",
    "dataloader_num_workers": "data.num_workers",
    "model_name_or_path": "model.name",
    "label_smoothing_factor": "loss.label_smoothing",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "max_grad_norm": "trainer.gradient_clip_val",
    "bf16": "trainer.precision",
    "fp16": "trainer.precision",
    "torch_compile": "trainer.compile",
    "eval_steps": "trainer.eval_every",
    "save_steps": "trainer.checkpoint_every",
    "logging_steps": "trainer.log_every",
    "metric_for_best_model": "monitor",
    "report_to": "logger",
    "resume_from_checkpoint": "resume",
}


@dataclass(frozen=True)
class Script:
    """A root script and its settings.

    Args:
        conf: the folder of the configs.
        name: of the script, and of its config.
    """

    conf: Path
    name: str

    @cached_property
    def keys(self) -> list[str]:
        """Every setting of the default config, dotted, and the names of the groups."""
        from hydra import compose, initialize_config_dir

        GlobalHydra.instance().clear()
        with initialize_config_dir(str(self.conf), version_base="1.3"):
            config = compose(self.name)

        def walk(node: Any, prefix: str) -> Iterator[str]:
            for key in map(str, node) if isinstance(node, DictConfig) else ():
                path = f"{prefix}{key}"
                yield path
                if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                    yield from walk(node[key], f"{path}.")

        return list(walk(config, ""))

    def is_group(self, name: str) -> bool:
        return bool(name) and (self.conf / name).is_dir()

    @property
    def groups(self) -> set[str]:
        """The config groups of this script; ``conf/`` also holds those of the others."""
        defaults = OmegaConf.load(self.conf / f"{self.name}.yaml").defaults
        return {str(key) for item in defaults if isinstance(item, DictConfig) for key in item}

    def holds(self, group: str, choice: str) -> set[str]:
        """The settings of a group, as its shipped files and their rules name them."""
        files = [*(self.conf / group).glob("_*.yaml"), self.conf / group / f"{choice}.yaml"]
        ruled = {key.split(".")[1] for key in RULES if key.startswith(f"{group}.")}
        return {str(key) for file in files if file.is_file() for key in OmegaConf.load(file)} | ruled

    def choices(self, group: str) -> list[Path]:
        """The files of a config group that can be chosen."""
        return sorted((self.conf / group).glob("[!_]*.yaml"))


def readable(error: Exception, conf: Path, name: str) -> Exception:
    """One line for an error that Hydra or OmegaConf spread over several; any other error unchanged.

    Args:
        conf, name: of the `Script` that raised it.
    """
    script, text = Script(conf, name), str(error)
    if isinstance(error, UserError):
        return error
    if type(error).__name__ == "OutOfMemoryError":  # torch's; torch is not imported here
        return UserError(text.split(". ")[0], OUT_OF_MEMORY.get(name, "CUDA_VISIBLE_DEVICES= runs it without the GPU."))
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
    if "=" in override:
        return UserError(f"{override}: cannot be read as a setting", "Quote the value: 'key=\"value\"'.")
    meant = "=... or ".join(meant_by(override, script.keys))
    hint = f"Give one: {meant}=..." if meant else 'Quote a value that has blanks: key="a value".'
    return UserError(f"{override}: a setting has = and a value", hint)


def _missing_launcher(match: re.Match[str], script: Script) -> UserError:
    return missing("this hydra/launcher", f"hydra-{match[1]}-launcher", match[1])


def _several_values(match: re.Match[str], script: Script) -> UserError:
    key, _, values = match[1].partition("=")
    hint = f"With -m each is a run: python {script.name}.py -m {match[1]}"
    if key.endswith("text_column"):
        hint = f"The two of a pair are a list: {key}=[{values}]"
    return UserError(f"{match[1]}: several values", hint)


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
    return no_choice(group, choice, script) if script.is_group(group) else None


def _unknown_setting(match: re.Match[str], script: Script) -> UserError:
    key = match[1] or match[2]
    group, _, own = key.rpartition(".")
    if group.partition(".")[0] in GLOBAL:
        return _not_global(group.partition(".")[0])
    if script.is_group(group):
        holders = [file.stem for file in script.choices(group) if own in OmegaConf.load(file)]
        if holders:
            chosen = next((one.partition("=")[2] for one in sys.argv[1:] if one.startswith(f"{group}=")), "").split(",")
            lacking = [name for name in chosen if name not in holders]
            which = f"{group}={lacking[0]}" if chosen[1:] and lacking else f"the {group} that is chosen"
            return UserError(f"{key}: not a setting of {which}", f"Of these: {', '.join(holders)}.")
    if key.startswith(OPEN):
        return UserError(f"{key}: the file that is chosen has no such setting", f"To add one: +{key}=...")
    if any(known.startswith(f"{key}.") for known in script.keys):
        return _no_group(key, script)
    return UserError(
        f"{key}: no such setting{near(key, [known for known in script.keys if known != key])}",
        f"All settings: python {script.name}.py --help.",
    )


def _not_global(group: str) -> UserError:
    """For a file whose settings Hydra takes for those of its own group."""
    chosen = next((one.replace("=", "/") for one in sys.argv[1:] if one.startswith(f"{group}=")), group)
    return UserError(f"conf/{chosen}.yaml: its settings are not found", "Begin the file with: # @package _global_")


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
    r"Unknown plugin class : 'hydra_plugins\.hydra_(\w+)_launcher": _missing_launcher,
    r"Ambiguous value for argument '([^']+)'": _several_values,
    r"does not support sweep type": _unsupported_sweep,
    r"^Only one of --": lambda match, _: UserError(match.string),
    r"Config group override must be": _choice_without_a_name,
    r"Missing mandatory value: (\S+)": lambda match, _: UserError(f"{match[1]} is missing", f"Give it: {match[1]}=..."),
    r"Interpolation key '(\w+)' not found": lambda match, _: lost(match[1]),
    r"Could not find '([^']+)/([^'/]+)'": _unknown_choice,
    r"Could not (?:override|delete) '(?:[^']*@)?([^'@]+)'|append to config '([^']+)'": _unknown_setting,
}
"""What Hydra and OmegaConf write -> how to say it; the first that matches and has something to say counts."""


def no_choice(group: str, choice: str, script: Script) -> UserError:
    options = [file.stem for file in script.choices(group)]
    return UserError(f"{group}={choice}: no such choice{near(choice, options)}", f"There are: {', '.join(options)}.")


def near(word: str, known: Sequence[str]) -> str:
    """``; did you mean x?``, or nothing."""
    meant = " or ".join(meant_by(word, known))
    return f"; did you mean {meant}?" if meant else ""


def meant_by(word: str, known: Sequence[str]) -> list[str]:
    """The setting of that name, else what the Trainer calls so, else those of that name in any group, else the closest
    spelling; may be empty."""
    if word in known:
        return [word]
    if (peer := TRAINER.get(word.rpartition(".")[2])) in known:
        return [str(peer)]
    if named := [key for key in known if key.rpartition(".")[2] == word]:
        return named
    close = difflib.get_close_matches(word, known)
    close.sort(key=lambda key: sorted(key) != sorted(word))  # transposed letters first
    return close[:1]


def check_options(arguments: Sequence[str], conf: Path, name: str) -> None:
    """Refuse a setting that is written as an option; argparse would take several lines to do so.

    Raises:
        UserError: naming it.
    """
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option in MULTIRUN and name != "train":
            raise UserError(f"{option}: only train.py has multiruns", f"Call {name}.py once for each.")
        if option == "sweep" and "," in value:  # Hydra would do a run for each name, and sweep nothing that they list
            hint = "Give one, and the lists of the others beside it: sweep=seeds optimizer.lr=1e-5,2e-5"
            raise UserError(f"{argument}: several presets", hint)
        if option == "sweep":
            _check_swept(argument, conf / "sweep" / f"{value}.yaml", arguments)
        if option.startswith("--") and option not in HYDRA_OPTIONS:
            setting = option.lstrip("-").replace("-", "_")
            meant = meant_by(setting, Script(conf, name).keys) or [setting]
            written = " or ".join(f"{key}={value or '...'}" for key in meant)
            raise UserError(f"{option}: no such option", f"Settings have no dashes: {written}")


def _check_swept(argument: str, preset: Path, arguments: Sequence[str]) -> None:
    """Refuse a preset whose only list is replaced by a single value: there would be nothing to sweep."""
    swept = OmegaConf.to_container(OmegaConf.load(preset)) if preset.is_file() else {}
    keys = list(swept.get("hydra", {}).get("sweeper", {}).get("params", {})) if isinstance(swept, dict) else []
    given = [one for one in arguments if len(keys) == 1 and one.startswith(f"{keys[0]}=")]
    if given and not re.search("[,(]", given[-1]):
        raise UserError(f"{argument}: it is a sweep of {keys[0]}, which has one value: {given[-1]}", "Give several.")


def check_known(config: Mapping[str, Any], conf: Path, name: str) -> None:
    """Refuse a setting that nothing reads: one added with ``+``, or misspelled in a file of ``conf/``.

    Args:
        config: as it was composed.
        conf, name: of the `Script`.

    Raises:
        UserError: naming the setting.
    """
    script = Script(conf, name)
    own: Any = OmegaConf.load(conf / f"{name}.yaml")
    groups = {str(group): str(choice) for item in own.defaults if isinstance(item, DictConfig)
              for group, choice in item.items()}  # fmt: skip
    known = [str(key) for key in own if key != "defaults"]
    settings = [(key, {*known, *groups}) for key in config]
    for group in config:
        if group in GLOBAL and group in groups:
            raise _not_global(group)
        if isinstance(config[group], Mapping) and group not in ("callbacks", "logger"):
            inside = set(own[group]) if group in own else script.holds(group, groups.get(group, ""))
            settings += [(f"{group}.{key}", {f"{group}.{one}" for one in inside}) for key in config[group]]
    for key, expected in settings:
        if key not in expected:
            remedy = "It was given with +, or stands in a file of conf/."
            raise UserError(f"{key}: nothing reads such a setting{near(key, sorted(expected))}", remedy)
