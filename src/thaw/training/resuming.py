"""The state of a run is saved at intervals and on signals, from which it resumes bit for bit."""

import logging
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed

from thaw.errors import REQUEUE, Interrupted
from thaw.models.module import gathered
from thaw.runs import resume_command
from thaw.training.validating import batches_done, stepped, validation_due
from thaw.values import INTERVAL

log = logging.getLogger(__name__)

LAST = "last.ckpt"
BEST = "best.ckpt"
LATE = 30.0  # seconds since the last save from which on the end of training is saved, should the evaluation be stopped
SIGNALS = (signal.SIGINT, signal.SIGTERM, *REQUEUE)


class Resumable(pl.callbacks.Checkpoint):
    """Saves ``checkpoints/last.ckpt``, from which a run resumes bit for bit, at intervals and on signals.

    The state is saved after a training batch that ended with an optimizer step, since accumulated gradients are not
    part of a checkpoint; if a validation is due then, after the validation. Lightning calls every ``Checkpoint`` after
    all other callbacks, whose states it contains; among the callbacks, this one must come after the one that keeps the
    best.

    Args:
        folder: the run folder.
        every: optimizer steps (a number), or time (``10min``, ``30s``, ``1h``); None saves only on signals.
    """

    def __init__(self, folder: Path, every: int | str | None) -> None:
        self.folder, self.path = folder, folder / "checkpoints" / LAST
        self.steps, self.seconds = parse_interval(every)
        self.saved_at = self.began = 0.0  # set once training starts
        self.saved_step = 0
        self.earlier = 0.0  # seconds of training before the checkpoint that the run resumes from
        self.signal: int | None = None
        self.training = False
        self.states: dict[str, Any] | None = None
        self.handlers: dict[int, Any] = {}  # the previous ones

    def seconds_spent(self) -> float:
        """Seconds of training in total, including those before the run was stopped."""
        return self.earlier + time.monotonic() - self.began

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals during training; Lightning would end the process silently on Ctrl-C."""
        self.handlers = {number: signal.signal(number, self._notice) for number in SIGNALS}
        for part in self.path.parent.glob(".*.ckpt.*"):  # left by a kill
            part.unlink(missing_ok=True)
        self.saved_at = self.began = time.monotonic()  # preparation does not count
        try:
            yield
        finally:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.saved_step = trainer.global_step
        for number in SIGNALS:  # again, since Lightning has installed a handler of its own for SIGTERM
            signal.signal(number, self._notice)
        self.training = True

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if not self.training:  # but, for example, computing the frozen layers
            self.end("Stopped", number)
        if self.signal == number:
            raise Interrupted(f"Stopped at once. Resume with: {resume_command(self.folder)}", 128 + number)
        self.signal = number
        log.warning("Saving, then stopping. Interrupt again to stop at once.")

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.states is not None:  # the first batch after a resume
            set_random_states(self.states)
            self.states = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not validation_due(trainer) and stepped(trainer):
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = False
        if stop := agreed([self.signal or 0], trainer)[0]:  # it came after the last batch
            self.end("Stopped", stop)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # If another callback stops the run early, nothing is saved: the checkpoint would not know, and would continue.
        if stepped(trainer) and (not trainer.should_stop or trainer.global_step == trainer.lightning_module.steps):
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Save if it is time to, or if a signal has come, which then ends the run."""
        stop, due = agreed([self.signal or 0, int(self._due(trainer))], trainer)
        if not (stop or due):
            return
        best = self.best_at(trainer.global_step)
        if trainer.is_global_zero:
            keep_as(self.path.with_name(BEST), best)
        trainer.save_checkpoint(self.path)
        if trainer.is_global_zero:
            for path in set(self.path.parent.glob(self.best_at("*").name)) - {best}:
                path.unlink()
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step
        if stop:
            self.end("Saved", stop)

    def best_at(self, step: int | str) -> Path:
        """The best checkpoint at the time when a state was saved; the run may find a better one before it is killed."""
        return self.path.with_name(f"best_at_{step}.ckpt")

    def forget(self) -> None:
        """Remove the state of a run that is finished."""
        for path in (self.path, *self.path.parent.glob(self.best_at("*").name)):
            path.unlink(missing_ok=True)

    def end(self, said: str, stop: int) -> NoReturn:
        """End the run after a signal."""
        if stop in REQUEUE and callable(handler := self.handlers[stop]):
            with suppress(KeyboardInterrupt):  # if it is our own
                handler(stop, None)  # submitit's, which requeues the job
        raise Interrupted(f"{said}. Resume with: {resume_command(self.folder)}", 128 + stop)

    def _due(self, trainer: pl.Trainer) -> bool:
        waited = time.monotonic() - self.saved_at
        if trainer.global_step == trainer.lightning_module.steps and waited > LATE:
            return True
        if self.steps is not None:
            return trainer.global_step - self.saved_step >= self.steps
        return self.seconds is not None and waited >= self.seconds

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
        self.earlier = checkpoint["resume"]["seconds"]
        self.states = checkpoint["resume"]["random"][trainer.global_rank]
        if trainer.is_global_zero:
            keep_as(self.best_at(checkpoint["global_step"]), self.path.with_name(BEST))
        for state in checkpoint["callbacks"].values():  # ModelCheckpoint forgets the best one of a run that was moved
            if before := state.get("dirpath"):
                state["dirpath"] = os.path.realpath(self.path.parent)
                state["best_model_path"] = state["best_model_path"].replace(before, state["dirpath"])
                state["best_k_models"] = {
                    path.replace(before, state["dirpath"]): score for path, score in state["best_k_models"].items()
                }
                state["kth_best_model_path"] = state["kth_best_model_path"].replace(before, state["dirpath"])


def keep_as(path: Path, other: Path) -> None:
    """Give a file, if it exists, a second name. This is safe since checkpoints are replaced, never modified."""
    if not path.is_file():
        return
    temporary = other.with_name(f".{other.name}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
    os.replace(temporary, other)
    temporary.unlink(missing_ok=True)  # if both names already refer to one file, replacing does nothing


def parse_interval(every: int | str | None) -> tuple[int | None, float | None]:
    """``trainer.checkpoint_every`` as (steps, seconds), at least one of them None."""
    match = INTERVAL.fullmatch(every.strip()) if isinstance(every, str) else None
    if match is None:
        return every if isinstance(every, int) else None, None
    return None, float(match[1]) * {"s": 1, "sec": 1, "min": 60, "h": 3600}[match[2]]


def random_states() -> dict[str, Any]:
    """The states of all random number generators, in types that ``torch.load(weights_only=True)`` accepts."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # of the device of this process
    }


def set_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def agreed(values: list[int], trainer: pl.Trainer) -> list[int]:
    """The maximum of each value over all processes, so that all of them save and stop at the same step."""
    if trainer.world_size == 1:
        return values
    shared = torch.tensor(values, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return shared.tolist()
