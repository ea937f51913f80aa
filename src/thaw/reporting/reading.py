"""Rows worth reading: the highest loss, the most confident mistakes, the closest calls, likely label errors."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from thaw.errors import counted
from thaw.labels import LabelSet
from thaw.metrics.entities import spans
from thaw.metrics.label_noise import doubted, doubted_words
from thaw.metrics.probabilities import DIGITS
from thaw.reporting.entity_errors import BOUNDARY
from thaw.reporting.predictions import Rows, label_matrix, probability_matrix

SHOWN = 10  # rows of each list
LONGEST = 400  # characters of a text
AROUND = 20  # words shown on each side of a word
SMALLEST = 0.5 * 10**-DIGITS  # what predictions round to 0

Listing = dict[str, Any]
"""``title``, ``about``, ``rows``: each ``row`` (from 1), ``place``, ``parts``, ``true``, ``predicted`` and ``note``."""


def worth_reading(rows: Rows, labels: LabelSet, thresholds: Sequence[float] | None = None) -> list[Listing]:
    """The lists of rows worth reading.

    Args:
        rows: as in ``predictions/``.
        thresholds: of a multi-label task.
    """
    lists = _words(rows, labels) if labels.task == "token" else _texts(rows, labels, thresholds)
    return [*lists, suspicious(suspects(rows, labels), rows, labels)]


def _texts(rows: Rows, labels: LabelSet, thresholds: Sequence[float] | None) -> list[Listing]:
    scores, truth = probability_matrix(rows, labels), label_matrix(rows, labels)
    if labels.task == "multi_label":
        return _several(rows, labels, scores, truth, np.asarray(thresholds or [0.5] * len(labels)))
    gold, predicted = truth.argmax(-1), np.array([labels.ids[row["predicted"]] for row in rows])
    everyone = np.arange(len(rows))
    own, best = scores[everyone, gold], scores[everyone, predicted]
    second = np.partition(scores, -2, axis=-1)[:, -2] if len(labels) > 1 else best
    loss, margin = -np.log(np.maximum(own, SMALLEST)), best - second
    wrong = np.flatnonzero(predicted != gold)

    def told(i: int) -> str:
        mistaken = f", {labels.names[predicted[i]]} {best[i]:.3f}" if predicted[i] != gold[i] else ""
        return f"loss {loss[i]:.2f}: {labels.names[gold[i]]} {own[i]:.3f}{mistaken}"

    def tied(i: int) -> str:
        return f"{best[i]:.3f} against {second[i]:.3f}"

    return [
        _group("Highest loss", "The true label gets the least probability.", _first(everyone, -loss), rows, told),
        _group("Most confident mistakes", "Confident and wrong.", _first(wrong, -best[wrong]), rows, told),
        _group("Closest calls", "The top two labels are nearly tied.", _first(everyone, margin), rows, tied),
    ]


def rows_to_explain(
    rows: Rows, labels: LabelSet, thresholds: Sequence[float] | None, count: int
) -> dict[int, list[str]]:
    """At most ``count`` rows worth explaining, each with the reasons.

    They come in turn from the lists of `worth_reading` and from a list of confident correct predictions. Sentences
    without a predicted entity have nothing to explain.
    """
    lists = [(group["title"].lower(), [one["row"] - 1 for one in group["rows"]])
             for group in worth_reading(rows, labels, thresholds)]  # fmt: skip
    right = [i for i, row in enumerate(rows) if row["label"] == row["predicted"]]
    lists.append(("sure and right", sorted(right, key=lambda i: -_sure(rows[i]))))
    if labels.entities:
        lists = [(title, [i for i in own if set(rows[i]["predicted"]) - {"O"}]) for title, own in lists]
    chosen: dict[int, list[str]] = {}
    for place in range(max(len(own) for _, own in lists)):
        for title, own in lists:
            if place < len(own) and (own[place] in chosen or len(chosen) < count):
                chosen[own[place]] = list(dict.fromkeys([*chosen.get(own[place], []), title]))
    return chosen


def _sure(row: dict[str, Any]) -> float:
    """The confidence of a prediction: that of its least confident word or label."""
    if "scores" in row:
        return min((score for score in row["scores"] if score is not None), default=0.0)
    scores = row["probabilities"]
    if isinstance(row["predicted"], str):
        return float(scores[row["predicted"]])
    return min(max(score, 1 - score) for score in scores.values())


def _several(rows: Rows, labels: LabelSet, scores: np.ndarray, truth: np.ndarray, limits: np.ndarray) -> list[Listing]:
    everyone = np.arange(len(rows))
    own = np.where(truth == 1, scores, 1 - scores)
    loss = -np.log(np.maximum(own, SMALLEST)).mean(-1)
    distance = np.abs(scores - limits)
    mistaken = np.where((scores >= limits) != truth, distance, -1.0)
    wrong = np.flatnonzero(mistaken.max(-1) > 0)

    def worst(i: int) -> str:
        label = int(own[i].argmin())
        return f"loss {loss[i]:.2f}; {labels.names[label]} {scores[i, label]:.3f}"

    def compared(i: int, label: int) -> str:
        return f"{labels.names[label]} {scores[i, label]:.3f}, threshold {limits[label]:.3f}"

    mistakes, calls = _first(wrong, -mistaken[wrong].max(-1)), _first(everyone, distance.min(-1))
    return [
        _group("Highest loss", "The true labels get the least probability.", _first(everyone, -loss), rows, worst),
        _group("Most confident mistakes", "Confident and wrong.", mistakes, rows,
               lambda i: compared(i, int(mistaken[i].argmax()))),
        _group("Closest calls", "A label lies next to its threshold.", calls, rows,
               lambda i: compared(i, int(distance[i].argmin()))),
    ]  # fmt: skip


def _read_words(
    rows: Rows, labels: LabelSet
) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each word that has a token: row and place, the scores of its predicted and true tag, and their ids."""
    at = [(i, j) for i, row in enumerate(rows) for j, score in enumerate(row["scores"]) if score is not None]
    sure, own = (np.array([rows[i][name][j] for i, j in at]) for name in ("scores", "true_scores"))
    best, truth = (
        np.array([labels.ids[rows[i][name][j]] for i, j in at], dtype=np.int64) for name in ("predicted", "label")
    )
    return at, sure, own, best, truth


def _words(rows: Rows, labels: LabelSet) -> list[Listing]:
    at, sure, own, predicted, gold = _read_words(rows, labels)
    loss = -np.log(np.maximum(own, SMALLEST))
    of_row = np.array([i for i, _ in at], dtype=np.int64)
    sums = np.bincount(of_row, weights=loss, minlength=len(rows))
    wrong = np.flatnonzero(predicted != gold)

    def told(k: int) -> str:
        mistaken = f", {labels.names[predicted[k]]} {sure[k]:.3f}" if predicted[k] != gold[k] else ""
        return f"{labels.names[gold[k]]} {own[k]:.3f}{mistaken}"

    def words(title: str, about: str, chosen: Iterable[int]) -> Listing:
        found = [(at[k], f"{rows[at[k][0]]['words'][at[k][1]]}: {told(k)}") for k in chosen]
        return {"title": title, "about": about,
                "rows": [{**_where(rows, i), "parts": marked_parts(rows[i], labels, j), "note": note}
                         for (i, j), note in found]}  # fmt: skip

    sentences = _first(np.arange(len(rows)), -sums)
    return [
        {"title": "Highest loss", "about": "Sentences with the highest loss, summed over their words.",
         "rows": [{**_where(rows, i), "parts": marked_parts(rows[i], labels), "note": f"loss {sums[i]:.2f}"}
                  for i in sentences]},
        words("Most confident mistakes", "Words that are confident and wrong.", _first(wrong, -sure[wrong])),
        words("Closest calls", "Words whose tag is least sure.", _first(np.arange(len(at)), sure)),
    ]  # fmt: skip


def suspects(rows: Rows, labels: LabelSet) -> list[dict[str, Any]]:
    """Likely label errors by confident learning (Northcutt et al. 2021), the most suspicious first.

    Returns:
        As `thaw.metrics.label_noise.suspicious_labels`.
    """
    if labels.task != "token":
        return doubted(probability_matrix(rows, labels), [labels.ids_of(row["label"]) for row in rows], labels)
    at, sure, own, best, truth = _read_words(rows, labels)
    return doubted_words(at, sure, own, best, truth, labels)


def suspicious(found: Sequence[dict[str, Any]], rows: Rows, labels: LabelSet) -> Listing:
    """The first of the likely label errors that `suspects` found, as the page shows them."""
    doubts: dict[tuple[int, int | None], list[str]] = {}  # of a text, for each of its labels; of a word
    for one in found:
        doubt = f"{one['label']} {one['own']:.3f}, {one['suggested']} {one['sure']:.3f}"
        doubts.setdefault((one["row"], one.get("word")), []).append(doubt)
    shown_rows = []
    for (i, word), several in list(doubts.items())[:SHOWN]:
        row, note = rows[i], "; ".join(several)
        if word is None:
            said = {**shown(row), "note": note}
        else:
            said = {"parts": marked_parts(row, labels, word), "note": f"{row['words'][word]}: {note}"}
        shown_rows.append({**said, **_where(rows, i)})
    of = f" in {counted(len(doubts), 'text')}" if labels.task == "multi_label" else ""
    about = (
        f"{len(found):,} found{of} by confident learning: the run is as sure of another label as it is of rows with "
        "that label. The weaker the run, the more of them are its own mistakes."
    )
    return {"title": "Likely label errors", "about": about, "rows": shown_rows}


def _first(rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The `SHOWN` rows with the smallest keys."""
    return rows[np.argsort(key, kind="stable")[:SHOWN]]


def _group(title: str, about: str, chosen: Iterable[int], rows: Rows, note: Any) -> Listing:
    own = [{**shown(rows[i]), **_where(rows, i), "note": note(i)} for i in chosen]
    return {"title": title, "about": about, "rows": own}


def _where(rows: Rows, i: int) -> dict[str, Any]:
    return {"row": int(i) + 1, "place": rows[i].get("place", "")}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the page shows it."""
    text = row["text"] if len(row["text"]) <= LONGEST else row["text"][:LONGEST] + " …"

    def joined(label: Any) -> str:
        return ", ".join(label) or "none" if isinstance(label, list) else label

    return {
        "parts": [{"text": text, "kind": "", "label": ""}],
        "true": joined(row["label"]),
        "predicted": joined(row["predicted"]),
    }


def marked_parts(row: dict[str, Any], labels: LabelSet, word: int | None = None) -> list[dict[str, str]]:
    """A sentence in parts; tagged words are marked as right or wrong, with the true and the predicted type.

    A word is right only if the whole entity is.

    Args:
        word: show the words around this one; None for the beginning.
    """
    first = 0 if word is None else max(0, word - AROUND)
    last = min(len(row["words"]), first + 3 * AROUND if word is None else word + AROUND)
    gold, predicted = (_named_spans(row[side], labels) for side in ("label", "predicted"))
    parts: list[dict[str, str]] = []
    for i in range(first, last):
        own, other = gold[i], predicted[i]
        if own == other:
            kind, name = ("right", own[0]) if labels.entities and own[0] else ("", "")
        else:
            same = f"{own[0]}, {BOUNDARY}" if own[0] == other[0] else ""
            kind, name = "wrong", same or f"{own[0] or 'O'} → {other[0] or 'O'}"
        starts = labels.entities and any(row[side][i].startswith("B-") for side in ("label", "predicted"))
        if parts and parts[-1]["kind"] == kind and parts[-1]["label"] == name and not (kind and starts):
            parts[-1]["text"] += " " + row["words"][i]
        else:
            parts.append({"text": row["words"][i], "kind": kind, "label": name})
    if last < len(row["words"]):
        parts.append({"text": "…", "kind": "", "label": ""})
    return [{"text": "…", "kind": "", "label": ""}, *parts] if first else parts


def _named_spans(tags: Sequence[str], labels: LabelSet) -> list[tuple[str, int, int]]:
    """The entity that each word is part of, an empty one outside entities; or the tag of each word by itself."""
    if not labels.entities:
        return [(tag or "not read", 0, 0) for tag in tags]
    found = [("", 0, 0)] * len(tags)
    for span in spans(tags):
        found[span[1] : span[2]] = [span] * (span[2] - span[1])
    return found
