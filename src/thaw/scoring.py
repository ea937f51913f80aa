"""Scores a split: metrics, intervals, and rows as they are saved; the same code after training and in evaluate.py."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thaw.data.splits import rows_fingerprint
from thaw.errors import counted
from thaw.inference.predictor import Predictor
from thaw.labels import UNREAD
from thaw.metrics.baselines import baseline_metrics, baseline_outputs
from thaw.metrics.calibration import confidence, expected_calibration_error, fit_temperature, reliability
from thaw.metrics.classification import best_thresholds
from thaw.metrics.intervals import group_numbers, intervals
from thaw.metrics.outputs import Outputs, compute_metrics
from thaw.metrics.own import build_metrics, own_metrics
from thaw.metrics.paired import paired_bootstrap
from thaw.metrics.probabilities import DIGITS, probabilities
from thaw.metrics.scorers import scorer
from thaw.models.losses import make_loss, make_terms
from thaw.reporting.progress import counting

NEVER = 1.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class Evaluation:
    """The results of a split.

    Args:
        metrics: without a prefix.
        intervals: of these.
        calibration: the bins of the reliability diagram, before and after temperature scaling.
        predictions: a dict for each row, as it is saved.
        outputs: of the network.
    """

    metrics: dict[str, float]
    intervals: dict[str, list[float]]
    calibration: dict[str, Any]
    predictions: list[dict[str, Any]]
    outputs: Outputs


def predict_rows(predictor: Predictor, texts: Sequence[Any], gold: Sequence[Any], name: str) -> Outputs:
    """The network's outputs for labelled rows.

    Args:
        texts: strings, or lists of words.
        gold: an id, a list of ids, or an id for each word.
        name: of the rows, shown with the progress.
    """
    encoded = predictor.encode(texts, gold)
    with counting(len(encoded), f"evaluating {name}") as progress:
        return predictor.outputs(encoded, progress)


def fit_on_validation(predictor: Predictor, outputs: Outputs) -> dict[str, Any]:
    """Fit temperature and thresholds on the validation rows, and set them in the predictor.

    Returns:
        ``temperature``, which calibrates the probabilities, and for multi-label tasks ``thresholds``, with the best
        smoothed F1 of each label; one that no row of train has is never given. Both go into ``labels.json``.
    """
    chosen: dict[str, Any] = {"temperature": fit_temperature(*outputs.flat())}
    if predictor.labels.task == "multi_label":
        best = best_thresholds(probabilities(outputs.logits, predictor.labels), outputs.gold)
        chosen["thresholds"] = [own if rows else NEVER for own, rows in zip(best, predictor.labels.counts, strict=True)]
        predictor.thresholds = chosen["thresholds"]
    predictor.temperature = chosen["temperature"]
    return chosen


def score_rows(
    predictor: Predictor,
    outputs: Outputs,
    texts: Sequence[Any],
    places: Sequence[str],
    config: dict[str, Any],
    groups: Sequence[str | None] = (),
) -> Evaluation:
    """The metrics of a split with their intervals, and each row as it is saved.

    Args:
        outputs: as `predict_rows` gives them for the texts.
        places: where the texts stand, for readers of the page.
        config: of the run.
        groups: that of each text, with ``data.group_column``.
    """
    labels, thresholds, strict = predictor.labels, predictor.thresholds, config["strict_iob2"]
    result = {"loss": outputs.loss(make_loss(config["loss"], labels))}
    result |= compute_metrics(outputs, labels, strict=strict, thresholds=thresholds)
    result |= own_metrics(outputs, labels, build_metrics(config["metrics"], labels), thresholds)
    logits, gold = outputs.flat()
    sure, correct = confidence(probabilities(logits, labels), gold)
    result["ece"] = expected_calibration_error(sure, correct)
    calibration = {"bins": reliability(sure, correct)}
    if predictor.temperature:
        sure, correct = confidence(probabilities(logits / predictor.temperature, labels), gold)
        result["ece_calibrated"] = expected_calibration_error(sure, correct)
        calibration["calibrated"] = reliability(sure, correct)
    ranges = intervals(
        outputs,
        labels,
        strict=strict,
        thresholds=thresholds,
        terms=outputs.terms(make_terms(config["loss"], labels)),
        temperature=predictor.temperature,
        groups=group_numbers(groups),
    )
    known: list[dict[str, Any]] = [{"place": place} for place in places]
    if groups:
        known = [{**own, "group": group} for own, group in zip(known, groups, strict=True)]
    rows = zip(known, prediction_rows(predictor, outputs, texts), strict=True)
    return Evaluation(result, ranges, calibration, [{**own, **row} for own, row in rows], outputs)


def prediction_rows(predictor: Predictor, outputs: Outputs, texts: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Each row with its text, true label, predicted label, and uncalibrated probabilities."""
    labels = predictor.labels
    if labels.task == "token":
        tags, unread = outputs.tags(labels), "O" if labels.entities else None
        for text, gold, predicted, logits, words in zip(
            texts, outputs.gold, tags, outputs.logits, outputs.words, strict=True
        ):
            scores: list[float | None] = [None] * len(gold)  # None: a word without a token
            true_scores: list[float | None] = [None] * len(gold)
            for word, chances in zip(words, probabilities(logits, labels), strict=True):
                scores[word] = round(float(chances.max()), DIGITS)
                true_scores[word] = round(float(chances[gold[word]]), DIGITS)
            yield {
                "words": list(text),
                "label": [labels.names[i] for i in gold],
                "predicted": [unread if i == UNREAD else labels.names[i] for i in predicted],
                "scores": scores,
                "true_scores": true_scores,
            }
        return
    for text, gold, chances in zip(texts, outputs.gold, probabilities(outputs.logits, labels), strict=True):
        true = [labels.names[i] for i in gold.nonzero()[0]] if labels.task == "multi_label" else labels.names[gold]
        yield {
            "text": text,
            "label": true,
            "predicted": predictor.chosen(chances),
            "probabilities": {
                name: round(float(score), DIGITS) for name, score in zip(labels.names, chances, strict=True)
            },
        }


def predict_baselines(
    predictor: Predictor, train: Mapping[str, Any], rows: Mapping[str, Any], name: str
) -> dict[str, Outputs]:
    """The outputs of the baselines for some rows.

    Args:
        predictor: of the network before training.
        train, rows: ``text`` and ``label`` of the training rows, and of the rows to score.
        name: of the rows, shown with the progress.
    """
    untrained = predict_rows(predictor, rows["text"], rows["label"], f"{name} before training")
    key = [rows_fingerprint(own["text"], own["label"]) for own in (train, rows)]
    return baseline_outputs(untrained, train, rows, predictor.labels, key)


def score_baselines(
    beside: Mapping[str, Outputs],
    predictor: Predictor,
    outputs: Outputs,
    config: Mapping[str, Any],
    groups: Sequence[str | None] = (),
) -> dict[str, dict[str, Any]]:
    """The metrics of the baselines, and how far the run is ahead of the best of them.

    Args:
        beside: the outputs of each baseline.
        predictor, outputs, config: of the run, for the same rows.
        groups: that of each row, with ``data.group_column``.

    Returns:
        Name -> metrics. The baseline with the highest F1 also has ``f1_ahead``: the 95 % interval of how far the F1 of
        the run lies above, by the paired bootstrap.
    """
    labels, strict = predictor.labels, config["strict_iob2"]
    scored = baseline_metrics(beside, labels, strict=strict)
    if best := max(scored, key=lambda name: scored[name]["f1"], default=""):
        first = scorer(beside[best], labels, strict=strict)
        second = scorer(outputs, labels, strict=strict, thresholds=predictor.thresholds)
        ahead = paired_bootstrap(first, second, len(outputs.rows), group_numbers(groups)).get("f1")
        scored[best]["f1_ahead"] = ahead and ahead["interval"]
    return scored


def joined_metrics(results: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The metrics of several splits, as they are saved in ``metrics.json``."""
    values = {f"{split}/{name}": value for split, own in results.items() for name, value in own.metrics.items()}
    pairs = {f"{split}/{name}": pair for split, own in results.items() for name, pair in own.intervals.items()}
    calibration = {split: own.calibration for split, own in results.items()}
    return {**values, "intervals": pairs, "calibration": calibration}


def trained_on(seen: int, texts: int) -> list[str]:
    """A note for rows of which the run has seen some texts in training; none otherwise."""
    return [f"The run was trained on {seen:,} of these {counted(texts, 'text')}."] if seen else []
