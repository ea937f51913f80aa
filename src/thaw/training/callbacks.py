"""Callbacks that report on every run: the history, and a line for each validation."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from thaw.files import write_csv
from thaw.reporting.progress import training_bar

log = logging.getLogger(__name__)


class MeanLoss:
    """The mean training loss of the batches since it was last taken, as part of a checkpoint.

    It stays on the device, since reading it would wait for the device.
    """

    def __init__(self) -> None:
        self.losses, self.batches = torch.zeros(()), 0

    def add(self, loss: torch.Tensor) -> None:
        self.losses, self.batches = self.losses.to(loss.device) + loss, self.batches + 1

    def take(self) -> torch.Tensor:
        mean = self.losses / max(self.batches, 1)
        self.losses, self.batches = torch.zeros(()), 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"losses": float(self.losses), "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # Earlier versions logged the last batch.
        self.losses, self.batches = torch.tensor(state.get("losses", 0.0)), state.get("batches", 0)


class History(pl.Callback):
    """Writes ``history.csv``: a row for each logged step and each validation. Epochs count from 1.

    The training loss of a row is the mean over the batches since the row before that has one; a validation has one
    if there were batches since, so that epochs shorter than ``every`` have theirs. Rows are part of the checkpoint, so
    that a resumed run has the same history as one that never stopped. It must come before `Resumable` among the
    callbacks, or the checkpoint would lack the row of its step.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.used: dict[str, float] = {}  # the learning rates of the last step
        self.rates: dict[str, float] = {}  # of the validation under way, if it has a training loss
        self.rows: list[dict[str, Any]] = []
        self.loss = MeanLoss()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, **self.loss.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        self.loss.load_state_dict(state_dict)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.loss.add(pl_module.train_loss)
        step = trainer.global_step
        if not step or step % self.every or (self.rows and self.rows[-1]["step"] == step):
            return
        # Logging every step would take a sixth of the time of a linear probe.
        rates = self._log_training(pl_module)
        self._add(trainer, {"train/loss": float(trainer.callback_metrics["train/loss"]), **rates})

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        # Now, since afterwards the schedule has set the rates of the next step.
        lowest, head = (optimizer.param_groups[i] for i in (0, -1))  # from the bottom up
        self.used = {"learning_rate": float(lowest["lr"])}
        if any(head.get(key) != lowest.get(key) for key in ("initial_lr", "probe_lr")):
            self.used["learning_rate/head"] = float(head["lr"])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rates = self._log_training(pl_module) if self.loss.batches else {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        shown = ("train/loss", "val/") if self.rates else "val/"
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(shown)}
        self._add(trainer, {**values, **self.rates})
        self.write(trainer)

    def _log_training(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """Log the mean loss, which begins anew, and the learning rates of the last step, which are returned."""
        pl_module.log("train/loss", self.loss.take(), sync_dist=True, batch_size=1)
        pl_module.log_dict(self.used, batch_size=1)
        return self.used

    def _add(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        self.rows.append({"step": trainer.global_step, "epoch": trainer.current_epoch + 1, **values})

    def write(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        write_csv(self.path, columns, (map(row.get, columns) for row in self.rows))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self.rows:  # otherwise the rows of the checkpoint may not have been loaded yet
            self.write(trainer)


class ValidationLines(pl.Callback):
    """One line for each validation; between them a progress bar, if there is a terminal.

    The training loss of a line is the mean since the validation before; that of the bar is of the last batch.

    Args:
        monitor: the score shown beside losses and accuracy.
        bar: whether to show a bar with steps, loss, rows per second and the time left.
        every: seconds between two lines, at least.
    """

    def __init__(self, monitor: str, bar: bool, every: float = 0.0) -> None:
        self.monitor, self.bar, self.every = monitor, training_bar() if bar else None, every
        self.said = -math.inf
        self.rows, self.started, self.elapsed, self.drawn = 0, time.monotonic(), 0.0, 0.0
        self.loss = MeanLoss()

    def state_dict(self) -> dict[str, Any]:
        return self.loss.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loss.load_state_dict(state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.monotonic()
        steps, epochs = int(trainer.estimated_stepping_batches), trainer.max_epochs or 1
        if steps < trainer.max_steps:  # -1 for none
            enough = math.ceil(trainer.max_steps * epochs / steps)
            said = (
                "trainer.max_steps=%d is not reached: the run ends after %d epochs, at step %d. Enough: data.epochs=%d"
            )
            log.warning(said, trainer.max_steps, epochs, steps, enough)
        if self.bar:
            self.task = self.bar.add_task("", total=steps, completed=trainer.global_step)
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.rows += len(batch["rows"]) * trainer.world_size
        self.loss.add(pl_module.train_loss)
        now = time.monotonic()
        if self.bar and now - self.drawn > 0.2:  # reading the loss waits for the device
            self.drawn = now
            rate = self.rows / max(now - self.started, 1e-9)
            loss, epoch = float(pl_module.train_loss), trainer.current_epoch + 1
            text = f"epoch {epoch}/{trainer.max_epochs}  train/loss {loss:.4f}  {rate:.0f} rows/s"
            self.bar.update(self.task, completed=trainer.global_step, description=text)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.elapsed = time.monotonic() - self.started
        if self.bar:
            self.bar.update(self.task, completed=trainer.global_step, description="validating")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        values = {**trainer.callback_metrics, "train/loss": self.loss.take()}
        names = ["train/loss", "val/loss", "val/accuracy", self.monitor]
        shown = "  ".join(f"{name} {float(values[name]):.4f}" for name in dict.fromkeys(names) if name in values)
        rate = self.rows / max(self.elapsed, 1e-9)
        self.pause()
        if time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            log.info("epoch %d  step %d  %s  %.0f rows/s", trainer.current_epoch + 1, trainer.global_step, shown, rate)
        if self.bar:
            self.bar.start()
        self.rows, self.started = 0, time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pause()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.pause()

    def pause(self) -> None:
        """Remove the bar, so that lines can be printed."""
        if self.bar:
            self.bar.stop()
