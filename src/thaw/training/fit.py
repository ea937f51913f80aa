"""A run from config to report: the one place that knows the order of the steps."""

import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint

from thaw import files, runs
from thaw.data.module import OF_BATCHES, TextDataModule, prepared
from thaw.errors import UserError, counted
from thaw.hub import locate_encoder
from thaw.labels import LabelSet
from thaw.metrics.own import misordered
from thaw.models.encoder import encoder_config, length_limit, load_tokenizer, resolve_length
from thaw.models.freezing import trainable
from thaw.models.head import labels_of_head, taken_over
from thaw.models.module import EncoderModule
from thaw.models.speed import compile_layers
from thaw.reporting import advice, summary
from thaw.settings import plain
from thaw.training.callbacks import History, ValidationLines
from thaw.training.environment import environment
from thaw.training.finishing import finish, report
from thaw.training.gpus import take_gpu
from thaw.training.pruning import pruning
from thaw.training.restoring import check_same_data, check_same_size, check_same_weights, continued, read_checkpoint
from thaw.training.resuming import LAST, Resumable
from thaw.training.reuse import WHOLE, Reuse
from thaw.training.tracking import log_evaluation, log_settings, make_loggers
from thaw.training.trainer import (
    best_checkpoint,
    check_accelerator,
    check_distributed,
    check_launched,
    check_monitor,
    enough_epochs,
    make_callbacks,
    make_trainer,
    precision_here,
    slow_precision,
    split_by_layer,
)

log = logging.getLogger(__name__)
_shown: list[Any] = []  # what data the last run of this process had


def fit(config: DictConfig, folder: Path, multirun: bool = False, origin: dict[str, Any] | None = None) -> float | None:
    """Train, evaluate, save and report.

    Args:
        config: of ``train.py``.
        folder: the run folder; with ``resume=`` that of the run to resume.
        multirun: whether this run is one of several in this process, in which case it cannot start further processes,
            and says less.
        origin: what ``environment.json`` states besides the machine: the command and the settings it changes.

    Returns:
        The best monitored validation score, for sweeps; None in all processes except the first.
    """
    quiet()
    if multirun:
        take_gpu()
    times: dict[str, float] = {}
    clock = time.perf_counter()
    if config.resume:
        folder, config = continued(config, (origin or {}).get("overrides", []))
    runs.make_absolute(config)
    check_accelerator(config.trainer.accelerator)
    config.trainer.precision = precision_here(config.trainer.precision, config.trainer.accelerator)
    cfg = plain(config)
    first = runs.rank() == 0

    encoder, trust = locate_encoder(cfg["model"]), cfg["model"]["trust_remote_code"]
    tokenizer = partial(load_tokenizer, encoder, trust_remote_code=trust)
    max_length = resolve_length(cfg["data"]["max_length"], length_limit(encoder, trust))
    data = prepared(cfg["data"], encoder, tokenizer, max_length, cfg["seed"])
    counts, own = data.summary["splits"]["validation"]["labels"], [f"val/{name}" for name in cfg["metrics"]]
    monitored = partial(check_monitor, data.labels, counts, own)
    monitored("monitor", cfg["monitor"])
    if first and not (multirun and known(data, encoder)):
        show_data(data)
    if config.resume:
        check_same_data(folder, data)
    if cfg["trainer"]["max_epochs"] == "auto":  # and stays so in config.yaml: folds may differ by a row, and so by one
        epochs = enough_epochs(cfg["trainer"], len(data.train_dataloader()))
        cfg["data"]["epochs"] = cfg["trainer"]["max_epochs"] = epochs
        if first:
            log.info("data.epochs=auto takes %s.", counted(epochs, "epoch"))
    module = make_module(cfg, encoder, data)
    if first:
        show_parameters(module, cfg, multirun)
        for name in misordered(cfg["metrics"], data.labels):
            said = "note: metrics.%s weighs mistakes by the order of the labels, which is alphabetical: %s"
            log.warning(said + ". Give theirs as data.label_names.", name, ", ".join(data.labels.names))
        if not cfg["model"]["random_init"]:
            show_head(encoder, data.labels, trust)
    reuse = Reuse(cfg["freeze"], data, cfg["trainer"]["compile"])
    trainer, best, resumable = trainer_of(cfg, folder, module, data, reuse, multirun, monitored)
    loggers = make_loggers(cfg, folder, multirun) if first else []
    if first:  # only now: a run that was refused up to here leaves nothing behind
        record_start(folder, config, data, module, origin)
    times["prepare"] = time.perf_counter() - clock

    try:
        log_settings(loggers, folder, cfg)
        trainer.loggers = [logger.logger for logger in loggers]
        train(folder, trainer, resumable, module, data)
        times["train"] = resumable.seconds_spent()
        if module.now_trained != module.ever_trained:
            log.warning("freeze=%s: training ended before its later stages began.", cfg["freeze"]["name"])
            files.write_json(folder / "parameters.json", module.trained_table())
        for callback in trainer.early_stopping_callbacks:
            if reason := callback.stopping_reason_message:
                log.info("Stopped early: %s", reason.replace(" Signaling Trainer to stop.", ""))
        if not trainer.is_global_zero:
            return None
        if not multirun and slow_precision(trainer, module, times["train"]):
            log.info("This processor is faster in bfloat16: trainer.precision=bf16-mixed.")
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        rows = len(data.rows["train"]) * batches / max(float(trainer.num_training_batches), 1.0)
        make_prefix = reuse.make_prefix if module.stored and reuse.exact else None
        release(trainer, module)
        # A fresh module, since strategies such as FSDP leave the trained one in a form of their own.
        result = finish(cfg, folder, make_module(cfg, encoder, data), data, make_prefix, best, times, rows)
        resumable.forget()
        report(folder, data, result, multirun)
        log_evaluation(loggers, folder, result, data.labels)
        return result["best"]["score"]
    finally:
        for logger in loggers:
            logger.finish()


def record_start(
    folder: Path, config: DictConfig, data: TextDataModule, module: EncoderModule, origin: dict[str, Any] | None
) -> None:
    """Write what is known before training; a resumed run keeps its environment, and its config but for what is new."""
    files.write_json(folder / "data.json", data.summary)
    files.write_json(folder / "parameters.json", module.table)
    if not config.resume:
        files.write_json(folder / "environment.json", {**environment(), **(origin or {})})
    own = config.copy()
    own.resume = None
    if not config.resume or own != runs.load_config(folder):
        runs.save_config(folder, own)  # last, since from here on the run can be resumed


def release(trainer: pl.Trainer, module: EncoderModule) -> None:
    """Free gradients and optimizer state, three times the size of the weights, before the evaluation."""
    module.zero_grad()
    for optimizer in trainer.optimizers:
        optimizer.state.clear()


def make_module(cfg: dict[str, Any], encoder: Path, data: TextDataModule) -> EncoderModule:
    """The module before training; its random weights depend only on the seed."""
    pl.seed_everything(cfg["seed"], workers=True, verbose=False)
    groups = {name: cfg[name] for name in ("model", "freeze", "loss", "metrics", "optimizer")}
    config = {**groups, "strict_iob2": cfg["strict_iob2"]}
    return EncoderModule(encoder, data.labels, config, cfg["trainer"]["max_epochs"], data.learnt())


def trainer_of(
    cfg: dict[str, Any], folder: Path, module: EncoderModule, data: TextDataModule, reuse: Reuse, multirun: bool,
    monitored: Callable[..., None],
) -> tuple[pl.Trainer, ModelCheckpoint, Resumable]:  # fmt: skip
    """The trainer, and two of its callbacks: the one that keeps the best checkpoint, the one that saves the state."""
    settings = cfg["trainer"]
    best = best_checkpoint(folder, cfg["monitor"], cfg["mode"])
    resumable = Resumable(folder, settings["checkpoint_every"])
    callbacks: list[Any] = [
        History(folder / "history.csv", settings["log_every"]),
        ValidationLines(
            cfg["monitor"],
            settings["progress_bar"] and summary.interactive() and runs.rank() == 0,
            every=10 if multirun else 0,
        ),
        reuse,
        *make_callbacks(cfg["callbacks"], monitored),
        *pruning(folder, cfg["monitor"]),
        best,
        resumable,
    ]
    trainer = make_trainer(settings, callbacks, folder)
    check_launched(trainer.world_size)
    if trainer.world_size > 1:
        rows = {split: len(data.rows[split]) for split in ("train", "validation")}
        check_distributed(cfg["freeze"]["name"], multirun, rows, trainer.world_size)
        if not cfg["data"]["tokens_per_batch"]:
            total = cfg["data"]["batch_size"] * trainer.world_size * settings["accumulate_grad_batches"]
            log.info("%d devices take %d texts in a step; data.batch_size is of each.", trainer.world_size, total)
    reuse.check(trainer, module)
    split_by_layer(trainer.strategy, module.network)
    if settings["compile"]:
        compile_layers(module.network)
    module.wants_graphs = settings["cuda_graphs"]
    if isinstance(trainer.strategy, WHOLE):
        module.train_tokens(data.tokens())
    return trainer, best, resumable


def train(folder: Path, trainer: pl.Trainer, resumable: Resumable, module: EncoderModule, data: TextDataModule) -> None:
    """Train, from the last checkpoint if there is one."""
    last = folder / "checkpoints" / LAST
    if last.is_file():
        saved = read_checkpoint(last)
        check_same_weights(saved["state_dict"], module)
        check_same_size(saved["resume"], trainer.world_size)
        state = saved["resume"]
        del saved  # or it would stay in memory during training
        data.start = (state["epoch"], state["batches"])
        log.info("Resuming after batch %d of epoch %d.", state["batches"], state["epoch"] + 1)
    try:
        with resumable.listening():
            trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    except pl.utilities.exceptions.MisconfigurationException as error:
        raise UserError(str(error), "Check trainer, callbacks and monitor.") from error
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise UserError(f"trainer.compile=true: {error}", "Is there a C++ compiler? Or leave it out.") from error


def known(data: TextDataModule, encoder: Path) -> bool:
    """Whether the run before, in this process, was of the same data, or of another fold of it."""
    before = _shown[:]
    _shown[:] = [{**data.data, **dict.fromkeys((*OF_BATCHES, "fold"))}, encoder, data.max_length]
    return _shown == before


def show_data(data: TextDataModule) -> None:
    for table in summary.data_tables(data.summary):
        log.info(summary.table(*table))
    if notes := advice.notes(data.summary):
        log.warning("\n%s", "\n".join(f"note: {line}" for line in notes))
    for line in advice.left_out(data.summary):
        log.warning("skipped %s", line)


def show_parameters(module: EncoderModule, cfg: dict[str, Any], short: bool) -> None:
    names, rows = summary.parameter_rows(module.table)
    if short:
        log.info("%s of %s parameters train.", rows[-1][2], rows[-1][1])
    else:
        log.info(summary.table("Parameters", names, rows))
    if cfg["optimizer"]["layer_decay"] and not any(row["trainable"] for row in module.table[:-1]):
        log.warning("optimizer.layer_decay has no effect: only the head trains.")
    if module.ever_trained != trainable(module.parts, cfg["freeze"]):
        log.warning("freeze=%s: the run ends before its later stages begin.", cfg["freeze"]["name"])


def show_head(encoder: Path, labels: LabelSet, trust: bool) -> None:
    """Say what of the head of a fine-tuned encoder is kept."""
    if not (before := labels_of_head(encoder_config(encoder, trust), encoder)):
        return
    new = [name for name, row in zip(labels.names, taken_over(before, labels.names), strict=True) if row is None]
    known = counted(len(labels) - len(new), "label")
    log.info("The head of %s is kept for %s; new to it: %s.", runs.display(encoder), known, ", ".join(new) or "none")


def quiet() -> None:
    """Silence what the libraries tell their developers."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if runs.rank() > 0:
        logging.disable(logging.WARNING)  # only the first process reports
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "httpx"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*Found .* module.* in eval mode.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*It is recommended to use `self.log.*sync_dist.*",  # every process has the metrics of all rows
        ".*treespec, LeafSpec.*",
        ".*clip_grad_norm_.*with no gradients.*",  # FSDP: everything that this process holds is frozen
    ):
        warnings.filterwarnings("ignore", message)
