"""The rows in ``predictions/`` as arrays and pairs, and figures computed from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thaw.labels import UNREAD, LabelSet
from thaw.metrics.entities import entity_counts
from thaw.metrics.intervals import group_numbers, proportion
from thaw.metrics.scorers import Scorer, label_scorer, word_scorer, words_right

LENGTHS = 5  # groups of texts by length
Rows = Sequence[dict[str, Any]]


def row_text(row: Mapping[str, Any]) -> str:
    """The text of a row; of words, joined by spaces."""
    return row["text"] if "text" in row else " ".join(row["words"])


def groups_of(rows: Rows) -> np.ndarray | None:
    """The group of each row, as `group_numbers` gives it; None if no row has one."""
    return group_numbers([row.get("group") for row in rows])


def with_groups(runs: Sequence[Rows]) -> Rows:
    """Of the predictions of several runs for the same rows the first that tell groups; if none do, the first."""
    return next((rows for rows in runs if groups_of(rows) is not None), runs[0])


def probability_matrix(rows: Rows, labels: LabelSet) -> np.ndarray:
    """(rows, labels), of sequence and multi-label predictions."""
    return np.array([[row["probabilities"][name] for name in labels.names] for row in rows], dtype=np.float64)


def label_matrix(rows: Rows, labels: LabelSet, field: str = "label") -> np.ndarray:
    """0 or 1 (rows, labels): the true labels of sequence and multi-label predictions, or those ``predicted``."""
    result = np.zeros((len(rows), len(labels)), dtype=np.int64)
    for line, row in zip(result, rows, strict=True):
        line[labels.ids_of(row[field])] = 1
    return result


def label_pairs(rows: Rows, labels: LabelSet) -> list[tuple[str, str]]:
    """True and predicted label of each row, or for token tasks of each word that has a token."""
    if labels.task != "token":
        return [(row["label"], row["predicted"]) for row in rows]
    words = [zip(row["label"], row["predicted"], row["scores"], strict=True) for row in rows]
    return [(true, given) for own in words for true, given, score in own if score is not None]


def scorer_of(labels: LabelSet, rows: Rows, strict: bool) -> Scorer:
    """The headline figures of predictions as a function of weights.

    Args:
        rows: as in ``predictions/``.
        strict: as the setting ``strict_iob2``.
    """
    if labels.task == "token":
        gold, predicted = (
            [np.array([labels.ids.get(name, UNREAD) for name in row[side]], dtype=np.int64) for row in rows]
            for side in ("label", "predicted")
        )
        return word_scorer(gold, predicted, labels, strict)
    truth, chosen = (label_matrix(rows, labels, field).astype(bool) for field in ("label", "predicted"))
    return label_scorer(truth, chosen, probability_matrix(rows, labels), labels)


def length_bins(predictions: Rows, labels: LabelSet, strict: bool) -> list[dict[str, Any]]:
    """Groups of texts by number of words, of about equal size: the share that is right, with Wilson's interval.

    For token tasks, the share of entities, or of words.

    Args:
        strict: as the setting ``strict_iob2``.
    """
    lengths = np.array([len(row["words"]) if "words" in row else len(row["text"].split()) for row in predictions])
    gold, predicted = ([row[side] for row in predictions] for side in ("label", "predicted"))
    if labels.entities:
        hits, totals = entity_counts(predicted, gold, labels, strict).sum(axis=1).T[:2]
    elif labels.task == "token":
        hits, totals = words_right(*([np.array(own, dtype=object) for own in side] for side in (gold, predicted)))
    else:
        hits = np.array([true == given for true, given in zip(gold, predicted, strict=True)])
        totals = np.ones_like(lengths)
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTHS + 1), method="lower"))
    places = np.searchsorted(edges[1:-1], lengths, side="left")
    bins = []
    for place in np.unique(places):
        inside = places == place
        if totals[inside].sum():
            score, low, high = proportion(int(hits[inside].sum()), int(totals[inside].sum()))
            shortest, longest = int(lengths[inside].min()), int(lengths[inside].max())
            bins.append({"from": shortest, "to": longest, "rows": int(inside.sum()), "score": score, "low": low,
                         "high": high})  # fmt: skip
    return bins
