"""When the validations of a run are due, in optimizer steps; Lightning counts batches, and steps differ in how many."""

import sys
from typing import Any

import pytorch_lightning as pl


class ValidateEvery(pl.Callback):
    """Has Lightning validate after every so many optimizer steps, counted across epochs; the first of all callbacks.

    Args:
        steps: between two validations.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._schedule(trainer)  # a resumed run has to know that a validation that was due is done

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._schedule(trainer)

    def _schedule(self, trainer: pl.Trainer) -> None:
        # Lightning validates after each batch whose number is a multiple of this.
        trainer.val_check_batch = 1 if stepped(trainer) and trainer.global_step % self.steps == 0 else sys.maxsize


def batches_done(trainer: pl.Trainer) -> int:
    """Completed training batches of this epoch."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def stepped(trainer: pl.Trainer) -> bool:
    """Whether the last batch ended with an optimizer step, so that there are no accumulated gradients."""
    done = batches_done(trainer)
    return done % trainer.accumulate_grad_batches == 0 or done == int(trainer.num_training_batches)


def validation_due(trainer: pl.Trainer) -> bool:
    """Whether a validation, or the end of the epoch, follows this training batch."""
    if trainer.global_step == trainer.lightning_module.steps or batches_done(trainer) == trainer.num_training_batches:
        return True
    return trainer.check_val_every_n_epoch is None and trainer.val_check_batch == 1  # as `ValidateEvery` has set it
