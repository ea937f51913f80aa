"""A finished run -> figures and predictions: the same code right after training and later from the folder alone."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw import runs
from thaw.data.encoding import encode_split
from thaw.data.module import TextDataModule, load_labelled
from thaw.data.splits import SPLITS, rows_fingerprint, shared, text_keys
from thaw.errors import UserError, counted
from thaw.hub import locate_encoder
from thaw.inference.attribution import check_method
from thaw.inference.explanation import explain_rows
from thaw.inference.predictor import Predictor
from thaw.labels import UNREAD
from thaw.metrics.baselines import baseline_figures
from thaw.metrics.calibration import confidence, expected_calibration_error, fit_temperature, reliability
from thaw.metrics.classification import best_thresholds
from thaw.metrics.intervals import intervals
from thaw.metrics.outputs import Outputs, figures
from thaw.metrics.probabilities import DIGITS, probabilities
from thaw.models.encoder import load_encoder
from thaw.models.losses import make_loss, make_terms
from thaw.models.speed import accelerate
from thaw.reporting import summary
from thaw.reporting.progress import counting
from thaw.reporting.run_page import explanations_path, page_path, write_page

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What is known of a split once it is scored.

    Args:
        figures: without a prefix.
        details: ``intervals`` of the figures, and ``calibration``: the bins of the reliability diagram, as they are and
            with the temperature.
        predictions: a dict for each row, as it is saved.
    """

    figures: dict[str, float]
    details: dict[str, Any]
    predictions: list[dict[str, Any]]


def predict_rows(predictor: Predictor, texts: Sequence[Any], gold: Sequence[Any], name: str) -> Outputs:
    """What the network gives for labelled rows.

    Args:
        texts: strings, or lists of words.
        gold: an id, a list of ids, or an id for each word.
        name: shown with the progress.
    """
    encoded = encode_split(texts, gold, predictor.labels, predictor.tokenizer, predictor.max_length, "first")
    with counting(len(texts), f"evaluating {name}") as progress:
        return predictor.outputs(encoded, progress)


def settle(predictor: Predictor, outputs: Outputs) -> dict[str, Any]:
    """Choose on the validation rows what is left open after training, and let the predictor use it.

    Returns:
        ``temperature``, which makes the probabilities fit, and for multi-label tasks ``thresholds``: the best F1 of
        each label. They are part of ``labels.json``.
    """
    chosen: dict[str, Any] = {"temperature": fit_temperature(*outputs.flat())}
    if predictor.labels.task == "multi_label":
        chosen["thresholds"] = best_thresholds(probabilities(outputs.logits, predictor.labels), outputs.gold)
        predictor.thresholds = chosen["thresholds"]
    predictor.temperature = chosen["temperature"]
    return chosen


def score_rows(
    predictor: Predictor, outputs: Outputs, texts: Sequence[Any], places: Sequence[str], config: dict[str, Any]
) -> Evaluation:
    """Every figure of a split, how far it may be off, and each row as it is saved.

    Args:
        outputs: as `predict_rows` gives them for the texts.
        places: where the texts stand, for their readers.
        config: of the run.
    """
    labels, thresholds, strict = predictor.labels, predictor.thresholds, config["strict_iob2"]
    result = {"loss": outputs.loss(make_loss(config["loss"], labels))}
    result |= figures(outputs, labels, strict=strict, thresholds=thresholds)
    logits, gold = outputs.flat()
    sure, correct = confidence(probabilities(logits, labels), gold)
    result["ece"] = expected_calibration_error(sure, correct)
    calibration = {"bins": reliability(sure, correct)}
    if predictor.temperature:
        sure, correct = confidence(probabilities(logits / predictor.temperature, labels), gold)
        result["ece_calibrated"] = expected_calibration_error(sure, correct)
        calibration["calibrated"] = reliability(sure, correct)
    found = intervals(
        outputs,
        labels,
        strict=strict,
        thresholds=thresholds,
        terms=outputs.terms(make_terms(config["loss"], labels)),
        temperature=predictor.temperature,
    )
    details = {"intervals": found, "calibration": calibration}
    rows = zip(places, prediction_rows(predictor, outputs, texts), strict=True)
    return Evaluation(result, details, [{"place": place, **row} for place, row in rows])


def prediction_rows(predictor: Predictor, outputs: Outputs, texts: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Each row with its text, its true and its predicted label, and the probabilities, uncalibrated."""
    labels = predictor.labels
    if labels.task == "token":
        tags, unread = outputs.tags(labels), "O" if labels.entities else None
        for text, gold, predicted, logits, words in zip(
            texts, outputs.gold, tags, outputs.logits, outputs.words, strict=True
        ):
            scores: list[float | None] = [None] * len(gold)  # None: cut off by truncation
            true_scores: list[float | None] = [None] * len(gold)
            for word, own in zip(words, probabilities(logits, labels), strict=True):
                scores[word] = round(float(own.max()), DIGITS)
                true_scores[word] = round(float(own[gold[word]]), DIGITS)
            yield {
                "words": list(text),
                "label": [labels.names[i] for i in gold],
                "predicted": [unread if i == UNREAD else labels.names[i] for i in predicted],
                "scores": scores,
                "true_scores": true_scores,
            }
        return
    for text, gold, own in zip(texts, outputs.gold, probabilities(outputs.logits, labels), strict=True):
        true = [labels.names[i] for i in gold.nonzero()[0]] if labels.task == "multi_label" else labels.names[gold]
        yield {
            "text": text,
            "label": true,
            "predicted": predictor.chosen(own),
            "probabilities": {name: round(float(score), DIGITS) for name, score in zip(labels.names, own, strict=True)},
        }


def evaluate_run(settings: dict[str, Any]) -> tuple[str, int, dict[str, Any]]:
    """What ``evaluate.py`` does.

    Args:
        settings: the config of ``evaluate.py``: ``run``, ``split``, ``data`` (overrides for a new file), ``output``,
            ``baselines`` and those of the explanations.

    Returns:
        (name of the rows, by which their predictions and page are kept; how many they are; figures with that name as
        prefix, ``intervals``, ``calibration``, ``baselines``, and ``notes``: what is to be said of the rows).

    Raises:
        UserError: when the run is not finished, the split unknown, or the new data does not fit its labels.
    """
    if settings.get("explain"):
        check_method(settings["explain"])
    run = runs.open_run(settings["run"], needs="metrics.json")
    predictor = Predictor.from_run(run)
    config: Any = OmegaConf.to_container(runs.load_config(run))
    if settings["output"] and config["data"]["path"]:
        runs.check_not_over(settings["output"], config["data"]["path"], "the data of the run")
    split = settings["split"]
    notes: list[str] = []
    if settings["data"].get("path"):
        given = {key: value for key, value in settings["data"].items() if value is not None}
        anew = {"task": predictor.labels.task, "format": None, "train_size": None}
        texts, gold, places, skipped = load_labelled({**config["data"], **anew, **given}, predictor.labels, split)
        name = Path(str(given["path"])).name.removesuffix(".gz").rsplit(".", 1)[0]
        if Path(str(given["path"])).expanduser().is_dir():
            name += f"_{split}"
        name = free_name(run, f"new_{name}" if name in SPLITS else name, texts)
        listed = run / "predictions" / f"{name}.skipped.json"
        listed.unlink(missing_ok=True)  # of an earlier evaluation
        if skipped:
            notes.append(f"Rows skipped: {len(skipped):,} of {len(skipped) + len(texts):,}, such as {skipped[0]}.")
            runs.write_json(listed, skipped)
    else:
        texts, gold, places = runs.saved_rows(run, split, predictor.labels)
        name = split
    result = score_rows(predictor, predict_rows(predictor, texts, gold, name), texts, places, config)
    runs.write_jsonl(run / "predictions" / f"{name}.jsonl", result.predictions)  # which keep the name for these rows
    if settings["output"]:
        runs.write_jsonl(Path(settings["output"]).expanduser(), result.predictions)
    if settings.get("explain"):
        explain_rows(run, name, predictor, result.predictions, settings)
    metrics = runs.read_json(run / "metrics.json")
    own = join_figures({name: result})
    own["baselines"] = {name: metrics["baselines"].get(name, {})}
    if own["baselines"][name]:  # the run's test
        notes = metrics.get("notes", [])
    else:
        lacking = "Not compared with the training data"
        try:
            train = training_rows(run, config, predictor)
            notes += trained_on(shared(text_keys(texts), text_keys(train["text"])), len(texts))
            if settings.get("baselines", True):
                lacking = "No baselines"
                own["baselines"][name] = other_baselines(config, predictor, name, train, {"text": texts, "label": gold})
        except (UserError, OSError) as reason:
            log.warning("%s: %s", lacking, reason)
    own["notes"] = notes
    write_page(run, name, {**metrics, **own}, result.predictions)
    return name, len(texts), own


def trained_on(seen: int, texts: int) -> list[str]:
    """What is to be said of rows that are scored, some of whose texts the run was trained on."""
    return [f"The run was trained on {seen:,} of these {counted(texts, 'text')}."] if seen else []


def free_name(run: Path, name: str, texts: Sequence[Any]) -> str:
    """A name for the predictions of some texts, under which those of no others are kept."""
    free, number = name, 1
    while (path := run / "predictions" / f"{free}.jsonl").is_file():
        if [row["words"] if "words" in row else row["text"] for row in runs.read_jsonl(path)] == list(texts):
            break
        number += 1
        free = f"{name}_{number}"
    return free


def training_rows(run: Path, config: dict[str, Any], predictor: Predictor) -> Mapping[str, Any]:
    """The training data of a run, read again.

    Raises:
        UserError: when it is out of reach, or not what it was.
    """
    data = TextDataModule(config["data"], lambda _: predictor.tokenizer, predictor.max_length, config["seed"])
    data.read()
    train: Mapping[str, Any] = data.rows["train"][:]
    if (
        rows_fingerprint(train["text"], train["label"])
        != runs.read_json(run / "data.json")["splits"]["train"]["fingerprint"]
    ):
        raise UserError("the training data has changed since the run", "Restore it.")
    return train


def other_baselines(
    config: dict[str, Any], predictor: Predictor, name: str, train: Mapping[str, Any], rows: Mapping[str, Any]
) -> dict[str, Any]:
    """What the run has to beat on rows other than those of its test.

    Raises:
        UserError: when the encoder is out of reach.
    """
    import torch

    torch.manual_seed(config["seed"])  # the head is as it was before training
    network = load_encoder(locate_encoder(config["model"]), predictor.labels, config["model"])
    accelerate(network)
    before = Predictor.from_network(
        network,
        predictor.tokenizer,
        predictor.labels,
        max_length=predictor.max_length,
        batch_size=predictor.batch_size,
    )
    return score_baselines(before, train, rows, config, name)


def score_baselines(
    predictor: Predictor, train: Mapping[str, Any], rows: Mapping[str, Any], config: Mapping[str, Any], name: str
) -> dict[str, dict[str, float]]:
    """What a run has to beat on some rows.

    Args:
        predictor: of the network before training.
        train, rows: ``text`` and ``label`` of the training rows, and of those to score.
        config: of the run.
        name: of the rows, shown with the progress.
    """
    untrained = predict_rows(predictor, rows["text"], rows["label"], f"{name} before training")
    key = [rows_fingerprint(own["text"], own["label"]) for own in (train, rows)]
    return baseline_figures(untrained, train, rows, predictor.labels, strict=config["strict_iob2"], key=key)


def join_figures(results: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The figures of several splits as they stand in ``metrics.json``."""
    values = {f"{split}/{name}": value for split, own in results.items() for name, value in own.figures.items()}
    pairs = {
        f"{split}/{name}": pair for split, own in results.items() for name, pair in own.details["intervals"].items()
    }
    calibration = {split: own.details["calibration"] for split, own in results.items()}
    return {**values, "intervals": pairs, "calibration": calibration}


def check_output(path: Path, run: str, data: str | None) -> None:
    """Refuse to write over the data, into the run, or where nothing can be written: before any work."""
    runs.check_not_over(path, run, "the run folder, which gets its own")
    if data:
        runs.check_not_over(path, data, "data.path")
    if path.suffix != ".jsonl" or path.is_dir():
        raise UserError(f"output={path}: predictions are JSON lines", "Give the name of a file that ends in .jsonl.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"output={path}: cannot be written: {error.strerror}", "Choose another place.") from None


def evaluate(config: DictConfig) -> None:
    """Evaluate and show what ``evaluate.py`` is asked for."""
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if settings["output"]:
        check_output(Path(settings["output"]).expanduser(), settings["run"], settings["data"].get("path"))
    name, rows, metrics = evaluate_run(settings)
    print(summary.table(f"Metrics, {counted(rows, 'row')}", *summary.headline_rows(metrics, [name])))
    for line in metrics["notes"]:
        print(f"\n{line}")
    run = runs.open_run(settings["run"])
    written = Path(settings["output"] or run / "predictions" / f"{name}.jsonl").expanduser()
    print(f"\nReport        {runs.display(page_path(run, name))}")
    print(f"Predictions   {runs.display(written)}")
    if settings["explain"]:
        print(f"Explanations  {runs.display(explanations_path(run, name))}")
