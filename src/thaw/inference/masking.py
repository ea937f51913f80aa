"""A text as the network reads it, with some of its words hidden, and the scores that follow.

A word is hidden by putting the mask token in place of each of its tokens, so that all others keep their positions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from thaw.inference.predictor import Predictor

HELD = 500_000  # tokens of masked texts, and their logits, in memory together: a batch of 64 texts of 8,192 tokens


@dataclass(frozen=True)
class Target:
    """A score to be explained: of a label, or of a predicted entity.

    Args:
        name: the label, or the type of the entity.
        places: the tokens that it is read from, as places in ``Reading.at``; the score is the mean over them.
        labels: the label id at each of them.
        span: entities: first character and the one after the last.
    """

    name: str
    places: np.ndarray
    labels: np.ndarray
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Reading:
    """A text as the network reads it, and what is to be explained.

    Args:
        ids: token ids, special tokens included, cut at the network's length.
        owner: the word that each token belongs to, -1 for those that are never hidden.
        words: first character and the one after the last, of each word that has a token.
        read: characters up to which the network read.
        at: the tokens whose logits matter; empty for labels of the whole text.
        targets: to be explained.
    """

    ids: np.ndarray
    owner: np.ndarray
    words: list[tuple[int, int]]
    read: int
    at: np.ndarray
    targets: list[Target]


Score = Callable[[Reading, np.ndarray, Predictor], np.ndarray]
"""`log_odds` or `chances`."""


def log_odds(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The log-odds of each target, log p / (1 - p): for one label against all others, or of a label on its own.

    Unlike a probability they do not stand still where the network is sure, and unlike a logit they mean the same when
    all logits of a text move together.

    Args:
        values: logits (rows, places, labels); a single place for labels of the whole text.

    Returns:
        (rows, targets), float64.
    """
    multi_label, scale = predictor.labels.task == "multi_label", temperature_of(predictor)

    def score(logits: np.ndarray, own: np.ndarray) -> np.ndarray:
        logits = (logits / scale).astype(np.float64)
        if multi_label:
            return logits[:, own]
        return logits[:, own] - np.logaddexp.reduce(np.where(own, -np.inf, logits), axis=-1)

    return _of_targets(reading, values, score)


def chances(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The probability of each target, as `log_odds`."""
    return _of_targets(reading, values, lambda logits, own: predictor.probabilities(logits)[:, own])


def _of_targets(
    reading: Reading, values: np.ndarray, score: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """The mean over the places of each target, which are few among those of a text.

    Args:
        score: gives (rows, places) of logits (rows, places, labels) and of where each place has its label.
    """
    known = np.eye(values.shape[-1], dtype=bool)
    columns = [score(values[:, target.places], known[target.labels]).mean(-1) for target in reading.targets]
    return np.stack(columns, -1) if columns else np.zeros((len(values), 0))


def temperature_of(predictor: Predictor) -> float:
    return (predictor.calibrated and predictor.temperature) or 1.0


def hidden_id(tokenizer: Any) -> int:
    """The token that stands for what is hidden: the mask, else padding."""
    return tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id


def masked_scores(
    predictor: Predictor, readings: Sequence[Reading], kept: Iterable[np.ndarray], score: Score
) -> list[np.ndarray]:
    """The score of each target with some of the words hidden; what is asked for twice is computed once.

    Args:
        kept: (rows, words) for each text: which words stay. Taken one text at a time, since a row for each word of a
            long text is much.

    Returns:
        (rows, targets) for each text.
    """
    mask_id = hidden_id(predictor.tokenizer)
    backs: list[list[int]] = []
    found: list[list[np.ndarray]] = [[] for _ in readings]

    def different() -> Iterator[tuple[int, np.ndarray]]:
        """Masked texts, each with the number of its text."""
        for i, (reading, rows) in enumerate(zip(readings, kept, strict=True)):
            known: dict[bytes, int] = {}
            backs.append([])
            for row in rows:
                key = np.packbits(row).tobytes()
                if key not in known:
                    known[key] = len(known)
                    yield i, np.where(np.append(row, True)[reading.owner], reading.ids, mask_id)  # -1: always shown
                backs[i].append(known[key])

    for piece in _pieces(different()):
        logits = predictor.row_logits(*flattened([ids for _, ids in piece]))
        for i, group in groupby(zip(piece, logits, strict=True), key=lambda pair: pair[0][0]):
            reading = readings[i]
            values = np.stack([own[reading.at] if own.ndim == 2 else own[None] for _, own in group])
            found[i].append(score(reading, values, predictor))
    return [np.concatenate(own)[back] for own, back in zip(found, backs, strict=True)]


def _pieces(rows: Iterable[tuple[int, np.ndarray]]) -> Iterator[list[tuple[int, np.ndarray]]]:
    """The rows in lists of at most `HELD` tokens, or one row."""
    held: list[tuple[int, np.ndarray]] = []
    size = 0
    for row in rows:
        if held and size + len(row[1]) > HELD:
            yield held
            held, size = [], 0
        held.append(row)
        size += len(row[1])
    if held:
        yield held


def flattened(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal length as a flat array, and where each starts."""
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])
