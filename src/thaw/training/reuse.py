"""Decides when the output of frozen layers is computed once and reused."""

import logging
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from thaw.data.batching import evaluation_batches
from thaw.data.module import TextDataModule
from thaw.errors import UserError
from thaw.models.freezing import frozen_depth, trainable
from thaw.models.module import EncoderModule
from thaw.models.prefix import FrozenPrefix, Split, Unusable
from thaw.reporting.progress import counting
from thaw.runs import rank

WHOLE = SingleDeviceStrategy | DDPStrategy  # strategies in which each process has all weights
SPLIT_UP = "the weights are split among devices"
log = logging.getLogger(__name__)


class Reuse(pl.Callback):
    """Gives the module the stored states of its frozen layers, again at each stage of the strategy.

    Args:
        settings: the ``freeze`` group of the config.
        data: prepared.
        compiled: whether the layers are compiled, which changes the last digits of their output.
    """

    def __init__(self, settings: dict[str, Any], data: TextDataModule, compiled: bool) -> None:
        self.settings, self.data, self.compiled = settings, data, compiled
        self.depth = 0
        self.precision = ""
        self.held: set[str] = set()
        self.reused = False
        self.before: dict[str, Any] = {}  # what the run decided before it was stopped

    def state_dict(self) -> dict[str, Any]:
        """What was decided, since on resuming a disk may have filled, or have room again."""
        return {"depth": self.depth, "reused": self.reused}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = state_dict

    def check(self, trainer: pl.Trainer, module: EncoderModule) -> None:
        """Refuse ``freeze.reuse=on`` before the run begins if it is certain to fail."""
        if self.settings["reuse"] != "on":
            return
        if not any(self.depth_at(module, epoch) for epoch in range(trainer.max_epochs or 0)):
            name = self.settings["name"]
            raise UserError(f"freeze.reuse=on: freeze={name} freezes no layers at the bottom", "Leave it out.")
        if not isinstance(trainer.strategy, WHOLE):
            raise UserError(f"freeze.reuse=on: {SPLIT_UP}", "Use freeze.reuse=auto, or off.")

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.on_train_epoch_start(trainer, pl_module)  # a run resumed within an epoch does not start that epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: EncoderModule = pl_module
        depth = self.depth_at(module, trainer.current_epoch)
        if depth == self.depth:
            return
        self.depth, self.reused, module.stored = depth, False, None
        if self.settings["reuse"] == "off" or not depth:
            return
        before = self.before.get("reused") if self.before.get("depth") == depth else None
        try:
            if before is False:
                raise Unusable("they did before the run was stopped")
            module.stored = self._stored(trainer, module)
            self.reused = True
        except Unusable as reason:
            if self.settings["reuse"] == "on":
                raise UserError(f"freeze.reuse=on: {reason}", "Use freeze.reuse=auto, or off.") from None
            log.info("The frozen layers run in every step: %s.", reason)
            if before:
                log.warning("Before it was stopped, the run read their output: weights will differ a little from here.")

    def depth_at(self, module: EncoderModule, epoch: int) -> int:
        return frozen_depth(module.parts, trainable(module.parts, self.settings, epoch))

    def _stored(self, trainer: pl.Trainer, module: EncoderModule) -> Any:
        if not isinstance(trainer.strategy, WHOLE):
            raise Unusable(SPLIT_UP)
        self.precision = str(trainer.precision)
        prefix = self.make_prefix(module.network, context=trainer.precision_plugin.forward_context)
        # Passes of the whole stage, so that a run resumed near its end decides as it did before.
        passes = min(
            sum(self.depth_at(module, epoch) == self.depth for epoch in range(trainer.max_epochs or 0)),
            trainer.estimated_stepping_batches * trainer.accumulate_grad_batches / trainer.num_training_batches,
        )
        if self.settings["reuse"] == "auto" and passes < 2 and not prefix.first_only:
            raise Unusable("a single pass over the data gains nothing")
        self.held.clear()  # of an earlier stage
        names = ("train", "validation")
        states = prefix.states([self.data.encoded[name] for name in names])
        size = sum(own.nbytes for own in states) / 1e6
        log.info("Layers 1 to %d are frozen: computed once, and read in every step (%.0f MB).", self.depth, size)
        return prefix, dict(zip(names, states, strict=True))

    @property
    def exact(self) -> bool:
        """Whether stored states equal what the evaluation computes to the last bit: only in plain float32."""
        return self.precision == "32-true" and self.settings["reuse_dtype"] == "float32" and not self.compiled

    def make_prefix(self, network: Any, **options: Any) -> FrozenPrefix:
        """The prefix of a network, with the depth of the current stage."""
        batch_size, pad_id = self.data.data["eval_batch_size"], self.data.tokenizer.pad_token_id
        return FrozenPrefix(
            network,
            self.depth,
            partial(_announced, batch_size=batch_size, pad_id=pad_id),
            limit=int(self.settings["reuse_gb"] * 1e9),
            dtype=self.settings["reuse_dtype"],
            also=[self.precision, batch_size, self.compiled, self.data.labels.pairs],
            held=self.held,
            pool=self.data.pool,
            **options,
        )


def _announced(split: Split, batch_size: int, pad_id: int) -> Any:
    encoded: Any = split
    with counting(len(encoded) if rank() == 0 else None, "computing the frozen layers") as progress:
        for batch in evaluation_batches(encoded, batch_size, pad_id):
            yield batch
            progress(len(batch["rows"]))
