"""What follows training: the best model is saved, evaluated as ``evaluate.py`` will, and reported."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from thaw import files
from thaw.data.module import TextDataModule
from thaw.data.rows import Values
from thaw.evaluation import inherited
from thaw.inference.predictor import Predictor
from thaw.inference.words import joiners
from thaw.metrics.entities import surfaces
from thaw.metrics.outputs import Outputs
from thaw.models.module import EncoderModule
from thaw.models.prefix import FrozenPrefix
from thaw.reporting import advice, pages, summary
from thaw.reporting.published import published_table
from thaw.runs import display, predictions_path
from thaw.scoring import (
    Evaluation,
    fit_on_validation,
    joined_metrics,
    predict_baselines,
    predict_rows,
    score_baselines,
    score_rows,
    trained_on,
)

log = logging.getLogger(__name__)


def finish(
    cfg: dict[str, Any],
    folder: Path,
    module: EncoderModule,
    data: TextDataModule,
    make_prefix: Callable[[Any], FrozenPrefix] | None,
    best: ModelCheckpoint,
    times: dict[str, float],
    rows: float,
) -> dict[str, Any]:
    """Save the best model and evaluate it as ``evaluate.py`` will.

    Args:
        module: as it was before training.
        times: seconds by phase so far; further ones are added.
        rows: seen in training, counted each time.

    Returns:
        What ``metrics.json`` holds.
    """
    scored = scored_splits(data)
    last = scored[-1]
    data.tokenizer.model_max_length = data.max_length  # so that pipelines cut where predict.py does
    side = "left" if data.truncation == "start" else "right"
    data.tokenizer.truncation_side = data.tokenizer.init_kwargs["truncation_side"] = side  # the latter is saved
    clock = time.perf_counter()
    beside = predict_untrained(cfg, module, data, make_prefix, last) if cfg["baselines"] else {}
    times["baselines"] = time.perf_counter() - clock
    clock = time.perf_counter()
    saved = torch.load(best.best_model_path, weights_only=True, map_location="cpu")
    if (score := best.best_model_score) is not None:
        log.info("Best %s %.4f, after step %d.", cfg["monitor"], score, saved["global_step"])
    module.load_state_dict({**module.frozen_state(), **saved["state_dict"]})
    save_labels(folder, data)
    save_model(folder, module, data.tokenizer)
    predictor = Predictor.from_run(folder, prefix=make_prefix)
    results = evaluate_splits(cfg, folder, data, predictor, scored)
    baselines = score_baselines(beside, predictor, results[last].outputs, cfg, data.groups(last))
    times["evaluate"] = time.perf_counter() - clock
    trained = files.read_json(folder / "parameters.json")
    (seen,) = (pair["rows"] for pair in data.summary["shared"] if (pair["in"], pair["also_in"]) == (last, "train"))
    metrics = {
        **joined_metrics(results),
        "baselines": {last: baselines},
        "notes": trained_on(seen, len(data.rows[last])) + inherited(cfg["model"]["name"], data.rows[last]["text"][:]),
        "best": {
            "monitor": cfg["monitor"],
            "score": float(score) if score is not None else None,
            "step": saved["global_step"],
        },
        "epochs": cfg["trainer"]["max_epochs"],
        "seconds": times,
        "rows_per_second": rows / times["train"],
        **{key: sum(row[key] for row in trained) for key in ("trainable", "parameters")},
    }
    files.write_json(folder / "metrics.json", metrics)  # last, since a run with this file is finished
    return metrics


def scored_splits(data: TextDataModule) -> list[str]:
    """The splits that a run is scored on; the last is the one it is tested on."""
    return [split for split in ("validation", "test") if split in data.rows]


def predict_untrained(
    cfg: dict[str, Any],
    module: EncoderModule,
    data: TextDataModule,
    make_prefix: Callable[[Any], FrozenPrefix] | None,
    split: str,
) -> dict[str, Outputs]:
    """The outputs of the baselines for a split, among them the network as it was before training."""
    predictor = Predictor.from_network(
        module.network,
        data.tokenizer,
        data.labels,
        make_prefix,
        max_length=data.max_length,
        truncation=data.truncation,
        batch_size=cfg["data"]["eval_batch_size"],
    )
    return predict_baselines(predictor, data.rows["train"][:], data.rows[split][:], split)


def report(folder: Path, data: TextDataModule, metrics: dict[str, Any], short: bool) -> None:
    """Draw the page, and log the metrics and what they suggest to do; of one run of several the headline alone."""
    splits = scored_splits(data)
    last = splits[-1]
    pages.draw(folder)
    if short:
        log.info("%s\nReport  %s", summary.headline(metrics, last), display(folder / "report.html"))
        return
    counts = summary.occurrences(data.rows[last]["label"][:], data.labels)
    log.info(summary.table(f"By label, {last}", *summary.label_rows(metrics, last, counts)))
    log.info(summary.table("Metrics", *summary.headline_rows(metrics, splits)))
    if last == "validation":
        log.info("\nThere is no test split: validation picked the checkpoint, so its metrics are optimistic.")
    for line in advice.of_run(metrics, last, counts, data.summary):
        log.info("\n%s", line)
    if published := published_table(folder):
        log.info(published)
    log.info(summary.goodbye(folder, data.labels, last))


def evaluate_splits(
    cfg: dict[str, Any], folder: Path, data: TextDataModule, predictor: Predictor, splits: Sequence[str]
) -> dict[str, Evaluation]:
    """Predict and score the splits, and write ``predictions/``.

    Args:
        predictor: loaded from the run folder alone.
        splits: with validation first, which determines temperature and thresholds.
    """
    results: dict[str, Evaluation] = {}
    for split in splits:
        texts, gold = data.rows[split]["text"][:], data.rows[split]["label"][:]
        outputs = predict_rows(predictor, texts, gold, split)
        if split == "validation":
            path = folder / "labels.json"
            files.write_json(path, {**files.read_json(path), **fit_on_validation(predictor, outputs)})
        results[split] = score_rows(predictor, outputs, texts, data.places(split), cfg, data.groups(split))
        files.write_jsonl(predictions_path(folder, split), results[split].predictions)
    return results


def save_labels(folder: Path, data: TextDataModule) -> None:
    """Write ``labels.json``, which a predictor needs beside the model, and for entities also ``surfaces.json``."""
    labels, train = data.labels, data.rows["train"]
    saved = {
        **labels.to_dict(),
        "max_length": data.max_length,
        "truncation": data.truncation,
        "clean_html": data.data["clean_html"] and labels.task != "token",  # words are never cleaned
        "joined_by": joiners(Values(train, "text")) if labels.task == "token" else "",
    }
    files.write_json(folder / "labels.json", saved)
    if labels.entities:
        files.write_json(folder / "surfaces.json", surfaces(train["text"][:], train["label"][:], labels))


def save_model(folder: Path, module: EncoderModule, tokenizer: Any) -> None:
    """Write ``model/``, which opens with transformers' pipeline; adapters are merged, and also kept in ``adapter/``."""
    network: Any = module.network
    adapters = module.adapters[0]
    if adapters is not None:
        # What adapters name as their base: not where it lies on this machine.
        adapters.peft_config["default"].base_model_name_or_path = module.config["model"]["name"]
        network.config._name_or_path = module.config["model"]["name"]
        # Embeddings never change; to find that out, peft would ask the Hub.
        save = partial(adapters.save_pretrained, save_embedding_layers=False)
        files.replace_folder(folder / "adapter", partial(_save_readable, [save]))
        network = adapters.merge_and_unload()
    files.replace_folder(
        folder / "model", partial(_save_readable, [network.save_pretrained, tokenizer.save_pretrained])
    )


def _save_readable(parts: Sequence[Callable[[str], Any]], path: str) -> None:
    for save in parts:
        save(path)
    # Otherwise the weights could be read only by their owner.
    for file in Path(path).glob("*.safetensors"):
        file.chmod(0o644)
