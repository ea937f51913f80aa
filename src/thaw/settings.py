"""Settings as plain containers, their values checked before anything heavy begins.

Values that depend on the data or the encoder (layers, lengths, labels) are checked once those are known.
"""

import glob
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw.errors import UserError
from thaw.files import named_by
from thaw.rules import RULES
from thaw.values import COUNT, DATA_PATHS, POSITIVE, Rule

# The results of a run do not depend on these. Every other setting counts, even if it changes only the last digits
# (data.eval_batch_size, freeze.reuse) or what a run keeps (trainer.log_every, logger).
INERT = ("resume", "expected", "trainer.progress_bar", "trainer.checkpoint_every", "data.num_workers")
NEUTRAL = (  # those that leave the protocol of an experiment as it is
    "resume", "sweep", "baselines", "data.num_workers", "data.eval_batch_size", "data.on_bad_row", "freeze.reuse",
    "freeze.reuse_gb", "trainer", "trainer.accelerator", "trainer.devices", "trainer.progress_bar",
    "trainer.checkpoint_every", "trainer.log_every", "trainer.cuda_graphs",
)  # fmt: skip
ANEW = (  # what a resumed run may be given: its results stay, but for the last digits; whether rows do is checked later
    *(key for key in INERT if "." in key), "data.eval_batch_size", *(f"data.{key}" for key in DATA_PATHS),
)  # fmt: skip


def neutral(key: str) -> bool:
    """Whether a setting only says where and how a run is computed, so that its figures stay comparable."""
    return key in NEUTRAL or key.startswith(("hydra", "logger", "metrics"))


def better(monitor: str, known: str = "", mode: str = "") -> str:
    """Which direction is better for a metric: ``min`` for losses and the calibration error, else ``max``.

    Args:
        known, mode: a metric of which it is known.
    """
    if monitor == known:
        return mode
    return "min" if monitor in ("train/loss", "val/loss", "val/ece") else "max"


def numbers_to(last: Any) -> str:
    """``1,2,3``: the values of a sweep; of what is no such number a single one, whose run says so."""
    return ",".join(map(str, range(1, last + 1))) if COUNT[0](last) else "1"


def times(value: Any, *factors: float) -> str:
    """A number times each of several factors, as the values of a sweep; what is no number as it is."""
    return ",".join(f"{value * factor:.3g}" for factor in factors) if POSITIVE[0](value) else str(value)


OmegaConf.register_new_resolver("better", better, replace=True)
OmegaConf.register_new_resolver("times", times, replace=True)
OmegaConf.register_new_resolver("numbers_to", numbers_to, replace=True)


def plain(config: DictConfig) -> dict[str, Any]:
    """A config as plain containers, complete and with its interpolations resolved.

    Raises:
        MissingMandatoryValue: when a value is still to be given.
    """
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return values


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a config, with the dotted key by which a user names it; a group that is empty is a value."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_source(data: Mapping[str, Any]) -> None:
    """Refuse a ``data`` group without a source, or with a path that does not exist."""
    for key in DATA_PATHS:
        if not (place := data.get(key)):
            continue
        if not (found := named_by(place)):
            problem = "no file matches" if glob.has_magic(str(place)) else "no such file or folder"
            raise UserError(f"{place}: {problem}", f"Check data.{key}.")
        if not all(path.is_file() or path.is_dir() for path in found):  # such as a pipe; files are read more than once
            raise UserError(f"{place}: neither a file nor a folder", "Save the data to a file.")
    if not (data.get("path") or data.get("hub")):
        kind = data.get("format") or "csv"
        raise UserError("data.path is missing", f"Say where the data is: data={kind} data.path=...")


def data_files(data: Mapping[str, Any]) -> list[Path]:
    """The local files that a ``data`` group reads, and what else stands in their folders."""
    named = (path for key in DATA_PATHS for path in named_by(data.get(key) or ""))
    return [file for path in named for file in (path, *path.rglob("*")) if os.path.isfile(file)]


def written_since(data: Mapping[str, Any], seen: Path) -> Path | None:
    """A data file that was modified after a run noted what it read, ``data.json``, if there is one."""
    if not seen.is_file():
        return None
    then = seen.stat().st_mtime
    return next((file for file in data_files(data) if file.stat().st_mtime > then), None)


# What the files of a group have in common: the file that they begin with.
BASES = {"data": "_data", "freeze": "_reuse", "loss": "cross_entropy", "model": "_encoder", "optimizer": "adamw",
         "trainer": "default"}  # fmt: skip
OF_EVERY_FREEZE = ("freeze.name", "freeze.reuse", "freeze.reuse_dtype", "freeze.reuse_gb")


def lost(key: str) -> UserError:
    remedy = f"It cannot be left out with ~{key}."
    if base := BASES.get(key.partition(".")[0]):
        remedy += f" A file of your own for the group begins with: defaults: [{base}]."
    return UserError(f"{key} is missing", f"{remedy} A run of another version, which lacks it, cannot be resumed.")


def check(config: dict[str, Any], rules: dict[str, Rule] = RULES) -> None:
    """Refuse a config with an invalid value.

    Args:
        config: of a root script.
        rules: for its settings.

    Raises:
        UserError: naming the setting, its value and what it accepts.
    """
    for key, (accepts, description) in rules.items():
        value: Any = config
        parts = key.split(".")
        for depth, part in enumerate(parts):
            if part not in value:
                # Each choice of these groups holds only what it needs.
                optional = depth and parts[0] in ("freeze", "callbacks") and key not in OF_EVERY_FREEZE
                if optional:
                    break
                raise lost(".".join(parts[: depth + 1]))
            value = value[part]
        else:
            if not accepts(value):
                if value == "???":
                    raise UserError(f"{key} is missing", f"Give {description}.")
                if isinstance(value, str) and "number" in description and re.fullmatch(r"\d+\.?\d*(e[-+]?\d+)?", value):
                    raise UserError(f"{key}='{value}' is a text, not {description}", "Leave its quotes out.")
                shown = "null" if value is None else value
                raise UserError(f"{key}={shown} is not {description}", f"Change {key}.")
