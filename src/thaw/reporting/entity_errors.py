"""Entity errors by kind (type, boundary, missed, spurious), and by whether the entity occurs in training."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from thaw.metrics.entities import spans

Span = tuple[str, int, int]
BOUNDARY, MISSED, SPURIOUS = "wrong boundary", "missed", "spurious"


def matched(gold: Sequence[Span], predicted: Sequence[Span]) -> list[tuple[Span | None, Span | None]]:
    """Pairs of true and predicted entities at the same place, each used once; None if there is no counterpart.

    Identical spans are matched before overlapping ones, and equal types before different ones.
    """
    left, right = list(gold), list(predicted)
    pairs: list[tuple[Span | None, Span | None]] = []
    fits: Sequence[Callable[[Span, Span], bool]] = (
        lambda own, other: own == other,
        lambda own, other: own[1:] == other[1:],
        lambda own, other: own[0] == other[0] and overlap(own, other),
        overlap,
    )
    for fit in fits:
        for own in list(left):
            other = next((other for other in right if fit(own, other)), None)
            if other is not None:
                pairs.append((own, other))
                left.remove(own)
                right.remove(other)
    return [*pairs, *((own, None) for own in left), *((None, other) for other in right)]


def overlap(one: Span, other: Span) -> bool:
    return one[1] < other[2] and other[1] < one[2]


def error_matrix(
    rows: Iterable[dict[str, Any]], kinds: Sequence[str], strict: bool
) -> tuple[np.ndarray, list[str], list[str]]:
    """How often each true type was predicted as each type.

    Args:
        rows: as in ``predictions/``.
        kinds: the types.
        strict: as the setting ``strict_iob2``.

    Returns:
        (counts, names of the rows, names of the columns). The diagonal holds the correct entities; off the diagonal are
        entities predicted with another type. Further columns hold entities of the right type with a wrong boundary,
        and missed ones; a further row holds spurious ones.
    """
    position = {kind: i for i, kind in enumerate(kinds)}
    size = len(kinds)
    counts = np.zeros((size + 1, size + 2), dtype=np.int64)
    for row in rows:
        for own, other in matched(spans(row["label"], strict), spans(row["predicted"], strict)):
            line = position[own[0]] if own else size
            if other is None:
                column = size + 1
            elif own and own[0] == other[0] and own != other:
                column = size
            else:
                column = position[other[0]]
            counts[line, column] += 1
    return counts, [*kinds, SPURIOUS], [*kinds, BOUNDARY, MISSED]


def by_surface(rows: Iterable[dict[str, Any]], known: set[str], strict: bool) -> list[dict[str, Any]]:
    """Scores of entities by whether their surface form occurs in training.

    Args:
        rows: as in ``predictions/``.
        known: the surface forms of the training entities, of any type.
        strict: as the setting ``strict_iob2``.

    Returns:
        A dict for each of the two: ``name``, ``true``, ``found``, ``predicted``.
    """
    tally = {True: [0, 0, 0], False: [0, 0, 0]}
    for row in rows:
        gold, predicted = set(spans(row["label"], strict)), set(spans(row["predicted"], strict))
        for column, members in enumerate((gold, gold & predicted, predicted)):
            for _, first, end in members:
                tally[" ".join(row["words"][first:end]) in known][column] += 1
    return [
        {"name": name, "true": tally[seen][0], "found": tally[seen][1], "predicted": tally[seen][2]}
        for seen, name in ((True, "seen in training"), (False, "not seen in training"))
    ]
