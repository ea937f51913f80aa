"""The same fine-tuning with the Hugging Face Trainer, set up as a careful user would: the peer of the comparison."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thaw.data.module import TextDataModule
from thaw.data.pairs import parted
from thaw.inference.predictor import Predictor
from thaw.labels import IGNORED, LabelSet
from thaw.metrics.outputs import Outputs, compute_metrics
from thaw.models.encoder import Block, blocks, load_encoder
from thaw.models.freezing import freeze_to, keep_frozen_in_eval, trainable
from thaw.models.losses import make_loss
from thaw.scoring import predict_rows
from thaw.training.trainer import precision_here


def train_with_trainer(
    encoder: Path, data: TextDataModule, cfg: dict[str, Any], folder: Path, seed: int, form: str = "grouped"
) -> dict[str, float]:
    """Train and evaluate with the Trainer, the best epoch kept.

    Args:
        encoder: folder of the pretrained encoder.
        data: prepared; the Trainer gets the same rows, labels and token ids.
        cfg: of the run, as plain containers, and checked: see `benchmarks.settings.checked`.
        folder: for its checkpoints.
        seed: of head, order and dropout.
        form: ``padded`` to 128 tokens or ``data.max_length``, as tutorials do; ``dynamic`` padding; ``grouped`` by
            length as well, which a careful user would choose; ``tutorial``: in random order, padded as ``data.padding``
            says; ``resting``: so too, with the dropout of frozen layers off, which the Trainer leaves on.

    Returns:
        The test figures, the best monitored score on validation, and ``seconds`` of training with its validations.
    """
    from transformers import (
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        EarlyStoppingCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    labels = data.labels
    set_seed(seed)
    network: Any = load_encoder(encoder, labels, cfg["model"])
    parts = blocks(network)
    freeze_to(parts, trainable(parts, cfg["freeze"]))
    if form == "resting":
        network.train = partial(train_resting, network, parts)

    class Stages(TrainerCallback):
        """The stages of `lp_ft` and `gradual`; all parameters that train at some stage are in the optimizer already."""

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            freeze_to(parts, trainable(parts, cfg["freeze"], round(state.epoch)))

    # BERT and others say that they weigh the loss of a batch by the steps accumulated, and do not.
    network.accepts_loss_kwargs = False
    optimizer, trainer_cfg = cfg["optimizer"], cfg["trainer"]
    accumulate, warmup = trainer_cfg["accumulate_grad_batches"], optimizer["warmup_steps"]
    batches = math.ceil(len(data.encoded["train"]) / cfg["data"]["batch_size"])
    steps = trainer_cfg["max_epochs"] * math.ceil(batches / accumulate)
    steps = min(steps, trainer_cfg["max_steps"] or steps)
    every = "steps" if trainer_cfg["eval_every"] else "epoch"
    precision = precision_here(trainer_cfg["precision"], trainer_cfg["accelerator"])
    padded = form == "padded" or (form in ("tutorial", "resting") and cfg["data"]["padding"] == "max_length")
    arguments = TrainingArguments(
        output_dir=str(folder),
        learning_rate=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
        lr_scheduler_type=optimizer["schedule"],
        warmup_steps=round(steps * (optimizer["warmup_ratio"] or 0)) if warmup is None else warmup,
        label_smoothing_factor=cfg["loss"]["label_smoothing"],
        max_grad_norm=trainer_cfg["gradient_clip_val"] or 0,
        gradient_accumulation_steps=accumulate,
        max_steps=steps,
        use_cpu=trainer_cfg["accelerator"] == "cpu" or not torch.accelerator.is_available(),  # else bf16 is refused
        per_device_train_batch_size=cfg["data"]["batch_size"],
        per_device_eval_batch_size=cfg["data"]["eval_batch_size"],
        train_sampling_strategy="group_by_length" if form == "grouped" else "random",
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_num_workers=4 if torch.cuda.is_available() else 0,
        dataloader_persistent_workers=torch.cuda.is_available(),
        bf16=precision == "bf16-mixed",
        fp16=precision == "16-mixed",
        torch_compile=trainer_cfg["compile"],
        eval_strategy=every,
        eval_steps=trainer_cfg["eval_every"],
        save_strategy=every,
        save_steps=trainer_cfg["eval_every"] or 500,
        save_total_limit=1,
        save_only_model=form == "grouped",
        load_best_model_at_end=True,
        metric_for_best_model=cfg["monitor"].removeprefix("val/"),
        greater_is_better=cfg["mode"] == "max",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    collate = DataCollatorForTokenClassification if labels.task == "token" else DataCollatorWithPadding
    fixed: dict[str, Any] = {"padding": "max_length", "max_length": cfg["data"]["max_length"] or 128}
    loose = {"pad_to_multiple_of": 8} if torch.cuda.is_available() else {}
    trainer = Trainer(
        model=network,
        args=arguments,
        train_dataset=rows_of(data, "train"),
        eval_dataset=rows_of(data, "validation"),
        data_collator=collate(data.tokenizer, **(fixed if padded else loose)),
        compute_metrics=scorer(labels, cfg["strict_iob2"]),
        callbacks=[Stages(), *(EarlyStoppingCallback(one["patience"]) for one in cfg["callbacks"].values())],
    )
    clock = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - clock
    # Scored by thaw's own code, word by word, so that nothing but the training differs.
    predictor = Predictor.from_network(
        network, data.tokenizer, labels, max_length=data.max_length, truncation=data.truncation
    )
    test = data.rows["test"][:]
    outputs = predict_rows(predictor, test["text"], test["label"], "test")
    scores = {"loss": outputs.loss(make_loss(cfg["loss"], labels))}
    scores |= compute_metrics(outputs, labels, strict=cfg["strict_iob2"])
    best = float(trainer.state.best_metric or 0)
    return {"seconds": seconds, "best": best, **{f"test/{name}": value for name, value in scores.items()}}


def train_resting(network: Any, parts: Sequence[Block], mode: bool = True) -> Any:
    """Replaces ``network.train``, which the Trainer calls before every step."""
    type(network).train(network, mode)
    keep_frozen_in_eval(parts)
    return network


def rows_of(data: TextDataModule, split: str) -> Any:
    """A ``datasets.Dataset`` of the token ids and labels that thaw trains on; of pairs as the tokenizer gives them."""
    import datasets

    if data.labels.pairs:
        texts = list(zip(*map(parted, data.rows[split]["text"]), strict=True))
        rows = data.tokenizer(*map(list, texts), truncation=True, max_length=data.max_length)
        return datasets.Dataset.from_dict({**rows, "labels": data.encoded[split].labels.tolist()})
    encoded = data.encoded[split]
    bounds = list(zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True))
    token = data.labels.task == "token"
    labels = [encoded.labels[start:end].tolist() for start, end in bounds] if token else encoded.labels.tolist()
    ids = [encoded.ids[start:end].tolist() for start, end in bounds]
    ones = [[1] * len(row) for row in ids]
    return datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": ones, "labels": labels})


def scorer(labels: LabelSet, strict: bool) -> Callable[[Any], dict[str, float]]:
    """The metrics by which the Trainer selects its best epoch."""

    def score(prediction: Any) -> dict[str, float]:
        logits, gold = prediction
        rows = np.arange(len(gold))
        if labels.task != "token":
            return compute_metrics(Outputs(rows, logits, gold), labels)
        kept = gold != IGNORED
        logits, gold = ([row[own] for row, own in zip(values, kept, strict=True)] for values in (logits, gold))
        words = [np.arange(len(row)) for row in gold]
        return compute_metrics(Outputs(rows, logits, gold, words), labels, strict=strict)

    return score
