"""A stopped run is opened again, and refused where it could not go on as it began."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from thaw import files, runs
from thaw.data.module import TextDataModule
from thaw.errors import UserError, reason
from thaw.models.module import EncoderModule
from thaw.settings import ANEW, check, check_source, plain
from thaw.training.resuming import LAST


def continued(config: DictConfig, overrides: Sequence[str]) -> tuple[Path, DictConfig]:
    """The folder and the config of the run named by ``resume=``.

    Args:
        overrides: of the command that resumes it; what they say of `ANEW` replaces what the run began with.
    """
    folder = runs.open_unfinished(config.resume)
    saved = runs.load_config(folder)
    for key in {override.partition("=")[0] for override in overrides} & {*ANEW}:
        OmegaConf.update(saved, key, OmegaConf.select(config, key))
    check(plain(saved))  # it may have been edited
    check_source(saved.data)
    saved.resume = str(folder)
    return folder, saved


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A saved state.

    Raises:
        UserError: when the file is damaged.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever torch raises for damaged files
        raise UserError(f"{path}: damaged: {reason(error)[:100]}", "Without this file the run starts over.") from error


def check_same_data(folder: Path, data: TextDataModule) -> None:
    """Refuse to resume with rows or labels other than those the run began with."""
    if not (folder / "data.json").is_file():
        return

    def marks(summary: dict[str, Any]) -> Any:
        return summary["labels"], {name: split["fingerprint"] for name, split in summary["splits"].items()}

    before = files.read_json(folder / "data.json")
    if "unread" in before["splits"]["train"] and data.summary["splits"]["train"].get("windowed"):
        raise UserError("the run was begun by a version that cut long sentences", "Start a new run.")
    if marks(before) != marks(data.summary):
        raise UserError(
            "the data has changed since the run began",
            "Restore it, or start a new run. Earlier versions also divided files otherwise.",
        )


def check_same_size(saved: dict[str, Any], processes: int) -> None:
    """Refuse to resume with another number of processes: the batches of a step would change."""
    if (before := len(saved["random"])) != processes:
        raise UserError(
            f"the run began on {before} devices and cannot resume on {processes}",
            "Use as many as before, or start a new run.",
        )


def check_same_weights(state: dict[str, torch.Tensor], module: EncoderModule) -> None:
    """Refuse a checkpoint with other weights than the run trains; loading is not strict and would not notice."""
    if state.keys() != module.without_frozen(module.state_dict()).keys():
        raise UserError(f"checkpoints/{LAST} holds other weights than this run trains", "Start a new run.")
