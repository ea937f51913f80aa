"""Callbacks of every run: the state to resume from, the history, a line for each validation."""

import csv
import logging
import os
import random
import re
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed

from thaw.errors import Interrupted, UserError
from thaw.reporting.progress import training_bar
from thaw.runs import atomic_write, resume_command

log = logging.getLogger(__name__)

LAST = "last.ckpt"
REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)  # of schedulers, some time before they end a job
SIGNALS = (signal.SIGINT, signal.SIGTERM, *REQUEUE)


class Resumable(pl.callbacks.Checkpoint):
    """Saves ``checkpoints/last.ckpt`` from which a run goes on bit for bit, at intervals and when a signal comes.

    The state is saved after a training batch that ended with an optimizer step, since gathered gradients are no part of
    a checkpoint; where a validation is due then, after that. Lightning calls every ``Checkpoint`` after the other
    callbacks, whose states are part of it; among the callbacks this one must stand behind the one that keeps the best.

    Args:
        folder: the run folder.
        every: optimizer steps (a number), or time (``10min``, ``30s``, ``1h``); None saves on signals only.
    """

    def __init__(self, folder: Path, every: int | str | None) -> None:
        self.folder, self.path = folder, folder / "checkpoints" / LAST
        self.steps, self.seconds = parse_interval(every)
        self.saved_at = self.began = time.monotonic()
        self.saved_step = 0
        self.earlier = 0.0  # seconds of training up to the checkpoint that the run goes on from
        self.signal: int | None = None
        self.states: dict[str, Any] | None = None
        self.handlers: dict[int, Any] = {}

    def seconds_spent(self) -> float:
        """On all the training that the run stands on, over its stops."""
        return self.earlier + time.monotonic() - self.began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_step = trainer.global_step
        # Here, and no earlier: Lightning sets handlers of its own before, which end the run without saving. At the end,
        # come how it may, it puts back for all signals those that it found.
        for number in SIGNALS:
            self.handlers[number] = signal.signal(number, self._notice)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.signal == number:
            raise Interrupted(f"Stopped at once. Go on with: {resume_command(self.folder)}", 128 + number)
        self.signal = number
        log.warning("Saving, then stopping. Again to stop at once.")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.states is not None:  # the first batch after a resume
            set_random_states(self.states)
            self.states = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not validation_due(trainer) and batches_done(trainer) % trainer.accumulate_grad_batches == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.should_stop:  # else the training is over
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save where it is time to, or a signal has come, which then ends the run."""
        stop = agreed(self.signal, trainer)
        if not stop and not self._due(trainer):
            return
        trainer.save_checkpoint(self.path)
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
        if stop:
            if stop in REQUEUE and callable(handler := self.handlers[stop]):
                handler(stop, None)  # submitit's, which puts the job back into the queue
            raise Interrupted(f"Saved. Go on with: {resume_command(self.folder)}", 128 + stop)

    def _due(self, trainer: pl.Trainer) -> bool:
        if self.steps is not None:
            return trainer.global_step - self.saved_step >= self.steps
        if self.seconds is None:
            return False
        return bool(agreed(int(time.monotonic() - self.saved_at >= self.seconds), trainer))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["resume"] = {
            "epoch": trainer.current_epoch,
            "batches": batches_done(trainer),
            "random": gathered(random_states(), trainer),
            "seconds": self.seconds_spent(),
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.earlier = checkpoint["resume"].get("seconds", 0.0)  # not in those of older versions
        states = checkpoint["resume"]["random"]
        self.states = states[trainer.global_rank % len(states)]
        for own in checkpoint["callbacks"].values():  # ModelCheckpoint forgets the best of a run that was moved
            if before := own.get("dirpath"):
                own["dirpath"] = os.path.realpath(self.path.parent)
                own["best_model_path"] = own["best_model_path"].replace(before, own["dirpath"])
                own["best_k_models"] = {
                    path.replace(before, own["dirpath"]): score for path, score in own["best_k_models"].items()
                }
                own["kth_best_model_path"] = own["kth_best_model_path"].replace(before, own["dirpath"])


def batches_done(trainer: pl.Trainer) -> int:
    """Training batches of this epoch that are behind us."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)


def validation_due(trainer: pl.Trainer) -> bool:
    """Whether a validation, or the end of the epoch, follows this training batch."""
    done, total = batches_done(trainer), int(trainer.num_training_batches)
    if trainer.check_val_every_n_epoch is not None:
        return done == total
    # Counted over all epochs: see make_trainer.
    return done == total or (trainer.current_epoch * total + done) % int(trainer.val_check_batch or 1) == 0


def parse_interval(every: int | str | None) -> tuple[int | None, float | None]:
    """``trainer.checkpoint_every`` as (steps, seconds), one of them None."""
    if every is None:
        return None, None
    if isinstance(every, int) and not isinstance(every, bool) and every > 0:
        return every, None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|sec|min|h)", str(every).strip())
    if match is None:
        raise UserError(f"trainer.checkpoint_every={every} is neither steps nor time", "Give 500, 10min, 30s or null.")
    return None, float(match[1]) * {"s": 1, "sec": 1, "min": 60, "h": 3600}[match[2]]


def random_states() -> dict[str, Any]:
    """The states of every random number generator, as what ``torch.load(weights_only=True)`` accepts."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def agreed(value: int | None, trainer: pl.Trainer) -> int:
    """The largest value among all processes, so that all of them save and stop at the same step."""
    if trainer.world_size == 1:
        return value or 0
    shared = torch.tensor(value or 0, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)


def gathered(value: Any, trainer: pl.Trainer) -> list[Any]:
    """The value of every process, in the order of ranks."""
    if trainer.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, value)
    return everyone


class History(pl.Callback):
    """Writes ``history.csv``: a row for each logged step and each validation, with the columns of all of them.

    The rows are part of the checkpoint, so that a run that goes on after a kill has the history of one that did not
    stop. It must stand before `Resumable` among the callbacks, or the checkpoint would lack the row of its step.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        step = trainer.global_step
        if not step or step % self.every or (self.rows and self.rows[-1]["step"] == step):
            return
        # Not in every step, where it would take a tenth of the time of a linear probe.
        pl_module.log("train/loss", pl_module.train_loss, sync_dist=True, batch_size=len(batch["rows"]))
        lowest, head = (trainer.optimizers[0].param_groups[i] for i in (0, -1))  # from the bottom up
        rates = {"learning_rate": lowest["lr"]}
        if head["initial_lr"] != lowest["initial_lr"]:
            rates["learning_rate/head"] = head["lr"]
        self._add(trainer, {"train/loss": float(trainer.callback_metrics["train/loss"]), **rates})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
            self._add(trainer, values)
            self.write(trainer)

    def _add(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        self.rows.append({"step": trainer.global_step, "epoch": trainer.current_epoch, **values})

    def write(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.write(trainer)


class Lines(pl.Callback):
    """One line for each validation, for logs and terminals alike; between them a bar, where there is a terminal.

    Args:
        monitor: the score shown beside losses and accuracy.
        bar: whether to show steps done, loss, rows a second and the time left.
    """

    def __init__(self, monitor: str, bar: bool) -> None:
        self.monitor, self.bar = monitor, training_bar() if bar else None
        self.rows, self.started, self.elapsed, self.drawn = 0, time.monotonic(), 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.monotonic()
        if self.bar:
            steps = int(trainer.estimated_stepping_batches)
            self.task = self.bar.add_task("", total=steps, completed=trainer.global_step)
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.rows += len(batch["rows"]) * trainer.world_size
        now = time.monotonic()
        if self.bar and now - self.drawn > 0.2:  # each look at the loss waits for the device
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
        values = {**trainer.callback_metrics, "train/loss": pl_module.train_loss}
        names = ["train/loss", "val/loss", "val/accuracy", self.monitor]
        shown = "  ".join(f"{name} {float(values[name]):.4f}" for name in dict.fromkeys(names) if name in values)
        rate = self.rows / max(self.elapsed, 1e-9)
        self.pause()
        log.info("epoch %d  step %d  %s  %.0f rows/s", trainer.current_epoch + 1, trainer.global_step, shown, rate)
        if self.bar:
            self.bar.start()
        self.rows, self.started = 0, time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.pause()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.pause()

    def pause(self) -> None:
        """Take the bar away, so that lines can be written."""
        if self.bar:
            self.bar.stop()
