"""A text as the network reads it, with some of its words hidden, and the scores that follow.

A word is hidden by putting the mask token in place of each of its tokens, so that all others keep their positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.inference.predictor import Predictor
from thaw.labels import LabelSet

HELD = 2_000_000  # tokens of masked texts that are in memory together: enough to share batches by length


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


def log_odds(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The log-odds of each target, log p / (1 - p): for one label against all others, or of a label on its own.

    Unlike a probability they do not stand still where the network is sure, and unlike a logit they mean the same when
    all logits of a text move together.

    Args:
        values: logits (rows, places, labels), as `masked_logits` gives them.

    Returns:
        (rows, targets), float64.
    """
    return _over_places(reading, values, _log_odds(values / temperature_of(predictor), predictor.labels))


def chances(reading: Reading, values: np.ndarray, predictor: Predictor) -> np.ndarray:
    """The probability of each target, as `log_odds`."""
    return _over_places(reading, values, predictor.probabilities(values))


def _over_places(reading: Reading, values: np.ndarray, of_labels: np.ndarray) -> np.ndarray:
    columns = [of_labels[:, target.places, target.labels].mean(-1) for target in reading.targets]
    return np.stack(columns, -1) if columns else np.zeros((len(values), 0))


def _log_odds(logits: np.ndarray, labels: LabelSet) -> np.ndarray:
    logits = logits.astype(np.float64)
    if labels.task == "multi_label":
        return logits
    others = np.where(np.eye(len(labels), dtype=bool), -np.inf, logits[..., None, :])
    return logits - np.logaddexp.reduce(others, axis=-1)


def temperature_of(predictor: Predictor) -> float:
    return (predictor.calibrated and predictor.temperature) or 1.0


def hidden_id(tokenizer: Any) -> int:
    """The token that stands for what is hidden: the mask, else padding."""
    return tokenizer.pad_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id


def masked_logits(predictor: Predictor, readings: Sequence[Reading], kept: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Logits of each text with some of its words hidden; what is asked for twice is computed once.

    Args:
        kept: (rows, words) for each text: which words stay.

    Returns:
        (rows, places, labels) for each text; a single place for labels of the whole text.
    """
    unique = [np.unique(own, axis=0, return_inverse=True) for own in kept]
    found: list[list[np.ndarray]] = [[] for _ in readings]
    for piece in _pieces(readings, [different for different, _ in unique], hidden_id(predictor.tokenizer)):
        logits = predictor.row_logits(*joined([ids for _, ids in piece]))
        for (i, _), own in zip(piece, logits, strict=True):
            found[i].append(own[readings[i].at] if own.ndim == 2 else own[None])
    return [np.stack(own)[back.reshape(-1)] for own, (_, back) in zip(found, unique, strict=True)]


def _pieces(
    readings: Sequence[Reading], kept: Sequence[np.ndarray], mask_id: int
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """The masked rows of all texts, each with the number of its text, in lists of at most `HELD` tokens or one row."""
    held: list[tuple[int, np.ndarray]] = []
    size = 0
    for i, (reading, rows) in enumerate(zip(readings, kept, strict=True)):
        for row in rows:
            if held and size + len(reading.ids) > HELD:
                yield held
                held, size = [], 0
            held.append((i, np.where(np.append(row, True)[reading.owner], reading.ids, mask_id)))  # -1: always shown
            size += len(reading.ids)
    if held:
        yield held


def joined(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal length as a flat array, and where each starts."""
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])
