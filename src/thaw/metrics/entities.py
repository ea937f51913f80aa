"""Figures for entities, by seqeval over whole sentences: never an average of batches."""

import warnings
from collections.abc import Sequence

import numpy as np

from thaw.labels import LabelSet


def entity_metrics(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], labels: LabelSet, strict: bool = False
) -> dict[str, float]:
    """Precision, recall and F1 of entities, overall (micro average) and by type, and the accuracy of tags.

    Args:
        predicted, gold: a tag for each word of each sentence.
        strict: count only entities that are well-formed IOB2, as seqeval's strict mode does; otherwise an I- tag
            without a predecessor begins an entity, as in the CoNLL script.
    """
    from seqeval.metrics import accuracy_score, classification_report
    from seqeval.scheme import IOB2

    gold, predicted = [list(row) for row in gold], [list(row) for row in predicted]
    mode = {"mode": "strict", "scheme": IOB2} if strict else {}
    report: dict[str, dict[str, float]] = {}
    if any(tag[:2] in ("B-", "I-") for rows in (gold, predicted) for row in rows for tag in row):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # types that never occur score 0, which needs no warning
            report = classification_report(gold, predicted, output_dict=True, zero_division=0, **mode)

    def score(name: str, value: str) -> float:
        # Where no entity is well-formed, the macro average is one of nothing.
        return float(np.nan_to_num(report[name][value])) if name in report else 0.0

    result = {
        "f1": score("micro avg", "f1-score"),
        "precision": score("micro avg", "precision"),
        "recall": score("micro avg", "recall"),
        "f1_macro": score("macro avg", "f1-score"),
        "accuracy": float(accuracy_score(gold, predicted)),
    }
    kinds = sorted({name[2:] for name in labels.names if name.startswith("B-")})
    for name, value in (("f1", "f1-score"), ("precision", "precision"), ("recall", "recall")):
        result |= {f"{name}/{kind}": score(kind, value) for kind in kinds}
    return result


def spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Entities of one sentence: (type, first word, word after the last).

    An I- tag without a predecessor of its type begins an entity, as in seqeval's default mode and the pipelines of
    transformers.
    """
    found: list[tuple[str, int, int]] = []
    for position, tag in enumerate(tags):
        if tag[:2] not in ("B-", "I-"):
            continue
        kind = tag[2:]
        if tag.startswith("I-") and found and found[-1][0] == kind and found[-1][2] == position:
            found[-1] = (kind, found[-1][1], position + 1)
        else:
            found.append((kind, position, position + 1))
    return found
