"""Entity metrics, by seqeval over all sentences at once, never averaged over batches."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from thaw.labels import LabelSet


def entity_metrics(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], labels: LabelSet, strict: bool = False
) -> dict[str, float]:
    """Precision, recall and F1 of entities, overall (micro average) and by type, and tag accuracy.

    Args:
        predicted, gold: a tag for each word of each sentence.
        strict: count only well-formed IOB2 entities, as seqeval's strict mode does; otherwise an I- tag without a
            predecessor begins an entity, as in the CoNLL script.
    """
    from seqeval.metrics import accuracy_score, classification_report
    from seqeval.scheme import IOB2

    gold, predicted = [list(row) for row in gold], [list(row) for row in predicted]
    accuracy = float(accuracy_score(gold, predicted))
    gold, predicted = ([only_entities(row) for row in rows] for rows in (gold, predicted))
    mode = {"mode": "strict", "scheme": IOB2} if strict else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types that never occur score 0, which needs no warning
        report = classification_report(gold, predicted, output_dict=True, zero_division=0, **mode)

    def score(name: str, value: str) -> float:
        # If there is no entity, or none is well-formed, the macro average is nan.
        return float(np.nan_to_num(report[name][value])) if name in report else 0.0

    result = {
        "f1": score("micro avg", "f1-score"),
        "precision": score("micro avg", "precision"),
        "recall": score("micro avg", "recall"),
        "f1_macro": score("macro avg", "f1-score"),
        "accuracy": accuracy,
    }
    kinds = entity_types(labels)
    for name, value in (("f1", "f1-score"), ("precision", "precision"), ("recall", "recall")):
        result |= {f"{name}/{kind}": score(kind, value) for kind in kinds}
    return result


def only_entities(tags: Sequence[str]) -> list[str]:
    """The tags with everything outside entities replaced by O; seqeval would take tags like PAD for entities."""
    return [tag if tag[:2] in ("B-", "I-") else "O" for tag in tags]


def spans(tags: Sequence[str], strict: bool = False) -> list[tuple[str, int, int]]:
    """Entities of one sentence: (type, first word, word after the last).

    Args:
        strict: only those that are well-formed IOB2, as in seqeval's strict mode. Otherwise an I- tag without a
            predecessor of its type begins an entity, as in seqeval's default mode and the pipelines of transformers.
    """
    if strict:
        from seqeval.scheme import IOB2, Entities

        (entities,) = Entities([only_entities(tags)], IOB2).entities
        return [(one.tag, one.start, one.end) for one in entities]
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


def entity_counts(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], labels: LabelSet, strict: bool = False
) -> np.ndarray:
    """What each sentence contributes to `entity_metrics`: (sentences, types, 3).

    The three counts are the correct, true, and predicted entities.
    """
    kinds = entity_types(labels)
    position = {kind: i for i, kind in enumerate(kinds)}
    counts = np.zeros((len(gold), len(kinds), 3), dtype=np.int64)
    for line, gold_tags, predicted_tags in zip(counts, gold, predicted, strict=True):
        true, given = set(spans(gold_tags, strict)), set(spans(predicted_tags, strict))
        for column, members in enumerate((true & given, true, given)):
            for kind, _, _ in members:
                line[position[kind], column] += 1
    return counts


def entity_types(labels: LabelSet) -> list[str]:
    """The types of entities, in alphabetical order."""
    return sorted({name[2:] for name in labels.names if name[:2] in ("B-", "I-")})


def surfaces(texts: Iterable[Sequence[str]], gold: Iterable[Sequence[int]], labels: LabelSet) -> list[str]:
    """The distinct surface forms of the entities in some sentences, in alphabetical order.

    Args:
        texts: the words of each sentence.
        gold: their tag ids.
    """
    found = set()
    for words, tags in zip(texts, gold, strict=True):
        for _, first, end in spans([labels.names[i] for i in tags]):
            found.add(" ".join(words[first:end]))
    return sorted(found)
