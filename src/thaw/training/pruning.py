"""Trials of a study: a run reports each validation, and ends early if other trials were better."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from thaw.errors import Pruned
from thaw.files import write_json
from thaw.runs import PRUNED
from thaw.study import join

log = logging.getLogger(__name__)


class Pruning(pl.Callback):
    """Ends a bad trial after a validation, and writes ``pruned.json`` to its folder.

    What is counted is validations, not steps, since trials may differ in batch size.

    Args:
        folder: the run folder.
        monitor: the score to report.
        trial: an Optuna trial, with the pruner of its study.

    Raises:
        Pruned: when the pruner says so.
    """

    def __init__(self, folder: Path, monitor: str, trial: Any) -> None:
        self.folder, self.monitor, self.trial = folder, monitor, trial
        self.validations = 0

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validations = state_dict["validations"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score = float(trainer.callback_metrics[self.monitor])
        self.validations += 1
        self.trial.report(score, self.validations)
        at_end = trainer.global_step >= trainer.estimated_stepping_batches  # when there is nothing to be saved
        if not at_end and self.trial.should_prune():
            where = {"monitor": self.monitor, "score": score, "validations": self.validations}
            write_json(self.folder / PRUNED, {**where, "step": trainer.global_step})
            log.info("Pruned after validation %d: %s %.4f.", self.validations, self.monitor, score)
            raise Pruned(f"Pruned: {self.monitor} {score:.4f} after validation {self.validations}")


def pruning(folder: Path, monitor: str) -> list[pl.Callback]:
    """The callback of a trial; none for runs outside a study, or in a study without a pruner."""
    from hydra.core.hydra_config import HydraConfig

    (folder / PRUNED).unlink(missing_ok=True)
    held = HydraConfig.get().sweeper.get("trial") if HydraConfig.initialized() else None
    return [Pruning(folder, monitor, join(held))] if held else []
