"""Labels that are likely wrong, by confident learning (Northcutt et al. 2021): with a run, or with a bag of words."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from thaw.labels import LabelSet
from thaw.metrics.baselines import bag_of_words, frequent_tags
from thaw.metrics.probabilities import probabilities

FOLDS = 5


def suspicious_labels(texts: Sequence[Any], gold: Sequence[Any], labels: LabelSet) -> list[dict[str, Any]]:
    """Rows whose label contradicts a model of the other rows, by confident learning, the most suspicious first.

    The model is logistic regression on TF-IDF, or for token tasks the most frequent tag of each word; each row is
    judged by a model that was fitted without the row's fold.

    Args:
        texts: strings, or lists of words.
        gold: an id, a list of ids, or an id for each word.

    Returns:
        For each: ``row``, its ``label`` (had or lacked), the one ``suggested`` instead, their probabilities ``own`` and
        ``sure``, and for token tasks the number of the ``word``.
    """
    order = sorted(range(len(texts)), key=lambda i: str(gold[i])) if labels.task == "sequence" else range(len(texts))
    folds = np.empty(len(texts), dtype=np.int64)
    folds[list(order)] = np.arange(len(texts)) % FOLDS  # each label in every fold, if it has enough rows
    if labels.task == "token":
        return _tags(texts, gold, labels, folds)
    if len(texts) < 2 * FOLDS or (labels.task == "sequence" and sum(np.bincount(np.asarray(gold)) > 1) < 2):
        return []
    logits = np.empty((len(texts), len(labels)))
    for held, train_texts, train_labels, held_texts in _held_out(texts, gold, folds):
        with warnings.catch_warnings():
            # If words do not predict the label, the fit may not converge to the last digit.
            warnings.simplefilter("ignore")
            logits[held] = bag_of_words(train_texts, train_labels, held_texts, labels)
    return doubted(probabilities(logits, labels), gold, labels)


def _held_out(
    texts: Sequence[Any], gold: Sequence[Any], folds: np.ndarray
) -> Iterator[tuple[list[int], list[Any], list[Any], list[Any]]]:
    """The rows of each fold; the texts of all others, and their labels; the texts of the fold."""
    for fold in range(FOLDS):
        kept, held = ([int(i) for i in np.flatnonzero(chosen)] for chosen in (folds != fold, folds == fold))
        yield held, [texts[i] for i in kept], [gold[i] for i in kept], [texts[i] for i in held]


def doubted(scores: np.ndarray, gold: Sequence[Any], labels: LabelSet) -> list[dict[str, Any]]:
    """Rows of texts whose label a model that was not trained on them does not believe, as `suspicious_labels`.

    Args:
        scores: probabilities, (rows, labels).
        gold: an id of each row, or a list of ids.
    """
    names = labels.names
    if labels.task == "sequence":
        truth = np.asarray(gold)
        return [
            {"row": int(i), "label": names[truth[i]], "suggested": names[other],
             "own": float(scores[i, truth[i]]), "sure": float(scores[i, other])}
            for i, other in zip(*likely_label_errors(scores, truth), strict=True)
        ]  # fmt: skip
    found = []
    for label, name in enumerate(names):
        truth = np.array([label in own for own in gold], dtype=np.int64)
        both = np.column_stack([1 - scores[:, label], scores[:, label]])
        for i in likely_label_errors(both, truth)[0]:
            own = float(both[i, truth[i]])
            with_it, without = name, f"without {name}"
            first, second = (with_it, without) if truth[i] else (without, with_it)
            found.append({"row": int(i), "label": first, "suggested": second, "own": own, "sure": 1 - own})
    return sorted(found, key=lambda one: float(one["own"]))


def _tags(texts: Sequence[Any], gold: Sequence[Any], labels: LabelSet, folds: np.ndarray) -> list[dict[str, Any]]:
    if len(texts) < FOLDS:
        return []
    at: list[tuple[int, int]] = []
    scores: list[np.ndarray] = []
    for held, train_texts, train_tags, held_texts in _held_out(texts, gold, folds):
        at += [(i, j) for i in held for j in range(len(texts[i]))]
        scores += [np.exp(own) for own in frequent_tags(train_texts, train_tags, held_texts, labels)]
    flat = np.concatenate(scores)
    truth = np.array([gold[i][j] for i, j in at])
    best, everyone = flat.argmax(-1), np.arange(len(flat))
    return doubted_words(at, flat[everyone, best], flat[everyone, truth], best, truth, labels)


def doubted_words(
    at: Sequence[tuple[int, int]],
    sure: np.ndarray,
    own: np.ndarray,
    best: np.ndarray,
    truth: np.ndarray,
    labels: LabelSet,
) -> list[dict[str, Any]]:
    """As `doubted`, of words.

    Args:
        at: the row of each word, and its number in there.
        sure, own: the probabilities of the tag that is taken for the best, and of its own, (words,).
        best, truth: the ids of these, (words,).
    """
    return [
        {"row": at[k][0], "word": at[k][1], "label": labels.names[truth[k]], "suggested": labels.names[best[k]],
         "own": float(own[k]), "sure": float(sure[k])}
        for k in likely_tag_errors(sure, own, best, truth)
    ]  # fmt: skip


def likely_label_errors(probabilities: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that confidently belong to another class than their label says, the most suspicious first.

    A row counts towards a class if its probability reaches the mean probability of that class among the rows with that
    label. A row that counts towards another class than its own is suspicious; the larger the gap, the more so.

    Args:
        probabilities: (rows, labels), of rows that were not trained on.
        gold: label ids (rows,).

    Returns:
        Row numbers, and the class that each counts towards, which need not be the likeliest one.
    """
    size = probabilities.shape[1]
    # A class without rows has a threshold that cannot be reached.
    thresholds = np.array([probabilities[gold == i, i].mean() if (gold == i).any() else np.inf for i in range(size)])
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(-1)
    rows = np.flatnonzero((reached.max(-1) >= 0) & (suggested != gold))
    gap = probabilities[rows, suggested[rows]] - probabilities[rows, gold[rows]]
    # A row may count towards a class with a low threshold although its own class is more likely.
    rows, gap = rows[gap > 0], gap[gap > 0]
    rows = rows[np.argsort(-gap, kind="stable")]
    return rows, suggested[rows]


def likely_tag_errors(sure: np.ndarray, own: np.ndarray, predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """The same as `likely_label_errors` for words, of which only two probabilities are kept.

    Args:
        sure: probability of the predicted tag, (words,).
        own: probability of the true tag, (words,).
        predicted, gold: tag ids, (words,).
    """
    counts = np.bincount(gold, minlength=predicted.max(initial=0) + 1)
    sums = np.bincount(gold, weights=own, minlength=len(counts))
    thresholds = np.divide(sums, counts, out=np.full(len(counts), np.inf), where=counts > 0)
    words = np.flatnonzero((predicted != gold) & (sure >= thresholds[predicted]))
    return words[np.argsort(own[words] - sure[words], kind="stable")]
