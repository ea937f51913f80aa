"""A root script, the settings it has, and the command lines and config files that it refuses before it begins.

Nothing heavy is imported here, as in `thaw.cli`.
"""

import difflib
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from thaw.errors import UserError

HYDRA_OPTIONS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun",
)  # fmt: skip
MULTIRUN = ("-m", "--multirun")
GLOBAL = ("experiment", "sweep")  # groups whose files hold settings of others
OPEN_GROUPS = ("callbacks", "logger", "metrics")  # which hold what users call as they like
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
    "validation_file": "data.validation_path",
    "test_file": "data.test_path",
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
        """Every setting of the config with the groups that are chosen, dotted, and the names of the groups."""
        GlobalHydra.instance().clear()
        pairs = (argument.partition("=") for argument in sys.argv[1:])
        chosen = {group: name for group, _, name in pairs if group in self.groups}
        files = [f"{group}={name}" for group, name in chosen.items() if (self.conf / group / f"{name}.yaml").is_file()]
        with initialize_config_dir(str(self.conf), version_base="1.3"):
            config = compose(self.name, files)

        def walk(node: Any, prefix: str) -> Iterator[str]:
            for key in map(str, node) if isinstance(node, DictConfig) else ():
                path = f"{prefix}{key}"
                yield path
                if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
                    yield from walk(node[key], f"{path}.")

        return list(walk(config, ""))

    def is_group(self, name: str) -> bool:
        return bool(name) and (self.conf / name).is_dir()

    @cached_property
    def file(self) -> Any:
        """The config file of this script, with its defaults list."""
        return OmegaConf.load(self.conf / f"{self.name}.yaml")

    @property
    def groups(self) -> dict[str, str]:
        """The config groups of this script, each with its default; ``conf/`` also holds those of the others."""
        listed = [item for item in self.file.defaults if isinstance(item, DictConfig)]
        return {str(group): str(choice) for item in listed for group, choice in item.items()}

    def holds(self, group: str, choice: str = "") -> set[str]:
        """The settings of a group, as the files that its others begin with name them, and one that is shipped.

        Args:
            choice: that file; else the default.
        """
        if group in self.file:
            return set(self.file[group])
        files = [*(self.conf / group).glob("_*.yaml"), self.conf / group / f"{choice or self.groups[group]}.yaml"]
        return {str(key) for file in files for key in OmegaConf.load(file)} - {"defaults"}

    def choices(self, group: str) -> list[Path]:
        """The files of a config group that can be chosen."""
        return sorted((self.conf / group).glob("[!_]*.yaml"))


def check_options(arguments: Sequence[str], script: Script) -> None:
    """Refuse a setting that is written as an option; argparse would take several lines to do so.

    Raises:
        UserError: naming it.
    """
    for argument in arguments:
        option, _, value = argument.partition("=")
        if option in MULTIRUN and script.name != "train":
            raise UserError(f"{option}: only train.py has multiruns", f"Call {script.name}.py once for each.")
        if option == "sweep" and "," in value:  # Hydra would do a run for each name, and sweep nothing that they list
            hint = "Give one, and the lists of the others beside it: sweep=seeds optimizer.lr=1e-5,2e-5"
            raise UserError(f"{argument}: several presets", hint)
        if option == "sweep":
            _check_swept(argument, script.conf / "sweep" / f"{value}.yaml", arguments)
        if option.startswith("--") and option not in HYDRA_OPTIONS:
            setting = option.lstrip("-").replace("-", "_")
            meant = meant_by(setting, script.keys) or [setting]
            written = " or ".join(f"{key}={value or '...'}" for key in meant)
            raise UserError(f"{option}: no such option", f"Settings have no dashes: {written}")


def of_every_choice(arguments: Sequence[str], script: Script) -> list[str]:
    """Settings that all swept choices of a group have are forced, since Hydra looks for them in its default first.

    For example ``freeze.n`` in ``-m freeze=all_but_last_n,lora freeze.n=2``.
    """
    pairs = [argument.partition("=")[::2] for argument in arguments]
    swept = {group: choices.split(",") for group, choices in pairs if group in script.groups and "," in choices}
    forced = []
    for argument, (key, _) in zip(arguments, pairs, strict=True):
        group, _, setting = key.rpartition(".")
        choices = [script.conf / group / f"{choice}.yaml" for choice in swept.get(group, [])]
        known = all(file.is_file() and setting in script.holds(group, file.stem) for file in choices)
        forced.append(f"++{argument}" if choices and known and setting not in script.holds(group) else argument)
    return forced


def _check_swept(argument: str, preset: Path, arguments: Sequence[str]) -> None:
    """Refuse a preset whose only list is replaced by a single value: there would be nothing to sweep."""
    swept = OmegaConf.to_container(OmegaConf.load(preset)) if preset.is_file() else {}
    keys = list(swept.get("hydra", {}).get("sweeper", {}).get("params", {})) if isinstance(swept, dict) else []
    values = [one for one in arguments if len(keys) == 1 and one.startswith(f"{keys[0]}=")]
    if values and not re.search("[,(]", values[-1]):
        raise UserError(f"{argument}: it is a sweep of {keys[0]}, which has one value: {values[-1]}", "Give several.")


def check_known(config: Mapping[str, Any], script: Script) -> None:
    """Refuse a setting that nothing reads: one added with ``+``, or misspelled in a file of ``conf/``.

    Args:
        config: as it was composed.
        script: which composed it.

    Raises:
        UserError: naming the setting.
    """
    known = {*script.file, *script.groups} - {"defaults"}
    for key, value in config.items():
        if key in GLOBAL and key in script.groups:
            raise not_global(key)
        if key not in known:
            raise _unread(key, known)
        if isinstance(value, Mapping) and key not in OPEN_GROUPS:
            inside = script.holds(key) if key != "freeze" else _read_by(value, script)
            if unread := [one for one in value if one not in inside]:
                if key == "freeze" and (others := _strategies_with(unread[0], script)):
                    named = f"freeze.{unread[0]}: not a setting of freeze={value['name']}"
                    raise UserError(named, f"Of these: {', '.join(others)}.")
                raise _unread(f"{key}.{unread[0]}", [f"{key}.{one}" for one in inside])


def _read_by(freeze: Mapping[str, Any], script: Script) -> set[str]:
    """The settings that a freezing strategy reads: those of the file of its name, whatever file was chosen."""
    if not (script.conf / "freeze" / f"{freeze.get('name')}.yaml").is_file():
        return set(freeze)  # the strategy itself is refused later
    return script.holds("freeze", freeze["name"]) | {"learning_rate"}  # which optimizer.lr reads of any


def _strategies_with(setting: str, script: Script) -> list[str]:
    loaded: dict[str, Any] = {file.stem: OmegaConf.load(file) for file in script.choices("freeze")}
    return [stem for stem, own in loaded.items() if own.get("name") == stem and setting in own]


def _unread(key: str, known: Collection[str]) -> UserError:
    remedy = "It was given with +, or stands in a file of conf/."
    return UserError(f"{key}: nothing reads such a setting{near(key, sorted(known))}", remedy)


def not_global(group: str) -> UserError:
    """For a file whose settings Hydra takes for those of its own group."""
    chosen = next((one.replace("=", "/") for one in sys.argv[1:] if one.startswith(f"{group}=")), group)
    return UserError(f"conf/{chosen}.yaml: its settings are not found", "Begin the file with: # @package _global_")


def near(word: str, known: Sequence[str]) -> str:
    """``; did you mean x?``, or nothing."""
    meant = " or ".join(meant_by(word, known))
    return f"; did you mean {meant}?" if meant else ""


def meant_by(word: str, known: Sequence[str]) -> list[str]:
    """The setting of that name, else what the Trainer calls so, else those of that name in any group, else the one of
    its group that is spelt almost so; may be empty."""
    if word in known:
        return [word]
    group, _, name = word.rpartition(".")
    if (peer := TRAINER.get(name)) in known:
        return [str(peer)]
    named = [key for key in known if key.rpartition(".")[2] == name]
    if group:  # no group is meant by what stands within one, and of several no one in particular
        named = [key for key in named if not any(other.startswith(f"{key}.") for other in known)]
    if named and (not group or len(named) == 1):
        return named
    beside = {key.rpartition(".")[2]: key for key in known if group in ("", key.rpartition(".")[0])}
    return [beside[one] for one in _spelt_like(name, list(beside))] or (_spelt_like(word, known) if not beside else [])


def _spelt_like(word: str, known: Sequence[str]) -> list[str]:
    """At most one of some names: of transposed letters, else the only one that begins so, else of a few other letters,
    else the only one that the word is in."""
    transposed = [name for name in known if sorted(name) == sorted(word)]
    begun = [name for name in known if len(word) > 2 and name.startswith(word)]
    close = difflib.get_close_matches(word, known, cutoff=0.8)
    short = word.replace("_", "")
    longer = [name for name in known if len(short) > 3 and short in name.replace("_", "")]
    return (transposed or (begun if len(begun) == 1 else []) or close or (longer if len(longer) == 1 else []))[:1]
