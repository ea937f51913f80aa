"""EncoderModule: the one LightningModule, for sequence and token tasks alike."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import Tensor

from thaw.errors import UserError
from thaw.instantiate import build
from thaw.labels import LabelSet
from thaw.metrics.outputs import Outputs, compute_metrics
from thaw.metrics.own import build_metrics, own_metrics
from thaw.models.checksum import checksum
from thaw.models.cuda_graphs import PRECISIONS, StepGraphs, on_one_gpu
from thaw.models.encoder import blocks, load_encoder
from thaw.models.freezing import (
    ASIDE,
    STAGED,
    add_adapters,
    freeze_to,
    keep_frozen_in_eval,
    parameter_table,
    probing,
    trainable,
)
from thaw.models.losses import make_loss
from thaw.models.optimization import learning_rates, make_schedule, parameter_groups
from thaw.models.prefix import FrozenPrefix, States
from thaw.models.speed import accelerate
from thaw.models.vocabulary import train_used_rows, used_rows


class EncoderModule(pl.LightningModule):
    """An encoder with a head, a freezing strategy, a loss and an optimizer.

    Args:
        folder: where the pretrained encoder is.
        labels: the label bridge from the data.
        config: the groups ``model``, ``freeze``, ``loss``, ``metrics`` and ``optimizer`` as plain containers, and
            the setting ``strict_iob2``.
        epochs: of the run, which may end before the last stage of its strategy; None for as many as it needs.
        learnt: the labels with the counts of what an epoch teaches, which the classes of the training loss are
            balanced by; None if these are those of the rows.

    Checkpoints hold only the parameters that train at some stage of the run: an adapter, a head, the top layers. The
    frozen rest is loaded from the encoder's folder again, and its checksum compared.
    """

    def __init__(
        self, folder: Path, labels: LabelSet, config: dict[str, Any], epochs: int | None = None,
        learnt: LabelSet | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.strict_loading = False  # checkpoints lack the parameters that never train
        self.labels, self.config = labels, config
        self.network = load_encoder(folder, labels, config["model"])
        # In a list, since the peft model wraps the network: as a submodule it would list every parameter twice.
        self.adapters = [add_adapters(self.network, config["freeze"])]
        accelerate(self.network)
        self.stored: tuple[FrozenPrefix, dict[str, States]] | None = None  # set by `Reuse`: the states by split
        self.parts = blocks(self.network)
        # Each stage trains more than the one before.
        self.ever_trained = trainable(self.parts, config["freeze"], epochs and epochs - 1)
        optimizer, freeze = config["optimizer"], config["freeze"]
        self.probe_lr: float | None = freeze.get("probe_lr")
        if self.probe_lr and epochs and probing(freeze, epochs - 1):  # the run ends before anything else trains
            optimizer = {**optimizer, "head_lr": self.probe_lr}
        self.rates = learning_rates(self.parts, self.ever_trained, optimizer)
        # Grouped now, since strategies that shard weights flatten matrices to vectors.
        self.groups = parameter_groups(self.parts, self.rates, optimizer["weight_decay"], self.probe_lr)
        # Once now, so that a run with an impossible optimizer does not begin.
        build(optimizer["class"], "optimizer.class", params=self.groups, lr=optimizer["lr"])
        self.table = parameter_table(self.network, self.ever_trained, self.rates, self.probe_lr)
        self.loss, self.metrics = make_loss(config["loss"], labels), build_metrics(config["metrics"], labels)
        self.training_loss = make_loss(config["loss"], learnt or labels)
        self.wants_graphs = False
        self.graphs: StepGraphs | None = None
        self.train_loss = torch.tensor(torch.nan)  # of the last batch; `History` logs it
        self.seen: list[Outputs] = []
        self.steps = 0  # of the whole run
        self.frozen_checksum = ""
        self.now_trained: set[str] = set()  # the names of the parameters that train
        self.thaw_for(0)

    def setup(self, stage: str) -> None:
        """Lightning calls this before a strategy may shard the weights."""
        frozen = (pair for pair in sorted(self.frozen_state().items()) if ASIDE not in pair[0])
        self.frozen_checksum = checksum(frozen)

    def train_tokens(self, tokens: np.ndarray) -> None:
        """Train only those rows of the embedding matrix, where the optimizer does no more to others than decay them.

        Args:
            tokens: all ids that training batches hold, padding included.
        """
        if self.config["optimizer"]["class"]["_target_"] == "torch.optim.AdamW":
            train_used_rows(self.network, self.groups, tokens)

    def thaw_for(self, epoch: int) -> bool:
        """Make the parameters trainable that the strategy names for an epoch; returns whether that changed anything."""
        names = trainable(self.parts, self.config["freeze"], epoch)
        changed, self.now_trained = names != self.now_trained, names
        freeze_to(self.parts, names)
        self.train(self.training)
        return changed

    def trained_table(self) -> list[dict[str, Any]]:
        """`table` of the stages that there were so far: training may stop before the last."""
        rates = self.rates
        if self.probe_lr and self.now_trained != self.ever_trained:
            rates = dict.fromkeys(self.now_trained, self.probe_lr)
        return parameter_table(self.network, self.now_trained, rates, self.probe_lr)

    def train(self, mode: bool = True) -> "EncoderModule":
        """As in torch, except that frozen blocks stay in eval mode."""
        super().train(mode)
        if mode:
            keep_frozen_in_eval(self.parts)
        return self

    def step_graphs(self) -> StepGraphs | None:
        """CUDA graphs for the steps of this stage, if they are asked for and possible."""
        trainer = self.trainer
        if not (self.wants_graphs and on_one_gpu(trainer.strategy) and trainer.precision in PRECISIONS):
            return None
        if self.stored is not None:  # every step reads stored states from memory
            return None
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return StepGraphs(self.losses, parameters, trainer.accumulate_grad_batches)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits: (rows, labels), or (rows, tokens, labels) for token tasks."""
        return self.network(input_ids=input_ids, attention_mask=attention_mask).logits

    def logits(self, batch: dict[str, Tensor], split: str) -> Tensor:
        """The logits of a batch, from stored states of the frozen layers if there are any."""
        if self.stored is None:
            return self(batch["input_ids"], batch["attention_mask"])
        prefix, states = self.stored
        return prefix(states[split], batch)

    def on_train_start(self) -> None:
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # a run resumed within an epoch does not start it
                callback.on_train_epoch_start(self.trainer)
        self.graphs = self.step_graphs()
        self.steps = int(self.trainer.estimated_stepping_batches)

    def on_train_epoch_start(self) -> None:
        if self.config["freeze"]["name"] in STAGED and self.thaw_for(self.current_epoch):
            self.zero_grad()  # to None: with a gradient of 0 the optimizer would still move what is frozen now
            self.graphs = self.step_graphs()
        elif self.graphs and self.graphs.accumulate != self.trainer.accumulate_grad_batches:  # a callback changed it
            self.graphs = self.step_graphs()

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        accumulate, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        last = batches % accumulate  # the batches of the last step of an epoch, if they are fewer than of others
        # Lightning divides their losses as if they were as many.
        if batch_index >= batches - last and not self.trainer.strategy.handles_gradient_accumulation:
            weight = batch.get("weight", torch.ones((), device=self.device))
            batch = {**batch, "weight": weight * (accumulate / last)}
        loss, weighted = (self.graphs or self.losses)(batch)
        self.train_loss = loss.detach()
        return weighted

    def losses(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of a training batch, and the same weighted by how many labels the batch holds."""
        loss = self.training_loss(self.logits(batch, "train"), batch["labels"])
        return loss, loss * batch.get("weight", 1.0)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self.graphs and self.graphs.last:
            self.graphs.backward()
        else:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=not self.graphs)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.global_step == self.steps:
            self.trainer.should_stop = True  # so that Lightning validates before it stops

    def on_train_end(self) -> None:
        self.graphs = None  # and their memory

    def on_validation_model_zero_grad(self) -> None:
        self.zero_grad(set_to_none=not self.graphs)

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.seen.append(Outputs.of_batch(batch, self.logits(batch, "validation")))

    def on_validation_epoch_end(self) -> None:
        """Metrics over the whole split, each row counted once: processes exchange their outputs."""
        parts, self.seen = self.seen, []
        outputs = Outputs.join([part for own in gathered(parts, self.trainer) for part in own])
        values = {"loss": outputs.loss(self.loss)}
        values |= compute_metrics(outputs, self.labels, strict=self.config["strict_iob2"])
        values |= own_metrics(outputs, self.labels, self.metrics)
        self.log_dict({f"val/{name}": value for name, value in values.items()}, batch_size=1, rank_zero_only=False)

    def configure_optimizers(self) -> Any:
        settings = self.config["optimizer"]
        chosen = settings["class"]
        if "fused" in chosen and self.trainer.precision in ("16-mixed", "16-true"):
            chosen = {**chosen, "fused": False}  # fused updates unscale half-precision gradients after clipping
        optimizer = build(chosen, "optimizer.class", params=self.groups, lr=settings["lr"])
        steps = int(self.trainer.estimated_stepping_batches)
        if embedding := used_rows(self.network):
            optimizer.register_step_post_hook(embedding.after_step)
        schedule = make_schedule(optimizer, settings, steps, min(self.probe_steps(), steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def probe_steps(self) -> int:
        """Optimizer steps of a probe stage with a learning rate of its own, if the run is long enough; else 0."""
        if self.probe_lr is None:
            return 0
        in_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        return in_epoch * int(self.config["freeze"]["probe_epochs"])

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, *_: Any, **__: Any) -> None:
        """Clip the gradient norm, also where Lightning refuses to: for fused optimizers in bfloat16, and for FSDP."""
        sharded = getattr(self.trainer.strategy.model, "clip_grad_norm_", None)
        if gradient_clip_val and sharded:
            sharded(gradient_clip_val)
        elif gradient_clip_val and self.trainer.precision == "bf16-mixed":
            trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, "norm")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["frozen_checksum"] = self.frozen_checksum
        checkpoint["state_dict"] = self.without_frozen(checkpoint["state_dict"])
        if embedding := used_rows(self.network):
            checkpoint["embedding_decay"] = embedding.decay

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint["frozen_checksum"] != self.frozen_checksum:
            raise UserError(
                "the frozen weights of the encoder are not those the run was started with",
                "Put the encoder's files back, or start a new run.",
            )
        if embedding := used_rows(self.network):
            embedding.decay = checkpoint.get("embedding_decay", 1.0)
            for saved in checkpoint.get("optimizer_states", ()):
                embedding.cut(saved["state"])
        self.thaw_for(checkpoint["epoch"])  # of a run that has only its evaluation left, training does not start again

    def without_frozen(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of a state that trains at some stage of this run."""
        return {name: value for name, value in state.items() if name.removeprefix("network.") in self.ever_trained}

    def frozen_state(self) -> dict[str, Tensor]:
        """The part of the state that never trains in this run."""
        state = self.state_dict()
        return {name: state[name] for name in state.keys() - self.without_frozen(state).keys()}


def gathered(value: Any, trainer: pl.Trainer) -> list[Any]:
    """The value of every process, in the order of ranks."""
    if trainer.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, value)
    return everyone
