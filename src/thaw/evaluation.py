"""A finished run -> figures and predictions: the same code right after training and later from the folder alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw import runs
from thaw.data.encoding import encode_split
from thaw.data.module import load_labelled
from thaw.inference.predictor import Predictor
from thaw.metrics.classification import best_thresholds
from thaw.metrics.outputs import Outputs, figures
from thaw.metrics.probabilities import sigmoid
from thaw.models.losses import make_loss
from thaw.reporting import summary
from thaw.reporting.progress import counting


def evaluate_rows(
    predictor: Predictor, texts: Sequence[Any], gold: Sequence[Any], config: dict[str, Any], name: str
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Predict labelled rows and score them.

    Args:
        texts: strings, or lists of words.
        gold: an id, a list of ids, or an id for each word.
        config: of the run.
        name: shown with the progress.

    Returns:
        (figures, predictions): the figures without a prefix, and a dict for each row as `write_predictions` saves it.
    """
    labels = predictor.labels
    encoded = encode_split(texts, gold, labels, predictor.tokenizer, predictor.max_length, "first")
    with counting(len(texts), f"evaluating {name}") as progress:
        outputs = predictor.outputs(encoded, progress)
    result = {"loss": outputs.loss(make_loss(config["loss"], labels))}
    result |= figures(outputs, labels, strict=config["strict_iob2"], thresholds=predictor.thresholds)
    return result, list(prediction_rows(predictor, outputs, texts))


def prediction_rows(predictor: Predictor, outputs: Outputs, texts: Sequence[Any]) -> Any:
    """Each row with its text, its true and its predicted label, and the probabilities."""
    labels = predictor.labels
    if labels.task == "token":
        tags = outputs.tags(labels)
        for text, gold, predicted, logits, words in zip(
            texts, outputs.gold, tags, outputs.logits, outputs.words, strict=True
        ):
            scores: list[float | None] = [None] * len(gold)  # None: cut off by truncation
            for word, score in zip(words, predictor.probabilities(logits).max(-1), strict=True):
                scores[word] = round(float(score), 6)
            yield {
                "words": list(text),
                "label": [labels.names[i] for i in gold],
                "predicted": [labels.names[i] for i in predicted],
                "scores": scores,
            }
        return
    for text, gold, own in zip(texts, outputs.gold, predictor.probabilities(outputs.logits), strict=True):
        true = [labels.names[i] for i in gold.nonzero()[0]] if labels.task == "multi_label" else labels.names[gold]
        yield {
            "text": text,
            "label": true,
            "predicted": predictor.chosen(own),
            "probabilities": {name: round(float(score), 6) for name, score in zip(labels.names, own, strict=True)},
        }


def choose_thresholds(predictor: Predictor, texts: Sequence[str], gold: Sequence[Any]) -> list[float]:
    """The thresholds of a multi-label run: the best F1 of each label on the validation rows."""
    encoded = encode_split(texts, gold, predictor.labels, predictor.tokenizer, predictor.max_length, "first")
    outputs = predictor.outputs(encoded)
    return best_thresholds(sigmoid(outputs.logits), outputs.gold)


def evaluate_run(settings: dict[str, Any]) -> tuple[Path, dict[str, float]]:
    """What ``evaluate.py`` does.

    Args:
        settings: the config of ``evaluate.py``: ``run``, ``split``, ``data`` (overrides for a new file), ``output``.

    Returns:
        (file with the predictions, figures with the split as prefix).

    Raises:
        UserError: when the run is not finished, the split unknown, or the new data does not fit its labels.
    """
    run = runs.open_run(settings["run"], needs="metrics.json")
    predictor = Predictor.from_run(run)
    config: Any = OmegaConf.to_container(runs.load_config(run))
    split = settings["split"]
    if settings["data"].get("path"):
        given = {key: value for key, value in settings["data"].items() if value is not None}
        base = {**config["data"], "task": predictor.labels.task, "format": None, "train_size": None}
        texts, gold, skipped = load_labelled({**base, **given}, predictor.labels, split)
        name = Path(str(given["path"])).name.removesuffix(".gz").rsplit(".", 1)[0]
        if name in runs.known_splits(run):
            name = f"new_{name}"  # the run's own rows are what its figures can be reproduced from
        if skipped:
            runs.write_json(run / "predictions" / f"{name}.skipped.json", skipped)
    else:
        texts, gold = runs.saved_rows(run, split, predictor.labels)
        name = split
    result, predictions = evaluate_rows(predictor, texts, gold, config, name)
    path = Path(settings["output"]) if settings["output"] else run / "predictions" / f"{name}.jsonl"
    runs.write_jsonl(path, predictions)
    return path, {f"{name}/{key}": value for key, value in result.items()}


def evaluate(config: DictConfig) -> None:
    """Evaluate and show what ``evaluate.py`` is asked for."""
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    path, values = evaluate_run(settings)
    split = next(iter(values)).rsplit("/", 1)[0].split("/")[0]
    print(summary.table("Figures", *summary.headline_rows(values, [split])))
    print(f"\nPredictions  {runs.display(path)}")
