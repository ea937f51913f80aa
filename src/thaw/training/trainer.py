"""The Lightning Trainer of a run, and early checks of what would fail later."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import FSDPStrategy, StrategyRegistry
from torch import nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, OptimStateKeyType, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.optim import Optimizer

from thaw import files
from thaw.errors import UserError, counted
from thaw.instantiate import build
from thaw.labels import LabelSet
from thaw.metrics.entities import entity_types
from thaw.metrics.outputs import metric_names
from thaw.models.encoder import layers_of
from thaw.models.freezing import STAGED
from thaw.models.module import EncoderModule
from thaw.models.onednn import fast_in_bfloat16
from thaw.script import near
from thaw.training.validating import ValidateEvery

SLOW = 120  # seconds of training from which on it is said how to save some
FEWEST_EPOCHS, ENOUGH_STEPS, MOST_EPOCHS = 3, 300, 50  # see docs/benchmarks.md
AVERAGING = (StochasticWeightAveraging, WeightAveraging)  # WeightAveraging is also the base of the exponential one


def check_monitor(
    labels: LabelSet, counts: Mapping[str, int], own: Sequence[str], key: str, monitor: str, *also: str
) -> None:
    """Refuse early what would fail at the end of the first epoch, or pick a checkpoint at random.

    Args:
        counts: how often each label occurs in validation.
        own, also: what may be monitored besides the metrics of the task: those of the user's own, and others.
        key, monitor: the setting, and its value.
    """
    known = [f"val/{name}" for name in ("loss", *metric_names(labels))]
    if monitor in (*own, *also):
        return
    if monitor not in known:
        overall = ", ".join(name for name in known if name.count("/") == 1)
        remedy = f"Known: {overall}; some also of one label, as in {known[-1]}."
        raise UserError(f"{key}={monitor} is not a metric of a {labels.task} task{near(monitor, known)}", remedy)
    absent = [name for name, count in counts.items() if not count]
    if labels.entities:  # either tag marks an entity of the type
        absent = [kind for kind in entity_types(labels) if not counts.get(f"B-{kind}") and not counts.get(f"I-{kind}")]
    label = monitor.removeprefix("val/").partition("/")[2]  # of val/f1/joy
    if label in absent or (monitor == "val/auc" and len(absent) > len(counts) - 2):
        raise UserError(
            f"{key}={monitor}: no row of validation is {label or ' or '.join(absent)}, so there is no such figure",
            "Monitor another metric, or give more rows: data.eval_size, data.validation_size.",
        )


def make_callbacks(config: Mapping[str, Any], monitored: Callable[..., None]) -> list[Any]:
    """The callbacks of the group ``callbacks``.

    Args:
        monitored: `check_monitor` of the data of the run.

    Raises:
        UserError: when one cannot be built, monitors what there is not, or is not supported.
    """
    configured = {name: build(callback, f"callbacks.{name}") for name, callback in config.items()}
    for name, callback in configured.items():
        if isinstance(callback, AVERAGING):
            problem = f"callbacks.{name}: {type(callback).__name__} is not supported"
            raise UserError(f"{problem}, since the best checkpoint would not hold the averages", "Leave it out.")
        if getattr(callback, "monitor", None) is not None:
            # Early stopping needs a metric that exists at every validation; the training loss does not.
            also = ("train/loss", "step", "epoch") if isinstance(callback, ModelCheckpoint) else ()
            monitored(f"callbacks.{name}.monitor", callback.monitor, *also)
    return list(configured.values())


def check_accelerator(name: str) -> None:
    """Refuse early a GPU that does not exist."""
    if name in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise UserError(f"trainer.accelerator={name}: torch sees no GPU", "Leave trainer=gpu out, or check nvidia-smi.")


def precision_here(precision: str, accelerator: str) -> str:
    """The precision of a run, where ``auto`` is what this machine is fast in.

    GPUs before Ampere, such as the T4, only emulate bfloat16.
    """
    if precision != "auto":
        return precision
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def slow_precision(trainer: pl.Trainer, module: EncoderModule, seconds: float) -> bool:
    """Whether training took long in float32 on a CPU that is faster in bfloat16, and did not read stored states."""
    plain = trainer.precision == "32-true" and trainer.strategy.root_device.type == "cpu" and not module.stored
    return plain and seconds > SLOW and fast_in_bfloat16()


def enough_epochs(settings: Mapping[str, Any], batches: int) -> int:
    """What ``data.epochs=auto`` means: as many as reach ``max_steps``, or as small data needs to learn anything.

    Args:
        settings: the ``trainer`` group.
        batches: that an epoch has on one device.
    """
    devices = settings["devices"]
    if isinstance(devices, list):
        each = len(devices)
    elif isinstance(devices, int) and devices > 0:
        each = devices
    else:  # auto and -1 take all GPUs that there are
        each = 1 if settings["accelerator"] == "cpu" else max(torch.cuda.device_count(), 1)
    steps = math.ceil(batches / (each * settings["num_nodes"] * settings["accumulate_grad_batches"]))
    if settings["max_steps"]:
        return math.ceil(settings["max_steps"] / steps)
    return min(max(FEWEST_EPOCHS, math.ceil(ENOUGH_STEPS / steps)), MOST_EPOCHS)


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside the old ones, which it then replaces.

    Lightning writes them to the folder for temporary files; where that is on another disk, it then copies them over the
    old ones, which a kill meanwhile destroys.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with files.atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the best score; of equal ones, as few rows give, that with the lower validation loss.

    The first of them would have learnt the least, and be the least sure of what it gets right.
    """

    loss = -math.inf  # of the checkpoint that is kept

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__name__, ModelCheckpoint.__name__, 1)  # as of earlier versions

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        loss = float(trainer.callback_metrics["val/loss"])
        tied = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        better = super().check_monitor_top_k(trainer, current) or (tied and loss < self.loss)
        if better:
            self.loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "loss": self.loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.loss = state_dict.get("loss", -math.inf)


def best_checkpoint(folder: Path, monitor: str, mode: str) -> ModelCheckpoint:
    """The callback that keeps ``checkpoints/best.ckpt``."""
    return BestCheckpoint(
        folder / "checkpoints",
        filename="best",
        monitor=monitor,
        mode=mode,
        save_weights_only=True,
        save_on_train_epoch_end=False,  # but after each validation, so that it is complete when `Resumable` saves
        enable_version_counter=False,
    )


class FSDPOnCPU(FSDPStrategy):
    """FSDP on CPUs, for trying it out: torch supports it if it is told the device, which Lightning does only for GPUs.

    States are gathered without offloading to the CPU: there that would not copy them, and they would be overwritten.
    """

    model: Any

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FSDP(model, sharding_strategy=self.sharding_strategy, device_id=self.root_device, **self.kwargs)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        with FSDP.state_dict_type(self.model, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
            return self.model.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        gathered = FullOptimStateDictConfig(offload_to_cpu=False)
        with FSDP.state_dict_type(self.model, StateDictType.FULL_STATE_DICT, optim_state_dict_config=gathered):
            state = FSDP.optim_state_dict(self.model, optimizer)
            return FSDP.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_ID, self.model)


StrategyRegistry.register("fsdp_cpu", FSDPOnCPU, override=True)  # the module may be imported again


def check_launched(processes: int) -> None:
    """Refuse to leave processes of torchrun over: each of them would train a run of its own."""
    launched = int(os.environ["WORLD_SIZE"]) if TorchElasticEnvironment.detect() else 1
    if launched > processes:
        raise UserError(
            f"torchrun started {launched} processes, and trainer.devices and trainer.num_nodes are for {processes}",
            "Give trainer=ddp, trainer.devices as many as --nproc-per-node, and trainer.num_nodes as --nnodes.",
        )


def check_distributed(strategy: str, multirun: bool, rows: Mapping[str, int], processes: int) -> None:
    """Refuse what several processes cannot do.

    Args:
        rows: the number of rows of each split.
    """
    if multirun:
        raise UserError(
            "several devices within a multirun: the other processes would repeat the whole sweep",
            "Use trainer.devices=1 in the sweep, or start one `python train.py` for each run, one after the other.",
        )
    if strategy in STAGED:
        raise UserError(
            f"freeze={strategy} changes what trains during the run, which several processes cannot follow",
            "Use one device: trainer.devices=1.",
        )
    for split, count in rows.items():
        if count < processes:
            raise UserError(
                f"{split} has {counted(count, 'row')} for {processes} processes", "Use fewer trainer.devices."
            )


def split_by_layer(strategy: Any, network: nn.Module) -> None:
    """Make a strategy that shards weights gather those of one layer at a time, not of the whole network."""
    if isinstance(strategy, FSDPStrategy):
        strategy.kwargs["auto_wrap_policy"] = ModuleWrapPolicy({type(layer) for _, layer in layers_of(network)})


def make_trainer(settings: dict[str, Any], callbacks: list[Any], folder: Path) -> pl.Trainer:
    """The Lightning Trainer of the ``trainer`` group."""
    every = settings["eval_every"]
    slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    try:
        return pl.Trainer(
            accelerator=settings["accelerator"],
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=settings["strategy"],
            precision=settings["precision"],
            max_epochs=settings["max_epochs"],
            max_steps=settings["max_steps"] or -1,
            accumulate_grad_batches=settings["accumulate_grad_batches"],
            gradient_clip_val=settings["gradient_clip_val"],
            val_check_interval=1 if every else 1.0,  # a number of batches, which `ValidateEvery` goes on to set
            check_val_every_n_epoch=None if every else 1,
            log_every_n_steps=settings["log_every"],
            deterministic=settings["deterministic"],
            callbacks=[*([ValidateEvery(every)] if every else []), *callbacks],
            # Lightning's requeueing saves a state of its own, which it would then prefer to ours.
            plugins=[WholeFiles(), *([SLURMEnvironment(auto_requeue=False)] if slurm else [])],
            logger=False,  # set later, once the run has begun
            default_root_dir=folder,
            num_sanity_val_steps=0,
            enable_progress_bar=False,  # ours makes room for printed lines
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (ValueError, RuntimeError, TypeError, pl.utilities.exceptions.MisconfigurationException) as error:
        raise UserError(f"trainer: {error}", "Check the group trainer.") from error
